"""Shards put again byte for byte, and segments known by a listing and one header."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from objfs.errors import NotEnoughShards, ReadOnly
from objfs.model import Code, Segment, Slot
from objfs.store.layout import parse_shard
from tests.store.buckets import Volume, chunks, key_of, noise

CODES = [Code(1, 2), Code(2, 1), Code(4, 2)]


def listing(volume: Volume, segment: Segment) -> dict[Slot, dict[int, int]]:
    found: dict[Slot, dict[int, int]] = {slot: {} for slot in volume.buckets}
    for slot, bucket in volume.buckets.items():
        for name, data in bucket.objects.items():
            shard = parse_shard(name)
            if shard is not None and shard.uuid == segment.uuid:
                found[slot][shard.shard] = len(data)
    return found


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("size", [10, 400_000])
async def test_lost_and_damaged_shards_come_back_byte_for_byte(code: Code, size: int) -> None:
    volume = Volume(code, code.n)
    segment, _ = await volume.store.write_segment(chunks(noise(size), noise(size, 2)))
    before = {slot: dict(bucket.objects) for slot, bucket in volume.buckets.items()}
    for lost in combinations(range(segment.code.n), code.m):
        for shard in lost:
            del volume.of(segment, shard).objects[key_of(segment, shard)]
        found = await volume.store.find_segment(segment.uuid.hex())
        assert found.segment.missing == set(lost)
        named = type(found)(segment, found.layout)
        assert await volume.store.restore_shards(named, lost) == set(lost)
        assert {slot: bucket.objects for slot, bucket in volume.buckets.items()} == before
    volume.damage(segment, 0, 300)
    found = await volume.store.find_segment(segment.uuid.hex())
    await volume.store.restore_shards(found, {0})
    assert {slot: bucket.objects for slot, bucket in volume.buckets.items()} == before


async def test_nothing_is_put_when_too_few_are_left_or_the_gate_is_closed() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, _ = await volume.store.write_segment(chunks(noise(300_000)))
    found = await volume.store.find_segment(segment.uuid.hex())
    for shard in (0, 1):
        del volume.of(segment, shard).objects[key_of(segment, shard)]
    with pytest.raises(NotEnoughShards):
        await volume.store.restore_shards(found, {0, 1})
    volume.gate.close("lost")
    with pytest.raises(ReadOnly):
        await volume.store.restore_shards(found, {0})
    assert sum(len(bucket.objects) for bucket in volume.buckets.values()) == 1


async def test_a_bucket_that_is_away_gets_nothing_and_is_not_counted() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, _ = await volume.store.write_segment(chunks(noise(300_000)))
    found = await volume.store.find_segment(segment.uuid.hex())
    slot = segment.placement[2]
    volume.store.use_buckets({key: bucket for key, bucket in volume.buckets.items() if key != slot})
    assert await volume.store.restore_shards(found, {1, 2}) == {1}


@pytest.mark.parametrize("code", CODES, ids=str)
async def test_one_header_and_a_listing_tell_all(code: Code) -> None:
    volume = Volume(code, code.n)
    segment, placed = await volume.store.write_segment(chunks(noise(200_000), noise(5)))
    volume.damage(segment, 0, 40)
    volume.of(segment, 1).objects[key_of(segment, 1)] += b"?"
    volume.forget()
    found = await volume.store.recognize(segment.uuid, listing(volume, segment))
    assert found.segment.missing == {1}
    assert [found.segment.placement[shard] for shard in (0, *range(2, segment.code.n))] == [
        segment.placement[shard] for shard in (0, *range(2, segment.code.n))
    ]
    assert len(volume.gets()) <= 3
    entries = await volume.store.read_index(found)
    assert [entry.location for entry in entries] == [one.location for one in placed]


async def test_a_segment_without_a_sound_header_is_not_recognized() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, _ = await volume.store.write_segment(chunks(noise(200_000)))
    for shard in range(3):
        volume.damage(segment, shard, 40)
    with pytest.raises(NotEnoughShards):
        await volume.store.recognize(segment.uuid, listing(volume, segment))


async def test_two_shards_are_put_again_for_the_bytes_of_one_payload() -> None:
    """One header, k shards to read, two objects to put; shards are of unequal length."""
    volume = Volume(Code(4, 2), 6)
    segment, _ = await volume.store.write_segment(chunks(*(noise(300_000 + 7919 * i, i) for i in range(20))))
    for lost in combinations(range(segment.code.n), 2):
        right = {shard: volume.of(segment, shard).objects.pop(key_of(segment, shard)) for shard in lost}
        volume.forget()
        healed = await volume.store.heal(replace(segment, missing=frozenset(lost)), lost)
        assert healed.missing == frozenset()
        assert {shard: volume.of(segment, shard).objects[key_of(segment, shard)] for shard in lost} == right
        assert len(volume.gets()) == 5
        assert sum(size for _, _, size in volume.gets()) < 1.02 * segment.length


# --- moving --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("size", [10, 400_000])
async def test_a_shard_is_copied_byte_for_byte_or_rebuilt(code: Code, size: int) -> None:
    volume = Volume(code, code.n + 1)
    segment, _ = await volume.store.write_segment(chunks(noise(size), noise(size, 2)))
    target = min(volume.buckets.keys() - set(segment.placement))
    for shard in range(segment.code.n):
        key = key_of(segment, shard)
        right = volume.of(segment, shard).objects[key]
        copied = await volume.store.copy_shard(segment, shard, target)
        assert (copied.length, copied.rebuilt) == (len(right), False)
        assert volume.buckets[target].objects.pop(key) == right
        volume.damage(segment, shard, 300)
        assert (await volume.store.copy_shard(segment, shard, target)).rebuilt
        assert volume.buckets[target].objects.pop(key) == right
        del volume.of(segment, shard).objects[key]
        assert (await volume.store.copy_shard(segment, shard, target)).rebuilt
        assert volume.buckets[target].objects.pop(key) == right
        volume.of(segment, shard).objects[key] = right


async def test_a_shard_that_nobody_can_rebuild_is_not_copied() -> None:
    volume = Volume(Code(2, 1), 4)
    segment, _ = await volume.store.write_segment(chunks(noise(300_000)))
    for shard in (0, 1):
        del volume.of(segment, shard).objects[key_of(segment, shard)]
    (target,) = volume.buckets.keys() - set(segment.placement)
    with pytest.raises(NotEnoughShards):
        await volume.store.copy_shard(segment, 0, target)
    volume.gate.close("lost")
    with pytest.raises(ReadOnly):
        await volume.store.copy_shard(segment, 2, target)
    assert volume.buckets[target].objects == {}
