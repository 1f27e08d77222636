"""fsync, group sync and what a power cut leaves (I1)."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from objfs.cache import GroupSync
from objfs.cache.ledger import CleanLog
from objfs.errors import Corrupt, ObjfsError
from objfs.model import ChunkId, Ino
from objfs.ports import Sealable, WriteGate
from tests.cache.doubles import MemoryLog
from tests.cache.rig import INO, OTHER, SMALL, Rig, damage
from tests.doubles.disk import certain
from tests.doubles.journal import Journal
from tests.doubles.recorder import Recorder

MIB = 1 << 20
FOREIGN = b"00000000-0000-0000-0000-000000000000"


class SlowDisk:
    """A blocking sync that waits for permission."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.calls = 0
        self.entered = trio.Event()

    def __call__(self) -> None:
        self.calls += 1
        trio.from_thread.run_sync(self._enter)
        assert self.go.acquire(timeout=10)

    def _enter(self) -> None:
        self.entered.set()
        self.entered = trio.Event()


async def test_all_who_wait_share_the_next_sync() -> None:
    disk = SlowDisk()
    group = GroupSync(disk, WriteGate())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.sync)
        await disk.entered.wait()
        for _ in range(20):
            nursery.start_soon(group.sync)
        await wait_all_tasks_blocked()
        disk.go.release()
        disk.go.release()
    assert disk.calls == 2


async def test_a_log_is_behind_from_a_commit_to_the_end_of_a_sync_that_began_after_it() -> None:
    disk = SlowDisk()
    changes = 1
    group = GroupSync(disk, WriteGate(), lambda: changes)
    assert group.behind, "what a former process left"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.sync)
        await disk.entered.wait()
        changes = 2
        assert group.behind
        disk.go.release()
    assert group.behind, "the sync had begun before"
    disk.go.release()
    await group.sync()
    assert not group.behind


async def test_a_sync_under_way_does_not_count_for_who_comes_later() -> None:
    disk = SlowDisk()
    group = GroupSync(disk, WriteGate())
    late = trio.Event()

    async def later() -> None:
        await group.sync()
        late.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(group.sync)
        await disk.entered.wait()
        nursery.start_soon(later)
        await wait_all_tasks_blocked()
        second = disk.entered
        disk.go.release()
        await second.wait()
        assert not late.is_set()
        disk.go.release()


async def test_a_cancelled_waiter_does_not_stop_the_others() -> None:
    disk = SlowDisk()
    group = GroupSync(disk, WriteGate())
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trio.open_nursery() as inner:
                inner.start_soon(group.sync)
                disk.go.release()
        nursery.start_soon(group.sync)
        disk.go.release()
    assert disk.calls >= 1


async def test_a_failed_sync_closes_the_gate_for_good() -> None:
    def broken() -> None:
        raise OSError(5, "no disk")

    gate = WriteGate()
    group = GroupSync(broken, gate)
    for _ in range(2):
        with pytest.raises(ObjfsError, match="no disk"):
            await group.sync()
    assert not gate.open


# --- fsync ---


async def test_a_small_fsync_rides_in_the_log(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 100, b"hello")
    await rig.cache.fsync(INO)
    inline = [one for one in rig.table.dirty_ranges(rig.row().chunk) if one.data is not None]
    assert [(one.offset, one.data) for one in inline] == [(100, b"hello")]
    assert rig.memory.at_risk(INO) == 0
    assert rig.syncs() == 1


async def test_a_large_fsync_goes_through_the_files(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for index in range(3):
        rig.write_now(index, 0, b"x" * MIB)
    await rig.cache.fsync(INO)
    for index in range(3):
        (one,) = rig.table.dirty_ranges(rig.row(index).chunk)
        assert (one.offset, one.length, one.synced) == (0, MIB, True)
    assert rig.memory.at_risk(INO) == 0


async def test_fsync_leaves_other_files_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"mine")
    rig.write_now(0, 0, b"theirs", OTHER)
    await rig.cache.fsync(INO)
    (theirs,) = rig.table.dirty_ranges(rig.row(0, OTHER).chunk)
    assert theirs.checksum is not None
    assert rig.memory.at_risk(OTHER) == 6


async def test_what_is_written_during_an_fsync_keeps_its_rows(tmp_path: Path) -> None:
    """mark_synced replaces all rows of a version: later ones must not vanish with them."""
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"x" * 200_000)
    files = rig.cache._files
    real = files.sync_files
    written = threading.Event()

    def sync_files(chunks: object) -> None:
        trio.from_thread.run_sync(rig.write_now, 0, 300_000, b"late")
        files.sync_files = real  # type: ignore[method-assign]
        real(chunks)  # type: ignore[arg-type]
        written.set()

    files.sync_files = sync_files  # type: ignore[method-assign]
    await rig.cache.fsync(INO)
    assert written.is_set()
    ranges = rig.table.dirty_ranges(rig.row().chunk)
    assert [(one.offset, one.length) for one in ranges] == [(0, 200_000), (300_000, 4)]
    assert ranges[1].data == b"late"
    assert rig.memory.at_risk(INO) == 0


