"""Snapshots of an open volume: whole moments that never change."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from objfs.errors import NoSuchSnapshot, ReadOnly, SnapshotExists, SnapshotHeld, Unreachable, UsageError
from objfs.meta.schema import WHOLE
from objfs.model import ROOT, Ino, SnapshotFlag
from objfs.volume.open import OpenOptions
from objfs.volume.retention import Policy
from objfs.volume.snapshots import SnapshotKeeper, check_name
from tests.volume.rigs import CHUNK, Cloud, Rig, Tree, running
from tests.volume.support import TrioClock


def keeper(rig: Rig) -> SnapshotKeeper:
    return SnapshotKeeper(rig.table, rig.cache, rig.volume.gate, TrioClock(), rig.checkpointer.flush)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a@b", b"a\0b", b"n" * 256])
def test_names_that_a_snapshot_cannot_have(name: bytes) -> None:
    with pytest.raises(UsageError, match="snapshot"):
        check_name(name)


@pytest.mark.parametrize("name", [b"a", b"...", b"n" * 255, "größe".encode(), b"\xff", b"a b"])
def test_names_that_a_snapshot_can_have(name: bytes) -> None:
    check_name(name)


def content_at(rig: Rig, generation: int) -> dict[tuple[int, int], int]:
    """(inode, index) -> version, as a snapshot shows it."""
    rows = rig.table._db.all(
        "SELECT ino, idx, chunk FROM map WHERE born <= ?1 UNION ALL "
        "SELECT ino, idx, chunk FROM map_old WHERE born <= ?1 AND died > ?1",
        (generation,),
    )
    return {(ino, index): chunk for ino, index, chunk in rows}


async def tree_at(rig: Rig, generation: int) -> Tree:
    """Content of each file of the root directory, as a snapshot shows it."""
    found: Tree = {}
    places = content_at(rig, generation)
    for name, ino, size in rig.table._db.all(
        "WITH e AS (SELECT parent, name, ino FROM entry WHERE born <= ?1 UNION ALL "
        "SELECT parent, name, ino FROM entry_old WHERE born <= ?1 AND died > ?1), "
        "i AS (SELECT ino, size FROM inode WHERE born <= ?1 UNION ALL "
        "SELECT ino, size FROM inode_old WHERE born <= ?1 AND died > ?1) "
        "SELECT e.name, e.ino, i.size FROM e JOIN i ON i.ino = e.ino WHERE e.parent = ?2",
        (generation, ROOT),
    ):
        content = bytearray(size)
        for index in range(-(-size // CHUNK)):
            if (ino, index) in places:
                chunk = rig.table.chunk(places[ino, index])  # type: ignore[arg-type]
                assert chunk is not None
                length = min(CHUNK, size - index * CHUNK)
                content[index * CHUNK : index * CHUNK + length] = await rig.cache.read(chunk, 0, length)
        found[name] = bytes(content)
    return found


async def test_what_is_written_later_does_not_change_a_snapshot(tmp_path: Path) -> None:
    """The bytes were dirty when it was taken: the same version must not be written on."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"a")
        rig.write(b"a", 0, b"old" * 1000)
        taken = await keeper(rig).create(b"s", wait=False)
        rig.write(b"a", 0, b"new")
        assert (await rig.tree())[b"a"] == b"new" + b"old" * 999
        assert await tree_at(rig, taken.generation) == {b"a": b"old" * 1000}
        await rig.drain()
        assert await tree_at(rig, taken.generation) == {b"a": b"old" * 1000}
        assert rig.table.check() == []
        await rig.close()


async def test_nor_does_a_write_after_a_crash(tmp_path: Path) -> None:
    """Frozen versions are dirty again after a kill."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"a")
        rig.write(b"a", 0, b"old" * 1000)
        taken = await keeper(rig).create(b"s", wait=False)
    rig.vanish()
    async with running(await cloud.open(home)) as rig:
        keeper(rig).recover()
        rig.write(b"a", 0, b"new")
        assert await tree_at(rig, taken.generation) == {b"a": b"old" * 1000}
        await rig.leave()


async def test_a_new_machine_has_it(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"a")
        rig.write(b"a", 0, b"old" * 1000)
        taken = await keeper(rig).create(b"s", "before the move")
        rig.write(b"a", 0, b"new")
        rig.unlink(b"a")
        await rig.leave()
    async with running(await cloud.open(await cloud.attach(without=["b0"]))) as rig:
        assert rig.table.snapshots() == [taken]
        assert await tree_at(rig, taken.generation) == {b"a": b"old" * 1000}
        assert await rig.tree() == {}
        await rig.leave()


async def test_without_buckets_it_is_taken_and_says_so(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)

    async def refuse() -> None:
        raise Unreachable("no bucket answers")

    async with running(await cloud.open(home)) as rig:
        snapshots = SnapshotKeeper(rig.table, rig.cache, rig.volume.gate, TrioClock(), refuse)
        with pytest.raises(Unreachable, match="s is taken here, and the buckets do not know it yet"):
            await snapshots.create(b"s")
        with pytest.raises(SnapshotExists):
            await snapshots.create(b"s")
        rig.volume.gate.close("taken over")
        with pytest.raises(ReadOnly):
            await snapshots.create(b"t")
        assert [one.name for one in snapshots.listed()] == [b"s"]
    rig.vanish()


async def test_a_long_truncate_is_over_before_the_moment(tmp_path: Path) -> None:
    """A reader of the snapshot cannot know of one that goes on.  What has no name is left alone."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        for name in (b"cut", b"open"):
            rig.create(name)
            rig.write(name, 0, b"x" * CHUNK * 40)
        cut, unnamed = (rig.table.lookup(ROOT, name).ino for name in (b"cut", b"open"))
        assert not rig.table.truncate(cut, 0, 1, 4)
        assert not rig.table.truncate(unnamed, 0, 1, 4)
        rig.table.unlink(ROOT, b"open", 2)
        taken = await keeper(rig).create(b"s")
        assert [place for place in content_at(rig, taken.generation) if place[0] == cut] == []
        assert orphans(rig) == [(unnamed, WHOLE), (unnamed, 0)]
        await rig.leave()


