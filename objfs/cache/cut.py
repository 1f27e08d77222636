"""A cut: the unplaced versions of one moment, and when all of them have reached segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import trio

from objfs.model import ChunkId, Placed, Segment, SegmentNo


@dataclass(frozen=True, slots=True)
class CutResult:
    """Where each version of the cut is now; ``segments`` has every segment that a location names."""

    segments: dict[SegmentNo, Segment]
    placed: list[Placed]


class Cut:
    """Made by ``ChunkCache.cut``; every version in it is frozen and will be uploaded, also when its
    row is deleted meanwhile."""

    def __init__(self, chunks: Iterable[ChunkId]) -> None:
        self.pending = set(chunks)
        self._segments: dict[SegmentNo, Segment] = {}
        self._placed: list[Placed] = []
        self._done = trio.Event()
        if not self.pending:
            self._done.set()

    def note(self, placed: Placed, segment: Segment) -> bool:
        """A version reached ``segment``; returns whether it was one that this cut waits for."""
        if placed.chunk not in self.pending:
            return False
        self.pending.remove(placed.chunk)
        self._placed.append(placed)
        self._segments[placed.location.segment] = segment
        if not self.pending:
            self._done.set()
        return True

    async def placed(self) -> CutResult:
        """Returns when every version is placed; locations name real segment numbers.

        Waits as long as the buckets refuse: give it a deadline where there is one.
        """
        await self._done.wait()
        return CutResult(dict(self._segments), list(self._placed))
