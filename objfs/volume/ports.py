"""What checkpoints need of the inode table, the cache and the store, and no more.

Owns the narrow ports, so that a checkpoint can be tested against small doubles.  The real ones are
``meta``'s page log and replica, ``cache.ChunkCache`` and ``store.SegmentStore``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from objfs.model import Location, Placed, Segment, SegmentKind, SegmentNo, WalMark


class PageSet(Protocol):
    """Page images of the inode table at one moment; numbers begin at 1, ``page_count`` is the whole."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_count(self) -> int: ...
    @property
    def pages(self) -> Mapping[int, bytes]: ...


class PageLog(Protocol):
    """The inode table's log of changed pages."""

    @property
    def pending(self) -> int:
        """Committed page changes that were not taken yet."""
        ...

    def mark(self) -> WalMark:
        """The present end of the log.  On the event loop's thread."""
        ...

    def take(self, mark: WalMark) -> PageSet:
        """Last image of each page changed since the take before, up to ``mark``.  Blocking."""
        ...

    def backfill(self) -> object:
        """Moves committed pages into the database file.  Blocking, bounded."""
        ...


class BlobStore(Protocol):
    """Blobs as segments in the buckets."""

    async def write_blob(self, kind: SegmentKind, plain: bytes) -> tuple[Segment, Location]: ...
    async def read_blob(self, segment: Segment, location: Location) -> bytes: ...


class CutResult(Protocol):
    """Where the versions of a cut were placed."""

    @property
    def segments(self) -> Mapping[SegmentNo, Segment]: ...
    @property
    def placed(self) -> Sequence[Placed]: ...


class Cut(Protocol):
    """The versions that were unplaced at one moment."""

    async def placed(self) -> CutResult: ...


class Dirtiness(Protocol):
    """What the cache says of itself, as far as it matters here."""

    @property
    def dirty_chunks(self) -> int: ...


class CutSource(Protocol):
    """The cache, as far as a checkpoint uses it."""

    def cut(self) -> Cut: ...
    def statistics(self) -> Dirtiness: ...


class Replica(Protocol):
    """The image of the inode table as last published.  All of it is blocking."""

    @property
    def page_count(self) -> int: ...
    @property
    def digest(self) -> int: ...
    def page(self, number: int) -> bytes:
        """An image; raises beyond the last page."""
        ...

    def apply(self, pages: PageSet) -> None: ...
    def clear(self) -> None: ...
    def compute_digest(self) -> int:
        """The digest from every page, however long it takes."""
        ...

    def digest_with(self, pages: PageSet) -> int:
        """The digest that ``apply`` of these pages would give."""
        ...


class SegmentTable(Protocol):
    """The rows of segments."""

    def segments_without_chunks(self, limit: int) -> Sequence[tuple[SegmentNo, Segment]]:
        """Placed segments to which no chunk version refers."""
        ...

    def condemn(self, numbers: Sequence[SegmentNo], sequence: int) -> Sequence[SegmentNo]:
        """Condemns those that still have no chunks; from then on no version can be placed there."""
        ...

    def condemned(self) -> Sequence[tuple[SegmentNo, Segment, int]]: ...
    def segment(self, number: SegmentNo) -> Segment: ...

    def drop_segments(self, numbers: Sequence[SegmentNo]) -> Sequence[Segment]:
        """Removes rows without chunks, and returns what they said."""
        ...
