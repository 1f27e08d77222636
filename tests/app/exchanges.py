"""What restores and clones need of a mount, over a file system without a kernel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from objfs.app import exchange
from objfs.app.exchange import Exchange, Replaced
from tests.fs.real import RealWorld


class Kernel:
    """Remembers what it was told to forget."""

    def __init__(self) -> None:
        self.told: list[Replaced] = []

    async def forget(self, changes: Replaced) -> None:
        self.told.append(changes)


def exchange_in(
    world: RealWorld,
    kernel: exchange.Kernel | None = None,
    sync: Callable[[], Awaitable[None]] | None = None,
) -> Exchange:
    """Of the world's one mount; ``sync`` makes its log durable, else the table does."""
    durable = sync or partial(trio.to_thread.run_sync, world.table.sync_log)
    return Exchange(world.table, world.cache, world.fs, world.gate, world.clock, durable, kernel)
