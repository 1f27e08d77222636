"""A volume to be damaged: made once, copied for each damage, and what can be done to it and read from it."""

from __future__ import annotations

import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.backends.memory import MemoryBucket
from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket
from objfs.errors import ObjfsError, Unreachable
from objfs.meta.view import TableView
from objfs.model import ROOT, Attr, Ino, NewInode, RenameFlag, Segment, SegmentNo, Slot
from objfs.store import layout
from objfs.volume.fsck import FsckOptions, looked_at
from objfs.volume.fsck_repair import check_volume, repair_volume
from objfs.volume.fsck_report import Report
from objfs.volume.local import VolumeHome
from objfs.volume.manifest import Manifest
from objfs.volume.open import OpenOptions
from tests.volume.rigs import CHUNK, Cloud, Rig, running
from tests.volume.support import PASSPHRASE, TrioClock

HOST = "host"
BIG = random.Random(1).randbytes(300_000)
INNER = random.Random(2).randbytes(5_000)
OVER = b"over" * 10
Tree = dict[bytes, bytes]
"""Path -> content of a file, target of a symlink after ``->``, ``/`` for a directory; what cannot be read is
question marks."""

CLEAN_TREE: Tree = {
    b"/big": BIG,
    b"/d": b"/",
    b"/d/inner": INNER,
    b"/hard": b"s" * 100,
    b"/link": b"->target",
    b"/small": b"s" * 100,
    b"/sparse": bytes(200_000) + b"end",
    b"/twin": BIG[:CHUNK],
}
CRASHED_TREE: Tree = CLEAN_TREE | {
    b"/big": BIG[:70_000] + OVER + BIG[70_000 + len(OVER) :],
    b"/new": b"n" * 1000,
}


def lost(content: bytes, *chunks: int) -> bytes:
    """The content of a file of which these chunks cannot be read."""
    data = bytearray(content)
    for index in chunks:
        part = slice(index * CHUNK, min((index + 1) * CHUNK, len(content)))
        data[part] = b"?" * len(data[part])
    return bytes(data)


def now(rig: Rig) -> int:
    rig.tick += 1
    return 1_800_000_000_000_000_000 + rig.tick


async def build(root: Path, name: str, *, crashed: bool) -> tuple[Cloud, VolumeHome]:
    """A volume with a bit of everything; ``crashed``: a process ended with work that is nowhere else."""
    place = root / name
    place.mkdir()
    cloud = Cloud(place)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        await _fill(rig)
        await rig.leave()
    if crashed:
        async with running(await cloud.open(home)) as rig:
            rig.write(b"big", 70_000, OVER)
            rig.create(b"new")
            rig.write(b"new", 0, b"n" * 1000)
            rig.create(b"gone")
            rig.table.unlink(ROOT, b"gone", now(rig))
        rig.vanish()
    return cloud, home


async def _fill(rig: Rig) -> None:
    table = rig.table
    for name, data in ((b"big", BIG), (b"small", b"s" * 100)):
        rig.create(name)
        rig.write(name, 0, data)
    directory = table.create(ROOT, b"d", NewInode(stat.S_IFDIR | 0o755, 0, 0, now(rig))).ino
    table.create(ROOT, b"link", NewInode(stat.S_IFLNK | 0o777, 0, 0, now(rig), target=b"target"))
    table.link(table.lookup(ROOT, b"small").ino, ROOT, b"hard", now(rig))
    table.set_xattr(table.lookup(ROOT, b"big").ino, b"user.a", b"value", 0, now(rig))
    await rig.checkpointer.flush()
    rig.create(b"inner")
    rig.write(b"inner", 0, INNER)
    table.rename(ROOT, b"inner", directory, b"inner", RenameFlag.REPLACE, now(rig))
    rig.create(b"sparse")
    rig.write(b"sparse", 200_000, b"end")
    rig.create(b"twin")
    rig.write(b"twin", 0, BIG[:CHUNK])
    await rig.checkpointer.flush()
    table.create_snapshot(b"before", now(rig))
    rig.write(b"small", 0, b"s" * 100)


