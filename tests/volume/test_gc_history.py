"""Random histories of writes, deletes, checkpoints, snapshots and collections: every moment that is kept is
recovered whole, and every snapshot in it, and both are what they were (I2)."""

from __future__ import annotations

import random
import sqlite3
import tempfile
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.codec.identity import page_hash
from objfs.meta.replica import Replica
from objfs.meta.table import MetaDatabase
from objfs.model import ROOT, ChunkId
from objfs.volume.manifest import Manifest
from objfs.volume.recover import rebuild_table, replay
from tests.volume.rigs import CHUNK, Cloud, Rig, Tree, running

NAMES = st.integers(0, 5).map(lambda number: b"f%d" % number)
WRITES = st.tuples(st.just("write"), NAMES, st.integers(0, 3), st.sampled_from([100, 9_000, CHUNK, 150_000]))
DELETES = st.tuples(st.just("delete"), NAMES)
OTHERS = st.sampled_from([("checkpoint",), ("snapshot",), ("collect",)])
HISTORIES = st.lists(st.one_of(WRITES, WRITES, DELETES, OTHERS, OTHERS), min_size=6, max_size=14)


class Story:
    """One history, and what was at each checkpoint and snapshot."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.tree: Tree = {}
        self.moments: dict[int, tuple[Tree, dict[bytes, Tree]]] = {}
        self.snapshots: dict[bytes, Tree] = {}
        self.random = random.Random(1)

    async def step(self, action: str, *values: object) -> None:
        await getattr(self, action)(*values)
        await trio.lowlevel.checkpoint()

    async def write(self, name: bytes, at: int, length: int) -> None:
        if name not in self.tree:
            self.rig.create(name)
        data, offset = self.random.randbytes(length), at * CHUNK // 2
        self.rig.write(name, offset, data)
        before = self.tree.get(name, b"").ljust(offset, b"\0")
        self.tree[name] = before[:offset] + data + before[offset + length :]

    async def delete(self, name: bytes) -> None:
        if self.tree.pop(name, None) is not None:
            self.rig.unlink(name)

    async def checkpoint(self) -> None:
        await self.rig.checkpointer.flush()
        moment = self.rig.checkpointer.moment
        assert moment is not None
        self.moments[moment.manifest.sequence] = (dict(self.tree), dict(self.snapshots))

    async def snapshot(self) -> None:
        """With what is dirty frozen in the same step: later writes begin versions of their own."""
        name = b"s%d" % len(self.snapshots)
        cut = self.rig.cache.cut()
        self.rig.table.create_snapshot(name, 1)
        self.snapshots[name] = dict(self.tree)
        await cut.placed()

    async def collect(self) -> None:
        """As ``gc --run``: empty and sparse segments are condemned, published, and what may go goes."""
        await self.rig.cache.drain()
        while self.rig.reaper.search():
            pass
        await self.rig.compactor.round(self.rig.compactor.terms)
        for _ in range(2):
            await self.checkpoint()
            await self.rig.reaper.round()


async def files(rig: Rig, table: MetaDatabase, generation: int | None) -> Tree:
    """The tree in a table, or in one of its snapshots, from the buckets."""
    when = "born <= :g AND died > :g" if generation is not None else "0"
    living = "born <= :g" if generation is not None else "1"
    found: Tree = {}
    with sqlite3.connect(f"file:{table.path}?mode=ro", uri=True) as connection:

        def rows(columns: str, name: str, where: str) -> list[tuple[bytes, ...]]:
            both = f"SELECT {columns} FROM {name} WHERE {where} AND {living} UNION ALL SELECT {columns} "
            return connection.execute(f"{both} FROM {name}_old WHERE {where} AND {when}", values).fetchall()

        values = {"g": generation}
        for name, ino in rows("name, ino", "entry", f"parent = {ROOT}"):
            ((size,),) = rows("size", "inode", f"ino = {ino!r}")
            content = bytearray(int(size))
            for index, chunk in rows("idx, chunk", "map", f"ino = {ino!r}"):
                start = int(index) * CHUNK
                data = await stored(rig, table, ChunkId(int(chunk)))
                content[start : start + len(data)] = data[: int(size) - start]
            found[name] = bytes(content)
    connection.close()
    return found


async def stored(rig: Rig, table: MetaDatabase, chunk: ChunkId) -> bytes:
    row = table.chunk(chunk)
    assert row is not None
    at = row.location
    assert at is not None
    segment = table.segment(at.segment)
    return (await rig.volume.store.read_chunks([(segment, at, 0, len(at.frames) - 1)]))[0]


async def recovered(rig: Rig, manifest: Manifest, place: Path) -> MetaDatabase:
    """The table of a kept moment, as a lost machine would get it."""
    key = rig.volume.ring.get(manifest.digest_key)
    with Replica(place / "pages", lambda number, image: page_hash(key, number, image)) as replica:
        await replay(rig.volume.store, manifest, replica)
        return await rebuild_table(rig.volume.store, manifest, replica, place / "meta.db", b"boot")


async def compare(story: Story, tmp_path: Path) -> None:
    """Everything that is kept with what it was."""
    rig = story.rig
    for manifest in rig.reaper.kept:
        if manifest.sequence not in story.moments:
            continue  # that of mkfs
        tree, snapshots = story.moments[manifest.sequence]
        place = tmp_path / f"moment{manifest.sequence}"
        place.mkdir()
        with await recovered(rig, manifest, place) as table:
            assert await files(rig, table, None) == tree
            assert {one.name for one in table.snapshots()} == snapshots.keys()
            for one in table.snapshots():
                assert await files(rig, table, one.generation) == snapshots[one.name]
            assert table.check() == []


async def tell(history: list[tuple[str, ...]], tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        story = Story(rig)
        for step in history:
            await story.step(*step)
        await story.collect()
        assert await rig.tree() == story.tree
        assert len(rig.reaper.kept) >= 2
        await compare(story, tmp_path)
        await rig.leave()


@settings(max_examples=6)
@given(history=HISTORIES)
def test_every_kept_moment_and_snapshot_is_what_it_was(history: list[tuple[str, ...]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        trio.run(tell, history, Path(place))
