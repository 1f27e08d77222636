"""From chunks to shards and back, also from what is left of the shards alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.codec import (
    COPY_LIMIT,
    MAX_CHUNKS,
    FrameSealer,
    IndexEntry,
    Layout,
    SegmentBuilder,
    VolumeKey,
    choose_cuts,
    encode_shards,
    frame_span,
    identify,
    open_chunk_frames,
    open_shard,
    read_index,
    rebuild,
    segment,
)
from objfs.codec.index import pack_index, unpack_index
from objfs.errors import CodecError, Corrupt
from objfs.model import FRAME_SIZE, ChunkId, Code, Ino, SegmentKind
from tests.codec.conftest import SECRET, VOLUME, noise

KEY = VolumeKey(3, SECRET, VOLUME)
UUID = noise(16, b"segment")

CHUNKS = [
    noise(1_000_000, b"1"),
    b"compressible " * 50_000,
    noise(5, b"2"),
    noise(FRAME_SIZE, b"3"),
    noise(FRAME_SIZE + 1, b"4"),
    b"",
    bytes(300_000),
]


def build(chunks: list[bytes], code: Code) -> tuple[Layout, bytes, list[IndexEntry]]:
    builder = SegmentBuilder(KEY, UUID, SegmentKind.DATA, 8 << 20)
    entries = []
    for number, data in enumerate(chunks):
        location = builder.add(ChunkId(number + 10), Ino(number), number * 2, data, identify(KEY, data))
        entries.append(IndexEntry(ChunkId(number + 10), Ino(number), number * 2, location))
    assert builder.size == sum(entry.location.length for entry in entries)
    return *builder.finish(code), entries


def index_of(layout: Layout, payload: bytes) -> list[IndexEntry]:
    assert layout.index is not None
    return read_index(KEY, layout, payload[layout.index.position :])


@pytest.mark.parametrize("code", [Code(1, 0), Code(1, 2), Code(2, 1), Code(4, 2), Code(32, 16)])
def test_chunks_come_back_from_shards_alone(code: Code) -> None:
    layout, payload, entries = build(CHUNKS, code)
    shards = [open_shard(KEY, data) for data in encode_shards(KEY, layout, payload)]
    survivors = {n: s.ljust(layout.longest, b"\0") for _, n, s in shards[-code.k :]}
    found = shards[-1][0]
    data = rebuild(code.k, code.m, survivors, range(code.k))
    again = b"".join(bytes(d[: found.shard_length(i)]) for i, d in enumerate(data))
    assert again == payload
    assert index_of(found, again) == entries
    for entry, plain in zip(entries, CHUNKS, strict=True):
        at = entry.location
        if plain:
            sealed = again[at.position : at.position + at.length]
            assert open_chunk_frames(KEY, UUID, found.kind, at, 0, len(at.frames) - 1, sealed) == plain


def test_one_frame_is_read_alone_and_never_crosses_a_cut() -> None:
    layout, payload, entries = build(CHUNKS, Code(4, 2))
    for entry, plain in zip(entries, CHUNKS, strict=True):
        for number in range(len(entry.location.frames)):
            start, end = frame_span(entry.location, number, number)
            shard, offset = layout.locate(start, end)
            assert layout.cuts[shard] + offset == start
            opened = open_chunk_frames(
                KEY, UUID, layout.kind, entry.location, number, number, payload[start:end]
            )
            assert opened == plain[number * FRAME_SIZE : (number + 1) * FRAME_SIZE]


def test_frames_of_another_place_or_length_are_refused() -> None:
    layout, payload, entries = build(CHUNKS, Code(4, 2))
    at = entries[0].location
    one = payload[at.position : at.position + at.frames[0]]
    for first, last, data in (
        (1, 1, one),
        (0, 0, one[:-1]),
        (0, 1, one),
        (-1, 0, one),
        (0, 99, one),
        (1, 0, b""),
    ):
        with pytest.raises(Corrupt):
            open_chunk_frames(KEY, UUID, layout.kind, at, first, last, data)


def test_small_payloads_become_copies() -> None:
    layout, payload, _ = build([b"small"], Code(4, 2))
    assert len(payload) < COPY_LIMIT
    assert layout.code == Code(1, 2)
    assert layout.cuts == (0, len(payload))
    big, payload, _ = build([noise(COPY_LIMIT)], Code(4, 2))
    assert big.code == Code(4, 2)


def test_a_segment_is_full_at_its_target() -> None:
    builder = SegmentBuilder(KEY, UUID, SegmentKind.DATA, 1000)
    builder.add(ChunkId(1), Ino(1), 0, noise(500), bytes(32))
    assert not builder.full
    builder.add(ChunkId(2), Ino(1), 1, noise(500), bytes(32))
    assert builder.full


def test_a_segment_is_full_at_its_number_of_chunks() -> None:
    builder = SegmentBuilder(KEY, UUID, SegmentKind.DATA, 8 << 20)
    for number in range(MAX_CHUNKS):
        assert not builder.full
        builder.add(ChunkId(number), Ino(1), number, b"x", bytes(32))
    assert builder.full
    with pytest.raises(CodecError):
        builder.add(ChunkId(0), Ino(1), 0, b"x", bytes(32))
    layout, payload = builder.finish(Code(4, 2))
    assert [entry.chunk for entry in index_of(layout, payload)] == list(range(MAX_CHUNKS))


def test_a_segment_is_full_when_its_index_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "MAX_INDEX_BYTES", 3 * 586)  # really reached after 28 GiB of zeros
    builder = SegmentBuilder(KEY, UUID, SegmentKind.DATA, 1 << 30)
    added = 0
    while not builder.full:
        builder.add(ChunkId(added), Ino(1), added, bytes(16 << 20), bytes(32))
        added += 1
    assert added == 2
    layout, payload = builder.finish(Code(2, 1))
    assert len(index_of(layout, payload)) == added


def test_a_finished_segment_takes_nothing_more() -> None:
    builder = SegmentBuilder(KEY, UUID, SegmentKind.DATA, 1000)
    builder.finish(Code(1, 1))
    with pytest.raises(CodecError):
        builder.finish(Code(1, 1))
    with pytest.raises(CodecError):
        builder.add(ChunkId(1), Ino(1), 0, b"x", bytes(32))


@given(st.lists(st.integers(18, 131_089), max_size=60), st.integers(1, 32))
def test_cuts_are_the_nearest_frame_boundaries(frames: list[int], k: int) -> None:
    bounds = [0, *itertools.accumulate(frames)]
    cuts = choose_cuts(frames, k)
    assert len(cuts) == k + 1
    assert (cuts[0], cuts[-1]) == (0, bounds[-1])
    assert list(cuts) == sorted(cuts)
    for i, cut in enumerate(cuts[1:-1], 1):
        best = min(abs(bound * k - i * bounds[-1]) for bound in bounds)
        assert cut in bounds
        assert abs(cut * k - i * bounds[-1]) == best


@settings(max_examples=30)
@given(st.binary(max_size=400))
def test_random_indices_raise_only_codec_errors(data: bytes) -> None:
    for candidate in (data, b"\0\0\0\1" + data, b"\xff\xff\xff\xff" + data):
        try:
            assert pack_index(unpack_index(candidate)) == candidate
        except CodecError:
            continue


def test_a_damaged_index_is_refused() -> None:
    layout, payload, entries = build(CHUNKS, Code(1, 1))
    plain = pack_index(entries)
    assert unpack_index(plain) == entries
    for cut in range(len(plain)):
        with pytest.raises(CodecError):
            unpack_index(plain[:cut])
    with pytest.raises(CodecError):
        unpack_index(plain + b"\0")
    with pytest.raises(CodecError):
        read_index(KEY, layout, payload)


def test_an_index_may_not_point_outside_its_segment() -> None:
    layout, _, entries = build([b"x" * 100], Code(1, 1))
    index = layout.index
    assert index is not None
    evil = pack_index([IndexEntry(e.chunk, e.ino, e.index, e.location) for e in entries])
    evil = evil[:28] + (2**63).to_bytes(8, "big") + evil[36:]
    sealed = FrameSealer(KEY, UUID, SegmentKind.DATA).seal(index.first_frame, evil)
    end = index.position + len(sealed)
    ref = replace(index, length=len(sealed), frames=(len(sealed),))
    forged = Layout(UUID, SegmentKind.DATA, 3, Code(1, 1), end, (0, end), 0, ref)
    with pytest.raises(Corrupt, match="outside"):
        read_index(KEY, forged, sealed)
