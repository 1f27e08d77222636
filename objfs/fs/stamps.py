"""The clock of file times.

Owns one rule: what happens later is never stamped earlier.  With ``touch`` and utimens(NULL) the kernel
says now, and may be ahead of our clock by a part of its tick; a write after that must not look older.
Promises that a time far from now, which a program chose, moves nothing.
"""

from __future__ import annotations

from objfs.ports import Clock

TICK_NS = 10_000_000
"""The longest tick of a kernel."""


class Stamps:
    """A ``Clock`` that does not fall behind what was given as now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest = 0

    def now_ns(self) -> int:
        return max(self._clock.now_ns(), self._latest)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def given(self, time_ns: int | None) -> None:
        """Somebody set an inode's time to this."""
        if time_ns is not None and self._latest < time_ns <= self._clock.now_ns() + TICK_NS:
            self._latest = time_ns
