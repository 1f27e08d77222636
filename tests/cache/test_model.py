"""Random histories of one file against plain byte arrays (I1 for kill -9, I2 for cuts, I6)."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from objfs.cache import CacheSettings, Cut, CutResult
from objfs.model import ChunkId
from tests.cache.rig import INO, Rig

KIB = 1024
CHUNK = 320 * KIB
TINY = CacheSettings(
    cache_bytes=1200 * KIB,
    max_entries=6,
    reserve_bytes=0,
    writeback_bytes=400 * KIB,
    dirty_age_s=5,
    segment_bytes=500 * KIB,
    open_files=2,
    inline_limit=8 * KIB,
    inline_total=20 * KIB,
)

INDEX = st.sampled_from([0, 0, 0, 1, 2, 3])
OFFSET = st.sampled_from([0, 1, 4095, 4096, 100 * KIB, 128 * KIB - 1, 128 * KIB, 200 * KIB, CHUNK - 10])
LENGTH = st.sampled_from([1, 10, 4096, 5000, 64 * KIB, 130 * KIB, CHUNK])
STEP = st.one_of(
    st.tuples(st.just("write"), INDEX, OFFSET, LENGTH, st.integers(1, 255)),
    st.tuples(st.just("write"), INDEX, OFFSET, LENGTH, st.integers(1, 255)),
    st.tuples(st.just("clip"), INDEX, OFFSET),
    st.tuples(st.just("cut_off"), INDEX),
    st.tuples(st.just("read"), INDEX, OFFSET, LENGTH),
    st.tuples(st.just("cut")),
    st.tuples(st.just("fail"), st.integers(1, 3)),
    st.tuples(st.just("fsync")),
    st.tuples(st.just("sync")),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 1.0, 10.0])),
    st.tuples(st.just("drain")),
    st.tuples(st.just("restart")),
)


@dataclass
class Expected:
    """A cut and what the versions in it must hold."""

    cut: Cut
    contents: dict[ChunkId, bytes]


class History:
    """Carries one history out on a cache and on byte arrays."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.model: dict[int, bytearray] = {}
        self.cuts: list[Expected] = []

    async def run(self, steps: list[tuple[object, ...]]) -> None:
        self.rig.cache.recover()
        rest = list(steps)
        while True:
            async with self.rig.running():
                while rest and rest[0][0] != "restart":
                    name, *arguments = rest.pop(0)
                    await getattr(self, f"do_{name}")(*arguments)
                    self.check_bounds()
                if not rest:
                    await self.finish()
                    return
            rest.pop(0)
            self.cuts.clear()
            self.rig.cache.close()
            self.rig.start().recover()

    async def do_write(self, index: int, offset: int, length: int, fill: int) -> None:
        data = bytes([fill]) * min(length, CHUNK - offset)
        await self.rig.write(index, offset, data)
        self.model.setdefault(index, bytearray(CHUNK))[offset : offset + len(data)] = data

    async def do_clip(self, index: int, length: int) -> None:
        if index in self.model:
            self.rig.clip(index, length)
            self.model[index][length:] = bytes(CHUNK - length)

    async def do_cut_off(self, index: int) -> None:
        self.rig.cut_off(index)
        self.model = {at: content for at, content in self.model.items() if at < index}

    async def do_read(self, index: int, offset: int, length: int) -> None:
        if index in self.model:
            length = min(length, CHUNK - offset)
            assert await self.rig.read(index, offset, length) == self.model[index][offset : offset + length]

    async def do_cut(self) -> None:
        cut = self.rig.cache.cut()
        dirty = set(self.rig.table.dirty_ids())
        assert cut.pending == dirty
        rows = [(self.rig.table.chunk_at(INO, index), content) for index, content in self.model.items()]
        contents = {row.chunk: bytes(content) for row, content in rows if row and row.chunk in dirty}
        self.cuts.append(Expected(cut, contents))

    async def do_fail(self, times: int) -> None:
        self.rig.store.fail_writes = times

    async def do_fsync(self) -> None:
        await self.rig.cache.fsync(INO)

    async def do_sync(self) -> None:
        await self.rig.cache.sync()

    async def do_wait(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def do_drain(self) -> None:
        await self.rig.cache.drain()
        assert not self.rig.table.dirty_chunks()

    def check_bounds(self) -> None:
        now = self.rig.cache.statistics()
        assert self.rig.disk_bytes() <= now.cached_bytes <= TINY.cache_bytes
        assert now.entries <= TINY.max_entries + 2 * len(self.cuts)

    async def finish(self) -> None:
        for expected in self.cuts:
            self.check_cut(expected, await expected.cut.placed())
        for index, content in self.model.items():
            assert await self.rig.read(index, 0, CHUNK) == content
        await self.do_drain()
        await self.do_cut_off(0)
        now = self.rig.cache.statistics()
        for _ in range(500_000):  # the clock runs ahead of worker threads that still hold a version
            if not now.entries and not now.cached_bytes:
                break
            await trio.sleep(1)
            now = self.rig.cache.statistics()
        assert (now.entries, now.cached_bytes, now.dirty_bytes, now.inline_bytes) == (0, 0, 0, 0)
        assert self.rig.disk_bytes() == 0

    def check_cut(self, expected: Expected, result: CutResult) -> None:
        stored = {}
        for one in result.placed:
            where = one.location
            frames = self.rig.store.payloads[result.segments[where.segment].uuid]
            last = where.first_frame + len(where.frames)
            stored[one.chunk] = b"".join(frames[where.first_frame : last]).ljust(CHUNK, b"\0")
        for chunk, content in expected.contents.items():
            assert stored[chunk] == content


@given(st.lists(STEP, min_size=6, max_size=40))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_history_reads_as_written(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        rig = Rig(Path(directory), TINY, CHUNK)
        trio.run(History(rig).run, steps, clock=MockClock(autojump_threshold=0))
