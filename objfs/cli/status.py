"""``objfs status``: is it safe, what is missing, what does it cost."""

from __future__ import annotations

import time

import click

from objfs.app.client import ControlClient
from objfs.app.home import dead_places, has_changes, known_volumes, volume_of
from objfs.cli.context import age, home, json_option, show, show_json, show_table, size, table
from objfs.errors import NotMounted
from objfs.volume.fields import JSON, Fields
from objfs.volume.local import VolumeHome


@click.command()
@click.argument("volume", metavar="[NAME_OR_DIR]", required=False)
@json_option
def status(volume: str | None, as_json: bool) -> None:
    """Say where a volume is mounted, what is not yet safe, and which losses are covered.

    Without an argument: one line for each volume known on this machine.
    """
    if volume is None:
        _overview(as_json)
        return
    found = volume_of(home(), volume)
    document = ask_status(found)
    if as_json:
        show_json(document)
    else:
        show(*describe(Fields(document, "status")))


def ask_status(volume: VolumeHome) -> dict[str, JSON]:
    """The running mount's document, or what is known of a volume that is not mounted."""
    try:
        with ControlClient(volume.control_path) as mount:
            return mount.ask("status")
    except NotMounted:
        return _without_mount(volume)


def _without_mount(volume: VolumeHome) -> dict[str, JSON]:
    config, dead = volume.read_config(), dead_places(volume)
    return {
        "volume": volume.name,
        "uuid": config.volume.hex(),
        "state": "dead" if dead else "not mounted",
        "directory": str(dead[0]) if dead else "",
        "left_here": has_changes(volume),
        "buckets": [{"url": place.url, "uuid": place.uuid.hex()} for place in config.buckets],
    }


def _overview(as_json: bool) -> None:
    documents = [ask_status(volume) for volume in known_volumes(home())]
    if as_json:
        show_json([*documents])
        return
    rows = table("VOLUME", "STATE", "DIRECTORY", "NOT YET SAFE")
    for document in documents:
        dirty = document.get("dirty_bytes")
        mode = ", read only" if document.get("read_only") else ""
        rows.add_row(
            str(document["volume"]),
            f"{document['state']}{mode}",
            str(document["directory"]),
            size(dirty) if isinstance(dirty, int) else "what is only here" if document["left_here"] else "",
        )
    show_table(rows)


def describe(status: Fields) -> list[str]:
    """The document for a person, one fact a line."""
    head = f"volume       {status.text('volume')} ({status.text('uuid')})"
    if status.has("left_here"):
        return [head, f"state        {_state_without_mount(status)}"]
    return [
        head,
        f"state        {_state(status)}",
        f"safety       {_safety(status)}",
        *_lost(status),
        f"redundancy   {_redundancy(status.object('redundancy'))}",
        *_at_risk(status.object("at_risk")),
        *_recode(status),
        f"checkpoint   {_checkpoint(status.object('checkpoint'))}",
        *_follow(status.object("follow")),
        f"content      {status.integer('inodes')} inodes, {size(status.integer('content_bytes'))}",
        f"snapshots    {_snapshots(status.object('snapshots'))}",
        *_trash(status.object("snapshots"), status.flag("read_only")),
        f"cache        {_cache(status.object('cache'))}",
        f"process      {status.integer('pid')}, {size(status.integer('memory_bytes'))} resident, "
        f"objfs {status.text('version')}",
        f"event loop   {_loop(status.object('loop'))}",
        *_buckets(status),
    ]


def _state_without_mount(status: Fields) -> str:
    name, where = status.text("volume"), status.text("directory", 8192)
    if where:
        said = f"the process of the mount at {where} died: unmount it with objfs umount {where}"
    else:
        said = "not mounted on this machine"
    if not status.flag("left_here"):
        return said
    return f"{said}; what was not uploaded is in the local state: mount {name} again to go on"


