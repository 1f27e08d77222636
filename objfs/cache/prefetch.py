"""Which frames to fetch before they are asked for.

Owns the translation of what the detectors foresee into runs of frames that are neither cached nor on
their way.  Promises that a prefetch never crowds out dirty data and never names a frame twice.
Does no input or output.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from cachetools import LRUCache

from objfs.cache.fetch import FrameFetcher, FrameRun, consecutive
from objfs.cache.readahead import Readahead
from objfs.cache.settings import CacheSettings
from objfs.cache.shelf import Shelf
from objfs.cache.space import Space
from objfs.errors import ObjfsError
from objfs.model import FRAME_SIZE, Chunk, Location, SegmentNo
from objfs.ports import ChunkTable

_MOST_CHUNKS = 256


class Scout:
    """Finds what to fetch ahead in files and in segments.  One for each tree: ``table`` says which version is
    where in it, and reads of two trees are not taken for one stream."""

    def __init__(
        self,
        shelf: Shelf,
        space: Space,
        table: ChunkTable,
        fetcher: FrameFetcher,
        settings: CacheSettings,
        chunk_size: int,
    ) -> None:
        self._shelf = shelf
        self._space = space
        self._table = table
        self._fetcher = fetcher
        self._chunk_size = chunk_size
        self._ahead = Readahead(min(settings.readahead_bytes, settings.cache_bytes // 4))
        self._contents: LRUCache[SegmentNo, list[Chunk]] = LRUCache(4)

    def with_hit(self, row: Chunk, offset: int, length: int) -> Sequence[FrameRun]:
        """After a read from the cache: what its file's stream will want next."""
        position = row.index * self._chunk_size + offset
        window = self._ahead.note_read(row.ino, position, position + length)
        return self._noted(self._file_ahead(row, *window)) if window is not None else ()

    def with_miss(self, row: Chunk, offset: int, length: int, runs: Sequence[FrameRun]) -> Sequence[FrameRun]:
        """Beside a read that must fetch ``runs``: the file's next bytes or the segment's next chunks."""
        position = row.index * self._chunk_size + offset
        window = self._ahead.note_read(row.ino, position, position + length)
        first, last = runs[0], runs[-1]
        nbytes = self._ahead.note_miss(first.location.segment, first.end_position - first.stored_length)
        extras = self._file_ahead(row, *window) if window is not None else []
        if not extras and nbytes:
            extras = self._segment_ahead(last, nbytes)
        self._noted(runs)
        return self._noted(extras)

    def _noted(self, runs: Sequence[FrameRun]) -> Sequence[FrameRun]:
        for run in runs:
            self._ahead.fetched(run.location.segment, run.end_position)
        return runs

    def _file_ahead(self, row: Chunk, start: int, end: int) -> list[FrameRun]:
        """Missing frames of bytes [start, end) of the tree's file."""
        present = self._table.chunk_at(row.ino, row.index)
        if present is None or present.chunk != row.chunk:
            return []  # overwritten meanwhile
        size = self._chunk_size
        rows = self._table.chunks_between(row.ino, start // size, (end - 1) // size, _MOST_CHUNKS)
        runs: list[FrameRun] = []
        for other in rows:
            base = other.index * size
            runs.extend(self._missing(other, max(0, start - base), end - base))
        return self._affordable(runs)

    def _segment_ahead(self, after: FrameRun, nbytes: int) -> list[FrameRun]:
        """Missing frames of what follows ``after`` in its segment."""
        begin = after.end_position
        runs: list[FrameRun] = []
        for row in self._chunks_of(after.location.segment):
            where = row.location
            if where is None or where.position + where.length <= begin:
                continue
            if where.position >= begin + nbytes:
                break
            runs.extend(self._missing(row, *_stored_between(where, begin, begin + nbytes)))
        return self._affordable(runs)

    def _chunks_of(self, number: SegmentNo) -> list[Chunk]:
        known = self._contents.get(number)
        if known is None:
            self._contents[number] = known = self._table.chunks_in_segment(number)
        return known

    def _missing(self, row: Chunk, start: int, end: int) -> list[FrameRun]:
        """The frames of [start, end) of a stored version that are not here and not on their way."""
        where = row.location
        if where is None or start >= min(end, where.size):
            return []
        try:
            segment = self._table.segment(where.segment)
        except ObjfsError:
            return []  # compacted away since the list was made
        frames = range(start // FRAME_SIZE, (min(end, where.size) - 1) // FRAME_SIZE + 1)
        absent = [frame for frame in frames if self._absent(row, where.size, frame)]
        return [FrameRun(row, where, segment, first, last) for first, last in consecutive(absent)]

    def _absent(self, row: Chunk, size: int, frame: int) -> bool:
        if self._fetcher.in_flight((row.chunk, frame)):
            return False
        entry = self._shelf.entries.get(row.chunk)
        low, high = frame * FRAME_SIZE, min(size, (frame + 1) * FRAME_SIZE)
        return entry is None or not entry.present.covers(low, high)

    def _affordable(self, runs: list[FrameRun]) -> list[FrameRun]:
        """Nothing where it could not be kept: fetching it now would only be traffic."""
        return runs if self._space.room_for(sum(run.plain_length for run in runs)) else []


def _stored_between(where: Location, begin: int, end: int) -> tuple[int, int]:
    """The plain range of a chunk whose frames touch [begin, end) of the segment's payload."""
    edges = list(accumulate(where.frames, initial=where.position))
    first = bisect_right(edges, begin, hi=len(edges) - 1) - 1
    last = bisect_left(edges, end, hi=len(edges) - 1)
    return max(first, 0) * FRAME_SIZE, min(last * FRAME_SIZE, where.size)
