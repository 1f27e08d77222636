"""Shard objects: every aligned range proves itself, and a lie is known by name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.codec import (
    BLOCK,
    DATA_OFFSET,
    TAG,
    IndexRef,
    KeyRing,
    Layout,
    VolumeKey,
    block_range,
    decode,
    encode_shard,
    encode_shards,
    open_blocks,
    open_header,
    open_shard,
)
from objfs.errors import CodecError, Corrupt, UnknownKey
from objfs.model import Code, Segment, SegmentKind, Slot
from tests.codec.conftest import SECRET, VOLUME, noise

KEY = VolumeKey(3, SECRET, VOLUME)
UUID = noise(16, b"uuid")


def layout_of(length: int, cuts: tuple[int, ...], m: int = 2, index: IndexRef | None = None) -> Layout:
    return Layout(UUID, SegmentKind.DATA, 3, Code(len(cuts) - 1, m), length, cuts, 7, index)


PAYLOAD = noise(200_000)
INDEX = IndexRef(199_700, 300, 12, (200, 100))
LAYOUT = layout_of(200_000, (0, 90_000, 150_000, 200_000), index=INDEX)
OBJECTS = encode_shards(KEY, LAYOUT, PAYLOAD)


def test_every_shard_opens_and_carries_the_whole_layout(ring: KeyRing) -> None:
    for number, data in enumerate(OBJECTS):
        layout, shard, stored = open_shard(ring, data)
        assert (layout, shard) == (LAYOUT, number)
        assert len(stored) == LAYOUT.shard_length(number)
        assert len(data) == LAYOUT.object_size(number)
        assert open_header(KEY, data[:DATA_OFFSET]) == (LAYOUT, number)
        assert encode_shard(KEY, LAYOUT, number, stored) == data


def test_data_shards_are_the_payload_and_any_three_rebuild_it(ring: KeyRing) -> None:
    stored = [open_shard(ring, data)[2] for data in OBJECTS]
    assert b"".join(stored[:3]) == PAYLOAD
    padded = {i: stored[i].ljust(LAYOUT.longest, b"\0") for i in (1, 3, 4)}
    rebuilt = decode(3, 2, padded)
    assert b"".join(d[: LAYOUT.shard_length(i)] for i, d in enumerate(rebuilt)) == PAYLOAD


def test_copies_hold_the_whole_payload(ring: KeyRing) -> None:
    layout = layout_of(1000, (0, 1000))
    objects = encode_shards(KEY, layout, PAYLOAD[:1000])
    assert [open_shard(ring, data)[2] for data in objects] == [PAYLOAD[:1000]] * 3
    assert len(set(objects)) == 3


@given(st.integers(0, 4), st.integers(0, 90_000), st.integers(0, 90_000))
def test_any_range_is_found_in_its_blocks(shard: int, a: int, b: int) -> None:
    start, end = sorted((a, b))
    span = block_range(LAYOUT, shard, start, end)
    stored = open_shard(KEY, OBJECTS[shard])[2]
    opened = open_blocks(KEY, LAYOUT, shard, span.first_block, OBJECTS[shard][span.start : span.end])
    within = start - span.first_block * BLOCK
    assert opened[max(within, 0) :][: end - start] == stored[start:end]
    assert span.end - span.start <= (end - start) + 2 * BLOCK + TAG * (2 + (end - start) // BLOCK + 1)


def test_a_lying_block_is_named() -> None:
    data = bytearray(OBJECTS[1])
    data[DATA_OFFSET + BLOCK + TAG + 5] ^= 1
    with pytest.raises(Corrupt, match=f"{UUID.hex()} shard 1 block 1"):
        open_shard(KEY, bytes(data))
    span = block_range(LAYOUT, 1, 0, BLOCK)
    assert open_blocks(KEY, LAYOUT, 1, 0, data[span.start : span.end]) == PAYLOAD[90_000 : 90_000 + BLOCK]


def test_a_block_of_another_place_is_refused() -> None:
    span = block_range(LAYOUT, 0, 0, BLOCK)
    block = OBJECTS[0][span.start : span.end]
    other = replace(LAYOUT, uuid=bytes(16))
    for layout, shard, number in ((LAYOUT, 0, 1), (LAYOUT, 1, 0), (other, 0, 0)):
        with pytest.raises(Corrupt):
            open_blocks(KEY, layout, shard, number, block)
    with pytest.raises(Corrupt):
        open_blocks(KEY, LAYOUT, 0, 1000, block)


@given(st.integers(0, 4), st.integers(0, 10**6), st.integers(0, 7))
def test_any_flipped_bit_is_noticed(shard: int, at: int, bit: int) -> None:
    data = bytearray(OBJECTS[shard])
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(CodecError):
        open_shard(KEY, bytes(data))


@given(st.integers(0, 4), st.integers(0, 10**6))
def test_any_truncation_is_noticed(shard: int, at: int) -> None:
    with pytest.raises(CodecError):
        open_shard(KEY, OBJECTS[shard][: at % len(OBJECTS[shard])])
    with pytest.raises(CodecError):
        open_shard(KEY, OBJECTS[shard] + b"\0")


@given(st.binary(max_size=400))
def test_random_bytes_raise_only_codec_errors(data: bytes) -> None:
    for candidate in (data, OBJECTS[0][:32] + data, OBJECTS[0][:100] + data):
        with pytest.raises(CodecError):
            open_shard(KEY, candidate)
    with pytest.raises(CodecError):
        open_blocks(KEY, LAYOUT, 0, 0, data or b"x")


def test_a_ring_without_the_key_says_so() -> None:
    with pytest.raises(UnknownKey):
        open_header(KeyRing(VOLUME, {5: SECRET}, 5), OBJECTS[0])
    with pytest.raises(Corrupt):
        open_header(VolumeKey(5, SECRET, VOLUME), OBJECTS[0])


def test_locate_finds_the_shard_and_refuses_what_crosses() -> None:
    assert LAYOUT.locate(0, 90_000) == (0, 0)
    assert LAYOUT.locate(90_000, 90_001) == (1, 0)
    assert LAYOUT.locate(199_999, 200_000) == (2, 49_999)
    for start, end in ((89_999, 90_001), (0, 200_001), (5, 4), (-1, 4)):
        with pytest.raises(Corrupt):
            LAYOUT.locate(start, end)


def test_shards_may_be_empty(ring: KeyRing) -> None:
    layout = layout_of(100, (0, 0, 100, 100))
    objects = encode_shards(KEY, layout, PAYLOAD[:100])
    assert [len(open_shard(ring, data)[2]) for data in objects] == [0, 100, 0, 100, 100]
    assert layout.locate(0, 100) == (1, 0)


def test_a_layout_from_the_inode_table_reads_the_same() -> None:
    segment = Segment(
        UUID, SegmentKind.DATA, 3, Code(3, 2), 200_000, LAYOUT.cuts, (Slot(0),) * 5, generation=7
    )
    assert Layout.from_segment(segment) == replace(LAYOUT, index=None)


@pytest.mark.parametrize(
    "layout",
    [
        replace(LAYOUT, cuts=(0, 90_000, 200_000)),
        replace(LAYOUT, cuts=(0, 90_000, 80_000, 200_000)),
        replace(LAYOUT, cuts=(0, 1, 2, 3)),
        replace(LAYOUT, length=5),
        replace(LAYOUT, key_id=4),
        replace(LAYOUT, index=replace(INDEX, position=0)),
        replace(LAYOUT, index=replace(INDEX, frames=(20,) * 15)),
    ],
)
def test_impossible_layouts_are_not_written(layout: Layout) -> None:
    with pytest.raises(CodecError):
        encode_shards(KEY, layout, PAYLOAD)


@settings(max_examples=30)
@given(st.integers(1, 32), st.integers(0, 16), st.data())
def test_the_header_holds_every_code(k: int, m: int, data: st.DataObject) -> None:
    inner = sorted(data.draw(st.lists(st.integers(0, 5000), min_size=k - 1, max_size=k - 1)))
    index = IndexRef(5000 - 8 * 20, 8 * 20, 2**32 - 1, (20,) * 8)
    layout = layout_of(5000, (0, *inner, 5000), m, index)
    for number, made in enumerate(encode_shards(KEY, layout, PAYLOAD[:5000])):
        assert open_header(KEY, made) == (layout, number)
