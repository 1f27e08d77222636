"""The machine's clocks, as ``model.Clock``."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time for display; for order and age a clock that never goes back, and goes on while the machine
    sleeps: a lease grows old meanwhile."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
