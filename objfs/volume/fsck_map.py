"""The block map against its segments: which places are possible, and what is lost with which shards.

Pure.  Knows segments, locations and the bytes of shards, and asks nobody for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from objfs.codec import (
    BLOCK,
    FRAME_OVERHEAD,
    IndexEntry,
    KeyRing,
    Layout,
    decode,
    identify,
    open_chunk_frames,
    open_shard,
    read_index,
)
from objfs.codec.seal import MAX_SEALED_FRAME
from objfs.errors import CodecError, Corrupt
from objfs.model import FRAME_SIZE, Chunk, ChunkId, Location, Segment, Slot

Span = tuple[int, int]
"""Bytes [start, end) of a chunk."""


# --- places --------------------------------------------------------------------------------


def misplaced(segment: Segment, chunks: Iterable[Chunk], chunk_size: int) -> list[tuple[Chunk, str]]:
    """Versions whose location cannot be in this segment, and why; ``chunks`` in order of position.  Of two
    that lie over each other both are suspected."""
    found: dict[ChunkId, tuple[Chunk, str]] = {}
    layout, before = Layout.from_segment(segment), None
    for chunk in chunks:
        location = chunk.location
        assert location is not None
        why = _impossible(layout, location, chunk_size)
        if not why and before is not None and _overlap(before, chunk):
            why = f"lies over chunk {before.chunk}"
            found.setdefault(before.chunk, (before, f"lies over chunk {chunk.chunk}"))
        if why:
            found[chunk.chunk] = (chunk, why)
        else:
            before = chunk
    return list(found.values())


def _impossible(layout: Layout, location: Location, chunk_size: int) -> str:
    if not 0 < location.size <= chunk_size or len(location.identity) != 32:
        return f"a size of {location.size} bytes, where a chunk has at most {chunk_size}"
    if len(location.frames) != -(-location.size // FRAME_SIZE):
        return f"{len(location.frames)} frames for {location.size} bytes"
    if not all(FRAME_OVERHEAD < length <= MAX_SEALED_FRAME for length in location.frames):
        return "a frame of an impossible length"
    try:
        for start, end in _frames(location):
            layout.locate(start, end)
    except Corrupt as error:
        return str(error)
    return ""


def _overlap(before: Chunk, chunk: Chunk) -> bool:
    """Equal chunks share a place whole; others never do."""
    one, other = before.location, chunk.location
    assert one is not None
    assert other is not None
    return other.position < one.position + one.length and one != other


def _frames(location: Location) -> Iterator[Span]:
    """Payload offsets of each frame."""
    return pairwise(accumulate(location.frames, initial=location.position))


def lost_spans(segment: Segment, gone: Collection[int], location: Location) -> list[Span]:
    """Which bytes of a chunk cannot be read when these shards are gone."""
    if segment.code.n - len(set(gone)) >= segment.code.k:
        return []
    layout = Layout.from_segment(segment)
    spans: list[Span] = []
    for number, (start, end) in enumerate(_frames(location)):
        if _readable(layout, gone, start, end):
            continue
        low, high = number * FRAME_SIZE, min((number + 1) * FRAME_SIZE, location.size)
        if spans and spans[-1][1] == low:
            low = spans.pop()[0]
        spans.append((low, high))
    return spans


def _readable(layout: Layout, gone: Collection[int], start: int, end: int) -> bool:
    """Whether a range of the payload is in a shard that is there, or in blocks that enough others give: a
    data shard that ends before a block is known to be zeros there."""
    if layout.code.k == 1:
        return False
    shard, offset = layout.locate(start, end)
    if shard not in gone:
        return True
    for block in range(offset // BLOCK, -(-(offset + end - start) // BLOCK)):
        known = sum(
            number not in gone or (number < layout.code.k and layout.shard_length(number) <= block * BLOCK)
            for number in range(layout.code.n)
        )
        if known < layout.code.k:
            return False
    return True


# --- shards as they are listed -------------------------------------------------------------


@dataclass(slots=True)
class ShardFaults:
    """What a listing shows of one segment.  ``gone`` are shards that are not where they belong with the right
    length; ``short`` those of them that are there with another length (bytes), ``moved`` those that another
    bucket has (its slot); ``found`` those thought missing that are there; ``unseen`` those in buckets that
    were not listed."""

    gone: set[int] = field(default_factory=set)
    short: dict[int, int] = field(default_factory=dict)
    moved: dict[int, Slot] = field(default_factory=dict)
    found: set[int] = field(default_factory=set)
    unseen: set[int] = field(default_factory=set)


def shard_faults(
    segment: Segment, listed: Mapping[Slot, Mapping[int, int]], seen: Collection[Slot]
) -> ShardFaults:
    """Compares a segment with what the buckets ``seen`` list of it: slot -> shard -> bytes."""
    layout, faults = Layout.from_segment(segment), ShardFaults()
    for shard in range(segment.code.n):
        slot, right = segment.placement[shard], layout.object_size(shard)
        size = listed.get(slot, {}).get(shard)
        if size == right:
            faults.found |= {shard} & segment.missing
            continue
        if slot not in seen and shard not in segment.missing:
            faults.unseen.add(shard)
            continue
        faults.gone.add(shard)
        if size is not None:
            faults.short[shard] = size
        elsewhere = [
            other for other, shards in listed.items() if other != slot and shards.get(shard) == right
        ]
        if elsewhere:
            faults.moved[shard] = min(elsewhere)
    return faults


# --- shards as they are read ---------------------------------------------------------------


@dataclass(slots=True)
class Examined:
    """What reading all shards of a segment shows: shards that lie, with the reason; chunks that do not open
    at their place, with the reason; what its own index says; ``whole`` False where too few are sound."""

    damaged: dict[int, str] = field(default_factory=dict)
    wrong: dict[ChunkId, str] = field(default_factory=dict)
    index: list[IndexEntry] = field(default_factory=list)
    whole: bool = True


def examine(
    ring: KeyRing, segment: Segment, objects: Mapping[int, bytes], chunks: Sequence[Chunk]
) -> Examined:
    """Verifies every tag of the objects (shard -> bytes), and opens every chunk from the payload."""
    found = Examined()
    sound: dict[int, bytes] = {}
    layout: Layout | None = None
    for shard, data in objects.items():
        try:
            layout, sound[shard] = _open(ring, segment, shard, data)
        except CodecError as error:
            found.damaged[shard] = str(error)
    if layout is None or len(sound) < segment.code.k:
        found.whole = False
        return found
    payload = _payload(layout, sound)
    key = ring.get(segment.key_id)
    for chunk in chunks:
        why = _open_chunk(ring, segment, payload, chunk)
        if why:
            found.wrong[chunk.chunk] = why
    if layout.index is not None:
        found.index = read_index(key, layout, payload[layout.index.position :])
    return found


def _open(ring: KeyRing, segment: Segment, shard: int, data: bytes) -> tuple[Layout, bytes]:
    layout, number, stored = open_shard(ring, data)
    expected = Layout.from_segment(segment)
    if number != shard or (layout.uuid, layout.code, layout.cuts, layout.key_id) != (
        expected.uuid, expected.code, expected.cuts, expected.key_id
    ):  # fmt: skip
        raise Corrupt(f"the object holds shard {number} of segment {layout.uuid.hex()}, laid out otherwise")
    return layout, stored


def _payload(layout: Layout, sound: Mapping[int, bytes]) -> bytes:
    """From any k shards."""
    k = layout.code.k
    if k == 1:
        return next(iter(sound.values()))
    lengths = [layout.shard_length(shard) for shard in range(k)]
    if all(shard in sound for shard in range(k)):
        return b"".join(sound[shard] for shard in range(k))
    padded = {shard: data.ljust(layout.longest, b"\0") for shard, data in sound.items()}
    data = decode(k, layout.code.m, padded)
    return b"".join(part[:length] for part, length in zip(data, lengths, strict=True))


def _open_chunk(ring: KeyRing, segment: Segment, payload: bytes, chunk: Chunk) -> str:
    """Why a chunk is not what its row says; empty where it is."""
    location = chunk.location
    assert location is not None
    key = ring.get(segment.key_id)
    sealed = payload[location.position : location.position + location.length]
    try:
        plain = open_chunk_frames(
            key, segment.uuid, segment.kind, location, 0, len(location.frames) - 1, sealed
        )
    except CodecError as error:
        return str(error)
    return "" if identify(key, plain) == location.identity else "its bytes are not those that were stored"
