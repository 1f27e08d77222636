"""The loop-lag gauge: the longest time that one step of a task kept the event loop busy.

Owns the measurement and the name that goes with it.  Costs one clock reading for each step.  A step is
what a task does between two awaits, and while it runs nobody else is answered; 50 ms is the aim.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import trio

from objfs.fs.ports import OPERATION

log = logging.getLogger(__name__)

SLOW_S = 0.05
"""A step longer than this is counted."""
WARN_S = 0.25
"""A step longer than this is logged."""


@dataclass(frozen=True, slots=True)
class LoopLag:
    """The longest step so far, in seconds, what ran in it, and how many took over 50 ms."""

    longest_s: float
    operation: str
    over_50ms: int


class LoopWatch(trio.abc.Instrument):
    """A trio instrument; give it to ``trio.run`` and read ``lag``.

    A step ends where the next one begins, or where the loop goes to wait: trio's hook for the end of a
    step would cost a call more for each.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._task: trio.lowlevel.Task | None = None
        self._longest = 0.0
        self._operation = ""
        self._over = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        now = time.perf_counter()
        if now - self._started > SLOW_S or now - self._started > self._longest:
            self._note(now - self._started)
        self._started, self._task = now, task

    def before_io_wait(self, timeout: float) -> None:
        took = time.perf_counter() - self._started
        if took > SLOW_S or took > self._longest:
            self._note(took)
        self._task = None

    def after_run(self) -> None:
        self.before_io_wait(0.0)

    def _note(self, took: float) -> None:
        """A step that is worth a look; the time between waiting and the first step is none."""
        if self._task is None:
            return
        name = operation_of(self._task)
        self._over += took >= SLOW_S
        if took > self._longest:
            self._longest, self._operation = took, name
        if took > WARN_S:
            log.warning("event loop blocked seconds=%.3f operation=%s", took, name)

    @property
    def lag(self) -> LoopLag:
        return LoopLag(self._longest, self._operation, self._over)

    def reset(self) -> None:
        """Forgets the longest step, for a measurement that begins now."""
        self._longest, self._operation, self._over = 0.0, "", 0


def operation_of(task: trio.lowlevel.Task) -> str:
    """What a task is busy with: the operation that ``fs`` noted in its context, else the task's name."""
    name = task.context.get(OPERATION)
    return name if name else str(task.name)
