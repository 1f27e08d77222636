"""What a file holds stays exact through everything that leaves a chunk without a byte."""

from __future__ import annotations

import os
import stat

from objfs.fs import Caller
from objfs.model import ROOT, Ino
from tests.fs.memory import CHUNK
from tests.fs.real import RealWorld

ROOT_USER = Caller(0, 0)


async def made(world: RealWorld) -> tuple[int, Ino]:
    handle, attr = world.fs.create(ROOT, b"f", stat.S_IFREG | 0o600, os.O_RDWR, ROOT_USER)
    return handle.fh, attr.ino


async def test_a_chunk_cut_before_its_first_byte_and_then_cut_off() -> None:
    """It was stored as one byte, which the file had not counted: the audit of a lost machine's table, after
    that byte was subtracted, took the file for damaged."""
    world = RealWorld()
    fh, ino = await made(world)
    await world.fs.write(fh, CHUNK - 1, b"x")
    await world.fs.truncate(ino, 4, ROOT_USER)
    await world.flush()
    assert world.fs.getattr(ino).held == 0
    await world.fs.truncate(ino, 0, ROOT_USER)
    assert world.fs.getattr(ino).held == 0
    world.close()


async def test_it_reads_as_zeros_when_the_file_grows_again() -> None:
    world = RealWorld()
    fh, ino = await made(world)
    await world.fs.write(fh, CHUNK - 1, b"x")
    await world.fs.truncate(ino, 4, ROOT_USER)
    await world.fs.truncate(ino, CHUNK + 1, ROOT_USER)
    assert await world.fs.read(fh, 0, CHUNK + 1) == bytes(CHUNK + 1)
    await world.fs.write(fh, CHUNK - 2, b"yz")
    await world.flush()
    assert await world.fs.read(fh, 0, CHUNK + 1) == bytes(CHUNK - 2) + b"yz" + b"\0"
    assert world.fs.getattr(ino).held == CHUNK
    world.close()


async def test_a_chunk_of_which_a_power_cut_leaves_nothing() -> None:
    world = RealWorld()
    fh, ino = await made(world)
    await world.fs.truncate(ino, 3 * CHUNK, ROOT_USER)
    await world.fs.fsync(fh)
    await world.fs.write(fh, CHUNK, b"x")
    newer = world.table.chunk_at(ino, 1)
    assert newer is not None
    world.power_cut(lost=newer.chunk)
    await world.flush()
    await world.fs.truncate(ino, 1, ROOT_USER)
    assert (world.fs.getattr(ino).size, world.fs.getattr(ino).held) == (1, 0)
    world.close()
