"""The patch of a manifest: where the chunks that were frozen at its cut have been placed.

Owns its bytes: segments first, then placements, big-endian, in parts of at most one blob.  Promises
that decoding what was encoded gives the same records, and Corrupt for anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from objfs.errors import Corrupt
from objfs.model import (
    ChunkId,
    Code,
    Location,
    Placed,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
)
from objfs.volume.blobs import BLOB_MAX, check_segment

VERSION = 1
_HEAD = struct.Struct(">BII")
"""Version, number of segments, number of placements."""
_SEGMENT = struct.Struct(">Q16sBIBBQIBB")
"""Row number, uuid, kind, key id, k, m, length, generation, shards placed, shards missing."""
_PLACED = struct.Struct(">QQQIHI32s")
"""Chunk version, segment row number, position, first frame, frames, size, identity."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Segments by row number, and the placements that refer to them."""

    segments: Mapping[SegmentNo, Segment]
    placed: Sequence[Placed]

    def __bool__(self) -> bool:
        return bool(self.placed)


def encode(patch: Patch, limit: int = BLOB_MAX) -> list[bytes]:
    """The patch in parts of at most ``limit`` bytes each, every part with the segments it needs."""
    parts: list[_Part] = []
    for placed in patch.placed:
        number = placed.location.segment
        if not parts or not parts[-1].fits(placed, patch.segments[number], limit):
            parts.append(_Part())
        parts[-1].add(placed, patch.segments[number])
    return [part.finish() for part in parts]


def decode(parts: Iterable[bytes]) -> Patch:
    """Raises Corrupt."""
    segments: dict[SegmentNo, Segment] = {}
    placed: list[Placed] = []
    for part in parts:
        try:
            _decode_part(part, segments, placed)
        except (struct.error, ValueError):
            raise Corrupt("patch: cut short or malformed") from None
    return Patch(segments, placed)


class _Part:
    def __init__(self) -> None:
        self._segments: dict[SegmentNo, bytes] = {}
        self._placed: list[bytes] = []
        self._size = _HEAD.size

    def fits(self, placed: Placed, segment: Segment, limit: int) -> bool:
        more = _PLACED.size + 4 * len(placed.location.frames)
        if placed.location.segment not in self._segments:
            more += len(_pack_segment(placed.location.segment, segment))
        return self._size + more <= limit

    def add(self, placed: Placed, segment: Segment) -> None:
        location = placed.location
        if location.segment not in self._segments:
            packed = _pack_segment(location.segment, segment)
            self._segments[location.segment] = packed
            self._size += len(packed)
        frames = location.frames
        head = _PLACED.pack(
            placed.chunk,
            location.segment,
            location.position,
            location.first_frame,
            len(frames),
            location.size,
            location.identity,
        )
        self._placed.append(head + struct.pack(f">{len(frames)}I", *frames))
        self._size += len(self._placed[-1])

    def finish(self) -> bytes:
        head = _HEAD.pack(VERSION, len(self._segments), len(self._placed))
        return head + b"".join(self._segments.values()) + b"".join(self._placed)


def _pack_segment(number: SegmentNo, segment: Segment) -> bytes:
    head = _SEGMENT.pack(
        number,
        segment.uuid,
        segment.kind,
        segment.key_id,
        segment.code.k,
        segment.code.m,
        segment.length,
        segment.generation,
        len(segment.placement),
        len(segment.missing),
    )
    cuts = struct.pack(f">{len(segment.cuts)}Q", *segment.cuts)
    return head + cuts + bytes(segment.placement) + bytes(sorted(segment.missing))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)


def _decode_part(data: bytes, segments: dict[SegmentNo, Segment], placed: list[Placed]) -> None:
    reader = _Reader(data)
    version, segment_count, placed_count = reader.take(_HEAD)
    if version != VERSION:
        raise Corrupt(f"patch: version {version} is unknown")
    for _ in range(segment_count):
        number, segment = _read_segment(reader)
        segments[number] = segment
    placed.extend(_read_placed(reader, placed_count, segments))
    if not reader.ended:
        raise Corrupt("patch: bytes are left over")


def _read_segment(reader: _Reader) -> tuple[SegmentNo, Segment]:
    number, uuid, kind, key_id, k, m, length, generation, placed, missing = reader.take(_SEGMENT)
    cuts = reader.take(struct.Struct(f">{k + 1}Q"))
    placement = reader.take(struct.Struct(f">{placed}B"))
    lost = reader.take(struct.Struct(f">{missing}B"))
    segment = Segment(
        uuid,
        SegmentKind(kind),
        key_id,
        Code(k, m),
        length,
        cuts,
        tuple(Slot(slot) for slot in placement),
        frozenset(lost),
        generation,
    )
    check_segment(segment, "patch")
    return SegmentNo(number), segment


def _read_placed(reader: _Reader, count: int, segments: Mapping[SegmentNo, Segment]) -> Iterator[Placed]:
    for _ in range(count):
        chunk, number, position, first_frame, frame_count, size, identity = reader.take(_PLACED)
        if number not in segments:
            raise Corrupt(f"patch: chunk {chunk} lies in segment {number}, which it does not name")
        frames = reader.take(struct.Struct(f">{frame_count}I"))
        location = Location(SegmentNo(number), position, first_frame, frames, size, identity)
        yield Placed(ChunkId(chunk), location)
