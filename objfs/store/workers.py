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

SEAL_INLINE = 64 * 1024
"""Up to this many plain bytes are sealed where the caller is: a hop to a thread costs more."""

READ_INLINE = 256 * 1024
"""Up to this many bytes are verified and opened where the caller is.

One frame with its blocks.  Measured on 2 cores: 150 us for a cold read of one frame, of which half
is computing; with two hops to a thread 300 us, and no more of them in parallel either.
"""


class Workers:
    """A limiter and the rule; several stores of a process may share one limiter."""

    def __init__(self, limiter: trio.CapacityLimiter | None = None) -> None:
        self._limiter = limiter or trio.CapacityLimiter(os.cpu_count() or 2)

    async def seal(self, nbytes: int, work: Callable[[], Result]) -> Result:
        """Runs ``work``, which compresses and seals about ``nbytes`` bytes."""
        return await self._run(nbytes > SEAL_INLINE, work)

    async def read(self, nbytes: int, work: Callable[[], Result]) -> Result:
        """Runs ``work``, which verifies, rebuilds or opens about ``nbytes`` bytes."""
        return await self._run(nbytes > READ_INLINE, work)

    async def _run(self, elsewhere: bool, work: Callable[[], Result]) -> Result:
        if not elsewhere:
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
