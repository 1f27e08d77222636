"""A whole machine without a mount: real table, cache, store and checkpointer over shared memory buckets."""

from __future__ import annotations

import random
import shutil
import stat
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from objfs.backends.base import Bucket
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import FaultyBucket
from objfs.cache.cache import ChunkCache
from objfs.cache.durability import GroupSync
from objfs.cache.settings import CacheSettings
from objfs.codec.keys import Cost
from objfs.errors import ForeignBucket, NoSuchObject, NoSuchVolume
from objfs.model import ROOT, Code, Ino, NewInode, RenameFlag
from objfs.volume.attach import Offered, add_places, attach, learn
from objfs.volume.checkpoint import Checkpointer, Parts
from objfs.volume.compact import Compactor, Surroundings, Terms
from objfs.volume.debts import Debts
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import Created, NewBucket, NewVolume, create_volume
from objfs.volume.open import OpenOptions, OpenVolume, open_volume
from objfs.volume.reaper import Reaper, Retention
from objfs.volume.strays import StrayReaper
from tests.volume.support import PASSPHRASE, TrioClock

CHUNK = 64 * 1024
CHEAP = Cost(memory_kib=8, passes=1, lanes=1)
Tree = dict[bytes, bytes]
"""Path -> content of a file."""


class Cloud:
    """The buckets of one volume, and how to make machines that use them."""

    def __init__(self, tmp_path: Path, buckets: int = 3) -> None:
        self.tmp_path = tmp_path
        self.memory = MemoryBuckets()
        self.names = [f"b{number}" for number in range(buckets)]
        self._machines = 0
        self.notes: list[str] = []
        """What people were told while a volume was opened."""

    def home(self) -> VolumeHome:
        """The state directory of a new machine."""
        self._machines += 1
        path = self.tmp_path / f"machine{self._machines}"
        path.mkdir()
        return VolumeHome(path, "vol")

    def bucket(self, name: str) -> FaultyBucket:
        return FaultyBucket(self.memory.open(name))

    async def copied(self, tmp_path: Path, home: VolumeHome) -> tuple[Cloud, VolumeHome]:
        """The same buckets and state directory once more, to be damaged."""
        twin = Cloud(tmp_path, len(self.names))
        for name in self.names:
            source, target = self.memory.open(name), twin.memory.open(name)
            for info in await source.list(""):
                await target.put(info.key, await source.get(info.key))
        again = twin.home()
        shutil.copytree(home.path, again.path)
        return twin, again

    async def make(self, home: VolumeHome, code: Code | None = None) -> Created:
        buckets = [NewBucket(f"mem://{name}", {}, self.bucket(name)) for name in self.names]
        new = NewVolume(PASSPHRASE, code or Code(2, 1), chunk_size=CHUNK, cost=CHEAP)
        return await create_volume(home, buckets, new, clock=TrioClock())

    async def attach(self, *, without: Collection[str] = ()) -> VolumeHome:
        home = self.home()
        offered = [self._offered(name) for name in self.names if name not in without]
        attach(home, await learn(offered, PASSPHRASE))
        return home

    async def attach_first(self, first: str, names: Collection[str]) -> VolumeHome:
        """By one bucket, then as many of the others as the volume has."""
        home = self.home()
        attach(home, await learn([self._offered(first)], PASSPHRASE))
        for name in names:
            try:
                add_places(home, await learn([self._offered(name)], PASSPHRASE))
            except (ForeignBucket, NoSuchVolume, NoSuchObject):
                continue
        return home

    def _offered(self, name: str) -> Offered:
        return Offered(f"mem://{name}", {}, self.bucket(name))

    def buckets(self, home: VolumeHome) -> dict[bytes, FaultyBucket]:
        places = home.read_config().buckets
        return {place.uuid: self.bucket(place.url.removeprefix("mem://")) for place in places}

    async def open(
        self, home: VolumeHome, options: OpenOptions | None = None, secret: Secret = PASSPHRASE
    ) -> OpenVolume:
        return await self.open_with(home, self.buckets(home), options, secret)

    async def open_with(
        self,
        home: VolumeHome,
        buckets: Mapping[bytes, Bucket],
        options: OpenOptions | None = None,
        secret: Secret = PASSPHRASE,
    ) -> OpenVolume:
        """Through buckets with faults of their own."""
        order = options or OpenOptions(host="host")
        return await open_volume(
            home, secret, buckets, clock=TrioClock(), options=order, note=self.notes.append
        )


