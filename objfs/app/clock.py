"""The machine's clocks, as ``model.Clock``."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time for display, the monotonic clock for order."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()
