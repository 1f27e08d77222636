"""``python -m tests.fuse.browsed DIR [show_snapshots]``: a mount with snapshots, as a process of its own.

The real inode table and cache, and a store in memory.  Writes ``ready`` when the mount is live.  Then each
line of standard input is obeyed and answered with ``done``: ``take NAME``, ``drop NAME``, ``upload``
(everything leaves the cache).  Ends when it is unmounted or when standard input is closed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from objfs.app.browse import Showing
from objfs.app.options import MountOptions
from objfs.fs import Capacity
from objfs.fuse import Operations, Session, fuse_options
from tests.fs.real import RealWorld


async def lines() -> AsyncIterator[str]:
    async with trio.lowlevel.FdStream(0) as stdin:
        kept = b""
        while data := await stdin.receive_some(1024):
            *whole, kept = (kept + data).split(b"\n")
            for line in whole:
                yield line.decode()


class Child:
    """The volume and its mount."""

    def __init__(self, world: RealWorld, session: Session) -> None:
        self._world = world
        self._session = session

    async def obey(self) -> None:
        async for line in lines():
            verb, _, name = line.partition(" ")
            if verb == "take":
                self._world.table.create_snapshot(name.encode(), self._world.clock.now_ns())
                self._world.cache.cut()
            elif verb == "drop":
                self._world.table.drop_snapshot(name.encode())
            else:
                await self._world.cache.drain()
                self._world.evict()
            sys.stdout.write("done\n")
            sys.stdout.flush()
        self._session.stop()


async def serve(directory: Path, *, listed: bool) -> None:
    world = RealWorld()
    room = Capacity(total=1 << 40, free=1 << 39, available=1 << 38, inodes_free=1 << 30)
    showing = Showing(world.table, world.cache, world.gate, world.clock, lambda: room)
    operations = Operations(world.fs, browsing=showing.browsing(MountOptions(show_snapshots=listed)))
    session = Session(operations, directory, fuse_options("browsed", ["dev", "suid"], allow_other=True))
    session.mount()
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(world.cache.run)
            nursery.start_soon(world.fs.run)
            nursery.start_soon(Child(world, session).obey)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await session.serve()
            nursery.cancel_scope.cancel()
        await world.fs.aclose()
    finally:
        session.close()
        world.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    trio.run(lambda: serve(Path(sys.argv[1]), listed="show_snapshots" in sys.argv[2:]))
