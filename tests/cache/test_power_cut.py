"""Random histories, then a power cut that takes every byte the disk was not asked to keep (I1).

The disk is the worst one allowed: files fall back to their content at their last sync, while every row
of the inode table has arrived.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from objfs.model import ChunkId
from tests.cache.rig import INO, Rig
from tests.cache.test_model import CHUNK, TINY

KIB = 1024
OFFSETS = (0, 1, 4096, 60 * KIB, 128 * KIB, 200 * KIB)
LENGTHS = (1, 4096, 5000, 64 * KIB, 120 * KIB, CHUNK)
# Between two ends of writes all bytes have one history: the ends stand for them.
WATCHED = sorted({min(at + size, CHUNK) - 1 for at in OFFSETS for size in LENGTHS} | set(OFFSETS))
INDEX = st.sampled_from([0, 0, 1, 2])
OFFSET = st.sampled_from(OFFSETS)
LENGTH = st.sampled_from(LENGTHS)
STEP = st.one_of(
    st.tuples(st.just("write"), INDEX, OFFSET, LENGTH, st.integers(1, 255)),
    st.tuples(st.just("write"), INDEX, OFFSET, LENGTH, st.integers(1, 255)),
    st.tuples(st.just("fsync")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 10.0])),
    st.tuples(st.just("cut")),
    st.tuples(st.just("drain")),
)


class Shadow:
    """What the disk holds for certain: each file as it was when it was last synced."""

    def __init__(self, rig: Rig, directory: Path) -> None:
        self.rig = rig
        self.directory = directory
        files = rig.cache._files
        real_files, real_everything = files.sync_files, files.sync_everything

        def sync_files(chunks: Iterable[ChunkId]) -> None:
            chosen = list(chunks)
            real_files(chosen)
            self.copy(files.path(chunk) for chunk in chosen)

        def sync_everything() -> None:
            real_everything()
            self.copy(rig.directory.glob("??/*"))

        files.sync_files = sync_files  # type: ignore[method-assign]
        files.sync_everything = sync_everything  # type: ignore[method-assign]

    def copy(self, paths: Iterable[Path]) -> None:
        for path in paths:
            target = self.directory / path.relative_to(self.rig.directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # dropped meanwhile
                shutil.copyfile(path, target)

    def cut_power(self) -> None:
        self.rig.cache.close()
        for chunk, ranges in self.rig.memory.ranges.items():
            self.rig.memory.ranges[chunk] = [one._replace(boot=b"before") for one in ranges]
        self.rig.directory = self.directory
        self.directory.mkdir(exist_ok=True)
        self.rig.start()


class Promise:
    """Per byte: what may be read after the cut.  The last element of each list is the newest write."""

    def __init__(self) -> None:
        self.allowed = {index * CHUNK + at: [0] for index in range(3) for at in WATCHED}
        self.size = 0
        self.promised_size = 0

    def wrote(self, start: int, end: int, fill: int) -> None:
        for at, values in self.allowed.items():
            if start <= at < end:
                values.append(fill)
        self.size = max(self.size, end)

    def kept(self) -> None:
        self.allowed = {at: values[-1:] for at, values in self.allowed.items()}
        self.promised_size = self.size


async def history(rig: Rig, steps: list[tuple[object, ...]], directory: Path) -> None:
    shadow, promise = Shadow(rig, directory), Promise()
    async with rig.running() as cache:
        for name, *arguments in steps:
            if name == "write":
                await _write(rig, promise, *arguments)  # type: ignore[arg-type]
            elif name == "wait":
                await trio.sleep(arguments[0])  # type: ignore[arg-type]
            elif name == "cut":
                cache.cut()
            elif name == "drain":
                await cache.drain()
            else:
                await (cache.fsync(INO) if name == "fsync" else cache.sync())
                promise.kept()
    shadow.cut_power()
    rig.cache.recover()
    await _check(rig, promise)


async def _write(rig: Rig, promise: Promise, index: int, offset: int, length: int, fill: int) -> None:
    length = min(length, CHUNK - offset)
    await rig.write(index, offset, bytes([fill]) * length)
    promise.wrote(index * CHUNK + offset, index * CHUNK + offset + length, fill)


async def _check(rig: Rig, promise: Promise) -> None:
    size = rig.memory.sizes.get(INO, 0)
    assert size >= promise.promised_size
    for at, values in promise.allowed.items():
        if at < size:
            index, offset = divmod(at, CHUNK)
            found = rig.table.chunk_at(INO, index)
            byte = (await rig.cache.read(found, offset, 1))[0] if found is not None else 0
            assert byte in values, (at, byte, values)


@given(st.lists(STEP, min_size=3, max_size=25))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_was_synced_survives(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        rig = Rig(Path(name) / "cache", TINY, CHUNK)
        trio.run(history, rig, steps, Path(name) / "disk", clock=MockClock(autojump_threshold=0))