def orphans(rig: Rig) -> list[tuple[Ino, int]]:
    return rig.table._db.all("SELECT ino, keep_from FROM orphan ORDER BY ino, keep_from")


async def test_a_name_that_is_not_there_cannot_be_deleted(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        snapshots = keeper(rig)
        with pytest.raises(NoSuchSnapshot):
            await snapshots.delete(b"s")
        await snapshots.create(b"s")
        with trio.fail_after(10):
            assert (await snapshots.delete(b"s")).name == b"s"
        assert snapshots.listed() == []
        await rig.leave()


def old_rows(rig: Rig) -> int:
    """Rows that are kept for snapshots."""
    return sum(
        rig.table._db.all(f"SELECT count(*) FROM {one}_old")[0][0]
        for one in ("inode", "entry", "xattr", "map")
    )


async def test_what_only_deleted_snapshots_had_is_removed_also_by_the_next_mount(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        for number in range(300):
            rig.create(b"%d" % number)
        rig.write(b"0", 0, b"x" * 200_000)
        await rig.drain()
        snapshots = keeper(rig)
        await snapshots.create(b"s")
        for number in range(300):
            rig.unlink(b"%d" % number)
        await snapshots.delete(b"s")
        assert old_rows(rig) > 600
        assert not rig.table.clear_forgotten(10)
    rig.vanish()
    async with running(await cloud.open(home)) as rig:
        assert old_rows(rig) > 500
        with trio.fail_after(60):
            await keeper(rig).clear()
        assert old_rows(rig) == 0
        assert rig.table.check() == []
        assert len(rig.table.segments_without_chunks(10)) == 1
        await rig.leave()


async def test_a_held_one_is_deleted_by_force_only(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        snapshots = keeper(rig)
        for name in (b"a", b"b", b"c"):
            await snapshots.create(name)
        await snapshots.hold(b"a", held=True)
        await snapshots.hold(b"b", held=True)
        with pytest.raises(SnapshotHeld, match="release it first"):
            await snapshots.delete(b"a")
        await snapshots.delete(b"b", force=True)
        assert [one.name for one in snapshots.listed()] == [b"a", b"c"]
        await snapshots.hold(b"a", held=False)
        await snapshots.delete(b"a")
        await rig.leave()


async def test_pruning_keeps_what_the_policy_says_and_what_is_held(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        snapshots = keeper(rig)
        for name in (b"mine", b"a", b"b", b"c"):
            await snapshots.create(name, flags=0 if name == b"mine" else SnapshotFlag.SCHEDULED)
        await snapshots.hold(b"a", held=True)
        policy = Policy(last=1)
        dry = await snapshots.prune(policy, flags=SnapshotFlag.SCHEDULED, dry=True)
        assert len(snapshots.listed()) == 4
        assert await snapshots.prune(policy, flags=SnapshotFlag.SCHEDULED) == dry
        assert [one.name for one in snapshots.listed()] == [b"mine", b"a", b"c"]
        await rig.leave()


async def test_a_power_cut_leaves_no_snapshot_that_lacks_bytes(tmp_path: Path) -> None:
    """Rows reach the disk before bytes: one that the buckets do not have yet is whole, or not there."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home, OpenOptions(host="host", boot=b"before"))) as rig:
        rig.create(b"a")
        rig.write(b"a", 0, b"old" * 1000)
        safe = await keeper(rig).create(b"safe")
        rig.create(b"b")
        rig.write(b"b", 0, b"lost" * 1000)
        await keeper(rig).create(b"torn", wait=False)
        rig.write(b"b", 0, b"over")
        await keeper(rig).create(b"over it", wait=False)
        rig.volume.meta.sync_log()
        lost = rig.table.chunk_at(rig.table.lookup(ROOT, b"b").ino, 0)
        assert lost is not None
        assert lost.base is not None
    rig.vanish()
    (torn,) = home.cache_path.glob(f"*/{lost.base:016x}")
    torn.write_bytes(bytes(4000))
    async with running(await cloud.open(home)) as rig:
        assert rig.table.snapshots() == [safe]
        keeper(rig).recover()
        await keeper(rig).clear()
        assert await tree_at(rig, safe.generation) == {b"a": b"old" * 1000}
        assert rig.table.check() == []
        await rig.leave()
