"""The index at the end of every segment: which chunks it holds and where.

Owns its binary form (SPEC "Segments").  Promises that parsing never believes a count before the
bytes for it are there.  Knows nothing of sealing or shards.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from objfs.codec.seal import FRAME_OVERHEAD, MAX_SEALED_FRAME
from objfs.errors import Corrupt
from objfs.model import FRAME_SIZE, ChunkId, Ino, Location, SegmentNo

MAX_CHUNKS = 8192
MAX_INDEX_FRAMES = 8
MAX_INDEX_BYTES = MAX_INDEX_FRAMES * FRAME_SIZE

_COUNT = struct.Struct(">I")
_ENTRY = struct.Struct(">QQQQII32sH")
_FRAME = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One chunk of a segment; its location names segment 0, as the index knows no row numbers."""

    chunk: ChunkId
    ino: Ino
    index: int
    location: Location


def entry_size(frames: int) -> int:
    """Bytes that a chunk of so many frames takes in the index."""
    return _ENTRY.size + _FRAME.size * frames


def pack_index(entries: Sequence[IndexEntry]) -> bytes:
    """The plain bytes of an index, entries in order of position."""
    return _COUNT.pack(len(entries)) + b"".join(_pack_entry(entry) for entry in entries)


def _pack_entry(entry: IndexEntry) -> bytes:
    at = entry.location
    fixed = _ENTRY.pack(
        *(entry.chunk, entry.ino, entry.index),
        *(at.position, at.first_frame, at.size, at.identity, len(at.frames)),
    )
    return fixed + struct.pack(f">{len(at.frames)}I", *at.frames)


def unpack_index(data: bytes) -> list[IndexEntry]:
    """The entries of an index.  Raises Corrupt."""
    if len(data) < _COUNT.size:
        raise Corrupt("segment index is shorter than its count")
    (count,) = _COUNT.unpack_from(data)
    if count > MAX_CHUNKS:
        raise Corrupt(f"segment index claims {count} chunks, over the limit of {MAX_CHUNKS}")
    entries, offset = [], _COUNT.size
    for _ in range(count):
        entry, offset = _unpack_entry(data, offset)
        entries.append(entry)
    if offset != len(data):
        raise Corrupt(f"segment index has {len(data) - offset} bytes after its last entry")
    return entries


def _unpack_entry(data: bytes, offset: int) -> tuple[IndexEntry, int]:
    if len(data) - offset < _ENTRY.size:
        raise Corrupt("segment index ends inside an entry")
    chunk, ino, index, position, first, size, identity, count = _ENTRY.unpack_from(data, offset)
    offset += _ENTRY.size
    if len(data) - offset < count * _FRAME.size:
        raise Corrupt("segment index ends inside the frame lengths of a chunk")
    frames = struct.unpack_from(f">{count}I", data, offset)
    if count != frame_count(size) or any(not FRAME_OVERHEAD < n <= MAX_SEALED_FRAME for n in frames):
        raise Corrupt(f"segment index gives chunk {chunk} of {size} bytes impossible frames")
    location = Location(SegmentNo(0), position, first, frames, size, identity)
    return IndexEntry(ChunkId(chunk), Ino(ino), index, location), offset + count * _FRAME.size


def frame_count(size: int) -> int:
    """How many frames ``size`` plain bytes take."""
    return -(-size // FRAME_SIZE)
