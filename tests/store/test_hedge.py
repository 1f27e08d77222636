"""Tails: others are asked beside a late shard, within a budget; slow buckets are read around."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from objfs.codec import BLOCK, DATA_OFFSET, TAG
from objfs.model import Code, Placed, Segment, Slot
from objfs.store.pace import PaceSettings
from objfs.store.store import StoreSettings
from tests.store.buckets import Volume, chunks, key_of, noise

CODE = Code(4, 2)
QUICK_S, SLOW_S = 0.02, 2.0
PIECE = 20_000
PIECES = 24
NEVER_SLOW = PaceSettings(threshold=10**9)


class Reading:
    """A segment of many chunks of one block, over buckets that answer in 20 ms."""

    def __init__(self, code: Code = CODE, settings: StoreSettings | None = None) -> None:
        self.volume = Volume(code, code.n, settings=settings)
        self.datas = [noise(PIECE, number) for number in range(PIECES)]
        for bucket in self.volume.buckets.values():
            bucket.delay_s = QUICK_S

    async def start(self) -> Reading:
        self.segment, self.placed = await self.volume.store.write_segment(chunks(*self.datas))
        return self

    def shard(self, number: int) -> int:
        """The shard that holds a chunk."""
        at = self.placed[number].location.position
        return max(shard for shard in range(self.segment.code.k) if self.segment.cuts[shard] <= at)

    def on(self, slot: Slot) -> list[int]:
        """The chunks that lie in a bucket."""
        return [number for number in range(PIECES) if self.segment.placement[self.shard(number)] == slot]

    async def read(self, number: int) -> float:
        """Seconds for one chunk, which must be right."""
        began = trio.current_time()
        wanted = [(self.segment, self.placed[number].location, 0, 0)]
        assert await self.volume.store.read_chunks(wanted) == [self.datas[number]]
        return trio.current_time() - began

    async def warm(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            for number in range(PIECES):
                await self.read(number)


async def a_reading(settings: StoreSettings | None = None, code: Code = CODE) -> Reading:
    return await Reading(code, settings).start()


def segment_of(reading: Reading) -> tuple[Segment, list[Placed]]:
    return reading.segment, reading.placed


async def test_healthy_reads_are_one_get_each(autojump_clock: trio.testing.MockClock) -> None:
    reading = await a_reading()
    await reading.warm(4)
    assert len(reading.volume.gets()) == 4 * PIECES
    assert reading.volume.store.statistics().hedges == 0


async def test_a_late_shard_is_rebuilt_from_others_and_its_request_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reading = await a_reading(StoreSettings(hedge=0.2))
    await reading.warm()
    slot = reading.segment.placement[0]
    late = reading.on(slot)[0]
    reading.volume.buckets[slot].delay_s = SLOW_S
    reading.volume.forget()
    assert QUICK_S < await reading.read(late) < 5 * QUICK_S
    statistics = reading.volume.store.statistics()
    assert (statistics.hedges, statistics.hedges_won, statistics.hedge_gets) == (1, 1, 4)
    assert len(reading.volume.gets()) == 4, "the late one was cancelled, and never ended"
    await trio.sleep(10)
    assert len(reading.volume.gets()) == 4
    assert reading.volume.store.health.statistics() == {}, "late is not a failure"


async def test_a_bucket_that_mostly_answers_at_once_is_hedged_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A local disk that hangs for once: its request is made anew beside those to others, all paid for."""
    reading = await a_reading()
    for bucket in reading.volume.buckets.values():
        bucket.delay_s = 0.0
    await reading.warm(5)
    assert len(reading.volume.gets()) == 5 * PIECES
    slot = reading.segment.placement[0]
    reading.volume.buckets[slot].delay_s = SLOW_S
    assert await reading.read(reading.on(slot)[0]) < 0.1
    statistics = reading.volume.store.statistics()
    assert (statistics.hedges_won, statistics.hedge_gets) == (1, 4)


