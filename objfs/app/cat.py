"""A file as it was in a snapshot, read out of a volume that is mounted nowhere here.

Owns the way from a path to bytes on a stream, over a volume opened for reading: no lease is taken, nothing is
changed.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

import trio

from objfs.app.engine import Order
from objfs.app.fsck import locked_run
from objfs.app.inspect import at_path
from objfs.app.offline import working
from objfs.app.options import MountOptions
from objfs.errors import InvalidArgument
from objfs.fs import Caller, FileSystem
from objfs.model import Attr
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome

PIECE = 1024 * 1024
"""Bytes in memory at a time."""


def cat(home: VolumeHome, secret: Secret, snapshot: str, path: bytes, stream: BinaryIO) -> None:
    """Writes the file's bytes.  Raises NoSuchSnapshot, NotFound, InvalidArgument (no regular file), OSError
    of the stream, and what opening a volume and reading raise."""
    order = Order(home, secret, MountOptions(read_only=True, snapshot=snapshot))

    async def body() -> None:
        async with working(order, lambda _note: None) as engine:
            await copy_out(engine.fs, path, stream)

    locked_run(home, body)


async def copy_out(fs: FileSystem, path: bytes, stream: BinaryIO) -> None:
    """The bytes of a regular file; ``path`` begins at the root.  Raises as ``cat``."""
    attr = _regular(fs, path)
    handle = await fs.open(attr.ino, os.O_RDONLY, Caller(os.getuid(), os.getgid()))
    try:
        for offset in range(0, attr.size, PIECE):
            data = await fs.read(handle.fh, offset, min(PIECE, attr.size - offset))
            # Whoever interrupts does not wait for a reader that takes nothing.
            await trio.to_thread.run_sync(stream.write, data, abandon_on_cancel=True)
    finally:
        fs.release(handle.fh)


def _regular(fs: FileSystem, path: bytes) -> Attr:
    attr = at_path(fs, path)
    if not stat.S_ISREG(attr.mode):
        shown = path.decode(errors="backslashreplace")
        raise InvalidArgument(f"{shown} is no regular file; of a link, name what it leads to")
    return attr
