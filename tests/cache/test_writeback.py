"""Uploads, cuts and retries (I2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from objfs.errors import ObjfsError
from objfs.model import ChunkState, Ino
from tests.cache.rig import INO, SMALL, Rig

MIB = 1 << 20
THREADS_S = 0.05
"""Real time that the clock leaves to worker threads before it jumps."""


def plain(rig: Rig) -> list[bytes]:
    return [item.data for batch in rig.store.written for item in batch]


async def test_small_chunks_share_a_segment(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        for ino in range(100, 300):
            await rig.write(0, 0, ino.to_bytes(8, "big") * 10, Ino(ino))
        await cache.drain()
    assert len(rig.store.written) == 1
    assert not rig.table.dirty_chunks()


async def test_dirty_data_are_uploaded_by_age(tmp_path: Path, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = THREADS_S
    rig = Rig(tmp_path)
    async with rig.running():
        await rig.write(0, 0, b"x")
        await trio.sleep(29)
        assert rig.store.writes == 0
        await trio.sleep(2)
    assert rig.row().state is ChunkState.STORED


async def test_dirty_data_are_uploaded_by_amount(tmp_path: Path) -> None:
    rig = Rig(tmp_path, replace(SMALL, writeback_bytes=2 * MIB, segment_bytes=MIB))
    async with rig.running():
        for index in range(4):
            await rig.write(index, 0, bytes([index]) * MIB)
            await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert rig.store.writes == 2
        assert rig.cache.statistics().dirty_bytes == 2 * MIB


async def test_equal_chunks_are_stored_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        for ino in (10, 11, 12):
            await rig.write(0, 0, b"same" * 5000, Ino(ino))
        await cache.drain()
        await rig.write(0, 0, b"same" * 5000, Ino(13))
        await cache.drain()
    assert len(plain(rig)) == 1
    places = {rig.row(0, Ino(ino)).location for ino in (10, 11, 12, 13)}
    assert len(places) == 1


async def test_deduplication_refers_only_to_what_is_still_there(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        await rig.write(0, 0, b"same" * 5000)
        await cache.drain()
        rig.cut_off(0)
        await rig.write(0, 0, b"same" * 5000, Ino(99))
        await cache.drain()
    assert len(plain(rig)) == 2


async def test_a_failed_upload_loses_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = THREADS_S
    rig = Rig(tmp_path)
    rig.store.fail_writes = 5
    async with rig.running() as cache:
        await rig.write(0, 0, b"precious")
        cut = cache.cut()
        await trio.sleep(0.3)
        now = cache.statistics()
        assert (now.dirty_chunks, now.upload_failures) == (1, 1)
        assert now.last_error == "the double was told to fail"
        await cut.placed()
        after = cache.statistics()
        assert (after.upload_failures, after.last_error) == (0, None), "status must not tell of what is over"
        assert await rig.read(0, 0, 8) == b"precious"
    assert trio.current_time() > 10  # the delay grew


async def test_an_outage_piles_up_no_versions_of_what_is_written_again_and_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Each try froze the newest one and the next write lay over it: hundreds in a night, too many to drop."""
    rig = Rig(tmp_path / "cache")
    rig.store.fail_writes = 1_000_000
    async with rig.running() as cache:
        for minute in range(120):
            await rig.write(0, 0, b"%06d" % minute)
            await trio.sleep(60)
        assert len(rig.table.dirty_ids()) <= 2
        rig.store.fail_writes = 0
        await cache.drain()
        assert await rig.read(0, 0, 6) == b"000119"


async def test_a_closed_gate_uploads_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        await rig.write(0, 0, b"x")
        rig.gate.close("the lease was lost")
        cache.cut()
        await trio.sleep(100)
    assert rig.store.writes == 0


