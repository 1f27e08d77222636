"""A volume that moves house: buckets by name, a tree to be kept, a process that can be killed anywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from objfs.backends.base import Bucket, Request
from objfs.backends.wrappers.wrapper import Wrapper
from objfs.meta.view import TableView
from objfs.model import Code, Segment
from objfs.store import layout
from objfs.volume.config import BucketPlace
from objfs.volume.local import VolumeHome
from objfs.volume.membership import Newcomer
from objfs.volume.open import OpenOptions
from objfs.volume.rehouse import Rehousing
from objfs.volume.table import BucketEntry
from tests.volume.rigs import Cloud, Rig, Tree, running
from tests.volume.support import TrioClock

T = TypeVar("T")
WRITES = ("put", "put_if_absent", "delete")


class Killed(BaseException):
    """The process ended here."""


class Fuse:
    """Counts the requests that change something; at the given one the process is killed, before or after it
    took effect."""

    def __init__(self, at: int = 10**9, *, after: bool = False) -> None:
        self.at = at
        self.after = after
        self.count = 0


class Fused(Wrapper):
    """A bucket of a process with a fuse."""

    def __init__(self, inner: Bucket, fuse: Fuse) -> None:
        super().__init__(inner)
        self._fuse = fuse

    async def around(self, request: Request, call: Callable[[], Awaitable[T]]) -> T:
        fuse = self._fuse
        if request.operation not in WRITES:
            if fuse.count > fuse.at:
                raise Killed
            return await call()
        fuse.count += 1
        if fuse.count > fuse.at or (fuse.count == fuse.at and not fuse.after):
            raise Killed
        done = await call()
        if fuse.count == fuse.at:
            raise Killed
        return done


class House:
    """The volume, its first machine, and what is in it."""

    def __init__(self, cloud: Cloud, home: VolumeHome, tree: Tree) -> None:
        self.cloud = cloud
        self.home = home
        self.tree = tree

    @classmethod
    async def build(
        cls, tmp_path: Path, buckets: int = 3, code: Code | None = None, files: int = 12
    ) -> House:
        """Each file is large enough to be striped and a segment by itself."""
        cloud = Cloud(tmp_path, buckets)
        home = cloud.home()
        await cloud.make(home, code)
        source, tree = random.Random(5), dict[bytes, bytes]()
        async with running(await cloud.open(home)) as rig:
            for number in range(files):
                name = b"f%02d" % number
                tree[name] = source.randbytes(70_000)
                rig.create(name)
                rig.write(name, 0, tree[name])
                await rig.cache.drain()
            await rig.leave()
        return cls(cloud, home, tree)

    async def copied(self, tmp_path: Path) -> House:
        cloud, home = await self.cloud.copied(tmp_path, self.home)
        return House(cloud, home, self.tree)

    def take_away(self, name: str) -> None:
        """The bucket is gone, with all that was in it."""
        self.cloud.memory.remove(name)

    @asynccontextmanager
    async def mounted(self, fuse: Fuse | None = None) -> AsyncIterator[Rig]:
        """The first machine at work; a fuse that blows leaves it as a killed process would."""
        plain = self.cloud.buckets(self.home)
        buckets: dict[bytes, Bucket] = {uuid: Fused(item, fuse or Fuse()) for uuid, item in plain.items()}
        volume = await self.cloud.open_with(self.home, buckets)
        rigs: list[Rig] = []
        try:
            async with running(volume) as rig:
                rigs.append(rig)
                yield rig
        finally:
            for rig in rigs:
                rig.vanish()

    def rehousing(self, rig: Rig) -> Rehousing:
        return Rehousing(rig.volume, rig.checkpointer, TrioClock())

    async def welcome(self, work: Rehousing, name: str, fuse: Fuse | None = None) -> Newcomer:
        """A new bucket, and its URL on this machine."""
        bucket = Fused(self.cloud.bucket(name), fuse or Fuse())
        newcomer = await work.members.welcome(bucket)
        config = self.home.read_config()
        if all(place.uuid != newcomer.entry.uuid for place in config.buckets):
            place = BucketPlace(newcomer.entry.uuid, f"mem://{name}")
            self.home.write_config(replace(config, buckets=(*config.buckets, place)))
        return newcomer

    async def cut(self, name: str) -> dict[str, bytes]:
        """All shards of a bucket, which has them no more."""
        bucket, found = self.cloud.memory.open(name), dict[str, bytes]()
        for info in await bucket.list(layout.SEGMENT_PREFIX):
            found[info.key] = await bucket.get(info.key)
            await bucket.delete(info.key)
        return found

    async def paste(self, name: str, objects: dict[str, bytes]) -> None:
        for key, data in objects.items():
            await self.cloud.memory.open(name).put(key, data)

    # --- looking -----------------------------------------------------------------------

    async def shown(self, *without: str, by: str | None = None) -> Tree:
        """What a machine sees that knows the volume from the buckets alone, ``by`` one of them first."""
        there = [name for name in self.cloud.names if name not in without]
        home = await self.cloud.attach_first(by or there[0], there)
        options = OpenOptions(read_only=True, host="other")
        async with running(await self.cloud.open(home, options)) as rig:
            found = await rig.tree()
            assert rig.table.check() == []
        rig.vanish()
        return found

    def segments(self) -> list[Segment]:
        """The rows of the first machine's table."""
        with TableView(self.home.database_path) as view:
            rows = view.segments(0, 10_000)
        return [row.segment for row in rows if row.segment is not None and not row.condemned]

    async def shards(self, name: str) -> Counter[bytes]:
        """How many shards of each segment a bucket holds."""
        found = await self.cloud.memory.open(name).list(layout.SEGMENT_PREFIX)
        named = [layout.parse_shard(info.key) for info in found]
        return Counter(shard.uuid for shard in named if shard is not None)

    def entry(self, work: Rehousing, name: str) -> BucketEntry:
        return work.members.find(f"mem://{name}")


async def settle(rig: Rig) -> None:
    """A few moments go by, so that older ones need not be kept, and what nothing needs is deleted."""
    for number in range(4):
        name = b"moment%d" % number
        rig.create(name)
        await rig.checkpointer.flush()
        rig.unlink(name)
        await rig.checkpointer.flush()
    await rig.reaper.round()
    await trio.lowlevel.checkpoint()
