"""Where shards go when buckets fail, and when a segment counts as stored."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from objfs.errors import BadSetting, BucketFull, NotEnoughShards, Refused, Unreachable
from objfs.model import Code, Slot
from objfs.store.store import StoreSettings
from objfs.store.upload import UploadSettings
from tests.store.buckets import Volume, chunks, noise, whole

DATA = noise(300_000)


async def test_a_failed_bucket_leaves_a_missing_shard(caplog: pytest.LogCaptureFixture) -> None:
    volume = Volume(Code(4, 2), 6)
    volume.buckets[Slot(2)].fault = lambda _operation, _key: Refused("read-only")
    segment, placed = await volume.store.write_segment(chunks(DATA))
    (missing,) = segment.missing
    assert segment.placement[missing] == Slot(2)
    assert "shard not placed; repair will bring it back bucket=mem://b2 object=segment/" in caplog.text
    assert await volume.store.read_chunks(whole(segment, placed)) == [DATA]
    statistics = volume.store.statistics()
    assert (statistics.segments_written, statistics.shards_placed, statistics.shards_missing) == (1, 5, 1)


async def test_a_spare_bucket_stands_in() -> None:
    volume = Volume(Code(2, 1), 5)
    for slot in (Slot(1), Slot(3)):
        volume.buckets[slot].fault = lambda _operation, _key: BucketFull("no room")
    for _ in range(10):
        segment, placed = await volume.store.write_segment(chunks(DATA))
        assert not segment.missing
        assert set(segment.placement) == {Slot(0), Slot(2), Slot(4)}
        assert await volume.store.read_chunks(whole(segment, placed)) == [DATA]
    assert volume.store.statistics().shards_diverted > 0


async def test_a_temporary_failure_is_retried_with_the_same_bytes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    volume = Volume(Code(1, 0), 1)
    bucket = volume.buckets[Slot(0)]
    tried: list[str] = []

    def once(_operation: str, key: str) -> Exception | None:
        tried.append(key)
        return Unreachable("lost connection") if len(tried) == 1 else None

    bucket.fault = once
    segment, _ = await volume.store.write_segment(chunks(DATA))
    assert tried == [f"segment/{segment.uuid.hex()[:2]}/{segment.uuid.hex()}.00"] * 2


async def test_a_bucket_known_down_is_not_asked(autojump_clock: trio.testing.MockClock) -> None:
    volume = Volume(Code(4, 2), 6)
    dead = volume.buckets[Slot(4)]
    dead.fault = lambda _operation, _key: Unreachable("no route")
    for _ in range(2):
        await volume.store.write_segment(chunks(DATA))
    assert volume.store.health.down(Slot(4))
    dead.requests.clear()
    segment, _ = await volume.store.write_segment(chunks(DATA))
    assert not dead.requests
    assert {segment.placement[shard] for shard in segment.missing} == {Slot(4)}
    await trio.sleep(10)
    dead.fault = None
    segment, _ = await volume.store.write_segment(chunks(DATA))
    assert not segment.missing


async def test_a_down_bucket_is_asked_where_it_is_needed() -> None:
    volume = Volume(Code(2, 1), 3)
    for slot in volume.buckets:
        for _ in range(3):
            volume.store.health.failed(slot, Unreachable("a moment ago"))
    segment, _ = await volume.store.write_segment(chunks(DATA))
    assert not segment.missing


async def test_too_few_shards_is_an_error_that_names_the_buckets() -> None:
    volume = Volume(Code(2, 1), 3)
    for slot in (Slot(0), Slot(2)):
        volume.buckets[slot].fault = lambda _operation, _key: Refused("denied")
    with pytest.raises(NotEnoughShards, match=r"1 of 3.*mem://b[02]: Refused: denied"):
        await volume.store.write_segment(chunks(DATA))
    assert volume.store.statistics().segments_failed == 1


async def test_what_was_placed_of_a_segment_that_was_not_stored_is_taken_back() -> None:
    """Each try has a segment of its own: hours of an outage would fill the buckets that answer."""
    volume = Volume(Code(2, 1), 3)
    for slot in (Slot(0), Slot(2)):
        volume.buckets[slot].fault = lambda _operation, _key: Refused("denied")
    for _ in range(3):
        with pytest.raises(NotEnoughShards):
            await volume.store.write_segment(chunks(DATA))
    assert [bucket.objects for bucket in volume.buckets.values()] == [{}, {}, {}]


async def test_min_placed_asks_for_more_than_k() -> None:
    volume = Volume(Code(2, 1), 3, min_placed=3)
    volume.buckets[Slot(1)].fault = lambda _operation, _key: Refused("denied")
    with pytest.raises(NotEnoughShards):
        await volume.store.write_segment(chunks(DATA))


@pytest.mark.parametrize(("min_placed", "copies"), [(0, 1), (3, 1), (4, 1), (5, 2), (6, 3), (9, 3)])
async def test_copies_need_as_many_above_one_as_min_placed_is_above_k(min_placed: int, copies: int) -> None:
    volume = Volume(Code(4, 2), 3, min_placed=min_placed)
    for slot in list(volume.buckets)[: 3 - copies]:
        volume.buckets[slot].fault = lambda _operation, _key: Refused("denied")
    segment, _ = await volume.store.write_segment(chunks(b"small"))
    assert segment.code.n - len(segment.missing) == copies
    volume.buckets[Slot(2)].fault = lambda _operation, _key: Refused("denied")
    with pytest.raises(NotEnoughShards, match=f"{copies} are needed" if copies > 1 else "1 are needed"):
        await volume.store.write_segment(chunks(b"small"))


async def test_min_placed_never_asks_for_more_copies_than_there_are() -> None:
    volume = Volume(Code(4, 2), 6, min_placed=5)
    segment, _ = await volume.store.write_segment(chunks(b"small"))
    assert segment.code == Code(1, 2)


async def test_a_straggler_holds_the_segment_only_so_long(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    settings = StoreSettings(upload=UploadSettings(straggler_s=4.0))
    volume = Volume(Code(4, 2), 6, settings=settings)
    volume.buckets[Slot(3)].hangs = True
    began = trio.current_time()
    segment, placed = await volume.store.write_segment(chunks(DATA))
    assert trio.current_time() - began == pytest.approx(4.0)
    assert {segment.placement[shard] for shard in segment.missing} == {Slot(3)}
    assert "no answer 4.0 s after" in caplog.text
    assert await volume.store.read_chunks(whole(segment, placed)) == [DATA]
    for _ in range(2):
        await volume.store.write_segment(chunks(DATA))
    began = trio.current_time()
    await volume.store.write_segment(chunks(DATA))
    assert trio.current_time() == began


async def test_a_slow_line_gets_as_long_again(autojump_clock: trio.testing.MockClock) -> None:
    settings = StoreSettings(upload=UploadSettings(straggler_s=4.0))
    volume = Volume(Code(1, 1), 2, settings=settings)
    for slot, seconds in ((Slot(0), 60.0), (Slot(1), 110.0)):
        volume.buckets[slot].put_s = seconds
    segment, _ = await volume.store.write_segment(chunks(DATA))
    assert not segment.missing


async def test_shards_are_uploaded_at_once() -> None:
    volume = Volume(Code(4, 2), 6)
    for bucket in volume.buckets.values():
        bucket.hangs = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(volume.store.write_segment, chunks(DATA))
        for bucket in volume.buckets.values():
            await bucket.reached.wait()
        nursery.cancel_scope.cancel()


async def test_cancelling_leaves_nothing_behind_that_counts() -> None:
    volume = Volume(Code(1, 1), 2)
    volume.buckets[Slot(0)].hangs = True
    with trio.move_on_after(0.05) as scope:
        await volume.store.write_segment(chunks(DATA))
    assert scope.cancelled_caught
    assert volume.store.statistics().segments_written == 0


async def test_drained_buckets_take_no_new_shards() -> None:
    volume = Volume(Code(2, 1), 4)
    old, placed = await volume.store.write_segment(chunks(DATA))
    volume.store.use_buckets(volume.buckets, writable=[Slot(0), Slot(1), Slot(2)])
    for _ in range(4):
        segment, _ = await volume.store.write_segment(chunks(DATA))
        assert set(segment.placement) == {Slot(0), Slot(1), Slot(2)}
    assert await volume.store.read_chunks(whole(old, placed)) == [DATA]


async def test_without_buckets_nothing_is_stored() -> None:
    with pytest.raises(BadSetting):
        await Volume(Code(2, 1), 0).store.write_segment(chunks(DATA))


async def test_delete_says_where_it_failed(autojump_clock: trio.testing.MockClock) -> None:
    volume = Volume(Code(4, 2), 6)
    segment, _ = await volume.store.write_segment(chunks(DATA))
    volume.buckets[Slot(1)].fault = lambda _operation, _key: Refused("object lock")
    assert await volume.store.delete_segment(segment) == {Slot(1)}
    assert sum(len(bucket.objects) for bucket in volume.buckets.values()) == 1
    volume.buckets[Slot(1)].fault = None
    assert await volume.store.delete_segment(segment) == set()


async def test_down_buckets_are_reported_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    volume = Volume(Code(2, 1), 3)
    volume.buckets[Slot(0)].fault = lambda _operation, _key: Unreachable("no route")
    for _ in range(2):
        await volume.store.write_segment(chunks(DATA))
    assert caplog.text.count("bucket down slot=0") == 1
    caplog.clear()
    await volume.store.write_segment(chunks(DATA))
    assert not caplog.text
