"""Where the computing of the store runs: small work at once, the rest in worker threads.

Owns the border between both.  Promises that the event loop is not held for more than a fraction of
a millisecond by one piece of work, and that no more threads compute than there are processors.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

Item = TypeVar("Item")
Result = TypeVar("Result")

INLINE_BYTES = 64 * 1024
"""Up to this many bytes are worked on where the caller is: a hop to a thread costs more."""


class Workers:
    """A limiter and the rule; several stores of a process may share one limiter."""

    def __init__(self, limiter: trio.CapacityLimiter | None = None) -> None:
        self._limiter = limiter or trio.CapacityLimiter(os.cpu_count() or 2)

    async def run(self, nbytes: int, work: Callable[[], Result]) -> Result:
        """Runs ``work``, which computes over about ``nbytes`` bytes and does nothing else."""
        if nbytes <= INLINE_BYTES:
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


async def gather(work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
    """The results for all items, worked on at once, in order.

    ``work`` must answer with values: an exception of one cancels the others and comes in a group.
    """
    if len(items) == 1:
        return [await work(items[0])]
    found: dict[int, Result] = {}

    async def one(number: int, item: Item) -> None:
        found[number] = await work(item)

    async with trio.open_nursery() as nursery:
        for number, item in enumerate(items):
            nursery.start_soon(one, number, item)
    return [found[number] for number in range(len(items))]
