"""A restore shows exactly what the volume holds: whatever was lost, wherever it was interrupted."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio

from objfs.codec import BLOCK, TAG
from objfs.errors import ExitCode, HeldElsewhere, NoSuchSnapshot, UsageError
from objfs.fs import acl
from objfs.fs.acl import Acl
from objfs.model import ROOT, Segment
from objfs.store.layout import shard_name
from objfs.volume import restore as restore_module
from objfs.volume.destination import DRAFTS, Destination
from objfs.volume.local import VolumeHome
from objfs.volume.pieces import Parts
from objfs.volume.restore import RestoreOptions
from objfs.volume.restored import Restored
from objfs.volume.selection import Selection
from objfs.volume.visit import visited
from tests.volume.planted import Described, Grove, Plant, described
from tests.volume.restoring import (
    ALL,
    FILE,
    LARGE,
    NONE,
    RECHECK,
    RESUME,
    VERIFY,
    make,
    orchard,
    planted,
    quiet,
    restored,
    restored_from,
)
from tests.volume.rigs import CHUNK, Cloud, Rig, running
from tests.volume.support import PASSPHRASE, TrioClock


@dataclass(frozen=True)
class Grown:
    """The orchard in its buckets; tests read it only."""

    cloud: Cloud
    home: VolumeHome
    expected: Described


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    return Grown(*trio.run(planted, tmp_path_factory.mktemp("orchard"), orchard, LARGE))


async def test_everything_comes_back_as_it_was(grown: Grown, tmp_path: Path) -> None:
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    done = await restored(cloud, home, tmp_path / "out")
    assert described(tmp_path / "out") == expected
    assert (done.exit_code, done.failures, done.kept) == (ExitCode.OK, 0, 0)
    assert done.done == done.wanted
    assert (tmp_path / "out" / "hole").stat().st_blocks == 0
    assert (tmp_path / "out" / "holes").stat().st_blocks * 512 <= 3 * CHUNK
    assert list(cloud.tmp_path.glob("visit-*")) == []


async def test_it_runs_beside_a_mount_and_keeps_no_pin(tmp_path: Path) -> None:
    cloud, home, expected = await planted(tmp_path, orchard)
    async with running(await cloud.open(home)) as rig:
        await restored(cloud, home, tmp_path / "out")
        rig.create(b"later")
        await rig.leave()
    assert described(tmp_path / "out") == expected
    for name in cloud.names:
        assert await cloud.memory.open(name).list("readers/") == []


async def test_the_moment_is_pinned_while_it_is_read(grown: Grown, tmp_path: Path) -> None:
    bucket = grown.cloud.memory.open(grown.cloud.names[0])
    async with visited(
        grown.cloud.buckets(grown.home), PASSPHRASE, tmp_path, TrioClock(), grown.cloud.notes.append
    ) as visit:
        assert len(await bucket.list("readers/")) == 1
        await restored_from(visit, tmp_path / "out", NONE, ALL, quiet, b"")
    assert await bucket.list("readers/") == []


@pytest.mark.parametrize("options", [NONE, VERIFY], ids=["plain", "verified"])
async def test_two_of_six_buckets_may_be_missing(
    grown: Grown, tmp_path: Path, options: RestoreOptions
) -> None:
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    done = await restored(cloud, home, tmp_path / "out", options, without={"b1", "b4"})
    assert described(tmp_path / "out") == expected
    assert done.exit_code is ExitCode.OK


async def test_what_cannot_be_read_is_named_and_the_rest_comes(grown: Grown, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    cloud, home = await grown.cloud.copied(tmp_path / "copy", grown.home)
    for shard in await _shards_of(cloud, home, b"big"):
        for name in cloud.names:
            if shard in {info.key for info in await cloud.memory.open(name).list("segment/")}:
                await cloud.memory.open(name).delete(shard)
    done = await restored(cloud, home, tmp_path / "out")
    assert done.exit_code is ExitCode.DAMAGE_FOUND
    assert b"big" in done.unreadable
    found = described(tmp_path / "out")
    missing = {path for path in grown.expected if path not in found}
    assert missing == set(done.unreadable) | set(done.refused)
    assert b"d/second" in missing, "another name of a file that could not be read"
    assert {b"link", b"d/empty", b"hole"} <= found.keys()


async def _shards_of(cloud: Cloud, home: VolumeHome, name: bytes) -> list[str]:
    """Three shards of each segment that a file of the top lies in."""
    async with visited(
        cloud.buckets(home), PASSPHRASE, cloud.tmp_path, TrioClock(), cloud.notes.append
    ) as visit:
        attr = visit.table.lookup(ROOT, name)
        parts = Parts(visit.table, visit.table.chunk_size).of(attr)
        return [
            shard_name(uuid, shard) for uuid in {part.segment.uuid for part in parts} for shard in (0, 1, 5)
        ]


def _whole(expected: Described) -> Described:
    """Without what unnamed counts of links show while some names are missing."""
    return {path: row[:5] + row[6:] for path, row in expected.items()}


@pytest.mark.parametrize("seed", range(3))
async def test_a_cancelled_restore_leaves_only_whole_files_and_goes_on(
    grown: Grown, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restore_module, "WINDOW", 4)
    monkeypatch.setattr(restore_module, "BATCH", 8)
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    left = random.Random(seed).randrange(1, 12)
    with trio.CancelScope() as scope:

        def report(_done: Restored) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                scope.cancel()

        await restored(cloud, home, tmp_path / "out", report=report)
    assert scope.cancelled_caught
    for path, row in described(tmp_path / "out").items():
        if row[0] == FILE and not path.startswith(DRAFTS):
            assert row[-1] == expected[path][-1], path
    with pytest.raises(UsageError, match="--resume"):
        await restored(cloud, home, tmp_path / "out")
    done = await restored(cloud, home, tmp_path / "out", RECHECK if seed % 2 else RESUME)
    assert described(tmp_path / "out") == expected
    assert done.done == done.wanted


async def test_a_draft_of_a_large_file_is_gone_on_with(grown: Grown, tmp_path: Path) -> None:
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    whole = await restored(cloud, home, tmp_path / "first")
    content = (tmp_path / "first" / "big").read_bytes()
    async with visited(cloud.buckets(home), PASSPHRASE, tmp_path, TrioClock(), cloud.notes.append) as visit:
        attr = visit.table.lookup(ROOT, b"big")
    drafts = tmp_path / "out" / os.fsdecode(DRAFTS)
    drafts.mkdir(parents=True)
    draft = bytearray(content)
    draft[CHUNK + 3] ^= 1
    (drafts / f"{attr.ino}-{attr.ctime_ns}").write_bytes(draft)
    again = await restored(cloud, home, tmp_path / "out", RESUME, Selection([b"big"]))
    assert (tmp_path / "out" / "big").read_bytes() == content
    assert expected[b"big"][-1] == content
    assert again.fetched_bytes < whole.fetched_bytes / 2


async def test_a_full_disk_ends_the_restore_and_it_goes_on(
    grown: Grown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = Destination.write, 20

    def filling(*values: Any, **options: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*values, **options)

    with monkeypatch.context() as patch, pytest.RaisesGroup(OSError):
        patch.setattr(Destination, "write", filling)
        await restored(grown.cloud, grown.home, tmp_path / "out")
    done = await restored(grown.cloud, grown.home, tmp_path / "out", RESUME)
    assert described(tmp_path / "out") == grown.expected
    assert done.kept > 0


async def test_no_more_is_fetched_than_rebuilding_takes_though_two_buckets_are_missing(
    tmp_path: Path,
) -> None:
    source = random.Random(9)

    def fill(grove: Grove) -> None:
        grove.plant(b"large", Plant(FILE, parts={0: source.randbytes(40 * CHUNK)}))
        for number in range(150):
            grove.plant(b"%d" % number, Plant(FILE, parts={0: source.randbytes(10_000)}))

    cloud, home, expected = await planted(tmp_path, fill, LARGE)
    raw = dict(list(cloud.buckets(home).items())[:4])
    async with visited(raw, PASSPHRASE, tmp_path, TrioClock(), cloud.notes.append) as visit:
        before = visit.store.statistics().bytes_read
        done = await restored_from(visit, tmp_path / "out", NONE, ALL, quiet, b"")
        parts = Parts(visit.table, visit.table.chunk_size)
        used = [part.segment for entry in visit.table.readdir(ROOT, 0, 1000) for part in parts.of(entry.attr)]
    assert described(tmp_path / "out") == expected
    once = sum(map(_k_shards, {segment.uuid: segment for segment in used}.values()))
    # The store rebuilds shards one by one: for two that are missing it fetches the two of parity twice.
    assert done.fetched_bytes - before <= 1.5 * once


def _k_shards(segment: Segment) -> int:
    """Bytes of as many shards as it takes, each as long as the longest."""
    longest = max(end - start for start, end in pairwise(segment.cuts))
    return segment.code.k * -(-longest // BLOCK) * (BLOCK + TAG)


async def test_going_on_replaces_what_is_not_the_inode_and_keeps_what_is_foreign(
    grown: Grown, tmp_path: Path
) -> None:
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    out = tmp_path / "out"
    await restored(cloud, home, out)
    (out / "s1").write_bytes(b"other")
    (out / "s2").unlink()
    (out / "s2").symlink_to(tmp_path / "elsewhere")
    (out / "link").unlink()
    (out / "link").write_bytes(b"no link")
    (out / "fifo").chmod(0o600)
    (out / "mine").write_bytes(b"foreign")
    done = await restored(cloud, home, out, RESUME)
    assert done.exit_code is ExitCode.OK
    assert (out / "mine").read_bytes() == b"foreign"
    (out / "mine").unlink()
    os.utime(out, ns=(0, expected[b""][4]))  # type: ignore[arg-type]
    assert described(out) == expected
    assert not (tmp_path / "elsewhere").exists()
    assert 0 < done.kept < done.wanted.files + done.wanted.others


async def test_only_verifying_sees_bytes_that_changed_under_the_same_time(
    grown: Grown, tmp_path: Path
) -> None:
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    out = tmp_path / "out"
    await restored(cloud, home, out)
    info = (out / "s3").stat()
    data = bytearray((out / "s3").read_bytes())
    data[0] ^= 1
    (out / "s3").write_bytes(data)
    os.utime(out / "s3", ns=(info.st_atime_ns, info.st_mtime_ns))
    with (out / "hole").open("r+b") as stream:
        stream.seek(7 * CHUNK)
        stream.write(b"!")
    os.utime(out / "hole", ns=(0, expected[b"hole"][4]))  # type: ignore[arg-type]
    await restored(cloud, home, out, RESUME)
    assert (out / "s3").read_bytes() == data
    await restored(cloud, home, out, RECHECK)
    assert described(out) == expected


async def test_a_symlink_in_the_way_is_never_followed(grown: Grown, tmp_path: Path) -> None:
    cloud, home = grown.cloud, grown.home
    out, outside = tmp_path / "out", tmp_path / "outside"
    outside.mkdir()
    out.mkdir()
    (out / "d").symlink_to(outside)
    done = await restored(cloud, home, out, RESUME)
    assert list(outside.iterdir()) == []
    assert b"d" in done.refused
    assert (done.exit_code, (out / "big").exists()) == (ExitCode.FAILURE, True)


async def test_a_directory_in_the_way_of_a_file_stays(grown: Grown, tmp_path: Path) -> None:
    cloud, home = grown.cloud, grown.home
    (tmp_path / "out" / "s5" / "precious").mkdir(parents=True)
    done = await restored(cloud, home, tmp_path / "out", RESUME)
    assert (tmp_path / "out" / "s5" / "precious").is_dir()
    assert set(done.refused) == {b"s5"}


async def test_the_destination_hands_no_access_list_on(grown: Grown, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    inherited = Acl(7, 5, 5, mask=7, users=((1001, 7),))
    try:
        os.setxattr(out, acl.DEFAULT, acl.encode(inherited))
    except OSError as error:
        pytest.skip(f"{tmp_path} knows no access control lists: {error.strerror}")
    await restored(grown.cloud, grown.home, out)
    assert described(out) == grown.expected


async def test_two_restores_do_not_share_a_directory(tmp_path: Path) -> None:
    with (
        closing(Destination(tmp_path / "out", resume=False)),
        pytest.raises(HeldElsewhere, match="another objfs restore"),
    ):
        Destination(tmp_path / "out", resume=True)


async def test_a_named_moment_is_restored_as_it_was(tmp_path: Path) -> None:
    cloud, home = await make(tmp_path)
    async with running(await cloud.open(home)) as rig:
        grove = Grove(rig)
        orchard(grove)
        grove.finish()
        await rig.checkpointer.flush()
        rig.table.create_snapshot(b"before", 1)
        expected = grove.expected()
        _change(rig)
        await rig.leave()
    await restored(cloud, home, tmp_path / "out", snapshot=b"before")
    assert described(tmp_path / "out") == expected
    await restored(cloud, home, tmp_path / "now")
    assert (tmp_path / "now" / "big").read_bytes()[:5] == b"later"
    with pytest.raises(NoSuchSnapshot):
        await restored(cloud, home, tmp_path / "none", snapshot=b"after")


def _change(rig: Rig) -> None:
    rig.write(b"big", 0, b"later")
    rig.unlink(b"s7")
    rig.rename(b"s8", b"renamed")
    rig.create(b"s7")


@pytest.mark.parametrize(
    ("paths", "include", "exclude", "wanted"),
    [
        ([b"d/empty"], [], [], {b"", b"d", b"d/empty"}),
        ([b"/link", b"fifo"], [], [], {b"", b"link", b"fifo"}),
        ([], [b"em?ty"], [], {b"", b"d", b"d/empty"}),
        ([], [b"/s[0-2]"], [], {b"", b"s0", b"s1", b"s2"}),
        ([], [b"d/**/3"], [b"4/"], {b"", b"d", b"d/0", b"d/0/1", b"d/0/1/2", b"d/0/1/2/3"}),
        ([], [b"f*", b"li*"], [b"fifo"], {b"", b"link"}),
    ],
)
async def test_paths_and_patterns_choose(
    grown: Grown,
    tmp_path: Path,
    paths: Sequence[bytes],
    include: Sequence[bytes],
    exclude: Sequence[bytes],
    wanted: set[bytes],
) -> None:
    cloud, home, expected = grown.cloud, grown.home, grown.expected
    await restored(cloud, home, tmp_path / "out", selection=Selection(paths, include, exclude))
    assert _whole(described(tmp_path / "out")) == _whole({path: expected[path] for path in wanted})
