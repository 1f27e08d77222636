"""The machine's clocks, as ``ports.Clock``, and the time of a volume."""

from __future__ import annotations

import time

from objfs.ports import Clock

_CLOCK_REALTIME_COARSE = 5
"""``linux/time.h``; the module ``time`` has no name for it."""


class SystemClock:
    """Wall time for display and for file times, in the kernel's ticks: it is the clock by which the kernel
    says now for ``touch``, and with a finer one a file that was touched would look older than one written
    just before.  For order and age a clock that never goes back, and goes on while the machine
    sleeps: a lease grows old meanwhile."""

    def now_ns(self) -> int:
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class VolumeClock:
    """Wall time by which manifests are stamped and judged: the machine's, but never before ``floor_ns``, the
    newest manifest's, and from there it goes on.

    A machine whose clock was years ahead leaves manifests of that time behind.  Theirs is never gone back to,
    so without going on from it nothing would grow old enough to be deleted for years.
    """

    def __init__(self, clock: Clock, floor_ns: int) -> None:
        self._clock = clock
        self._floor_ns = floor_ns
        self._began = clock.monotonic()

    def now_ns(self) -> int:
        passed_ns = int((self._clock.monotonic() - self._began) * 1e9)
        return max(self._clock.now_ns(), self._floor_ns + passed_ns)

    def monotonic(self) -> float:
        return self._clock.monotonic()
