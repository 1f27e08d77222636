"""The state directory: its small files, the replica of the inode table, the table as a file, and the cache.

Owns what counts as damage there, for a state directory that is locked and that no mount uses.  What a crash,
a power cut or another machine's takeover leaves behind is no damage, only a remark: the next mount knows
what to do.  Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from objfs.cache.offline import CacheDirectory
from objfs.codec.identity import page_hash
from objfs.codec.keys import KeyRing
from objfs.errors import CodecError, Corrupt, NewerFormat
from objfs.meta import replica
from objfs.meta.view import TableView
from objfs.model import ChunkId
from objfs.volume.fsck_map import Span
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import BATCH, LIMIT, Subject, ask, say_lost
from objfs.volume.local import VolumeHome
from objfs.volume.progress import read_known_lease, read_progress
from objfs.volume.published import Published
from objfs.volume.reconcile import Verdict, judge


@dataclass(slots=True)
class LocalState:
    """What is here, and what is wrong with it.

    ``usable``: there is a table that descends from the newest moment, or is what a lost one left.
    ``unreadable`` are small files that cannot be parsed; ``rotten_replica`` and ``rotten_table`` say that
    these are not what they were; ``clean``: all of the table is in the newest moment; ``digest`` is what the
    pages of a sound replica give.
    """

    verdict: Verdict = Verdict.MISSING
    usable: bool = False
    clean: bool = False
    unreadable: list[Path] = field(default_factory=list)
    rotten_replica: bool = False
    rotten_table: bool = False
    table_gone: bool = False
    digest: int | None = None


def look_at_state(
    home: VolumeHome, ring: KeyRing, newest: Published | None, silent: bool, report: Report
) -> LocalState:
    """Reads every small file, and all of replica and table.  ``silent``: not every bucket said which
    manifests it has.  Blocking.  Raises NewerFormat, OSError."""
    found = LocalState(clean=home.clean_path.exists())
    readers: tuple[tuple[Path, Callable[[], object]], ...] = (
        (home.state_path, home.read_state),
        (home.lease_path, lambda: read_known_lease(home)),
        (home.checkpoint_path, lambda: read_progress(home)),
    )
    for path, read in readers:
        _try_read(path, read, found, report)
    if newest is not None:
        _judge(home, newest, silent, found, report)
        _look_at_replica(home, ring, newest, found, report)
    if found.usable and found.clean and found.verdict is Verdict.SAME and not found.rotten_replica:
        _look_at_table_file(home, found, report)
    return found


def _try_read(path: Path, read: Callable[[], object], found: LocalState, report: Report) -> None:
    try:
        read()
    except NewerFormat:
        raise
    except CodecError as error:
        found.unreadable.append(path)
        report.add("state-file", Grade.DAMAGE, path.name, str(error))


def _judge(home: VolumeHome, newest: Published, silent: bool, found: LocalState, report: Report) -> None:
    """Whether the local table is what to check."""
    if home.checkpoint_path in found.unreadable:
        found.usable = home.database_path.exists()
        return
    progress = read_progress(home)
    found.table_gone = progress is not None and not home.database_path.exists()
    if found.table_gone:
        report.add("table-missing", Grade.DAMAGE, home.database_path.name, "the inode table is not there")
        return
    found.verdict = judge(progress, newest)
    found.usable = found.verdict in (Verdict.SAME, Verdict.OWN, Verdict.AHEAD)
    if found.verdict is Verdict.AHEAD and progress is not None:
        there, here = newest.manifest.sequence, progress.published.sequence
        what = f"the newest is {there}, but {here} was published from here"
        grade = Grade.UNSEEN if silent else Grade.DAMAGE
        report.add("rollback", grade, "the manifests", what)
    if found.verdict is Verdict.BEHIND:
        what = "another machine went on; what was never uploaded from here is kept aside at the next mount"
        report.add("overtaken", Grade.REMARK, "the local state", what, todo="objfs salvage copies it")


def _look_at_replica(
    home: VolumeHome, ring: KeyRing, newest: Published, found: LocalState, report: Report
) -> None:
    """The image of the table as last published: its pages, their hashes, and what it notes of both."""
    if not found.usable or not (home.replica_path / "image").exists():
        found.rotten_replica = found.usable
        return
    key, path = ring.get(newest.manifest.digest_key), home.replica_path / "image.json"
    try:
        facts = replica.inspect(home.replica_path, lambda number, page: page_hash(key, number, page))
    except Corrupt as error:
        found.unreadable.append(path)
        report.add("state-file", Grade.DAMAGE, f"{home.replica_path.name}/{path.name}", str(error))
        return
    found.digest = facts.pages if facts.pages == facts.noted else None
    if facts.noted is None:
        return  # a crash while it was written: the next mount mends that from the last delta
    what = ""
    if facts.pages != facts.noted:
        what = "its pages are not those that were published"
    elif facts.hashes != facts.noted:
        what = "the hashes of its pages do not give its digest"
    elif found.verdict is Verdict.SAME and facts.noted != newest.manifest.digest:
        what = f"is not that of manifest {newest.manifest.sequence}"
    if what:
        found.rotten_replica = True
        report.add("replica", Grade.DAMAGE, f"{home.replica_path.name}/image", what)


def _look_at_table_file(home: VolumeHome, found: LocalState, report: Report) -> None:
    """After a clean end the table is, page by page, what was published."""
    log = home.database_path.with_name(home.database_path.name + "-wal")
    if log.exists() and log.stat().st_size:
        return
    pages = replica.different_pages(home.replica_path, home.database_path)
    if pages:
        found.rotten_table = True
        some = ", ".join(map(str, pages[:10])) + (" and more" if len(pages) > 10 else "")
        what = f"pages {some} are not those that were published, and nothing was changed since"
        report.add("table-file", Grade.DAMAGE, home.database_path.name, what)


# --- the cache -----------------------------------------------------------------------------


@dataclass(slots=True)
class CacheFaults:
    """``lost``: versions of which bytes are gone; ``strays``: files of no version; ``rotten``: copies of
    stored versions that are not what was stored."""

    lost: list[ChunkId] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)
    rotten: list[ChunkId] = field(default_factory=list)


async def look_at_cache(subject: Subject, report: Report) -> CacheFaults:
    """The files of versions that are nowhere else, against their rows; with ``data`` also the copies."""
    found = CacheFaults()
    lost: dict[ChunkId, list[Span]] = {}
    after = 0
    while rows := await ask(subject.view.dirty, after, BATCH):
        after = rows[-1].chunk
        for row in rows:
            spans = await ask(_missing, subject, row.chunk)
            if spans and subject.live:
                spans = await ask(_missing, subject, row.chunk)
            if spans:
                found.lost.append(row.chunk)
                lost[row.chunk] = spans
        report.seen["chunks not uploaded"] += len(rows)
    why = dict.fromkeys(lost, "written here, never uploaded, and gone from the cache's directory")
    await say_lost(subject, report, lost, why)
    for chunk in lost.keys() - {place.chunk for place in await ask(subject.view.places, list(lost))}:
        # No file shows it, but a version over it needs what it holds.
        report.add("cache", Grade.DAMAGE, f"chunk {chunk}", "its file in the cache lacks bytes")
    if not subject.live:
        found.strays = await ask(strays_of, subject.view, subject.cache)
        for path in found.strays[:LIMIT]:
            what = "is of no version: a crash leaves such files, and the next mount removes them"
            report.add("stray", Grade.REMARK, f"cache/{path.parent.name}/{path.name}", what)
    if subject.data and not subject.live:
        await ask(look_at_copies, subject, report, found)
    return found


def _missing(subject: Subject, chunk: ChunkId) -> list[Span]:
    """Bytes of a version that its file should hold and does not.  None where it was uploaded meanwhile."""
    held = subject.cache.held(chunk, subject.view.ranges(chunk))
    return list(held.missing)


def strays_of(view: TableView, cache: CacheDirectory) -> list[Path]:
    """Files in the cache's directory that belong to no version.  Blocking."""
    files = list(cache.files())
    strays = [path for path, chunk in files if chunk is None]
    ours = [(path, chunk) for path, chunk in files if chunk is not None]
    for at in range(0, len(ours), BATCH):
        part = ours[at : at + BATCH]
        known = view.accounted([chunk for _, chunk in part])
        strays += [path for path, chunk in part if chunk not in known]
    return strays


def look_at_copies(subject: Subject, report: Report, found: CacheFaults) -> None:
    """The copies of stored versions against their checksums.  Blocking."""
    for chunk, offset, length in subject.cache.rotten():
        row = subject.view.chunk(chunk)
        if row is None or row.location is None:
            continue
        found.rotten.append(chunk)
        what = f"bytes {offset} to {offset + length - 1} of the copy are not what was stored"
        report.add("cache-copy", Grade.DAMAGE, f"chunk {chunk}", what)
