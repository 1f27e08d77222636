"""The cache over the real inode table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from objfs.cache import ChunkCache, GroupSync
from objfs.meta import MetaDatabase, new_root
from objfs.model import ROOT, NewInode
from objfs.ports import ChunkTable
from tests.cache.rig import INO, OTHER, Rig, damage
from tests.cache.test_model import CHUNK, STEP, TINY, History


class MetaRig(Rig):
    """The same over the real inode table; ``boot`` names the boot that it believes to be in."""

    def make_table(self) -> ChunkTable:
        self.path = self.directory.parent / "meta.db"
        self.path.parent.mkdir(exist_ok=True, parents=True)
        root = new_root(0, 0, 0)
        self.meta = MetaDatabase.make(
            self.path, uuid=bytes(16), chunk_size=self.chunk_size, root=root, boot_id=self.boot
        )
        for number in range(8):
            self.meta.create(ROOT, b"file%d" % number, NewInode(0o100644, 0, 0, 0))
        return self.meta

    def start(self) -> ChunkCache:
        self.log = GroupSync(self.meta.sync_log, self.gate)
        return super().start()

    def reopen(self, boot: bytes) -> ChunkCache:
        """The machine came up again, as ``boot``."""
        self.cache.close()
        self.meta.close()
        self.boot = boot
        self.table = self.meta = MetaDatabase.open(self.path, boot_id=boot)
        return self.start()


@given(st.lists(STEP, min_size=6, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_same_with_the_real_inode_table(steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        rig = MetaRig(Path(directory) / "cache", TINY, CHUNK)
        with rig.meta:
            trio.run(History(rig).run, steps, clock=MockClock(autojump_threshold=0))


async def test_a_power_cut_over_the_real_table(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache")
    rig.write_now(0, 0, b"kept" * 50_000)
    rig.write_now(1, 0, b"inline", OTHER)
    await rig.cache.fsync(INO)
    await rig.cache.fsync(OTHER)
    rig.write_now(0, 200_000, b"lost" * 1000)
    rig.write_now(3, 0, b"gone")
    damage(rig, 0, 200_000, 4000)
    damage(rig, 3, 0, 4)
    rig.reopen(b"second boot")
    report = rig.cache.recover()
    assert (report.lost_ranges, report.shortened) == (2, (INO,))
    assert rig.meta.get(INO).size == 200_000
    assert rig.table.chunk_at(INO, 3) is None
    assert await rig.read(0, 0, 204_000) == b"kept" * 50_000 + bytes(4000)
    assert await rig.read(1, 0, 6, OTHER) == b"inline"
    rig.reopen(b"third boot")
    assert rig.cache.recover().lost_ranges == 0
    rig.meta.close()


async def test_a_killed_daemon_over_the_real_table(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache")
    rig.write_now(0, 0, b"never synced")
    rig.reopen(rig.boot)
    report = rig.cache.recover()
    assert (report.dirty_chunks, report.lost_ranges) == (1, 0)
    assert await rig.read(0, 0, 12) == b"never synced"
    rig.meta.close()


async def test_a_version_that_is_clipped_to_nothing_is_a_hole(tmp_path: Path) -> None:
    rig = MetaRig(tmp_path / "cache")
    async with rig.running():
        rig.write_now(1, 10, b"twenty bytes, no base")
        rig.clip(1, 5)
        cut = rig.cache.cut()
        assert not cut.pending
        assert not (await cut.placed()).placed
        assert await rig.read(1, 0, 40) == bytes(40)
        await rig.cache.drain()
    assert not rig.table.dirty_ids()
    rig.meta.close()


def pile(rig: MetaRig, count: int) -> bytes:
    """Versions over each other, of which each shows through the next ones; what they show together."""
    for number in range(count):
        rig.write_now(0, 6 * number, b"%06d" % number)
        rig.cache.freeze()
    return b"".join(b"%06d" % number for number in range(count))


async def test_any_number_of_versions_over_each_other_is_read(tmp_path: Path) -> None:
    """Snapshots of a file that grows, taken while no bucket answers."""
    rig = MetaRig(tmp_path / "cache")
    content = pile(rig, 1200)
    assert await rig.read(0, 0, len(content)) == content
    rig.meta.close()
