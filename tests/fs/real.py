"""A file system over the real inode table and the real chunk cache, with a store in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from objfs.cache import CacheSettings, ChunkCache, GroupSync
from objfs.fs import Capacity, FileSystem, FsSettings
from objfs.fs.ports import Removing
from objfs.meta import MetaDatabase, new_root
from objfs.model import ChunkId
from objfs.ports import WriteGate
from tests.cache.doubles import MemoryStore
from tests.fs.memory import CHUNK, CountingBarrier, RealClock

BOOT = b"one boot"


class RealWorld:
    """A volume in a temporary directory; ``restart`` is a new process over the same state.  Whoever leaves
    it must leave the inode table sound."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory(prefix="objfs-model-")
        self.path = Path(self.directory.name) / "meta.db"
        self.store = MemoryStore()
        self.clock = RealClock()
        root = new_root(0, 0, self.clock.now_ns())
        MetaDatabase.make(self.path, uuid=bytes(16), chunk_size=CHUNK, root=root, boot_id=BOOT).close()
        self.start()

    def start(self, boot: bytes = BOOT) -> None:
        self.gate = WriteGate()
        self.taken = 0
        self.table = MetaDatabase.open(self.path, boot_id=boot)
        self.cache = ChunkCache(
            Path(self.directory.name) / "cache",
            CHUNK,
            self.table,
            GroupSync(self.table.sync_log, self.gate),
            self.store,
            CacheSettings(reserve_bytes=0, retry_first_s=0.001),
            self.gate,
            self.clock,
            extra=lambda: self.taken,
            boot=boot,
        )
        self.cache.recover()
        self.fs = self.mount()

    def mount(self, removing: Removing | None = None) -> FileSystem:
        room = Capacity(total=1 << 40, free=1 << 39, available=1 << 38, inodes_free=1 << 30)
        settings = FsSettings(CHUNK)
        barrier = CountingBarrier()
        return FileSystem(
            self.table, self.cache, settings, self.gate, self.clock, barrier, lambda: room, removing=removing
        )

    def power_cut(self, *, lost: ChunkId) -> None:
        """The rows arrived on the disk, the bytes of one chunk version did not."""
        self.cache.close()
        self.table.close()
        for path in (Path(self.directory.name) / "cache").rglob(f"{lost:016x}"):
            path.write_bytes(b"")
        self.start(b"another boot")

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        findings = self.table.check()
        self.cache.close()
        self.table.close()
        assert findings == []

    def freeze(self) -> None:
        """Every version that may be is frozen, as at a checkpoint."""
        self.cache.cut()

    def evict(self) -> None:
        """Everything clean leaves the cache, as when others take all of its room."""
        self.taken = 2**50
        self.cache.trim()
        self.taken = 0

    async def flush_at_last(self) -> None:
        """The store fails twice before it takes what is dirty."""
        self.store.fail_writes = 2
        await self.flush()
        self.store.fail_writes = 0

    async def flush(self) -> None:
        """Everything dirty goes to the store."""
        await self._with_tasks(self.cache.drain)

    async def sync(self) -> None:
        await self._with_tasks(self.cache.sync)

    async def _with_tasks(self, work: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.cache.run)
            await work()
            nursery.cancel_scope.cancel()

    def inodes(self) -> int:
        return self.table.count()[0]

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self.directory.cleanup()
