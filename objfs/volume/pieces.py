"""Chunks of files on their way out of the buckets: in which order, how many at once, and what cannot be had.

Owns the grouping: pieces of one segment are asked for together, so that what is fetched of a segment serves
all of them, also to rebuild shards that are missing.  Promises that one piece which cannot be read spoils no
other.  Knows no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from objfs.errors import BucketError, CodecError, StoreError
from objfs.fs import Tables
from objfs.model import FRAME_SIZE, Attr, Chunk, Location, Segment, SegmentNo
from objfs.store.store import SegmentStore, Wanted

Owner = TypeVar("Owner")

READ_BYTES = 8 << 20
"""Plain bytes of one read: no other segment is begun beyond these, and twice as many are never exceeded by
more than a chunk."""
CHUNKS = 1024
"""Rows of the block map that are read at once."""
SEGMENTS = 4096
"""Rows of segments that are remembered."""


class Part(NamedTuple):
    """The first ``length`` bytes of a stored chunk, which begin at ``offset`` of the file."""

    segment: Segment
    location: Location
    offset: int
    length: int

    @property
    def wanted(self) -> Wanted:
        return self.segment, self.location, 0, -(-self.length // FRAME_SIZE) - 1


@dataclass(frozen=True, slots=True)
class Piece(Generic[Owner]):
    """A part, and whose it is."""

    owner: Owner
    part: Part

    @property
    def place(self) -> tuple[SegmentNo, int]:
        return self.part.location.segment, self.part.location.position


class Parts:
    """The parts of files, from the rows of one moment.  Blocking."""

    def __init__(self, table: Tables, chunk_size: int) -> None:
        self._table = table
        self._size = chunk_size
        self._segments: dict[SegmentNo, Segment] = {}

    def of(self, attr: Attr) -> Iterator[Part]:
        """In order; holes have none.  Raises StoreError for a chunk that was never stored."""
        index = 0
        last = (attr.size - 1) // self._size
        while index <= last and (batch := self._table.chunks_between(attr.ino, index, last, CHUNKS)):
            for chunk in batch:
                yield self._part(chunk, attr.size)
            index = batch[-1].index + 1

    def _part(self, chunk: Chunk, size: int) -> Part:
        offset, location = chunk.index * self._size, chunk.location
        if location is None:
            raise StoreError(f"bytes from {offset} on were never stored in the buckets")
        return Part(self._segment(location.segment), location, offset, min(location.size, size - offset))

    def _segment(self, number: SegmentNo) -> Segment:
        found = self._segments.get(number)
        if found is None:
            if len(self._segments) >= SEGMENTS:
                self._segments.clear()
            found = self._segments[number] = self._table.segment(number)
        return found


def reads(pieces: Iterable[Piece[Owner]]) -> Iterator[list[Piece[Owner]]]:
    """Groups of pieces that follow each other, each to be read with one call."""
    group: list[Piece[Owner]] = []
    nbytes = 0
    for piece in pieces:
        new = bool(group) and piece.part.location.segment != group[-1].part.location.segment
        if group and nbytes >= (READ_BYTES if new else 2 * READ_BYTES):
            yield group
            group, nbytes = [], 0
        group.append(piece)
        nbytes += piece.part.length
    if group:
        yield group


class Unread(NamedTuple):
    """Why a piece has no bytes."""

    why: str


async def read(store: SegmentStore, parts: Sequence[Part]) -> list[bytes | Unread]:
    """The bytes of each part, in order."""
    if not parts:
        return []
    try:
        data = await store.read_chunks([part.wanted for part in parts])
    except (StoreError, CodecError, BucketError) as error:
        if len(parts) == 1:
            return [Unread(str(error))]
        half = len(parts) // 2
        return await read(store, parts[:half]) + await read(store, parts[half:])
    return [found[: part.length] for found, part in zip(data, parts, strict=True)]