async def test_a_cut_holds_the_moment_and_later_writes_do_not_reach_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"before" + bytes(100))
    cut = rig.cache.cut()
    assert not rig.cache.writable(rig.row())
    rig.write_now(0, 0, b"AFTER!")
    async with rig.running():
        (placed,) = (await cut.placed()).placed
    assert plain(rig) == [b"before" + bytes(100)]
    assert placed.location.segment == 1
    assert await rig.read(0, 0, 8) == b"AFTER!\0\0"


async def test_a_cut_is_uploaded_though_its_rows_are_deleted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"base" * 1000)
    first = rig.cache.cut()
    rig.write_now(0, 2, b"over")
    second = rig.cache.cut()
    rig.cut_off(0)
    async with rig.running() as cache:
        result = await second.placed()
        await first.placed()
        await trio.sleep(3)
        assert cache.statistics().entries == 0
    assert sorted(plain(rig)) == sorted([b"base" * 1000, (b"baover" + b"se" + b"base" * 998)[:4000]])
    assert len(result.placed) == 2
    assert all(one.location.segment in result.segments for one in result.placed)


async def test_a_cut_reads_through_a_stored_base_that_is_deleted(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "one")
    async with rig.running() as cache:
        await rig.write(0, 0, b"base" * 1000)
        await cache.drain()
    rig.directory = tmp_path / "two"
    rig.start()
    rig.write_now(0, 8, b"over")
    cut = rig.cache.cut()
    rig.cut_off(0)
    async with rig.running():
        assert len((await cut.placed()).placed) == 1
    assert plain(rig)[-1] == b"basebaseover" + b"base" * 997


async def test_versions_freed_before_a_cut_are_not_uploaded(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        await rig.write(0, 0, b"short life")
        rig.cut_off(0)
        assert (await cache.cut().placed()).placed == []
        await trio.sleep(60)
        assert cache.statistics().entries == 0
    assert rig.store.writes == 0
    assert rig.disk_bytes() == 0


async def test_a_version_begun_without_a_write_is_part_of_a_cut(tmp_path: Path) -> None:
    """A truncation of a stored chunk begins a version that holds no byte of its own."""
    rig = Rig(tmp_path)
    async with rig.running() as cache:
        await rig.write(0, 0, b"0123456789")
        await cache.drain()
        rig.clip(0, 4)
        (placed,) = (await cache.cut().placed()).placed
    assert placed.chunk == rig.row().chunk
    assert plain(rig) == [b"0123456789", b"0123"]


async def test_one_unreadable_base_does_not_stop_the_others(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = THREADS_S
    rig = Rig(tmp_path / "one")
    async with rig.running() as cache:
        await rig.write(0, 0, b"base" * 1000)
        await cache.drain()
    rig.directory = tmp_path / "two"
    rig.start()
    rig.store.read_bound_s = 5
    async with rig.running() as cache:
        await rig.write(0, 8, b"over")
        await rig.write(0, 0, b"independent", Ino(50))
        cut = cache.cut()
        await trio.sleep(8)
        assert rig.row(0, Ino(50)).state is ChunkState.STORED
        assert rig.row().state is ChunkState.DIRTY
        rig.store.read_bound_s = None
        await cut.placed()
    assert plain(rig)[-1] == b"basebaseover" + b"base" * 997


async def test_a_frozen_version_is_never_written(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.write_now(0, 0, b"x")
    row = rig.row()
    rig.cache.cut()
    with pytest.raises(ObjfsError, match="begin a new version"):
        rig.cache.write(row, 0, b"y")
    with pytest.raises(ObjfsError, match="begin a new version"):
        rig.cache.clip(row, 0)


async def test_a_hanging_upload_holds_up_no_write(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.store.hang_writes = True
    async with rig.running() as cache:
        for round_ in range(5):
            await rig.write(0, round_, b"x")
            cache.cut()
            await wait_all_tasks_blocked()
        await cache.fsync(INO)
        assert await rig.read(0, 0, 5) == b"xxxxx"
