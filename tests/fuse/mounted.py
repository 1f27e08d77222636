"""``python -m tests.fuse.mounted DIR``: the adapter over an in-memory file system, as a process of its own.

Writes ``ready`` to standard output when the mount is live, and ends when it is unmounted or when standard
input is closed (the test that started it has died); then it writes what is left of inodes and chunks.
"""

from __future__ import annotations

import ctypes
import logging
import struct
import sys
from dataclasses import replace
from pathlib import Path

import trio

from objfs.fs import AtimeRule, Caller, FsSettings
from objfs.fuse import FuseSettings, Operations, Session, fuse_options
from objfs.model import ROOT
from tests.fs.memory import MemoryTables, RealClock, World

CHUNK_SIZE = 65536
SOURCE = "tests, and\\more"


async def watch_input(session: Session) -> None:
    """Ends the mount when the parent is gone."""
    async with trio.lowlevel.FdStream(0) as stdin:
        while await stdin.receive_some(1024):
            pass
    session.stop()


OWN = ("noxattr", "noacl", "relatime", "strictatime", "nodiratime", "subdir", "helper")
"""Flags that are not for the kernel."""


def give_up_mounting() -> None:
    """Takes CAP_SYS_ADMIN off this process: mount(2) is refused, and libfuse calls its helper."""
    libc = ctypes.CDLL(None, use_errno=True)
    version_and_pid = struct.pack("II", 0x20080522, 0)
    sets = ctypes.create_string_buffer(24)
    assert libc.capget(version_and_pid, sets) == 0
    effective, *rest = struct.unpack("6I", sets.raw)
    assert libc.capset(version_and_pid, struct.pack("6I", effective & ~(1 << 21), *rest)) == 0


async def serve(directory: Path, flags: list[str]) -> None:
    rule = next((rule for rule in AtimeRule if rule in flags), AtimeRule.RELATIME)
    settings = FsSettings(CHUNK_SIZE, atime=rule, diratime="nodiratime" not in flags)
    world = World(settings, MemoryTables(CHUNK_SIZE, rollback=False), RealClock())
    if "ro" in flags:
        world.fs = world.mount(replace(world.settings, read_only=True))
    if "subdir" in flags:
        top = world.fs.mkdir(ROOT, b"top", 0o755, Caller(0, 0)).ino
        world.fs = world.mount(replace(world.settings, root=top))
    if "helper" in flags:
        give_up_mounting()
    kernel = FuseSettings(xattrs="noxattr" not in flags)
    operations = Operations(world.fs, kernel, acl="noacl" not in flags)
    options = fuse_options(SOURCE, [flag for flag in flags if flag not in OWN], allow_other=True)
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
