"""The loop-lag gauge tells how long the loop was held, and by what."""

from __future__ import annotations

import logging
import time

import pytest
import trio

from objfs.app.watch import BEAT_S, WARN_S, LoopWatch
from objfs.ports import DOING

HELD_S = WARN_S + 2 * BEAT_S


async def held(watch: LoopWatch) -> None:
    """The watch runs while one step holds the loop."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await trio.testing.wait_all_tasks_blocked()
        DOING.operation = "readdir"
        end = time.perf_counter() + HELD_S
        while time.perf_counter() < end:
            pass
        await trio.testing.wait_all_tasks_blocked()
        while not watch.lag.over_50ms:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


def test_the_longest_step_and_its_operation(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch()
    with caplog.at_level(logging.WARNING):
        trio.run(held, watch)
    assert watch.lag.operation == "readdir"
    assert watch.lag.longest_s >= HELD_S - BEAT_S
    assert watch.lag.over_50ms >= 1
    assert "operation=readdir" in caplog.text
    watch.reset()
    assert watch.lag.longest_s == 0