async def test_i1_bytes_in_the_log_stay_there_until_their_file_was_synced(tmp_path: Path) -> None:
    """Two fsyncs of a file run, and a write comes between.  The first to end puts it into the log and
    answers; the sync of the other, which did not catch it either, must not call the whole file synced."""
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"x" * 200_000)
    files = rig.cache._files
    real, disks = files.sync_files, {SlowDisk(): trio.Event(), SlowDisk(): trio.Event()}
    waiting = iter(disks)

    def sync_files(chunks: object) -> None:
        real(chunks)  # type: ignore[arg-type]
        next(waiting)()

    async def fsync(answered: trio.Event) -> None:
        await rig.cache.fsync(INO)
        answered.set()

    files.sync_files = sync_files  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        for disk, answered in disks.items():
            entered = disk.entered
            nursery.start_soon(fsync, answered)
            await entered.wait()
        rig.write_now(0, 300_000, b"late")
        for disk, answered in disks.items():
            disk.go.release()
            await answered.wait()
    power_cut(rig)
    damage(rig, 0, 300_000, 4)
    rig.start().recover()
    assert await rig.read(0, 300_000, 4) == b"late"


async def test_inline_bytes_are_bounded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, replace(SMALL, inline_total=10_000))
    for ino in range(20, 40):
        rig.write_now(0, 0, b"x" * 4096, Ino(ino))
        await rig.cache.fsync(Ino(ino))
    assert rig.cache.statistics().inline_bytes <= 10_000