@dataclass
class Patient:
    """One copy."""

    cloud: Cloud
    home: VolumeHome
    silent: frozenset[str] = frozenset()
    """Buckets that do not answer."""

    def buckets(self, home: VolumeHome) -> dict[bytes, FaultyBucket]:
        found = self.cloud.buckets(home)
        for bucket in found.values():
            if bucket.url.removeprefix("mem://") in self.silent:
                bucket.add(Fault(FailBefore(Unreachable)))
        return found

    # --- looking -----------------------------------------------------------------------

    def options(self, *, data: bool = False) -> FsckOptions:
        return FsckOptions(data=data, host=HOST)

    async def check(self, *, data: bool = False, home: VolumeHome | None = None) -> Report:
        return await self._run(check_volume, data, home or self.home)

    async def repair(self, *, data: bool = False) -> Report:
        return await self._run(repair_volume, data, self.home)

    async def _run(self, what: Callable[..., object], data: bool, home: VolumeHome) -> Report:
        lock = home.lock()
        try:
            buckets, clock = self.buckets(home), TrioClock()
            report = await what(  # type: ignore[misc]
                home, PASSPHRASE, buckets, clock=clock, options=self.options(data=data)
            )
            assert isinstance(report, Report)
            return report
        finally:
            lock.release()

    async def tree(self, home: VolumeHome | None = None) -> Tree:
        """All of the volume, as a mount of this machine (or another one) shows it; nothing is changed."""
        options = OpenOptions(read_only=True, host=HOST)
        async with running(await self.cloud.open(home or self.home, options)) as rig:
            found = await _walk(rig, ROOT, b"")
            assert rig.table.check() == []
        rig.vanish()
        return found

    async def fresh(self) -> VolumeHome:
        """The state directory of a machine that knows the buckets alone."""
        return await self.cloud.attach()

    # --- damaging ----------------------------------------------------------------------

    def sql(self, *statements: str) -> None:
        """Done to the table behind objfs's back."""
        with closing(sqlite3.connect(self.home.database_path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def ask(self, question: str) -> list[tuple[int, ...]]:
        with closing(sqlite3.connect(f"file:{self.home.database_path}?mode=ro", uri=True)) as connection:
            return connection.execute(question).fetchall()

    def ino(self, name: str) -> int:
        return self.ask(f"SELECT ino FROM entry WHERE name = x'{name.encode().hex()}'")[0][0]

    def chunk(self, name: str, index: int = 0) -> int:
        return self.ask(f"SELECT chunk FROM map WHERE ino = {self.ino(name)} AND idx = {index}")[0][0]

    def segment(self, name: str, index: int = 0) -> tuple[int, Segment]:
        """Number and row of the segment that a chunk of a file lies in."""
        number = self.ask(f"SELECT segment FROM chunk WHERE chunk = {self.chunk(name, index)}")[0][0]
        with TableView(self.home.database_path) as view:
            row = view.segment_row(SegmentNo(number))
        assert row is not None
        assert row.segment is not None
        return number, row.segment

    def bucket(self, slot: int) -> MemoryBucket:
        return self.cloud.memory.open(self.cloud.names[slot])

    async def each(self) -> list[MemoryBucket]:
        return [self.cloud.memory.open(name) for name in self.cloud.names]

    async def change(self, slot: int, key: str, change: Callable[[bytes], bytes]) -> None:
        bucket = self.bucket(slot)
        await bucket.put(key, change(await bucket.get(key)))

    def shard(self, segment: Segment, shard: int) -> tuple[Slot, str]:
        return segment.placement[shard], layout.shard_name(segment.uuid, shard)

    async def newest(self) -> str:
        """The object name of the newest manifest."""
        return (await self.bucket(0).list(layout.MANIFEST_PREFIX))[-1].key

    async def newest_manifest(self) -> Manifest:
        async with looked_at(
            self.home, PASSPHRASE, self.cloud.buckets(self.home), clock=TrioClock(), options=self.options()
        ) as look:
            assert look.moments.newest is not None
            return look.moments.newest.manifest

    def cache_file(self, chunk: int) -> Path:
        return self.home.cache_path / f"{chunk >> 8 & 0xFF:02x}" / f"{chunk:016x}"


async def _walk(rig: Rig, ino: Ino, above: bytes) -> Tree:
    found: Tree = {}
    for entry in rig.table.readdir(ino, 0, 10_000):
        path, attr = above + b"/" + entry.name, entry.attr
        if attr.is_dir:
            found |= {path: b"/"} | await _walk(rig, attr.ino, path)
        elif attr.target is not None:
            found[path] = b"->" + attr.target
        else:
            found[path] = await _content(rig, attr)
    return found


async def _content(rig: Rig, attr: Attr) -> bytes:
    content = bytearray(attr.size)
    for index in range(-(-attr.size // CHUNK)):
        chunk = rig.table.chunk_at(attr.ino, index)
        length = min(CHUNK, attr.size - index * CHUNK)
        if chunk is None:
            continue
        try:
            with trio.fail_after(30):
                data = await rig.cache.read(chunk, 0, length)
        except ObjfsError:
            data = b"?" * length
        content[index * CHUNK : index * CHUNK + length] = data
    return bytes(content)
