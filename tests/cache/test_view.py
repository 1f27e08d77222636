"""A named moment read through the live cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.cache.view import CacheView
from objfs.errors import ReadOnly, StaleHandle
from objfs.meta import SnapshotTable
from objfs.model import FRAME_SIZE
from tests.cache.rig import INO, SMALL
from tests.cache.test_with_meta import MetaRig

CHUNK = 1 << 20


class Moment:
    """The tree as it stood, with its window on the cache."""

    def __init__(self, rig: MetaRig) -> None:
        self.table: SnapshotTable = rig.meta.at(rig.meta.create_snapshot(b"s", 1))
        rig.cache.cut()
        self.view: CacheView = rig.cache.at(self.table)

    async def read(self, index: int, offset: int, length: int) -> bytes:
        chunk = self.table.chunk_at(INO, index)
        return bytes(length) if chunk is None else await self.view.read(chunk, offset, length)


async def test_versions_that_were_not_uploaded_are_read(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache")
    with rig.meta:
        rig.write_now(0, 0, b"old" * 1000)
        moment = Moment(rig)
        rig.write_now(0, 0, b"new")
        assert await moment.read(0, 0, 6) == b"oldold"
        assert await rig.read(0, 0, 6) == b"newold"
        assert await moment.read(1, 0, 4) == bytes(4)
        assert rig.store.reads == []


async def test_what_both_trees_show_is_fetched_and_kept_once(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache")
    with rig.meta:
        async with rig.running():
            for index in range(2):
                rig.write_now(index, 0, bytes([65 + index]) * CHUNK)
            await rig.cache.drain()
            moment = Moment(rig)
            rig.write_now(1, 0, b"new")
            await rig.cache.drain()
            rig.cache._shelf.evict(2**40)
            assert await moment.read(0, 0, FRAME_SIZE) == b"A" * FRAME_SIZE
            fetched = len(rig.store.reads)
            held = rig.cache.statistics().cached_bytes
            assert await rig.read(0, 0, FRAME_SIZE) == b"A" * FRAME_SIZE
            assert await moment.read(1, 0, 4) == b"BBBB"
            assert await rig.read(1, 0, 4) == b"newB"
            assert len(rig.store.reads) == fetched + 2, "the shared chunk was fetched once"
            assert held == FRAME_SIZE


async def test_reading_on_fetches_ahead_of_the_moments_own_file(tmp_path: Path) -> None:
    """Every chunk of the live file is another one by now."""
    rig = MetaRig(tmp_path / "cache")
    with rig.meta:
        async with rig.running():
            for index in range(4):
                rig.write_now(index, 0, b"o" * CHUNK)
                await rig.cache.drain()
            moment = Moment(rig)
            for index in range(4):
                rig.write_now(index, 0, bytes([index]) * CHUNK)
            await rig.cache.drain()
            rig.cache._shelf.evict(2**40)
            before = rig.store.fetched_bytes
            for at in range(0, CHUNK, FRAME_SIZE):
                assert await moment.read(0, at, FRAME_SIZE) == b"o" * FRAME_SIZE
            assert rig.store.fetched_bytes - before > CHUNK
            there = moment.table.chunk_at(INO, 1)
            assert there is not None
            assert rig.cache._shelf.entries[there.chunk].present


async def test_a_moment_that_is_gone_is_stale(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache")
    with rig.meta:
        rig.write_now(0, 0, b"old")
        moment = Moment(rig)
        rig.meta.drop_snapshot(b"s")
        with pytest.raises(StaleHandle):
            await moment.read(0, 0, 3)


async def test_nothing_is_written_through_it(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache", SMALL)
    with rig.meta:
        rig.write_now(0, 0, b"old")
        moment = Moment(rig)
        chunk = moment.table.chunk_at(INO, 0)
        assert chunk is not None
        assert not moment.view.writable(chunk)
        with pytest.raises(ReadOnly):
            moment.view.write(chunk, 0, b"x")
        with pytest.raises(ReadOnly):
            moment.view.clip(chunk, 0)
        with pytest.raises(ReadOnly):
            await moment.view.admit(1)
        await moment.view.fsync(INO)
        await moment.view.sync()
