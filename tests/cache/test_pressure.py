"""Room: caps hold, writers are slowed, nobody starves (I6)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from objfs.cache import CacheSettings
from objfs.errors import NoSpace, ReadOnly
from tests.cache.rig import SMALL, Rig

MIB = 1 << 20
CAP = replace(SMALL, cache_bytes=4 * MIB, segment_bytes=256 * 1024, uploads=1)


async def test_the_cap_holds_while_three_times_as_much_is_written(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rig = Rig(tmp_path, CAP, chunk_size=256 * 1024)
    rig.store.write_s = 0.5
    async with rig.running() as cache:
        for number in range(12 * 16):
            await rig.write(number // 4, number % 4 * 65536, bytes([number]) * 65536)
            assert rig.disk_bytes() + cache.statistics().uploading <= CAP.cache_bytes
        await cache.drain()
        for number in range(12 * 16):
            assert await rig.read(number // 4, number % 4 * 65536, 65536) == bytes([number]) * 65536
            assert rig.disk_bytes() <= CAP.cache_bytes
    assert trio.current_time() > 1


async def test_admit_does_not_yield_while_there_is_room(tmp_path: Path) -> None:
    rig = Rig(tmp_path, CAP)
    with trio.CancelScope() as scope:
        scope.cancel()
        await rig.cache.admit(MIB)
    assert not scope.cancelled_caught


async def full(tmp_path: Path, settings: CacheSettings = CAP) -> Rig:
    """A cache that is full of dirty bytes; nothing uploads until it runs."""
    rig = Rig(tmp_path, settings, chunk_size=256 * 1024)
    for index in range(14):
        await rig.write(index, 0, b"x" * 256 * 1024)
    return rig


async def test_writers_get_their_room_in_order(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = await full(tmp_path)
    order: list[int] = []

    async def writer(number: int) -> None:
        await rig.cache.admit(256 * 1024)
        rig.write_now(100 + number, 0, b"y" * 256 * 1024)
        order.append(number)

    async with rig.running(), trio.open_nursery() as nursery:
        rig.store.write_s = 5
        for number in range(6):
            nursery.start_soon(writer, number)
            await wait_all_tasks_blocked()
        assert rig.cache.statistics().waiting_writers == 6
    assert order == [0, 1, 2, 3, 4, 5]


async def test_a_cancelled_writer_leaves_the_queue(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = await full(tmp_path)
    with trio.move_on_after(3):
        await rig.cache.admit(MIB)
    assert rig.cache.statistics().waiting_writers == 0


async def test_full_for_too_long_is_no_space(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = await full(tmp_path, replace(CAP, full_timeout_s=7))
    with pytest.raises(NoSpace):
        await rig.cache.admit(MIB)
    assert trio.current_time() == pytest.approx(7)


async def test_a_slow_line_that_moves_is_not_a_full_cache(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The time counts from the last write that got in, be it somebody else's."""
    rig = await full(tmp_path, replace(CAP, full_timeout_s=7))
    let_in: list[float] = []

    async def writer(number: int) -> None:
        await rig.cache.admit(256 * 1024)
        rig.write_now(100 + number, 0, b"y" * 256 * 1024)
        let_in.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(writer, number)
        for index in range(3):
            await trio.sleep(5)
            rig.cache._shelf.drop(rig.cache._shelf.entries[rig.row(index).chunk])
    assert let_in == pytest.approx([5, 10, 15])


async def test_waiting_ends_when_the_gate_closes(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = await full(tmp_path)
    async with trio.open_nursery() as nursery:

        async def writer() -> None:
            with pytest.raises(ReadOnly, match="lease"):
                await rig.cache.admit(MIB)

        nursery.start_soon(writer)
        await wait_all_tasks_blocked()
        rig.gate.close("the lease was lost")


async def test_too_many_entries_slow_writers_down(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = Rig(tmp_path, replace(SMALL, max_entries=10))
    async with rig.running() as cache:
        for index in range(50):
            await rig.write(index, 0, b"x")
            assert cache.statistics().entries <= 10


async def test_the_hosts_reserve_is_never_used(tmp_path: Path) -> None:
    rig = Rig(tmp_path, replace(SMALL, reserve_bytes=2**62))
    with pytest.raises(NoSpace, match="reserve"):
        await rig.cache.admit(1)


async def test_what_others_keep_counts(tmp_path: Path, autojump_clock: MockClock) -> None:
    rig = await full(tmp_path, replace(CAP, cache_bytes=100 * MIB))
    rig.cache._space._extra = lambda: 99 * MIB
    with trio.move_on_after(1) as scope:
        await rig.cache.admit(MIB)
    assert scope.cancelled_caught
