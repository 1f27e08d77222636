"""The machine's clocks, as ``model.Clock``."""

from __future__ import annotations

import time

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
