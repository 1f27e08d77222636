"""I3 and I4: lost, damaged, lying and silent buckets, and what each costs."""

from __future__ import annotations

import logging
import random
from itertools import combinations, pairwise

import pytest
import trio
import trio.testing

from objfs.codec import BLOCK, DATA_OFFSET, TAG
from objfs.errors import NoSuchBucket, NotEnoughShards, Refused, SegmentGone, TimedOut, Unreachable
from objfs.model import Code, Placed, Segment, Slot
from objfs.store.ask import AskSettings
from objfs.store.healing import join
from objfs.store.health import HealthState
from objfs.store.store import StoreSettings
from tests.store.buckets import Fault, Volume, chunks, key_of, noise, text, whole

IMPATIENT = StoreSettings(ask=AskSettings(patience_s=1.0))


@pytest.mark.parametrize("code", [Code(1, 1), Code(1, 2), Code(2, 1), Code(4, 2), Code(3, 3)], ids=str)
async def test_any_m_buckets_may_be_lost(code: Code) -> None:
    """I3: every loss set of size m, with whole objects gone."""
    volume = Volume(code, code.n)
    datas = [*(noise(100_000, i) for i in range(8)), text(500_000), noise(70_001, 9)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    kept = {slot: dict(bucket.objects) for slot, bucket in volume.buckets.items()}
    for lost in combinations(volume.buckets, code.m):
        for slot, bucket in volume.buckets.items():
            bucket.objects = {} if slot in lost else dict(kept[slot])
        assert await volume.store.read_chunks(whole(segment, placed)) == datas
    for slot, bucket in volume.buckets.items():
        bucket.objects = {} if slot in segment.placement[: code.m + 1] else dict(kept[slot])
    with pytest.raises(NotEnoughShards, match=segment.uuid.hex()):
        await volume.store.read_chunks(whole(segment, placed))


async def test_a_flipped_bit_is_healed_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """I4: whichever shard's bucket lies."""
    volume = Volume(Code(4, 2), 6)
    datas = [noise(200_000, i) for i in range(8)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    for shard in range(4):
        caplog.clear()
        at = DATA_OFFSET + 2 * (BLOCK + TAG) + 5
        volume.damage(segment, shard, at)
        assert await volume.store.read_chunks(whole(segment, placed)) == datas
        (message,) = [record.getMessage() for record in caplog.records]
        url, name = volume.of(segment, shard).url, key_of(segment, shard)
        assert message.startswith(f"shard damaged; healed from parity bucket={url} object={name} blocks=2 ")
        volume.damage(segment, shard, at)
    assert volume.store.statistics().damaged == 4
    assert all(health.state is HealthState.HEALTHY for health in volume.store.health.statistics().values())


@pytest.mark.parametrize("cut", [0, 287, 288, 300, DATA_OFFSET + BLOCK + TAG, -1])
async def test_a_short_object_is_healed(cut: int) -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    objects = volume.of(segment, 1).objects
    objects[key_of(segment, 1)] = objects[key_of(segment, 1)][:cut]
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]


async def test_a_shard_of_another_segment_is_not_believed() -> None:
    volume = Volume(Code(2, 1), 3)
    one, placed = await volume.store.write_segment(chunks(noise(300_000)))
    two, _ = await volume.store.write_segment(chunks(noise(300_000, 2)))
    volume.of(one, 0).objects[key_of(one, 0)] = volume.of(two, 0).objects[key_of(two, 0)]
    assert await volume.store.read_chunks(whole(one, placed)) == [noise(300_000)]
    assert volume.store.statistics().damaged == 1


async def _chunks_of_one_frame(volume: Volume) -> tuple[Segment, list[Placed], list[bytes]]:
    datas = [noise(100_000, i) for i in range(12)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    return segment, placed, datas


async def test_damage_fails_only_what_is_damaged() -> None:
    """I4: two shards damaged with m=1; only where the damage meets is a read refused."""
    volume = Volume(Code(3, 1), 4)
    segment, placed, datas = await _chunks_of_one_frame(volume)
    volume.damage(segment, 0, DATA_OFFSET + 10)
    volume.damage(segment, 1, DATA_OFFSET + 10)
    volume.damage(segment, 2, DATA_OFFSET + 5 * (BLOCK + TAG) + 10)
    doomed = [number for number, one in enumerate(placed) if one.location.position in segment.cuts[:2]]
    assert len(doomed) == 2
    for number, one in enumerate(placed):
        wanted = [(segment, one.location, 0, 0)]
        if number not in doomed:
            assert await volume.store.read_chunks(wanted) == [datas[number]]
            continue
        with pytest.raises(NotEnoughShards, match="blocks 0:") as caught:
            await volume.store.read_chunks(wanted)
        assert key_of(segment, 0) in str(caught.value)
        assert key_of(segment, 1) in str(caught.value)


async def test_a_gap_nobody_asked_for_may_be_damaged(caplog: pytest.LogCaptureFixture) -> None:
    volume = Volume(Code(1, 0), 1)
    datas = [noise(BLOCK - 400, 1), noise(2 * BLOCK - 400, 2), noise(BLOCK, 3)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    volume.damage(segment, 0, DATA_OFFSET + BLOCK + TAG + 100)
    ends = [whole(segment, placed)[0], whole(segment, placed)[2]]
    volume.forget()
    assert await volume.store.read_chunks(ends) == [datas[0], datas[2]]
    assert len(volume.gets()) == 1
    with pytest.raises(NotEnoughShards):
        await volume.store.read_chunks(whole(segment, placed))


async def test_a_lost_bucket_costs_a_sequential_read_one_more_request() -> None:
    """What the healthy shards brought is used, not fetched again."""
    volume = Volume(Code(4, 2), 6)
    datas = [noise(1 << 20, i) for i in range(4)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    volume.of(segment, 2).objects.clear()
    volume.forget()
    assert await volume.store.read_chunks(whole(segment, placed)) == datas
    assert len(volume.gets()) <= 4
    assert sum(size for _, _, size in volume.gets()) < 1.1 * segment.length


@pytest.mark.parametrize("lost", list(combinations(range(4), 2)), ids=str)
async def test_two_lost_buckets_cost_a_sequential_read_no_byte_twice(lost: tuple[int, int]) -> None:
    """Shards are of unequal length; what both lack is rebuilt from the same bytes of the others."""
    volume = Volume(Code(4, 2), 6)
    datas = [noise(300_000 + 7919 * i, i) for i in range(20)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    assert len({end - start for start, end in pairwise(segment.cuts)}) == 4
    for shard in lost:
        volume.of(segment, shard).objects.clear()
    volume.forget()
    assert await volume.store.read_chunks(whole(segment, placed)) == datas
    assert len(volume.gets()) == 4
    assert sum(size for _, _, size in volume.gets()) < 1.02 * segment.length


async def test_what_two_lost_shards_lack_together_is_never_more_than_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any few chunks of a segment: what the others have brought already is not fetched again."""
    volume = Volume(Code(4, 2), 6)
    datas = [noise(100_000, i) for i in range(40)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    for shard in (0, 2):
        volume.of(segment, shard).objects.clear()
    generator, fewer = random.Random(3), 0
    for _ in range(25):
        chosen = sorted(generator.sample(range(40), 6))
        wanted, costs = whole(segment, [placed[number] for number in chosen]), []
        for way in (join, lambda _call, healings: healings):
            volume.forget()
            with monkeypatch.context() as patch:
                patch.setattr("objfs.store.fetch.join", way)
                assert await volume.store.read_chunks(wanted) == [datas[number] for number in chosen]
            costs.append(sum(size for _, _, size in volume.gets()))
        assert costs[0] <= costs[1]
        fewer += costs[0] < costs[1]
    assert fewer > 0


async def test_a_small_read_without_its_shard_asks_k_others() -> None:
    volume = Volume(Code(4, 2), 6)
    segment, placed = await volume.store.write_segment(chunks(*(noise(1 << 20, i) for i in range(4))))
    volume.of(segment, 0).objects.clear()
    volume.forget()
    await volume.store.read_chunks([(segment, placed[0].location, 3, 3)])
    gets = volume.gets()
    assert len(gets) == 4
    assert max(size for _, _, size in gets) <= 256 * 1024


@pytest.mark.parametrize("error", [Unreachable("x"), NoSuchBucket("x"), Refused("x")], ids=repr)
async def test_a_failing_bucket_stops_no_read(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    volume.of(segment, 0).fault = lambda _operation, _key: error
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]
    assert volume.store.statistics().unavailable == 1
    assert "not read; healed from parity" in caplog.text


async def test_a_bucket_known_down_is_not_asked(mock_clock: trio.testing.MockClock) -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    dead = volume.of(segment, 0)
    dead.fault = lambda _operation, _key: Unreachable("no route")
    for _ in range(3):
        await volume.store.read_chunks(whole(segment, placed))
    assert volume.store.health.down(segment.placement[0])
    dead.requests.clear()
    for _ in range(10):
        assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]
    assert not dead.requests


async def test_a_down_bucket_is_asked_when_it_is_the_last_resort() -> None:
    """Down is a guess: it may cost time, it may not cost data."""
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    for slot in volume.buckets:
        for _ in range(3):
            volume.store.health.failed(slot, Unreachable("a moment ago"))
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]


async def test_a_silent_bucket_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """I8: bounded by our patience, not by the bucket's time limits."""
    volume = Volume(Code(4, 2), 6, settings=IMPATIENT)
    segment, placed = await volume.store.write_segment(chunks(noise(1 << 20)))
    volume.of(segment, 0).hangs = True
    began = trio.current_time()
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(1 << 20)]
    assert trio.current_time() - began < 10
    assert volume.store.statistics().slow == 1


async def test_a_slow_bucket_is_waited_for_when_there_is_no_other(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    volume = Volume(Code(1, 0), 1, settings=IMPATIENT)
    segment, placed = await volume.store.write_segment(chunks(noise(1000)))
    bucket = volume.buckets[Slot(0)]
    bucket.hangs = True
    bucket.reached = trio.Event()

    async def wake() -> None:
        await bucket.reached.wait()
        bucket.hangs = False

    nursery.start_soon(wake)
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(1000)]


async def test_copies_come_from_the_best_bucket() -> None:
    volume = Volume(Code(1, 2), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(1000)))
    for slot in segment.placement[:2]:
        volume.store.health.failed(slot, Unreachable("once"))
    volume.forget()
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(1000)]
    assert [key for _, key, _ in volume.gets()] == [key_of(segment, 2)]


async def test_a_bucket_that_was_taken_away_is_a_loss_like_others() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    left = {slot: bucket for slot, bucket in volume.buckets.items() if slot != segment.placement[0]}
    volume.store.use_buckets(left)
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]
    assert await volume.store.delete_segment(segment) == {segment.placement[0]}


async def test_what_cannot_be_read_is_logged_with_all_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    for shard in (0, 1):
        volume.of(segment, shard).objects.clear()
    with pytest.raises(NotEnoughShards):
        await volume.store.read_chunks(whole(segment, placed))
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors
    assert all(key_of(segment, shard) in errors[0] for shard in (0, 1))
    assert volume.store.statistics().unreadable >= 1


async def test_healing_prefers_buckets_in_good_health() -> None:
    volume = Volume(Code(2, 2), 4)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    volume.of(segment, 0).objects.clear()
    volume.store.health.failed(segment.placement[2], Unreachable("once"))
    volume.forget()
    await volume.store.read_chunks([(segment, placed[0].location, 0, 0)])
    assert {key for _, key, _ in volume.gets()} == {key_of(segment, 1), key_of(segment, 3)}


async def test_a_shard_too_short_for_the_range_costs_no_request() -> None:
    """Beyond its end a data shard is known to be zeros."""
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(131_072), noise(10_000, 2)))
    lengths = [b - a for a, b in pairwise(segment.cuts)]
    assert lengths[0] > lengths[1] + 3 * BLOCK
    volume.damage(segment, 0, DATA_OFFSET + 3 * (BLOCK + TAG) + 1)
    volume.forget()
    assert await volume.store.read_chunks(whole(segment, placed)[:1]) == [noise(131_072)]
    assert sorted(key for _, key, _ in volume.gets()) == [key_of(segment, 0), key_of(segment, 2)]


