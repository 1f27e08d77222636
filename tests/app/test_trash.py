"""The trash of a mount as whoever uses it meets it: real table, cache and file system, no kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio

from objfs.app.exchange import Exchange
from objfs.app.restoring import Restorer
from objfs.errors import StaleHandle
from objfs.fs import Caller, FileSystem
from objfs.fs.ports import Removing
from objfs.meta.trash_view import TrashView
from objfs.meta.usage import UsageView
from objfs.model import NS, ROOT, AttrChange, Ino, SnapshotFlag
from objfs.volume.retention import Policy
from objfs.volume.snapshots import SnapshotKeeper
from objfs.volume.trash import DAY_S, INTERVAL_S, SERVES_S, Trash
from tests.fs.real import RealWorld

USER = Caller(1000, 100)
DAYS = 7


class Watch:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def now_ns(self) -> int:
        return int(self.seconds) * NS

    def monotonic(self) -> float:
        return self.seconds


class Mount(RealWorld):
    """A mount that keeps what is deleted for so many days."""

    def __init__(self, days: int) -> None:
        self.days = days
        self.watch = Watch()
        self.published = 0
        super().__init__()

    def mount(self, removing: Removing | None = None) -> FileSystem:
        assert removing is None, "the trash is its own"
        self.snapshots = SnapshotKeeper(self.table, self.cache, self.gate, self.watch, self._publish)
        self.snapshots.recover()
        self.trash = Trash(self.table, self.snapshots, self.gate, self.watch, self.days)
        return super().mount(self.trash.removing if self.days else None)

    async def _publish(self) -> None:
        self.published += 1
        await trio.lowlevel.checkpoint()

    async def write(self, name: bytes, content: bytes) -> Ino:
        handle, attr = self.fs.create(ROOT, name, 0o644, os.O_RDWR, USER)
        await self.fs.write(handle.fh, 0, content)
        self.fs.release(handle.fh)
        return attr.ino

    async def read(self, name: bytes) -> bytes:
        handle = await self.fs.open(self.fs.lookup(ROOT, name).ino, os.O_RDONLY, USER)
        data = await self.fs.read(handle.fh, 0, 1_000_000)
        self.fs.release(handle.fh)
        return data

    def kept(self) -> int:
        return self.table.trash.count()

    def deleted(self) -> list[bytes]:
        with TrashView(self.table.path) as view:
            return [one.path for one in view.deleted()]

    async def undelete(self, path: bytes, to: bytes | None = None) -> None:
        with TrashView(self.table.path) as view:
            name = view.moment_of(path).name
        sync = trio.lowlevel.checkpoint
        exchange = Exchange(self.table, self.cache, self.fs, self.gate, self.watch, sync)
        await Restorer(exchange).undelete(name, path, to)


@pytest.fixture
def world() -> Iterator[Mount]:
    world = Mount(DAYS)
    yield world
    world.close()


async def test_without_trash_there_is_no_snapshot_ever() -> None:
    world = Mount(0)
    await world.write(b"f", b"text")
    world.fs.unlink(ROOT, b"f")
    assert world.table.snapshots() == []
    assert await world.trash.expire() == 0
    world.close()


async def test_a_file_comes_back_with_bytes_that_no_bucket_had(world: Mount) -> None:
    await world.write(b"f", b"text" * 50_000)
    world.fs.unlink(ROOT, b"f")
    world.fs.orphans.purge_batch()
    assert world.published == 0, "no removal waits for a bucket"
    assert world.deleted() == [b"/f"]
    await world.undelete(b"/f")
    assert await world.read(b"f") == b"text" * 50_000
    handle = await world.fs.open(world.fs.lookup(ROOT, b"f").ino, os.O_RDWR, USER)
    await world.fs.write(handle.fh, 0, b"TEXT")
    world.fs.release(handle.fh)
    await world.flush()
    assert (await world.read(b"f"))[:8] == b"TEXTtext"


async def test_a_crash_after_the_removal_keeps_it(world: Mount) -> None:
    await world.write(b"f", b"text")
    world.fs.unlink(ROOT, b"f")
    world.restart()
    assert world.deleted() == [b"/f"]
    await world.undelete(b"/f")
    assert await world.read(b"f") == b"text"


async def test_what_is_renamed_over_is_kept(world: Mount) -> None:
    await world.write(b"f", b"old")
    await world.write(b"new", b"new")
    world.fs.rename(ROOT, b"new", ROOT, b"f")
    await world.undelete(b"/f", b"/saved")
    assert (await world.read(b"f"), await world.read(b"saved")) == (b"new", b"old")


async def test_a_tree_costs_one_snapshot(world: Mount) -> None:
    top = world.fs.mkdir(ROOT, b"d", 0o755, USER).ino
    for number in range(200):
        world.fs.mknod(top, b"%d" % number, 0o644, 0, USER)
    for number in range(200):
        world.fs.unlink(top, b"%d" % number)
        world.watch.seconds += 1.0
    world.fs.rmdir(ROOT, b"d")
    assert world.kept() == 1
    await world.undelete(b"/d")
    assert len(world.fs.readdir(top, 0, 1000)) == 200


async def test_what_is_younger_than_the_interval_is_not_kept(world: Mount) -> None:
    await world.write(b"a", b"a")
    world.fs.unlink(ROOT, b"a")
    await world.write(b"b", b"b")
    world.watch.seconds += INTERVAL_S - 1
    world.fs.unlink(ROOT, b"b")
    assert world.deleted() == [b"/a"]
    await world.write(b"c", b"c")
    world.watch.seconds += 1
    world.fs.unlink(ROOT, b"c")
    assert (world.deleted(), world.kept()) == ([b"/a", b"/c"], 2)


async def test_what_is_shown_as_it_is_needs_no_other_for_an_hour(world: Mount) -> None:
    for name in (b"a", b"same", b"changed", b"late"):
        await world.write(name, name)
    world.fs.unlink(ROOT, b"a")
    world.watch.seconds += SERVES_S - 1
    world.fs.unlink(ROOT, b"same")
    assert world.kept() == 1
    await world.fs.setattr(world.fs.lookup(ROOT, b"changed").ino, AttrChange(mode=0o600), None, USER)
    world.fs.unlink(ROOT, b"changed")
    assert world.kept() == 2
    world.watch.seconds += SERVES_S
    world.fs.unlink(ROOT, b"late")
    assert world.kept() == 3
    assert world.deleted() == [b"/a", b"/changed", b"/late", b"/same"]


async def test_one_name_of_two_is_no_loss(world: Mount) -> None:
    ino = await world.write(b"f", b"text")
    world.fs.link(ino, ROOT, b"g")
    world.fs.unlink(ROOT, b"f")
    assert world.kept() == 0
    world.fs.unlink(ROOT, b"g")
    assert world.deleted() == [b"/g"]


async def test_the_next_removal_after_somebody_deleted_the_snapshot_is_kept(world: Mount) -> None:
    await world.write(b"a", b"a")
    await world.write(b"b", b"b")
    world.fs.unlink(ROOT, b"a")
    assert await world.trash.empty() == 1
    assert (world.published, world.deleted()) == (1, [])
    world.fs.unlink(ROOT, b"b")
    assert world.deleted() == [b"/b"]


async def test_what_is_old_goes_and_what_is_held_stays(world: Mount) -> None:
    names = (b"a", b"b", b"c")
    for name in names:
        await world.write(name, name)
        world.fs.unlink(ROOT, name)
        world.watch.seconds += SERVES_S
    first, second, third = world.table.snapshots()
    world.table.mark_snapshot(first.name, first.flags | SnapshotFlag.HELD)
    world.watch.seconds += DAYS * DAY_S - 2 * SERVES_S
    assert await world.trash.expire() == 0, "each may have served for an hour"
    world.watch.seconds += SERVES_S + 1
    assert await world.trash.expire() == 1
    assert [one.name for one in world.table.snapshots()] == [first.name, third.name]
    await world.snapshots.clear()
    assert world.deleted() == [b"/a", b"/c"]
    assert second.trash


async def test_pruning_leaves_the_trash(world: Mount) -> None:
    await world.snapshots.create(b"mine")
    await world.write(b"f", b"text")
    world.fs.unlink(ROOT, b"f")
    await world.snapshots.create(b"yours")
    verdicts = await world.snapshots.prune(Policy(last=1))
    assert [one.snapshot.name for one in verdicts] == [b"yours", b"mine"]
    assert (world.kept(), len(world.table.snapshots())) == (1, 2)


async def test_whoever_has_it_open_hears_that_it_was_replaced(world: Mount) -> None:
    ino = await world.write(b"f", b"text")
    handle = await world.fs.open(ino, os.O_RDWR, USER)
    world.fs.unlink(ROOT, b"f")
    await world.fs.write(handle.fh, 0, b"late")
    await world.undelete(b"/f")
    with pytest.raises(StaleHandle):
        await world.fs.read(handle.fh, 0, 4)
    world.fs.release(handle.fh)
    world.fs.orphans.purge_batch()
    assert await world.read(b"f") == b"text"


async def test_bytes_of_the_trash_are_told_apart(world: Mount) -> None:
    await world.write(b"both", b"x" * 100)
    await world.write(b"trash", b"y" * 10)
    await world.snapshots.create(b"before")
    world.fs.unlink(ROOT, b"both")
    await world.write(b"new", b"z" * 1000)
    world.watch.seconds += INTERVAL_S
    world.fs.unlink(ROOT, b"new")
    while world.fs.orphans.waiting:
        world.fs.orphans.purge_batch()
    with UsageView(world.table.path) as view:
        found = view.usage()
    assert (found.live, found.snapshot_only, found.trash_only) == (10, 1100, 1000)