def _state(status: Fields) -> str:
    where, state = status.text("directory", 8192), status.text("state")
    if state == "unmounted":
        return f"unmounted from {where}, {size(status.integer('dirty_bytes'))} left to drain"
    mode = "read only" if status.flag("read_only") else "read and write"
    reason = status.text("reason", 8192)
    stopped = "; writing stopped" if reason and status.integer("epoch") else ""
    return f"{state} at {where}, {mode}{stopped}" + (f": {reason}" if reason else "")


def _safety(status: Fields) -> str:
    if status.flag("safe"):
        return "safe: everything is recoverable from the buckets"
    dirty = status.integer("dirty_bytes")
    if status.flag("lease_lost"):
        what = f"{size(dirty)} written" if dirty else "changes made"
        where = status.text("directory", 8192)
        return f"{what} here can no longer reach the buckets: copy them from {where} before you unmount it"
    if not dirty:
        return "all content is in the buckets; the next checkpoint will name it"
    oldest = age(status.number("oldest_dirty_s", 0, 1e12))
    text = f"{size(dirty)} not yet in the buckets, the oldest for {oldest}"
    error = status.text("upload_error", 8192)
    return f"{text}; the last upload failed: {error}" if error else text


def _lost(status: Fields) -> list[str]:
    """What no waiting brings back, a line for each chunk."""
    return [
        f"LOST         {one.text('path', 8192) or 'a file without a name'} (inode {one.integer('inode')}): "
        f"{one.integer('length')} bytes from {one.integer('offset')} on read as an error"
        for one in status.objects("lost", 1000)
    ]


def _redundancy(redundancy: Fields) -> str:
    reduced = any(redundancy.items(name, 256) for name in ("missing", "closed")) or redundancy.integer(
        "waiting"
    )
    degraded = "DEGRADED: " if reduced else ""
    return f"{degraded}{redundancy.text('sentence', 65536)} (code {redundancy.text('code')})"


def _at_risk(risk: Fields) -> list[str]:
    """What was stored while a bucket took nothing; nothing where all shards are placed."""
    segments, blobs, buckets = (
        risk.integer(name) if risk.has(name) else 0 for name in ("segments", "blobs", "buckets")
    )
    if not segments and not blobs and not buckets:
        return []
    parts = [f"{size(risk.integer('bytes'))} in {segments} segments"] if segments else []
    parts += [f"{blobs} parts of the inode table"] if blobs else []
    oldest = risk.number("oldest_s", 0, 1e12) if risk.has("oldest_s") else 0
    since = f", the oldest stored {age(oldest)} ago" if oldest else ""
    heals = "" if risk.has("oldest_s") else "; a mount that writes heals it"
    failed = risk.text("last_error", 65536) if risk.has("last_error") else ""
    said = [f"{' and '.join(parts)} short of shards{since}"] if parts else []
    said += [f"{buckets} buckets short of manifests"] if buckets else []
    return [
        f"at risk      {'; '.join(said)}{heals}"
        + (f"; the last try to heal failed: {failed}" if failed else "")
    ]


def _recode(status: Fields) -> list[str]:
    """What was written under another code and waits for its turn."""
    left = status.object("recode")
    if not left.value:
        return []
    stands = left.text("waits", 65536) or left.text("error", 65536)
    why = f"; it stands: {stands}" if stands else ""
    code, nbytes = status.object("redundancy").text("code"), size(left.integer("left_size"))
    return [
        f"recode       {nbytes} in {left.integer('left')} segments have still another code than {code}{why}"
    ]


def _checkpoint(checkpoint: Fields) -> str:
    if not checkpoint.has("seq"):
        return "none yet"
    made = f", {age(checkpoint.number('age_s', 0, 1e12))} old" if checkpoint.has("age_s") else ""
    error = checkpoint.text("last_error", 65536) if checkpoint.has("last_error") else ""
    failed = f"; the last try failed: {error}" if error else ""
    return f"number {checkpoint.integer('seq')}{made}{failed}"


def _follow(follow: Fields) -> list[str]:
    if not follow.value:
        return []
    looked, moments = age(follow.number("looked_s", 0, 1e12)), follow.integer("moments")
    line = f"following    looked {looked} ago, went on to {moments} newer moments"
    error = follow.text("last_error", 65536)
    return [f"{line}; the last look failed: {error}" if error else line]


