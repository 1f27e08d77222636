"""A cache on doubles, driven the way ``fs.data`` drives it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from objfs.cache import CacheSettings, ChunkCache, GroupSync
from objfs.model import Chunk, DirtyRange, Ino
from objfs.ports import ChunkTable, WriteGate
from tests.cache.doubles import MemoryLog, MemoryStore, MemoryTable, TrioClock

INO = Ino(7)
OTHER = Ino(8)
SMALL = CacheSettings(reserve_bytes=0)


class Rig:
    """Table, store and cache directory of one volume; ``cache`` can be restarted over them."""

    def __init__(self, directory: Path, settings: CacheSettings = SMALL, chunk_size: int = 1 << 20) -> None:
        self.directory = directory
        self.settings = settings
        self.chunk_size = chunk_size
        self.boot = b"first boot"
        self.table: ChunkTable = self.make_table()
        self.store = MemoryStore()
        self.log: MemoryLog | GroupSync = MemoryLog()
        self.gate = WriteGate()
        self.cache = self.start()

    def make_table(self) -> ChunkTable:
        return MemoryTable(self.chunk_size)

    @property
    def memory(self) -> MemoryTable:
        """The double, for tests that look inside."""
        assert isinstance(self.table, MemoryTable)
        return self.table

    def start(self) -> ChunkCache:
        """A new process's cache over the same directory and table."""
        self.gate = WriteGate()
        self.cache = ChunkCache(
            self.directory,
            self.chunk_size,
            self.table,
            self.log,
            self.store,
            self.settings,
            self.gate,
            TrioClock(),
            boot=self.boot,
        )
        return self.cache

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ChunkCache]:
        """The cache with its tasks."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.cache.run)
            yield self.cache
            nursery.cancel_scope.cancel()

    def row(self, index: int = 0, ino: Ino = INO) -> Chunk:
        row = self.table.chunk_at(ino, index)
        assert row is not None
        return row

    def write_now(self, index: int, offset: int, data: bytes, ino: Ino = INO) -> DirtyRange:
        """One write of one chunk, as the file system does it after ``admit``."""
        row = self.table.chunk_at(ino, index)
        if row is None:
            row = self.table.begin_chunk(ino, index, None, 0)
        elif not self.cache.writable(row):
            # With a base even where all of it is covered: a power cut may take the new bytes.
            row = self.table.begin_chunk(ino, index, row.chunk, self.cache.visible_length(row))
        written = self.cache.write(row, offset, data)
        self.table.record_write(ino, index * self.chunk_size + offset + len(data), 0, [written])
        return written

    async def write(self, index: int, offset: int, data: bytes, ino: Ino = INO) -> None:
        await self.cache.admit(len(data))
        self.write_now(index, offset, data, ino)

    def clip(self, index: int, length: int, ino: Ino = INO) -> None:
        row = self.table.chunk_at(ino, index)
        if row is None or self.cache.visible_length(row) <= length:
            return
        if self.cache.writable(row):
            self.cache.clip(row, length)
            self.table.clip_chunk(row.chunk, length)
        else:
            self.table.begin_chunk(ino, index, row.chunk, length)

    def cut_off(self, index: int, ino: Ino = INO) -> None:
        """The file ends where chunk ``index`` begins."""
        self.table.truncate(ino, index * self.chunk_size, 0, 1000)

    async def read(self, index: int, offset: int, length: int, ino: Ino = INO) -> bytes:
        row = self.table.chunk_at(ino, index)
        return bytes(length) if row is None else await self.cache.read(row, offset, length)

    def syncs(self) -> int:
        """How often the log was synced."""
        return self.log.syncs

    def disk_bytes(self) -> int:
        """What the versions' files really take; a worker may be removing some."""
        return sum(map(_allocated, self.directory.glob("??/*")))


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def damage(rig: Rig, index: int, offset: int, length: int, ino: Ino = INO) -> None:
    """Zeros where a power cut, or rot, took bytes of a version's file."""
    name = f"{rig.row(index, ino).chunk:016x}"
    (path,) = rig.directory.glob(f"??/{name}")
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes(length))
