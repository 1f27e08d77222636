"""What a mount takes of the local disk stays under its cap, watched all the time (I6).

The whole volume in this process, without a kernel: real table, cache, checkpoints, and directories as buckets
behind a bandwidth limit.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.app.clock import SystemClock
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.footprint import log_limit
from objfs.app.options import MountOptions
from objfs.backends.registry import open_bucket
from objfs.codec.keys import Cost
from objfs.fs.ports import Caller
from objfs.meta import PAGE_SIZE
from objfs.model import ROOT, Code, NewInode
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from objfs.volume.settings import VolumeSettings

MIB = 1024 * 1024
CAP = 64 * MIB
INODES = 100_000
SECRET = Secret("passphrase", b"cap")
ME = Caller(0, 0)


@asynccontextmanager
async def running(tmp_path: Path, settings: VolumeSettings) -> AsyncIterator[Engine]:
    """A new volume, open; left as a crash leaves it, so that the end does not wait for slow buckets."""
    home = VolumeHome(tmp_path / "home", "vol")
    home.path.parent.mkdir()
    await make(home, settings, [f"file://{_directory(tmp_path / name)}" for name in "abc"])
    order = Order(home, SECRET, MountOptions())
    async with opened_engine(order, lambda _line: None) as engine, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        nursery.cancel_scope.cancel()


async def make(home: VolumeHome, settings: VolumeSettings, urls: list[str]) -> None:
    buckets = [NewBucket(url, {}, open_bucket(url, {})) for url in urls]
    cheap = Cost(memory_kib=8, passes=1, lanes=1)
    new = NewVolume(SECRET, Code(2, 1), settings=settings, cost=cheap)
    await create_volume(home, buckets, new, clock=SystemClock())


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


@dataclass
class Watch:
    """Measures a state directory; ``most`` is the largest size seen, in allocated bytes."""

    root: Path
    most: int = 0
    most_log: int = 0
    looks: int = 0

    def look(self) -> None:
        found = {(status.st_dev, status.st_ino): status for status in self._all()}
        self.most = max(self.most, sum(status.st_blocks * 512 for status in found.values()))
        log = self.root / "meta.db-wal"
        self.most_log = max(self.most_log, log.stat().st_size if log.exists() else 0)
        self.looks += 1

    def _all(self) -> Iterator[os.stat_result]:
        """Files with names, and those without that this process has open."""
        for parent, _, names in os.walk(self.root):
            for name in names:
                try:
                    yield os.lstat(os.path.join(parent, name))
                except FileNotFoundError:
                    continue
        for entry in Path("/proc/self/fd").iterdir():
            try:
                if os.readlink(entry).startswith(f"{self.root}/"):
                    yield entry.stat()
            except FileNotFoundError:
                continue

    async def run(self) -> None:
        """Until cancelled, beside the writers."""
        while True:
            self.look()
            await trio.sleep(0.01)


async def fill(engine: Engine) -> None:
    """An inode table that takes a good part of the cap, and so does its replica."""
    for first in range(0, INODES, 1000):
        with engine.table.transaction():
            for number in range(first, first + 1000):
                engine.table.create(ROOT, b"inode%d" % number, NewInode(stat.S_IFREG | 0o644, 0, 0, number))
        await trio.lowlevel.checkpoint()


async def test_three_times_the_cap_through_slow_buckets(tmp_path: Path) -> None:
    """Files of all sizes and overwrites, faster than the buckets take them, beside a large table."""
    settings = VolumeSettings(
        cache_size=CAP, cache_reserve=0, bandwidth=16 * MIB, checkpoint_interval=1, request_timeout=300
    )
    generator = random.Random(5)
    block = generator.randbytes(4 * MIB)
    async with running(tmp_path, settings) as engine, trio.open_nursery() as nursery:
        watch = Watch(engine.volume.home.path)
        nursery.start_soon(watch.run)
        await fill(engine)
        await engine.flush()
        written, number = 0, 0
        while written < 3 * CAP:
            handle, _ = engine.fs.create(ROOT, b"file%d" % number, 0o644, os.O_RDWR, ME)
            size = generator.choice([4096, 100_000, MIB, 8 * MIB])
            for offset in range(0, size, 128 * 1024):
                start = generator.randrange(len(block) - 128 * 1024)
                part = block[start : start + min(128 * 1024, size - offset)]
                written += await engine.fs.write(handle.fh, offset if number % 7 else 0, part)
                watch.look()
            engine.fs.release(handle.fh)
            number += 1
        nursery.cancel_scope.cancel()
    assert watch.looks > 1000
    assert watch.most <= CAP
    assert watch.most > CAP // 2


async def test_the_log_stays_bounded_under_steady_creates(tmp_path: Path) -> None:
    """Nobody pauses, so no backfill ever reaches the end; the loop itself must make the log start over."""
    settings = VolumeSettings(cache_size=CAP, cache_reserve=0, checkpoint_interval=3600)
    async with running(tmp_path, settings) as engine:
        watch = Watch(engine.volume.home.path)
        made = 0
        while engine.table.log.pending * PAGE_SIZE <= 8 * log_limit(CAP):
            for _ in range(20):
                engine.fs.mknod(ROOT, b"%d" % made, stat.S_IFREG | 0o644, 0, ME)
                made += 1
            watch.look()
            await trio.lowlevel.checkpoint()
    assert watch.most_log < 4 * log_limit(CAP)
    assert watch.most <= CAP