class Rig:
    """An open volume with cache and checkpointer, and a tiny file system by paths of one directory level."""

    def __init__(self, volume: OpenVolume, interval_s: float) -> None:
        self.volume = volume
        self.table = volume.meta
        self._working = trio.CancelScope()
        clock = TrioClock()
        sync = GroupSync(self.table.sync_log, volume.gate)
        self.cache = ChunkCache(
            volume.home.cache_path,
            self.table.chunk_size,
            self.table,
            sync,
            volume.store,
            CacheSettings(reserve_bytes=0, writeback_bytes=200_000, dirty_age_s=0.05),
            volume.gate,
            clock,
        )
        self.cache.recover()
        self.tick = 0
        if volume.lease is None:
            return
        self.reaper = Reaper(
            self.table,
            volume.buckets,
            volume.ring,
            volume.lease,
            clock,
            Retention(window_s=0, keep=2, grace_s=0),
            Debts(volume.home, clock),
            StrayReaper(volume.store, self.table.strays, volume.lease, clock, 0),
        )
        self.reaper.resume(volume.moment.manifest)
        self.unfit = ""
        self.compactor = Compactor(
            Surroundings(
                self.table, volume.store, self.reaper, volume.gate, clock, lambda: False, lambda: self.unfit
            ),
            Terms(0.5, volume.ring.current.key_id, volume.store.target_bytes),
        )
        parts = Parts(
            self.table.log,
            volume.replica,
            self.cache,
            volume.store,
            volume.buckets,
            volume.ring,
            volume.lease,
            volume.home,
            volume.gate,
            clock,
            sync.sync,
            self.table.schema_version,
        )
        self.checkpointer = Checkpointer(
            parts,
            start=volume.moment,
            interval_s=interval_s,
            carried=volume.carried,
            condemn=self.reaper.condemn,
            note=self.reaper.note,
        )

    # --- a tiny file system ----------------------------------------------------------------

    def _now(self) -> int:
        self.tick += 1
        return 1_800_000_000_000_000_000 + self.tick

    def create(self, name: bytes) -> None:
        self.table.create(ROOT, name, NewInode(stat.S_IFREG | 0o644, 0, 0, self._now()))

    def write(self, name: bytes, offset: int, data: bytes) -> None:
        ino = self.table.lookup(ROOT, name).ino
        ranges = []
        with self.table.transaction():
            for index in range(offset // CHUNK, (offset + len(data) - 1) // CHUNK + 1):
                start, end = max(offset, index * CHUNK), min(offset + len(data), (index + 1) * CHUNK)
                chunk = self.table.chunk_at(ino, index)
                if chunk is None:
                    chunk = self.table.begin_chunk(ino, index, None, 0)
                elif not self.cache.writable(chunk):
                    length = self.cache.visible_length(chunk)
                    chunk = self.table.begin_chunk(ino, index, chunk.chunk, length)
                piece = data[start - offset : end - offset]
                ranges.append(self.cache.write(chunk, start - index * CHUNK, piece))
            self.table.record_write(ino, offset + len(data), self._now(), ranges)

    def rename(self, old: bytes, new: bytes) -> None:
        renamed = self.table.rename(ROOT, old, ROOT, new, RenameFlag.REPLACE, self._now())
        if renamed.displaced is not None and renamed.displaced.nlink == 0:
            self._purge(renamed.displaced.ino)

    def unlink(self, name: bytes) -> None:
        self._purge(self.table.unlink(ROOT, name, self._now()).ino)

    def _purge(self, ino: Ino) -> None:
        while not self.table.purge(ino, 64):
            pass

    async def tree(self) -> Tree:
        return {entry.name: await self.read(entry.name) for entry in self.table.readdir(ROOT, 0, 10_000)}

    async def read(self, name: bytes) -> bytes:
        attr = self.table.lookup(ROOT, name)
        content = bytearray(attr.size)
        for index in range(-(-attr.size // CHUNK)):
            chunk = self.table.chunk_at(attr.ino, index)
            length = min(CHUNK, attr.size - index * CHUNK)
            if chunk is not None:
                content[index * CHUNK : index * CHUNK + length] = await self.cache.read(chunk, 0, length)
        return bytes(content)

    # --- the ends of a machine -------------------------------------------------------------

    async def leave(self) -> None:
        """An orderly end: everything in the buckets, lease released, state clean."""
        await self.drain()
        await self.close()

    async def drain(self) -> None:
        """Everything is in the buckets."""
        await self.cache.drain()
        while self.checkpointer.changed:
            await self.checkpointer.flush()

    async def work(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Everything in the background, until cancelled or closed."""
        with self._working:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.cache.run)
                if self.volume.lease is not None:
                    nursery.start_soon(self.checkpointer.run)
                task_status.started()

    async def close(self) -> None:
        """Gives lease and files back; also of a mount that only reads."""
        self._working.cancel()  # while a simulated clock runs on, nobody may look into what is closed
        self.cache.close()
        settled = self.volume.lease is None or self.checkpointer.settled
        await self.volume.close(clean=True, settled=settled)

    def vanish(self) -> None:
        """The process is gone; nothing more is written anywhere by anybody."""
        self.cache.close()
        self.volume.meta.close()
        self.volume.replica.close()


@asynccontextmanager
async def running(volume: OpenVolume, *, interval_s: float = 1000) -> AsyncIterator[Rig]:
    """Cache and checkpointer at work until the rig is closed, or the block ends; then they are stopped where
    they stand."""
    rig = Rig(volume, interval_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.work)
        yield rig
        nursery.cancel_scope.cancel()


class Model:
    """What the tree should be, after each of the random operations that were done so far."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tree: Tree = {}
        self.history: list[Tree] = [{}]

    def step(self, rig: Rig) -> None:
        """One random operation on both."""
        names = sorted(self.tree)
        kind = self.random.random()
        if not names or (kind < 0.2 and len(names) < 12):
            name = b"f%d" % self.random.randrange(30)
            if name not in self.tree:
                rig.create(name)
                self.tree[name] = b""
        elif kind < 0.75:
            self._write(rig, self.random.choice(names))
        elif kind < 0.9:
            self._rename(rig, self.random.choice(names), b"f%d" % self.random.randrange(30))
        else:
            name = self.random.choice(names)
            rig.unlink(name)
            del self.tree[name]
        self.history.append(dict(self.tree))

    def _write(self, rig: Rig, name: bytes) -> None:
        before = self.tree[name]
        offset = self.random.choice([0, len(before), self.random.randrange(100_000)])
        data = self.random.randbytes(self.random.choice([1, 100, 5_000, 70_000]))
        rig.write(name, offset, data)
        padded = before.ljust(offset, b"\0")
        self.tree[name] = padded[:offset] + data + padded[offset + len(data) :]

    def _rename(self, rig: Rig, old: bytes, new: bytes) -> None:
        rig.rename(old, new)
        if old != new:
            self.tree[new] = self.tree.pop(old)

    def position(self, tree: Tree) -> int:
        """The latest moment at which the tree was exactly this; -1 where it never was."""
        return next((at for at in reversed(range(len(self.history))) if self.history[at] == tree), -1)
