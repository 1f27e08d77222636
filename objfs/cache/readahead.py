"""What will be read next.

Owns the detectors: per file (each read begins where the last one ended) and per segment (misses walk
through it in order of position, as they do when small files written together are read together).
Promises that a first read, and a read that continues nothing, asks for no more than itself.
Does no input or output.
"""

from __future__ import annotations

from cachetools import LRUCache

from objfs.model import FRAME_SIZE, Ino, SegmentNo

_FIRST_WINDOW = 1024 * 1024
_FIRST_STEP = 256 * 1024
_SLACK = 2 * FRAME_SIZE


class _Stream:
    """One sequential walk: where it goes on, how far ahead it looks, how far it has fetched; ``near``
    after one that came close to where it goes on, which may be chance."""

    __slots__ = ("fetched", "near", "next", "window")

    def __init__(self, position: int) -> None:
        self.next = position
        self.fetched = position
        self.window = 0
        self.near = False

    def convinced(self, position: int) -> bool:
        """Whether ``position`` continues the walk: exactly, or close to it for the second time."""
        if position == self.next or self.window or self.near:
            return True
        self.near = True
        return False

    def stop(self) -> None:
        self.window = 0
        self.near = False


class Readahead:
    """Two detectors; ``most`` is the largest window in bytes, 0 for none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: LRUCache[Ino, _Stream] = LRUCache(1024)
        self._segments: LRUCache[SegmentNo, _Stream] = LRUCache(256)

    def note_read(self, ino: Ino, start: int, end: int) -> tuple[int, int] | None:
        """A read of bytes [start, end) of a file; returns the range of the file to fetch ahead."""
        stream = self._files.get(ino)
        if stream is None or not self._most:
            self._files[ino] = _Stream(end)
            return None
        # The kernel may swap two neighbouring requests: a little disorder is still sequential.
        if not stream.next - _SLACK <= start <= stream.next + _SLACK:
            stream.next = stream.fetched = end
            stream.stop()
            return None
        if end <= stream.next:
            return None
        if not stream.convinced(start):
            stream.next = stream.fetched = end
            return None
        stream.next = end
        stream.fetched = max(stream.fetched, end)
        if stream.window and stream.fetched - end > stream.window // 2:
            return None
        stream.window = min(self._most, max(_FIRST_WINDOW, stream.window * 2))
        ahead = (stream.fetched, end + stream.window)
        stream.fetched = ahead[1]
        return ahead

    def note_miss(self, segment: SegmentNo, position: int) -> int:
        """A miss at ``position`` of a segment's payload; returns how many stored bytes after it to
        fetch in the same request (0: it continues nothing)."""
        stream = self._segments.get(segment)
        if stream is None or not self._most:
            self._segments[segment] = _Stream(position)
            return 0
        if not stream.next <= position <= stream.next + max(_SLACK, stream.window):
            stream.stop()
            return 0
        if not stream.convinced(position):
            return 0
        stream.window = min(self._most, max(_FIRST_STEP, stream.window * 2))
        return stream.window

    def fetched(self, segment: SegmentNo, end_position: int) -> None:
        """A request has covered the segment up to ``end_position``."""
        stream = self._segments.get(segment)
        if stream is None:
            self._segments[segment] = stream = _Stream(end_position)
        stream.next = end_position
