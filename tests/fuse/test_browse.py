"""Snapshots below ``.snapshots``, through the handlers of the kernel's requests, without a kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import pyfuse3
import pytest

from objfs.app.browse import Showing
from objfs.app.inspect import inspect_file
from objfs.app.options import MountOptions
from objfs.fs import Caller, Capacity
from objfs.fuse import Operations
from objfs.fuse import browse as browse_module
from objfs.fuse.browse import DOORS, FIRST
from objfs.model import ROOT, Ino, RenameFlag, Snapshot
from tests.fs.real import RealWorld
from tests.fuse.test_translate import CTX

USER = Caller(1000, 100)
DIRECTORY = DOORS << 48 | ROOT
WRITING = os.O_WRONLY | os.O_CREAT


class Browsed(RealWorld):
    """A volume with the handlers of a mount over it."""

    def __init__(self, options: MountOptions | None = None) -> None:
        super().__init__()
        room = Capacity(total=1 << 40, free=1 << 39, available=1 << 38, inodes_free=1 << 30)
        showing = Showing(self.table, self.cache, self.gate, self.clock, lambda: room)
        self.operations = Operations(self.fs, browsing=showing.browsing(options or MountOptions()))
        self.generation = 0

    def snapshot(self, name: bytes) -> Snapshot:
        taken = self.table.create_snapshot(name, 77)
        self.cache.cut()
        return taken

    async def write(self, path: bytes, data: bytes) -> None:
        """A file in the root."""
        handle, _ = self.fs.create(ROOT, path, 0o644, os.O_RDWR, USER)
        await self.fs.write(handle.fh, 0, data)
        self.fs.release(handle.fh)

    async def find(self, *names: bytes) -> pyfuse3.EntryAttributes:
        """Looks a path up as the kernel does."""
        number = pyfuse3.ROOT_INODE
        for name in names:
            found = await self.operations.lookup(number, name, CTX)
            number = found.st_ino
        return found

    async def read(self, *names: bytes) -> bytes:
        info = await self.operations.open((await self.find(*names)).st_ino, os.O_RDONLY, CTX)
        data = await self.operations.read(info.fh, 0, 1 << 20)
        await self.operations.release(info.fh)
        return data


@pytest.fixture
def world() -> Iterator[Browsed]:
    made = Browsed()
    yield made
    made.close()


async def refused(request: Coroutine[Any, Any, object]) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await request
    return int(caught.value.errno)


async def test_a_file_is_read_as_it_was(world: Browsed) -> None:
    await world.write(b"f", b"old")
    world.snapshot(b"s")
    world.fs.rename(ROOT, b"f", ROOT, b"g", RenameFlag.REPLACE)
    await world.write(b"f", b"new")
    assert await world.read(b".snapshots", b"s", b"f") == b"old"
    assert await world.read(b"f") == b"new"
    assert (await world.find(b".snapshots", b"s", b"g")).st_ino == 0


async def test_numbers_of_trees_differ(world: Browsed) -> None:
    await world.write(b"f", b"x")
    world.snapshot(b"a")
    world.snapshot(b"b")
    live = (await world.find(b"f")).st_ino
    numbers = {live, *[(await world.find(b".snapshots", name, b"f")).st_ino for name in (b"a", b"b")]}
    assert numbers == {live, FIRST << 48 | live, (FIRST + 1) << 48 | live}
    doors = [(await world.find(b".snapshots", name)).st_ino for name in (b"a", b"b")]
    assert doors == [DOORS << 48 | 2, DOORS << 48 | 3]
    assert (await world.find(b".snapshots")).st_ino == DIRECTORY


async def test_a_door_has_the_attributes_of_the_root_but_for_its_times(world: Browsed) -> None:
    world.fs.set_xattr(ROOT, b"user.a", b"1", caller=USER)
    world.snapshot(b"s")
    root = (await world.operations.getattr(1, CTX)).st_mode
    door = await world.find(b".snapshots", b"s")
    assert (door.st_mode, door.st_mtime_ns, door.st_ctime_ns) == (root, 77, 77)
    assert await world.operations.getxattr(door.st_ino, b"user.a", CTX) == b"1"
    assert (await world.operations.getattr(door.st_ino, CTX)).st_ino == door.st_ino


async def test_a_number_of_a_program_leads_to_its_tree(world: Browsed) -> None:
    """As ``objfs info`` asks."""
    await world.write(b"f", b"old")
    world.snapshot(b"s")
    await world.write(b"g", b"new")
    file = await world.find(b".snapshots", b"s", b"f")
    fs, ino = world.operations.located(file.st_ino)
    assert (await inspect_file(fs.tables, ino))["size"] == 3
    assert world.operations.located((await world.find(b"g")).st_ino)[0] is world.fs
    assert world.operations.located((await world.find(b".snapshots", b"s")).st_ino) == (fs, ROOT)


async def test_dots_lead_where_they_should(world: Browsed) -> None:
    world.fs.mkdir(ROOT, b"d", 0o755, USER)
    world.snapshot(b"s")
    d = (await world.find(b".snapshots", b"s", b"d")).st_ino
    door = (await world.find(b".snapshots", b"s")).st_ino
    for number, above in ((d, door), (door, DIRECTORY), (DIRECTORY, pyfuse3.ROOT_INODE)):
        assert (await world.operations.lookup(number, b"..", CTX)).st_ino == above
        assert (await world.operations.lookup(number, b".", CTX)).st_ino == number


async def test_a_slot_is_given_back_when_everything_is_forgotten(world: Browsed) -> None:
    await world.write(b"f", b"x")
    world.snapshot(b"a")
    known = (await world.find(b".snapshots", b"a", b"f")).st_ino
    info = await world.operations.open(known, os.O_RDONLY, CTX)
    slots = world.operations._trees
    assert set(slots) == {0, DOORS, FIRST}
    await world.operations.release(info.fh)
    assert FIRST in slots
    await world.operations.forget([(known, 1)])
    assert set(slots) == {0, DOORS}
    assert (await world.find(b".snapshots", b"a", b"f")).st_ino >> 48 == FIRST + 1, "not the same one at once"


async def test_looking_for_what_is_not_there_takes_no_slot(world: Browsed) -> None:
    world.snapshot(b"a")
    assert (await world.find(b".snapshots", b"a", b"f")).st_ino == 0
    assert set(world.operations._trees) == {0, DOORS}
    assert (await world.find(b".snapshots", b"none")).st_ino == 0


async def test_there_is_an_end_of_slots(world: Browsed, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.write(b"f", b"x")
    monkeypatch.setattr(browse_module, "LAST", FIRST + 1)
    for name in (b"a", b"b", b"c"):
        world.snapshot(name)
    found = [(await world.find(b".snapshots", name, b"f")).st_ino for name in (b"a", b"b")]
    door = (await world.find(b".snapshots", b"c")).st_ino
    assert await refused(world.operations.lookup(door, b"f", CTX)) == errno.EIO
    await world.operations.forget([(found[0], 1)])
    assert (await world.operations.lookup(door, b"f", CTX)).st_ino >> 48 == found[0] >> 48


async def test_a_deleted_snapshot_is_stale_and_its_name_gone(world: Browsed) -> None:
    await world.write(b"f", b"x")
    world.snapshot(b"s")
    file = await world.find(b".snapshots", b"s", b"f")
    door = await world.find(b".snapshots", b"s")
    info = await world.operations.open(file.st_ino, os.O_RDONLY, CTX)
    world.table.drop_snapshot(b"s")
    assert await refused(world.operations.read(info.fh, 0, 1)) == errno.ESTALE
    assert await refused(world.operations.getattr(file.st_ino, CTX)) == errno.ESTALE
    assert await refused(world.operations.getattr(door.st_ino, CTX)) == errno.ESTALE
    assert await refused(world.operations.opendir(door.st_ino, CTX)) == errno.ESTALE
    gone = await world.find(b".snapshots", b"s")
    assert (gone.st_ino, gone.entry_timeout) == (0, 0)
    await world.operations.release(info.fh)
    await world.operations.forget([(file.st_ino, 1), (door.st_ino, 2)])


async def test_nothing_can_be_changed(world: Browsed) -> None:
    await world.write(b"f", b"x")
    world.snapshot(b"s")
    operations = world.operations
    file = (await world.find(b".snapshots", b"s", b"f")).st_ino
    live = (await world.find(b"f")).st_ino
    for directory in ((await world.find(b".snapshots", b"s")).st_ino, DIRECTORY):
        for request in (
            operations.mkdir(directory, b"d", 0o755, CTX),
            operations.create(directory, b"n", 0o644, WRITING, CTX),
            operations.unlink(directory, b"f", CTX),
            operations.rmdir(directory, b"s", CTX),
            operations.link(live, directory, b"n", CTX),
            operations.rename(1, b"f", directory, b"n", 0, CTX),
            operations.rename(directory, b"f", 1, b"n", 0, CTX),
        ):
            assert await refused(request) == errno.EROFS
    assert await refused(operations.open(file, os.O_WRONLY, CTX)) == errno.EROFS
    assert await refused(operations.setxattr(file, b"user.a", b"1", CTX)) == errno.EROFS
    assert await refused(operations.link(file, 1, b"n", CTX)) == errno.EROFS


async def test_the_name_is_taken_in_the_root_alone(world: Browsed) -> None:
    operations = world.operations
    await world.write(b"f", b"x")
    for request in (
        operations.mkdir(1, b".snapshots", 0o755, CTX),
        operations.symlink(1, b".snapshots", b"x", CTX),
        operations.mknod(1, b".snapshots", 0o100644, 0, CTX),
        operations.create(1, b".snapshots", 0o644, WRITING, CTX),
        operations.rename(1, b"f", 1, b".snapshots", 0, CTX),
        operations.link((await world.find(b"f")).st_ino, 1, b".snapshots", CTX),
        operations.rmdir(1, b".snapshots", CTX),
    ):
        assert await refused(request) == errno.EROFS
    below = await operations.mkdir(1, b"d", 0o755, CTX)
    assert (await operations.mkdir(below.st_ino, b".snapshots", 0o755, CTX)).st_ino < 1 << 48


async def test_a_real_entry_of_that_name_wins(world: Browsed) -> None:
    real = world.fs.mkdir(ROOT, b".snapshots", 0o755, USER)
    assert (await world.find(b".snapshots")).st_ino == real.ino
    await world.operations.rename(1, b".snapshots", 1, b"away", 0, CTX)
    assert (await world.find(b".snapshots")).st_ino == DIRECTORY


async def test_a_mount_of_a_subdirectory_shows_no_more_of_the_past() -> None:
    world = Browsed(MountOptions(subdir="d"))
    world.snapshot(b"before")
    top = world.fs.mkdir(ROOT, b"d", 0o755, USER).ino
    world.fs.mkdir(top, b"inside", 0o755, USER)
    world.snapshot(b"after")
    names = {b"before": 0, b"after": DOORS << 48 | 3}
    assert {name: (await world.find(b".snapshots", name)).st_ino for name in names} == names
    inside = await world.find(b".snapshots", b"after", b"inside")
    assert inside.st_ino >> 48 == FIRST
    assert (await world.find(b".snapshots", b"after", b"d")).st_ino == 0
    above = await world.operations.lookup(inside.st_ino, b"..", CTX)
    assert above.st_ino == names[b"after"]
    world.close()


def test_listing_many_opens_none(world: Browsed) -> None:
    for number in range(40):
        world.snapshot(b"s%d" % number)
    directory = world.table.moments()
    found = [entry.name for entry in directory.readdir(ROOT, 0, 30)]
    found += [entry.name for entry in directory.readdir(ROOT, directory.readdir(ROOT, 0, 30)[-1].cookie, 30)]
    assert found == [b"s%d" % number for number in range(40)]
    assert directory.get(ROOT).nlink == 1
    assert set(world.operations._trees) == {0, DOORS}
    assert directory.get(Ino(41)).mtime_ns == 77
