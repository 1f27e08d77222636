"""``python -m tests.fuse.mounted DIR``: the adapter over an in-memory file system, as a process of its own.

Writes ``ready`` to standard output when the mount is live, and ends when it is unmounted or when standard
input is closed (the test that started it has died); then it writes what is left of inodes and chunks.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import trio

from objfs.fs import FsSettings
from objfs.fuse import FuseSettings, Operations, Session, fuse_options
from tests.fs.memory import MemoryTables, World

CHUNK_SIZE = 65536
SOURCE = "tests, and\\more"


async def watch_input(session: Session) -> None:
    """Ends the mount when the parent is gone."""
    async with trio.lowlevel.FdStream(0) as stdin:
        while await stdin.receive_some(1024):
            pass
    session.stop()


async def serve(directory: Path, flags: list[str]) -> None:
    settings = FsSettings(CHUNK_SIZE, read_only="ro" in flags)
    world = World(settings, MemoryTables(CHUNK_SIZE, rollback=False))
    operations = Operations(world.fs, FuseSettings(xattrs="noxattr" not in flags))
    options = fuse_options(SOURCE, [flag for flag in flags if flag != "noxattr"], allow_other=True)
    session = Session(operations, directory, options)
    session.mount()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.fs.run)
            nursery.start_soon(watch_input, session)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await session.serve()
            nursery.cancel_scope.cancel()
        await world.fs.aclose()
        sys.stdout.write(f"inodes={len(world.table.inodes)} versions={len(world.table.versions)}\n")
    finally:
        session.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    trio.run(serve, Path(sys.argv[1]), sys.argv[2:])
