"""Round trips, placement of shards, and what leaves the machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from objfs.codec import encode_shards, open_shard
from objfs.errors import CodecError, Corrupt, NotEnoughShards, ReadOnly
from objfs.model import Code, SegmentKind, Slot
from tests.store.buckets import Volume, chunks, key_of, noise, text, whole

CODES = [Code(1, 0), Code(1, 1), Code(1, 2), Code(2, 1), Code(4, 2), Code(8, 3)]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 12])
@pytest.mark.parametrize("code", CODES, ids=str)
async def test_round_trip(code: Code, n: int) -> None:
    volume = Volume(code, n)
    datas = [noise(300_000), text(1 << 20), b"x", noise(131_072, 2), noise(131_073, 3)]
    segment, placed = await volume.store.write_segment(chunks(*datas))
    assert segment.code == code
    assert [one.chunk for one in placed] == [1, 2, 3, 4, 5]
    assert [one.location.identity for one in placed] == [volume.store.identify(data) for data in datas]
    assert await volume.store.read_chunks(whole(segment, placed)) == datas
    counts = sorted(len(bucket.objects) for bucket in volume.buckets.values())
    assert sum(counts) == code.n
    assert counts[-1] - counts[0] <= 1
    assert volume.store.statistics().shards_placed == code.n


async def test_frames_of_a_chunk_are_read_alone() -> None:
    volume = Volume(Code(4, 2), 6)
    data = noise(1 << 20)
    segment, (placed,) = await volume.store.write_segment(chunks(data))
    for first in range(8):
        for last in range(first, 8):
            (got,) = await volume.store.read_chunks([(segment, placed.location, first, last)])
            assert got == data[first << 17 : (last + 1) << 17]


async def test_small_segments_are_stored_as_copies() -> None:
    volume = Volume(Code(4, 2), 6)
    segment, placed = await volume.store.write_segment(chunks(b"small", b"", text(5000)))
    assert segment.code == Code(1, 2)
    assert len(set(segment.placement)) == 3
    assert await volume.store.read_chunks(whole(segment, placed)) == [b"small", b"", text(5000)]
    assert len(volume.gets()) == 1


async def test_blobs() -> None:
    volume = Volume(Code(4, 2), 6)
    for plain in (b"p", text(70_000), noise(3_000_000)):
        segment, location = await volume.store.write_blob(SegmentKind.PAGES, plain)
        assert segment.kind is SegmentKind.PAGES
        assert await volume.store.read_blob(segment, location) == plain


async def test_nothing_asked_is_nothing_read() -> None:
    assert await Volume(Code(2, 1), 3).store.read_chunks([]) == []


async def test_nothing_in_the_clear() -> None:
    """I7: no plain bytes, no identity and no equality of contents in any object."""
    volume, other = Volume(Code(4, 2), 6), Volume(Code(4, 2), 6, secret=b"o" * 32)
    datas = [noise(200_000), b"a secret line, not compressible?!" + noise(64), text(400_000)]
    _, placed = await volume.store.write_segment(chunks(*datas))
    await other.store.write_segment(chunks(*datas))
    mine = [data for bucket in volume.buckets.values() for data in bucket.objects.values()]
    for data in datas:
        for start in range(0, len(data) - 16, 997):
            assert not any(data[start : start + 16] in blob for blob in mine)
    assert not any(one.location.identity in blob for one in placed for blob in mine)
    theirs = b"".join(data[288:] for bucket in other.buckets.values() for data in bucket.objects.values())
    assert not any(blob[at : at + 16] in theirs for blob in mine for at in range(288, len(blob) - 16, 997))


async def test_the_same_chunks_written_twice_share_nothing() -> None:
    """A uuid is drawn at each sealing, so that no frame number is sealed twice under one key."""
    volume = Volume(Code(1, 0), 1)
    first, _ = await volume.store.write_segment(chunks(noise(100_000)))
    second, _ = await volume.store.write_segment(chunks(noise(100_000)))
    assert first.uuid != second.uuid
    a, b = volume.buckets[Slot(0)].objects.values()
    assert not any(a[at : at + 16] in b for at in range(288, len(a) - 16, 509))


async def test_delete_removes_every_shard() -> None:
    volume = Volume(Code(4, 2), 6)
    segment, placed = await volume.store.write_segment(chunks(noise(200_000)))
    assert await volume.store.delete_segment(segment) == set()
    assert not any(bucket.objects for bucket in volume.buckets.values())
    with pytest.raises(NotEnoughShards):
        await volume.store.read_chunks(whole(segment, placed))


async def test_index_is_found_without_the_table() -> None:
    volume = Volume(Code(4, 2), 6)
    segment, placed = await volume.store.write_segment(chunks(noise(300_000), text(5000)))
    layout, entries = await volume.store.open_index(segment.uuid.hex())
    assert layout.uuid == segment.uuid
    assert [(entry.chunk, entry.ino, entry.index) for entry in entries] == [(1, 7, 0), (2, 7, 1)]
    assert [entry.location for entry in entries] == [one.location for one in placed]
    found, _ = await volume.store.find_segment(segment.uuid.hex())
    assert found == segment


async def test_index_is_found_with_m_buckets_lost() -> None:
    volume = Volume(Code(4, 2), 6)
    segment, placed = await volume.store.write_segment(chunks(*(noise(100_000, i) for i in range(9))))
    for shard in (3, 4):
        volume.of(segment, shard).objects.clear()
    _, entries = await volume.store.open_index(segment.uuid.hex())
    assert len(entries) == 9
    found, _ = await volume.store.find_segment(segment.uuid.hex())
    assert found.missing == {3, 4}
    assert len(await volume.store.read_chunks(whole(found, placed))) == 9


async def test_of_two_generations_the_newer_one_counts() -> None:
    """A re-encoded segment: shards of its old code may still lie about."""
    volume = Volume(Code(2, 1), 6)
    segment, _ = await volume.store.write_segment(chunks(noise(300_000)))
    old, _ = await volume.store.open_index(segment.uuid.hex())
    shards = [open_shard(volume.ring, volume.of(segment, i).objects[key_of(segment, i)])[2] for i in (0, 1)]
    new = replace(old, code=Code(1, 1), cuts=(0, old.length), generation=1)
    free = [slot for slot in volume.buckets if slot not in segment.placement]
    for shard, data in enumerate(encode_shards(volume.ring.current, new, b"".join(shards))):
        volume.buckets[free[shard]].objects[key_of(segment, shard)] = data
    found, _ = await volume.store.find_segment(segment.uuid.hex())
    assert found.generation == 1
    assert found.code == Code(1, 1)


async def test_a_misplaced_object_is_not_taken_for_the_segment() -> None:
    volume = Volume(Code(1, 0), 1)
    first, _ = await volume.store.write_segment(chunks(noise(1000)))
    second, _ = await volume.store.write_segment(chunks(noise(1000)))
    objects = volume.buckets[Slot(0)].objects
    names = [name for name in objects if first.uuid.hex() in name]
    objects[names[0]] = next(data for name, data in objects.items() if second.uuid.hex() in name)
    with pytest.raises(NotEnoughShards):
        await volume.store.open_index(first.uuid.hex())


async def test_what_is_no_uuid_is_refused() -> None:
    with pytest.raises(Corrupt, match="uuid"):
        await Volume(Code(1, 0), 1).store.open_index("../label")


async def test_a_closed_gate_stops_writes_and_deletes() -> None:
    volume = Volume(Code(2, 1), 3)
    segment, placed = await volume.store.write_segment(chunks(noise(100_000)))
    volume.gate.close("the lease was lost")
    with pytest.raises(ReadOnly, match="lease"):
        await volume.store.write_segment(chunks(b"late"))
    with pytest.raises(ReadOnly, match="lease"):
        await volume.store.delete_segment(segment)
    assert await volume.store.read_chunks(whole(segment, placed)) == [noise(100_000)]


async def test_more_than_a_segment_holds_is_refused() -> None:
    volume = Volume(Code(1, 0), 1)
    with pytest.raises(CodecError):
        await volume.store.write_segment(chunks(bytes(16 * 1024 * 1024 + 1)))
    assert not volume.buckets[Slot(0)].objects