async def test_others_are_not_asked_before_the_95th_percentile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One answer in ten is late by half: none of that is worth a request."""
    reading = await a_reading()
    slot = reading.segment.placement[0]
    mine = reading.on(slot)
    for number in range(60):
        reading.volume.buckets[slot].delay_s = 0.03 if number % 10 == 0 else QUICK_S
        await reading.read(mine[number % len(mine)])
    reading.volume.forget()
    reading.volume.buckets[slot].delay_s = 0.029
    await reading.read(mine[0])
    assert len(reading.volume.gets()) == 1
    assert reading.volume.store.statistics().hedges == 0


@pytest.mark.parametrize("hedge", [0.0, 0.05, 0.2])
async def test_the_budget_holds(autojump_clock: trio.testing.MockClock, hedge: float) -> None:
    """A bucket that is late for every request, and never known as slow: the share is all that is spent."""
    reading = await a_reading(StoreSettings(hedge=hedge, pace=NEVER_SLOW))
    slot = reading.segment.placement[0]
    await reading.warm(5)
    reading.volume.buckets[slot].delay_s = SLOW_S
    await reading.warm(10)
    statistics = reading.volume.store.statistics()
    assert statistics.hedge_gets <= hedge * 15 * PIECES
    assert (statistics.hedge_gets >= 0.8 * hedge * 15 * PIECES - 4) or not hedge
    assert bool(statistics.hedges) == bool(hedge)


async def test_a_slow_bucket_is_known_after_20_answers_and_read_around(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reading = await a_reading(StoreSettings(hedge=0.0))
    slot = reading.segment.placement[1]
    reading.volume.buckets[slot].delay_s = SLOW_S
    mine, others = reading.on(slot), [n for n in range(PIECES) if n not in reading.on(slot)]
    for number in (*others, *others):
        await reading.read(number)
    slow = 0
    while await reading.read(mine[slow % len(mine)]) >= SLOW_S:
        slow += 1
    assert slow <= 20
    times = [await reading.read(mine[number % len(mine)]) for number in range(30)]
    assert max(times) == pytest.approx(QUICK_S)
    assert reading.volume.store.statistics().hedges == 0, "reading around is planned, not hedged"
    assert caplog.text.count("bucket slow: read around it") == 1


async def test_a_slow_bucket_is_tried_now_and_then_without_holding_anybody_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reading = await a_reading()
    slot = reading.segment.placement[1]
    bucket = reading.volume.buckets[slot]
    await reading.warm(2)
    bucket.delay_s = SLOW_S
    await reading.warm(5)
    bucket.entered.clear()
    mine, times = reading.on(slot), []
    for number in range(150):
        times.append(await reading.read(mine[number % len(mine)]))
        await trio.sleep(1)
    assert 2 <= len(bucket.entered) <= 12
    assert max(times) < 10 * QUICK_S


async def test_a_bucket_that_is_quick_again_is_taken_back(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reading = await a_reading()
    slot = reading.segment.placement[1]
    bucket, mine = reading.volume.buckets[slot], reading.on(slot)
    await reading.warm(2)
    bucket.delay_s = SLOW_S
    await reading.warm(5)
    assert reading.volume.store.pace.slow(slot)
    bucket.delay_s = QUICK_S
    await trio.sleep(130)
    for number in range(4):
        await reading.read(mine[number])
    assert not reading.volume.store.pace.slow(slot)
    reading.volume.forget()
    for number in range(4):
        await reading.read(mine[number])
    assert len(reading.volume.gets()) == 4
    assert caplog.text.count("bucket quick again") == 1


async def test_a_damaged_answer_of_another_gives_no_wrong_byte(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """I4: the parity asked for a late shard lies; one more is asked, or the late one waited for."""
    caplog.set_level(logging.WARNING)
    reading = await a_reading(StoreSettings(hedge=1.0))
    await reading.warm()
    segment, _ = segment_of(reading)
    late = reading.on(segment.placement[0])[0]
    reading.volume.of(segment, 0).delay_s = SLOW_S
    for shard in (1, 4):
        for block in range(3):
            reading.volume.damage(segment, shard, DATA_OFFSET + block * (BLOCK + TAG) + 9)
    assert await reading.read(late) == pytest.approx(SLOW_S), "with two liars only the late one helps"
    for block in range(3):
        reading.volume.damage(segment, 1, DATA_OFFSET + block * (BLOCK + TAG) + 9)
    assert await reading.read(late) < 10 * QUICK_S
    assert key_of(segment, 4) in caplog.text


async def test_a_bucket_that_never_answers_costs_one_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Known down: no read waits for it again, trials included."""
    reading = await a_reading()
    slot = reading.segment.placement[2]
    mine = reading.on(slot)
    reading.volume.buckets[slot].hangs = True
    assert await reading.read(mine[0]) > 1
    times = []
    for number in range(60):
        times.append(await reading.read(mine[number % len(mine)]))
        await trio.sleep(1)
    assert max(times) < 10 * QUICK_S


async def test_a_late_copy_is_read_elsewhere(autojump_clock: trio.testing.MockClock) -> None:
    reading = await a_reading(StoreSettings(hedge=0.2), Code(1, 2))
    await reading.warm()
    reading.volume.buckets[reading.segment.placement[0]].delay_s = SLOW_S
    assert await reading.read(3) < 5 * QUICK_S
    assert reading.volume.store.statistics().hedge_gets == 1


async def test_where_all_buckets_are_slow_none_is_read_around(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reading = await a_reading()
    await reading.warm(2)
    for bucket in reading.volume.buckets.values():
        bucket.delay_s = SLOW_S
    await reading.warm(5)
    reading.volume.forget()
    await reading.warm(2)
    assert len(reading.volume.gets()) <= 2 * PIECES * 1.06


async def test_a_reader_that_gives_up_leaves_nothing_running(autojump_clock: trio.testing.MockClock) -> None:
    reading = await a_reading(StoreSettings(hedge=1.0))
    await reading.warm()
    for bucket in reading.volume.buckets.values():
        bucket.delay_s = SLOW_S
    with trio.move_on_after(0.1) as scope:
        await reading.read(0)
    assert scope.cancelled_caught
    for bucket in reading.volume.buckets.values():
        bucket.delay_s = QUICK_S
    await reading.read(0)
