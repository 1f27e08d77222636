"""What is possible in a segment, and which bytes go with which shards: against what reading really gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest

from objfs.codec import Layout
from objfs.errors import NotEnoughShards
from objfs.model import Chunk, ChunkId, ChunkState, Code, Ino, Location, Placed, Segment
from objfs.volume.fsck_map import examine, lost_spans, misplaced, shard_faults
from objfs.volume.fsck_mend import batches, placed_as_listed
from tests.store.buckets import Volume, chunks, key_of, noise

SIZES = (100_000, 300_000, 10, 131_072, 262_145)
CHUNK_SIZE = 1 << 20


async def stored(code: Code) -> tuple[Volume, Segment, list[Chunk], list[bytes]]:
    volume = Volume(code, code.n)
    datas = [noise(size, size) for size in SIZES]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    return volume, segment, rows(placed), datas


def rows(placed: Sequence[Placed]) -> list[Chunk]:
    return [
        Chunk(one.chunk, Ino(7), number, ChunkState.STORED, one.location) for number, one in enumerate(placed)
    ]


@pytest.mark.parametrize("code", [Code(1, 2), Code(2, 1), Code(3, 2)], ids=str)
async def test_exactly_the_bytes_that_are_told_cannot_be_read(code: Code) -> None:
    volume, segment, found, datas = await stored(code)
    kept = {slot: dict(bucket.objects) for slot, bucket in volume.buckets.items()}
    for count in range(code.n + 1):
        for gone in combinations(range(code.n), count):
            for slot, bucket in volume.buckets.items():
                bucket.objects = dict(kept[slot])
            for shard in gone:
                del volume.of(segment, shard).objects[key_of(segment, shard)]
            for chunk, data in zip(found, datas, strict=True):
                await check_frames(volume, segment, chunk, data, gone)


async def check_frames(
    volume: Volume, segment: Segment, chunk: Chunk, data: bytes, gone: tuple[int, ...]
) -> None:
    assert chunk.location is not None
    lost = lost_spans(segment, gone, chunk.location)
    for number in range(len(chunk.location.frames)):
        start = number * 131_072
        try:
            (read,) = await volume.store.read_chunks([(segment, chunk.location, number, number)])
            readable = read == data[start : start + 131_072]
        except NotEnoughShards:
            readable = False
        assert readable is not any(low <= start < high for low, high in lost), (gone, lost)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"position": 10_000_000}, "outside"),
        ({"position": -5}, "outside"),
        ({"size": 0}, "a size of 0"),
        ({"size": CHUNK_SIZE * 2}, "at most"),
        ({"size": 200_000}, "frames for"),
        ({"frames": (5,)}, "impossible length"),
        ({"frames": (140_000,)}, "impossible length"),
        ({"identity": b"short"}, "a size of"),
        ({"position": 400_000}, "crosses a cut"),
    ],
)
async def test_impossible_places(change: dict[str, object], why: str) -> None:
    _, segment, found, _ = await stored(Code(2, 1))
    assert misplaced(segment, found, CHUNK_SIZE) == []
    assert found[0].location is not None
    broken = Chunk(ChunkId(99), Ino(7), 0, ChunkState.STORED, found[0].location._replace(**change))  # type: ignore[arg-type]
    ((chunk, said),) = misplaced(segment, [broken], CHUNK_SIZE)
    assert chunk is broken
    assert why in said


async def test_two_over_each_other_are_both_suspected_and_equal_ones_are_not() -> None:
    _, segment, found, _ = await stored(Code(2, 1))
    location = found[1].location
    assert location is not None
    twin = Chunk(ChunkId(99), Ino(8), 0, ChunkState.STORED, location)
    assert misplaced(segment, [found[0], found[1], twin, *found[2:]], CHUNK_SIZE) == []
    shifted = Chunk(
        ChunkId(99),
        Ino(8),
        0,
        ChunkState.STORED,
        Location(*location)._replace(position=5, frames=(50,), size=20),
    )
    suspects = {chunk.chunk for chunk, _ in misplaced(segment, [found[0], shifted], CHUNK_SIZE)}
    assert suspects == {found[0].chunk, 99}


async def test_a_listing_against_a_segment() -> None:
    _, segment, _, _ = await stored(Code(2, 1))
    right = [Layout.from_segment(segment).object_size(shard) for shard in range(3)]
    slots = segment.placement
    listed = {slots[shard]: {shard: right[shard]} for shard in range(3)}
    every = list(slots)
    assert shard_faults(segment, listed, every).gone == set()
    listed[slots[0]] = {}
    listed[slots[1]] = {1: 5, 0: right[0]}
    faults = shard_faults(segment, listed, every)
    assert (faults.gone, faults.short, faults.moved) == ({0, 1}, {1: 5}, {0: slots[1]})
    assert shard_faults(segment, {}, [slots[2]]).unseen == {0, 1}
    placement, missing = placed_as_listed(segment, {slots[1]: {0: right[0]}, slots[2]: {2: right[2]}})
    assert placement == (slots[1], slots[1], slots[2])
    assert missing == {1}


async def test_shards_and_chunks_that_are_not_what_they_say() -> None:
    volume, segment, found, _ = await stored(Code(2, 1))
    objects = {shard: volume.of(segment, shard).objects[key_of(segment, shard)] for shard in range(3)}
    sound = examine(volume.ring, segment, objects, found)
    assert (sound.damaged, sound.wrong, sound.whole) == ({}, {}, True)
    assert [entry.location for entry in sound.index] == [chunk.location for chunk in found]
    for lost in range(3):
        without = {shard: data for shard, data in objects.items() if shard != lost}
        assert examine(volume.ring, segment, without, found).wrong == {}
    liar = objects | {1: objects[0]}
    assert examine(volume.ring, segment, liar, found).damaged.keys() == {1}
    assert not examine(volume.ring, segment, {0: objects[0]}, found).whole
    assert found[0].location is not None
    forged = Chunk(ChunkId(5), Ino(7), 0, ChunkState.STORED, found[0].location._replace(identity=bytes(32)))
    assert examine(volume.ring, segment, objects, [forged]).wrong.keys() == {5}


def test_batches_are_of_about_the_size_that_was_asked_for() -> None:
    items = chunks(*(bytes(size) for size in (5, 5, 5, 20, 1)))
    assert [[len(item.data) for item in batch] for batch in batches(items, 10)] == [[5, 5], [5, 20], [1]]
    assert list(batches([], 10)) == []
