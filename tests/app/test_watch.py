"""The loop-lag gauge names the operation that held the loop."""

from __future__ import annotations

import time

import trio

from objfs.app.watch import LoopWatch
from objfs.fs.ports import OPERATION


def test_the_longest_step_and_its_operation() -> None:
    watch = LoopWatch()

    async def busy() -> None:
        OPERATION.set("readdir")
        end = time.perf_counter() + 0.06
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(busy)

    trio.run(main, instruments=[watch])
    assert watch.lag.operation == "readdir"
    assert watch.lag.longest_s >= 0.06
    assert watch.lag.over_50ms >= 1
    watch.reset()
    assert watch.lag.longest_s == 0