# --- a second read before a read is given up -----------------------------------------------


def once(error: Exception) -> Fault:
    """The first get of each object fails."""
    seen: set[str] = set()

    def fail(operation: str, key: str) -> Exception | None:
        if operation != "get" or key in seen:
            return None
        seen.add(key)
        return error

    return fail


@pytest.mark.parametrize("error", [Refused("403"), Unreachable("reset"), TimedOut("no answer")], ids=repr)
@pytest.mark.parametrize("code", [Code(2, 1), Code(4, 2), Code(1, 1)], ids=str)
async def test_with_m_buckets_gone_one_failed_request_elsewhere_is_no_error(
    code: Code, error: Exception
) -> None:
    """It was EIO at once: the last shard that could help was never asked again."""
    volume = Volume(code, code.n)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    for shard in range(code.m):
        volume.of(segment, shard).objects.clear()
    for shard in range(code.m, code.n):
        volume.of(segment, shard).fault = once(error)
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]


async def test_with_m_buckets_gone_a_byte_spoilt_on_its_way_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The object is sound: one fresh read shows it, and the log says what was seen."""
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    volume.of(segment, 0).objects.clear()
    name = key_of(segment, 1)
    volume.of(segment, 1).spoilt = {name: DATA_OFFSET + 5}
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(300_000)]
    assert f"shard read again, and sound: spoilt on its way bucket={volume.of(segment, 1).url}" in caplog.text
    assert name in caplog.text


async def test_what_is_not_there_is_not_asked_for_twice() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    for shard in (0, 1):
        volume.of(segment, shard).objects.clear()
        volume.of(segment, shard).entered.clear()
    with pytest.raises(SegmentGone):
        await volume.store.read_chunks(whole(segment, placed))
    assert [len(volume.of(segment, shard).entered) for shard in (0, 1)] == [1, 1]


async def test_a_rotten_shard_is_read_twice_at_most() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000)))
    for shard in (0, 1):
        volume.damage(segment, shard, DATA_OFFSET + 10)
    volume.forget()
    with pytest.raises(NotEnoughShards):
        await volume.store.read_chunks([(segment, placed[0].location, 0, 0)])
    keys = [key for _, key, _ in volume.gets()]
    assert max(keys.count(key_of(segment, shard)) for shard in range(3)) == 2


async def test_a_second_answer_takes_away_nothing_that_the_first_one_brought() -> None:
    """Damage of two copies in different blocks, and a second read of either fails."""
    volume = Volume(Code(1, 1), 2)
    content = noise(300_000)
    segment, placed = await volume.store.write_segment(chunks(content))
    volume.damage(segment, 0, DATA_OFFSET + 10)
    volume.damage(segment, 1, DATA_OFFSET + BLOCK + TAG + 10)
    for bucket in volume.buckets.values():
        seen: list[str] = []

        def fail(_operation: str, key: str, seen: list[str] = seen) -> Exception | None:
            seen.append(key)
            return Unreachable("reset") if len(seen) > 1 else None

        bucket.fault = fail
    assert await volume.store.read_chunks(whole(segment, placed)) == [content]