async def test_nothing_stays_unsynced_for_five_seconds(tmp_path: Path, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.2  # real time for the disk
    rig = Rig(tmp_path)
    async with rig.running():
        rig.write_now(0, 0, b"x" * MIB)
        rig.write_now(0, 0, b"y", OTHER)
        await trio.sleep(4.9)
    assert rig.memory.at_risk(INO) == rig.memory.at_risk(OTHER) == 0
    assert rig.syncs() >= 1


async def test_i1_rows_without_bytes_are_synced_within_five_seconds_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A rename or a new directory leaves nothing in the cache that would be unsynced."""
    rig = Rig(tmp_path)
    assert isinstance(rig.log, MemoryLog)
    async with rig.running():
        rig.log.behind = True
        await trio.sleep(4.9)
        assert rig.syncs() == 1
        await trio.sleep(20)
        assert rig.syncs() == 1


async def test_many_small_files_are_synced_together(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for ino in range(100, 200):
        rig.write_now(0, 0, b"small", Ino(ino))
    await rig.cache.sync()
    assert not any(rig.memory.at_risk(Ino(ino)) for ino in range(100, 200))
    assert rig.syncs() == 1


# --- restarts and power cuts ---


def power_cut(rig: Rig) -> None:
    """All rows are of another boot; the caller damages the files as a power cut may."""
    rig.cache.close()
    for chunk, ranges in rig.memory.ranges.items():
        rig.memory.ranges[chunk] = [one._replace(boot=FOREIGN) for one in ranges]


async def test_a_killed_daemon_loses_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"abc" * 1000)
    rig.write_now(0, 10, b"later")
    report = rig.start().recover()
    assert (report.dirty_chunks, report.lost_ranges) == (1, 0)
    expected = bytearray(b"abc" * 1000)
    expected[10:15] = b"later"
    assert await rig.read(0, 0, 3000) == bytes(expected)


async def test_a_power_cut_takes_what_was_not_synced(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"kept" * 50_000)
    await rig.cache.fsync(INO)
    rig.write_now(0, 200_000, b"lost" * 1000)
    power_cut(rig)
    damage(rig, 0, 200_000, 4000)
    report = rig.start().recover()
    assert report.shortened == (INO,)
    assert rig.memory.sizes[INO] == 200_000
    assert await rig.read(0, 0, 204_000) == b"kept" * 50_000 + bytes(4000)


async def test_i1_an_upload_of_older_bytes_does_not_vouch_for_newer_ones(tmp_path: Path) -> None:
    """A chunk is uploaded while its file is cut and grows again: what it grew by is lost, and no zeros are in
    its place."""
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"a" * 1000)
    async with rig.running() as cache:
        cut = cache.cut()
        rig.clip(0, 400)
        rig.memory.truncate(INO, 400, 0, 0)
        rig.write_now(0, 400, b"b" * 500)
        await cut.placed()
    power_cut(rig)
    damage(rig, 0, 400, 500)
    rig.start().recover()
    assert rig.memory.sizes[INO] == 400


async def test_i1_what_a_file_grew_by_ends_it_whatever_of_it_was_uploaded(tmp_path: Path) -> None:
    """The second chunk is in the buckets and the first is lost: the file is empty, and not half of zeros."""
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"a" * MIB)
    first = rig.row()
    rig.write_now(1, 0, b"b" * MIB)
    row = rig.row(1)
    rig.table.place(*await rig.store.write_segment([Sealable(row.chunk, INO, 1, b"b" * MIB)]))
    power_cut(rig)
    damage(rig, 0, 0, MIB)
    rig.start().recover()
    assert rig.memory.sizes[INO] == 0
    assert rig.table.chunk(first.chunk) is None


async def test_a_write_into_a_hole_that_is_lost_leaves_the_hole(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 500, b"end")
    await rig.cache.fsync(INO)
    rig.write_now(0, 100, b"b" * 300)
    power_cut(rig)
    damage(rig, 0, 100, 300)
    rig.start().recover()
    assert rig.memory.sizes[INO] == 503
    assert await rig.read(0, 0, 503) == bytes(500) + b"end"


async def test_a_power_cut_spares_unsynced_data_that_arrived(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"data" * 1000)
    power_cut(rig)
    report = rig.start().recover()
    assert report.lost_ranges == 0
    assert await rig.read(0, 0, 4000) == b"data" * 1000


async def test_i1_a_new_cache_is_itself_durable(tmp_path: Path) -> None:
    """What is synced in a directory whose own name is lost is lost with it."""
    (tmp_path / "disk").mkdir()
    recorder = Recorder(tmp_path / "disk", Journal())
    with recorder.installed():
        rig = Rig(tmp_path / "disk" / "cache")
        rig.write_now(0, 0, b"x" * 200_000)
        await rig.cache.fsync(INO)
    paths = [path for path, _ in certain(recorder.journal.records).walk()]
    assert paths == ["cache", "cache/00", f"cache/00/{rig.row().chunk:016x}"]


async def test_inline_data_survive_the_loss_of_the_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 5, b"inline")
    await rig.cache.fsync(INO)
    power_cut(rig)
    for path in rig.directory.glob("??/*"):
        path.unlink()
    rig.start().recover()
    assert await rig.read(0, 0, 11) == bytes(5) + b"inline"


async def test_newer_bytes_win_over_older_inline_ones(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"old old")
    await rig.cache.fsync(INO)
    rig.write_now(0, 4, b"new")
    power_cut(rig)
    rig.start().recover()
    assert await rig.read(0, 0, 7) == b"old new"


async def test_a_second_power_cut_does_not_judge_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"a" * 1000)
    rig.write_now(0, 500, b"b" * 1000)
    power_cut(rig)
    rig.start().recover()
    power_cut(rig)
    assert rig.start().recover().lost_ranges == 0


async def test_clean_frames_stay_warm_over_a_restart(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        await rig.write(0, 0, b"warm" * 100_000)
        await cache.drain()
    cache.close()
    report = rig.start().recover()
    assert report.clean_chunks == 1
    assert rig.cache.read_nowait(rig.row(), 0, 10) is None  # not verified yet
    assert await rig.read(0, 0, 400_000) == b"warm" * 100_000
    assert rig.cache.read_nowait(rig.row(), 0, 4) == b"warm"
    assert rig.store.reads == []


async def test_a_rotten_clean_frame_is_fetched_again(tmp_path: Path) -> None:
    """I4: local bit rot is noticed on the first read after a mount."""
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        await rig.write(0, 0, b"warm" * 100_000)
        await cache.drain()
    cache.close()
    damage(rig, 0, 140_000, 10)
    rig.start().recover()
    assert await rig.read(0, 0, 400_000) == b"warm" * 100_000
    assert len(rig.store.reads) == 1


async def test_files_of_nobody_are_removed(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    (tmp_path / "00").mkdir()
    for name in ("0000000000000063", "notes.txt"):
        (tmp_path / "00" / name).write_bytes(b"?")
    rig.start().recover()
    assert {path.name for _, _, names in os.walk(tmp_path) for path in map(Path, names)} <= {"clean.log"}


async def test_a_lost_cache_file_keeps_no_other_file_from_the_disk(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The background sync goes on, and says which version is lost."""
    rig = Rig(tmp_path, replace(SMALL, dirty_age_s=1000.0))
    rig.write_now(0, 0, b"lost" * 100)
    rig.write_now(0, 0, b"kept" * 100, ino=OTHER)
    rig.cache.close()
    rig.cache._files.path(rig.row().chunk).unlink()
    rig.start().recover()
    async with rig.running() as cache:
        await trio.sleep(10)
        assert rig.syncs() > 0
        assert any(one.data for one in rig.table.dirty_ranges(rig.row(ino=OTHER).chunk))
        with pytest.raises(Corrupt, match="not uploaded yet"):
            await cache.fsync(INO)


async def test_a_disk_that_takes_no_checksums_costs_warmth_only(tmp_path: Path) -> None:
    ledger = CleanLog(tmp_path / "later")
    ledger.note(ChunkId(1), 0, 100, 7)
    ledger.flush()
    (tmp_path / "later").mkdir()
    ledger.note(ChunkId(2), 0, 100, 8)
    ledger.flush()
    assert ledger.load() == {2: {(0, 100): 8}}
