"""Who keeps an inode alive, and how what nobody keeps goes away."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from objfs.errors import BadHandle, NoSpace, StaleHandle
from objfs.fs import Caller, FileSystem, FsSettings
from objfs.fs import orphans as orphans_module
from objfs.fs.handles import Handles
from objfs.model import ROOT, Ino
from tests.fs.memory import CHUNK, World

USER = Caller(1000, 100)


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def running(fs: FileSystem) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fs.run)
        yield
        nursery.cancel_scope.cancel()


async def purged(world: World) -> set[Ino]:
    """Lets the background work come to rest; what inodes are left."""
    await trio.testing.wait_all_tasks_blocked()
    await world.fs.orphans.wait_idle()
    return set(world.table.inodes)


def test_handle_numbers_are_never_given_twice() -> None:
    handles = Handles(lambda ino: None)
    first = handles.open(Ino(5), 0).fh
    handles.close(first)
    assert handles.open(Ino(5), 0).fh != first
    with pytest.raises(BadHandle):
        handles.get(first)
    with pytest.raises(BadHandle):
        handles.close(first)


def test_an_inode_is_unused_when_both_kinds_of_users_are_gone() -> None:
    unused: list[Ino] = []
    handles = Handles(unused.append)
    handles.looked_up(Ino(5))
    handles.looked_up(Ino(5))
    fh = handles.open(Ino(5), 0).fh
    assert not handles.forget(Ino(5), 1)
    assert handles.forget(Ino(5), 1)
    assert unused == []
    handles.close(fh)
    assert unused == [5]
    assert handles.statistics().open == handles.statistics().known == 0


def test_forgetting_too_much_is_harmless() -> None:
    handles = Handles(lambda ino: None)
    handles.looked_up(Ino(5))
    assert handles.forget(Ino(5), 100)
    assert handles.forget(Ino(5), 1)


async def test_an_unlinked_file_lives_until_its_last_close(world: World) -> None:
    fs = world.fs
    handle, attr = fs.create(ROOT, b"f", 0o644, os.O_RDWR, USER)
    fs.looked_up(attr.ino)
    async with running(fs):
        await fs.write(handle.fh, 0, b"kept")
        fs.unlink(ROOT, b"f")
        fs.forget(attr.ino, 1)
        assert attr.ino in await purged(world)
        await fs.write(handle.fh, 4, b" well")
        assert await fs.read(handle.fh, 0, 100) == b"kept well"
        assert fs.getattr(attr.ino).nlink == 0
        fs.release(handle.fh)
        assert attr.ino not in await purged(world)
    assert world.table.versions == {}
    with pytest.raises(StaleHandle):
        fs.getattr(attr.ino)


async def test_what_a_rename_displaces_goes_too(world: World) -> None:
    fs = world.fs
    old = fs.mknod(ROOT, b"old", 0o100644, 0, USER).ino
    new = fs.mknod(ROOT, b"new", 0o100644, 0, USER).ino
    async with running(fs):
        fs.rename(ROOT, b"new", ROOT, b"old")
        assert await purged(world) == {ROOT, new}
    assert old != new


async def test_a_removed_directory_stays_while_it_is_open(world: World) -> None:
    fs = world.fs
    ino = fs.mkdir(ROOT, b"d", 0o755, USER).ino
    handle = fs.opendir(ino)
    async with running(fs):
        fs.rmdir(ROOT, b"d")
        assert ino in await purged(world)
        assert fs.readdir(ino, 0, 10) == []
        fs.release(handle.fh)
        assert ino not in await purged(world)


async def test_a_name_that_is_left_keeps_the_inode(world: World) -> None:
    fs = world.fs
    ino = fs.mknod(ROOT, b"a", 0o100644, 0, USER).ino
    fs.link(ino, ROOT, b"b")
    async with running(fs):
        fs.unlink(ROOT, b"a")
        assert ino in await purged(world)


async def test_orphans_of_an_earlier_mount_are_purged(world: World) -> None:
    ino = world.fs.mknod(ROOT, b"a", 0o100644, 0, USER).ino
    world.fs.looked_up(ino)
    world.fs.unlink(ROOT, b"a")
    world.fs = world.mount()
    await world.fs.recover()
    async with running(world.fs):
        assert await purged(world) == {ROOT}


async def test_a_purge_that_fails_is_tried_again_and_ends_no_mount(
    world: World, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise NoSpace("no room on the disk of the inode table")

    async with running(world.fs):
        world.fs.mknod(ROOT, b"f", 0o100644, 0, USER)
        with monkeypatch.context() as patched:
            patched.setattr(world.table, "purge", full)
            world.fs.unlink(ROOT, b"f")
            await trio.sleep(10)
            assert len(world.table.inodes) == 2
        await trio.sleep(10)
        assert set(world.table.inodes) == {ROOT}


async def test_the_end_of_a_mount_purges_what_was_held(world: World) -> None:
    ino = world.fs.mknod(ROOT, b"a", 0o100644, 0, USER).ino
    world.fs.looked_up(ino)
    world.fs.unlink(ROOT, b"a")
    await world.fs.aclose()
    assert set(world.table.inodes) == {ROOT}


async def test_a_huge_orphan_is_purged_in_steps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves past the batch's time with each look, so each batch takes one step."""
    monkeypatch.setattr(orphans_module, "CHUNKS_PER_STEP", 1)
    fs = world.fs
    handle, _ = fs.create(ROOT, b"f", 0o644, os.O_RDWR, USER)
    await fs.write(handle.fh, 0, b"x" * (6 * CHUNK))
    fs.unlink(ROOT, b"f")
    fs.release(handle.fh)
    ticks = iter(range(1000))
    monkeypatch.setattr(world.clock, "monotonic", lambda: float(next(ticks)))
    left = []
    for _ in range(6):
        left.append(len(world.table.versions))
        fs.orphans.purge_batch()
    assert left == [6, 5, 4, 3, 2, 1]
    assert fs.orphans.waiting == 0


async def test_a_closed_gate_ends_the_purging(world: World) -> None:
    ino = world.fs.mknod(ROOT, b"a", 0o100644, 0, USER).ino
    world.fs.unlink(ROOT, b"a")
    world.gate.close("the lease was lost")
    await world.fs.run()
    await world.fs.aclose()
    assert ino in world.table.inodes


async def test_a_read_only_view_purges_nothing(world: World) -> None:
    ino = world.fs.mknod(ROOT, b"a", 0o100644, 0, USER).ino
    world.fs.unlink(ROOT, b"a")
    world.fs = world.mount(FsSettings(CHUNK, read_only=True))
    await world.fs.recover()
    async with running(world.fs):
        assert ino in await purged(world)
    await world.fs.aclose()
    assert ino in world.table.inodes
