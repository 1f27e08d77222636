"""What a power cut may take, and what it may not (I1)."""

from __future__ import annotations

import os
import stat

from objfs.fs import Caller
from objfs.model import ROOT
from tests.fs.memory import CHUNK
from tests.fs.real import RealWorld

ROOT_USER = Caller(0, 0)


async def test_i1_overwriting_a_whole_chunk_keeps_what_was_acknowledged() -> None:
    """The new bytes are lost before they were synced: the file holds the old ones, not zeros."""
    world = RealWorld()
    acknowledged, newer = b"a" * CHUNK, b"b" * CHUNK
    handle, attr = world.fs.create(ROOT, b"f", stat.S_IFREG | 0o600, os.O_RDWR, ROOT_USER)
    await world.fs.write(handle.fh, 0, acknowledged)
    await world.fs.fsync(handle.fh)
    world.cache.cut()
    await world.fs.write(handle.fh, 0, newer)
    current = world.table.chunk_at(attr.ino, 0)
    assert current is not None

    world.power_cut(lost=current.chunk)

    reopened = await world.fs.open(attr.ino, os.O_RDONLY, ROOT_USER)
    assert await world.fs.read(reopened.fh, 0, CHUNK) == acknowledged
    world.close()


async def test_what_a_file_holds_is_counted_anew_when_ranges_are_lost() -> None:
    """Else ``du`` would go on counting what the power cut has taken."""
    world = RealWorld()
    handle, attr = world.fs.create(ROOT, b"f", stat.S_IFREG | 0o600, os.O_RDWR, ROOT_USER)
    await world.fs.write(handle.fh, 0, b"a" * 10)
    await world.fs.fsync(handle.fh)
    await world.fs.write(handle.fh, 5 * CHUNK, b"b" * 100)
    assert world.fs.getattr(attr.ino).held == 110
    newer = world.table.chunk_at(attr.ino, 5)
    assert newer is not None

    world.power_cut(lost=newer.chunk)

    assert (world.fs.getattr(attr.ino).size, world.fs.getattr(attr.ino).held) == (10, 10)
    world.close()