def _snapshots(snapshots: Fields) -> str:
    if not snapshots.value:
        return "not known"
    line = str(snapshots.integer("count"))
    if snapshots.has("newest"):
        newest = time.localtime(snapshots.integer("newest_ns") // 10**9)
        line += f", the newest {snapshots.text('newest', 1024)} of {time.strftime('%Y-%m-%d %H:%M', newest)}"
    if snapshots.has("error"):
        failed = time.strftime("%Y-%m-%d %H:%M", time.localtime(snapshots.integer("failed_ns") // 10**9))
        line += f"; the scheduled one of {failed} FAILED: {snapshots.text('error', 65536)}"
    return line


def _trash(snapshots: Fields, read_only: bool) -> list[str]:
    """How long it is kept is for who writes to say."""
    count = snapshots.integer("trash") if snapshots.has("trash") else 0
    days = snapshots.integer("trash_days") if snapshots.has("trash_days") else 0
    if not count and (not days or read_only):
        return []
    kept = f", each kept {days} days" if days else ", kept until emptied: trash_days is 0"
    return [f"trash        {count} {'snapshot' if count == 1 else 'snapshots'}{'' if read_only else kept}"]


def _cache(cache: Fields) -> str:
    used, limit = size(cache.integer("cached_bytes")), size(cache.integer("limit_bytes"))
    return f"{used} of {limit}, {cache.integer('hits')} hits, {cache.integer('misses')} misses"


def _loop(loop: Fields) -> str:
    longest, over = loop.number("longest_s", 0, 1e9), loop.integer("over_50ms")
    operation = loop.text("operation")
    culprit = f" in {operation}" if operation else ""
    return f"longest block {longest * 1000:.0f} ms{culprit}, {over} over 50 ms"


def _role(bucket: Fields) -> str:
    if bucket.flag("leaving"):
        return ", being emptied: repeat the command that does it, where none runs"
    return "" if bucket.flag("shards") else ", a witness without data"


def _buckets(status: Fields) -> list[str]:
    lines = [""]
    for bucket in status.objects("buckets", 256):
        requests = bucket.object("requests")
        total = sum(requests.integer(name) for name in requests.value)
        lines.append(
            f"bucket {bucket.integer('slot')}     {bucket.text('url', 8192)}: {bucket.text('health')}"
            + (f", domain {bucket.text('domain')}" if bucket.text("domain") else "")
            + (", slow: reads go around it" if bucket.flag("slow") else "")
            + _role(bucket)
        )
        lines.append(
            f"             {total} requests, {size(bucket.integer('bytes_out'))} written, "
            f"{size(bucket.integer('bytes_in'))} read, {bucket.integer('errors')} errors{_kinds(bucket)}"
        )
        lines += _latency(bucket.object("latency"))
        lines += [f"             {note}" for note in _notes(bucket, status.text("volume"))]
    return lines


def _notes(bucket: Fields, volume: str) -> list[str]:
    error = bucket.text("last_error", 65536)
    notes = [f"last error: {error}"] if error else []
    if bucket.text("health") == "absent":
        notes.append(f"to be used here: objfs attach {volume.partition('@')[0]} --add --bucket URL")
    return notes + [f"note: {note}" for note in bucket.items("remarks", 64)]


def _kinds(bucket: Fields) -> str:
    kinds = bucket.object("errors_by_kind")
    said = ", ".join(f"{kinds.integer(name)} {name}" for name in sorted(kinds.value))
    return f" ({said})" if said else ""


def _latency(latency: Fields) -> list[str]:
    """How long half, 95 and 99 of 100 requests for shards took."""
    lines = []
    for name in ("get", "put"):
        if not latency.has(name) or not (seen := latency.object(name)).integer("count"):
            continue
        figures = " / ".join(f"{seen.number(key, 0, 1e9) * 1000:.0f}" for key in ("p50_s", "p95_s", "p99_s"))
        lines.append(
            f"             {name}: {figures} ms (half, 95 %, 99 % of the last {seen.integer('count')})"
        )
    return lines
