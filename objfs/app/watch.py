"""The loop-lag gauge: the longest time that the event loop kept everybody waiting.

Owns the measurement and the name that goes with it.  A task that wants to run every ``BEAT_S`` sees how late
it runs: as long as the step before it took, to within one beat.  trio's instruments would tell it exactly,
and cost each request 7 us of about 40 (measured beside the same loop without).  A step is what a task does
between two awaits, and while it runs nobody else is answered; 50 ms is the aim.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from objfs.ports import DOING

log = logging.getLogger(__name__)

BEAT_S = 0.02
SLOW_S = 0.05
"""A delay longer than this is counted."""
WARN_S = 0.25
"""A delay longer than this is logged."""


@dataclass(frozen=True, slots=True)
class LoopLag:
    """The longest delay so far, in seconds, what had begun last before it, and how many took over 50 ms."""

    longest_s: float
    operation: str
    over_50ms: int


class LoopWatch:
    """Read ``lag`` while ``run`` is running."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._operation = ""
        self._over = 0

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            due = trio.current_time() + BEAT_S
            await trio.sleep_until(due)
            self._note(trio.current_time() - due)

    def _note(self, late: float) -> None:
        self._over += late >= SLOW_S
        if late > self._longest:
            self._longest, self._operation = late, DOING.operation
        if late > WARN_S:
            log.warning("event loop blocked seconds=%.3f operation=%s", late, DOING.operation)

    @property
    def lag(self) -> LoopLag:
        return LoopLag(self._longest, self._operation, self._over)

    def reset(self) -> None:
        """Forgets the longest delay, for a measurement that begins now."""
        self._longest, self._operation, self._over = 0.0, "", 0
