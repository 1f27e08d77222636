"""Buckets that hang: nobody who needs no bucket waits for one, and whoever does gets an error in time.

The whole volume in this process, without a kernel, over buckets in memory that hang on demand.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.app.clock import SystemClock
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.options import MountOptions
from objfs.backends.base import Bucket
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import Fault, FaultyBucket, Hang
from objfs.codec.keys import Cost
from objfs.errors import NotEnoughShards
from objfs.fs.ports import Caller
from objfs.model import ROOT, Code
from objfs.volume.attach import Offered, attach, learn
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from objfs.volume.settings import VolumeSettings

SECRET = Secret("passphrase", b"hang")
ME = Caller(0, 0)
NAMES = ("mem://a", "mem://b", "mem://c")
TIMEOUT_S = 0.4
SETTINGS = VolumeSettings(
    cache_reserve=0, request_timeout=TIMEOUT_S, retries=1, checkpoint_interval=3600, lease_interval=3600
)
READ_BOUND_S = 3 * 2 * TIMEOUT_S + 2.0
"""A shard, the others, each once more where it was not waited for; every one is tried twice.  And 2 s
for a machine that is busy testing."""
SIZE = 1_000_000
AT, LENGTH = 500_000, 4096


@dataclass
class Cloud:
    """Three buckets that outlive the machines, and hang together."""

    memory: MemoryBuckets = field(default_factory=MemoryBuckets)
    opened: list[FaultyBucket] = field(default_factory=list)

    def open(self, url: str, _options: Mapping[str, str]) -> Bucket:
        bucket = FaultyBucket(self.memory.open(url.removeprefix("mem://")))
        self.opened.append(bucket)
        return bucket

    def hang(self) -> Fault:
        """Every request to every bucket from now on, until ``release``."""
        fault = Fault(Hang())
        for bucket in self.opened:
            bucket.add(fault)
        return fault

    def release(self, fault: Fault) -> None:
        assert isinstance(fault.action, Hang)
        fault.action.release.set()
        for bucket in self.opened:
            bucket.clear()

    @property
    def requests(self) -> int:
        return sum(len(bucket.requests) for bucket in self.opened)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    made = Cloud()
    monkeypatch.setattr("objfs.app.buckets.open_bucket", made.open)
    return made


async def make(cloud: Cloud, home: VolumeHome) -> None:
    buckets = [NewBucket(url, {}, cloud.open(url, {})) for url in NAMES]
    new = NewVolume(SECRET, Code(2, 1), settings=SETTINGS, cost=Cost(memory_kib=8, passes=1, lanes=1))
    await create_volume(home, buckets, new, clock=SystemClock())


async def known_here(cloud: Cloud, home: VolumeHome) -> None:
    """Another machine: nothing is cached here."""
    attach(home, await learn([Offered(url, {}, cloud.open(url, {})) for url in NAMES], SECRET), SETTINGS)


@asynccontextmanager
async def running(home: VolumeHome) -> AsyncIterator[Engine]:
    """The engine with its services, until the block ends."""
    order = Order(home, SECRET, MountOptions())
    async with opened_engine(order, lambda _line: None) as engine, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        nursery.cancel_scope.cancel()


def machine(tmp_path: Path, name: str) -> VolumeHome:
    (tmp_path / name).mkdir()
    return VolumeHome(tmp_path / name, "vol")


@asynccontextmanager
async def cold_file(cloud: Cloud, tmp_path: Path, content: bytes) -> AsyncIterator[tuple[Engine, int]]:
    """A running engine with nothing cached, and the handle of a file of one chunk that holds ``content``."""
    first = machine(tmp_path, "first")
    await make(cloud, first)
    async with running(first) as engine:
        handle, _ = engine.fs.create(ROOT, b"file", 0o644, os.O_RDWR, ME)
        await engine.fs.write(handle.fh, 0, content)
        await engine.finish()
    second = machine(tmp_path, "second")
    await known_here(cloud, second)
    async with running(second) as engine:
        handle = await engine.fs.open(engine.fs.lookup(ROOT, b"file").ino, os.O_RDWR, ME)
        await trio.testing.wait_all_tasks_blocked(0.01)  # the healer looks at the buckets once
        yield engine, handle.fh


async def seen_elsewhere(cloud: Cloud, tmp_path: Path) -> bytes:
    """What a third machine finds in the file."""
    third = machine(tmp_path, "third")
    await known_here(cloud, third)
    async with running(third) as engine:
        handle = await engine.fs.open(engine.fs.lookup(ROOT, b"file").ino, os.O_RDONLY, ME)
        return await engine.fs.read(handle.fh, 0, SIZE + 1)


def overwritten(content: bytes, patch: bytes) -> bytes:
    return content[:AT] + patch + content[AT + len(patch) :]


async def test_an_overwrite_in_an_uncached_chunk_and_its_fsync_ask_no_bucket(
    cloud: Cloud, tmp_path: Path
) -> None:
    content, patch = random.Random(1).randbytes(SIZE), random.Random(2).randbytes(LENGTH)
    async with cold_file(cloud, tmp_path, content) as (engine, fh):
        fault, before = cloud.hang(), cloud.requests
        with trio.fail_after(5):
            assert await engine.fs.write(fh, AT, patch) == LENGTH
            await engine.fs.fsync(fh)
            assert await engine.fs.read(fh, AT, LENGTH) == patch
        assert cloud.requests == before
        cloud.release(fault)
        await engine.finish()


@pytest.mark.parametrize("offset", [0, AT - 10, AT + LENGTH], ids=["begin", "across", "after"])
async def test_reading_the_rest_of_the_chunk_fails_in_time(cloud: Cloud, tmp_path: Path, offset: int) -> None:
    """An error after bounded time, and the right bytes as soon as the buckets answer again."""
    content, patch = random.Random(3).randbytes(SIZE), random.Random(4).randbytes(LENGTH)
    async with cold_file(cloud, tmp_path, content) as (engine, fh):
        await engine.fs.write(fh, AT, patch)
        fault = cloud.hang()
        with trio.fail_after(READ_BOUND_S), pytest.raises(NotEnoughShards):
            await engine.fs.read(fh, offset, LENGTH)
        assert fault.hits
        assert await engine.fs.read(fh, AT, LENGTH) == patch
        cloud.release(fault)
        with trio.fail_after(READ_BOUND_S):
            assert await engine.fs.read(fh, 0, SIZE) == overwritten(content, patch)
        await engine.finish()


async def test_a_drain_begun_while_everything_hangs_ends_when_the_buckets_answer(
    cloud: Cloud, tmp_path: Path
) -> None:
    content, patch = random.Random(5).randbytes(SIZE), random.Random(6).randbytes(LENGTH)
    async with cold_file(cloud, tmp_path, content) as (engine, fh):
        fault = cloud.hang()
        await engine.fs.write(fh, AT, patch)
        await engine.fs.fsync(fh)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.finish)
            await fault.reached.wait()
            assert (engine.clean, engine.safe) == (False, False)
            cloud.release(fault)
        assert (engine.clean, engine.safe) == (True, True)
        assert engine.left_bytes == 0
    assert await seen_elsewhere(cloud, tmp_path) == overwritten(content, patch)
