"""What a store has done since it was made, in numbers.

Owns the names of the figures that ``status`` and the benchmarks show.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Counts since the store was made; bytes are object bytes, tags and headers included."""

    segments_written: int = 0
    segments_failed: int = 0
    segments_deleted: int = 0
    shards_placed: int = 0
    shards_diverted: int = 0
    """Of those placed: in a bucket other than planned, because that one was down or failed."""
    shards_missing: int = 0
    shards_restored: int = 0
    """Put again by healing and repair."""
    bytes_written: int = 0
    gets: int = 0
    bytes_read: int = 0
    damaged: int = 0
    """Reads of a shard that was gone, short or failed its tags."""
    unavailable: int = 0
    """Reads of a shard whose bucket did not answer in time, or refused."""
    slow: int = 0
    """Of those unavailable: given up because other shards would answer sooner."""
    reconstructed: int = 0
    """Ranges rebuilt from other shards."""
    hedges: int = 0
    """Reads for which others were asked besides, as the shard's own bucket was slower than it mostly is."""
    hedges_won: int = 0
    """Of those: the others were sooner."""
    hedge_gets: int = 0
    """Requests spent on that."""
    avoided: int = 0
    """Reads that did not ask the shard's own bucket, as it is known to be slow."""
    unreadable: int = 0
    """Ranges of which fewer than k sound shards could be had."""


class Counters:
    """Counts what becomes the frozen figures; used on the event loop's thread only."""

    def __init__(self) -> None:
        self._now: Counter[str] = Counter()

    def add(self, **figures: int) -> None:
        """Adds to the named figures."""
        for name, more in figures.items():
            self._now[name] += more

    def snapshot(self) -> StoreStatistics:
        return StoreStatistics(**self._now)
