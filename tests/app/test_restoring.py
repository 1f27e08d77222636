"""A mount goes back to a moment, as whoever uses it meets that: real table and cache, no kernel."""

from __future__ import annotations

import os

import pytest

from objfs.app.restoring import Restorer
from objfs.errors import NotFound, ReadOnly, StaleHandle
from objfs.fs import Caller
from objfs.model import ROOT, Ino
from tests.app.exchanges import Kernel, exchange_in
from tests.fs.real import RealWorld

USER = Caller(1000, 100)


def restorer(world: RealWorld) -> Restorer:
    return Restorer(exchange_in(world, Kernel()))


async def written(world: RealWorld, name: bytes, content: bytes) -> Ino:
    handle, attr = world.fs.create(ROOT, name, 0o644, os.O_RDWR, USER)
    await world.fs.write(handle.fh, 0, content)
    world.fs.release(handle.fh)
    return attr.ino


async def content(world: RealWorld, name: bytes) -> bytes:
    handle = await world.fs.open(world.fs.lookup(ROOT, name).ino, os.O_RDONLY, USER)
    data = await world.fs.read(handle.fh, 0, 10_000)
    world.fs.release(handle.fh)
    return data


def taken(world: RealWorld, name: bytes) -> None:
    world.table.create_snapshot(name, 1)
    world.cache.freeze()


async def test_dirty_bytes_of_both_sides_survive_there_and_back(world: RealWorld) -> None:
    """Nothing had reached a bucket: the versions are frozen, and every later write begins new ones."""
    await written(world, b"f", b"before")
    taken(world, b"good")
    handle = await world.fs.open(world.fs.lookup(ROOT, b"f").ino, os.O_WRONLY, USER)
    await world.fs.write(handle.fh, 2, b"AFTER")
    made = restorer(world)
    done = await made.restore(b"good", b"/", undo=True)
    assert await content(world, b"f") == b"before"
    again = await world.fs.open(handle.ino, os.O_WRONLY, USER)
    await world.fs.write(again.fh, 0, b"third")
    assert done.undo is not None
    await made.restore(done.undo.name, b"/f", undo=False)
    assert await content(world, b"f") == b"beAFTER"
    await made.restore(b"good", b"/f", undo=False)
    assert await content(world, b"f") == b"before"
    await world.flush()
    assert await content(world, b"f") == b"before"


async def test_a_crash_right_after_it_keeps_what_the_undo_snapshot_shows(world: RealWorld) -> None:
    await written(world, b"f", b"before")
    taken(world, b"good")
    await written(world, b"g", b"new")
    done = await restorer(world).restore(b"good", b"/", undo=True)
    world.restart()
    assert [entry.name for entry in world.fs.readdir(ROOT, 0, 10)] == [b"f"]
    assert done.undo is not None
    await restorer(world).restore(done.undo.name, b"/", undo=False)
    assert await content(world, b"g") == b"new"


async def test_i1_a_power_cut_after_it_takes_nothing_of_what_came_back(world: RealWorld) -> None:
    """What is lost is what had been there before, and grown; the file ended where that had begun, and the
    snapshot lost the same bytes."""
    ino = await written(world, b"f", b"good " * 1000)
    await world.sync()
    taken(world, b"good")
    await world.fs.truncate(ino, 1, USER)
    handle = await world.fs.open(ino, os.O_RDWR, USER)
    await world.fs.write(handle.fh, 1, b"newer" * 1000)
    world.fs.release(handle.fh)
    newer = world.table.chunk_at(ino, 0)
    assert newer is not None
    await restorer(world).restore(b"good", b"/", undo=True)
    world.power_cut(lost=newer.chunk)
    assert [one.name for one in world.table.snapshots()] == [b"good"]
    assert await content(world, b"f") == b"good " * 1000
    await restorer(world).restore(b"good", b"/", undo=False)
    assert await content(world, b"f") == b"good " * 1000
    assert world.table.check() == []


async def test_handles_of_what_was_replaced_are_stale(world: RealWorld) -> None:
    ino = await written(world, b"f", b"before")
    await written(world, b"same", b"same")
    taken(world, b"good")
    new = await written(world, b"new", b"new")
    world.fs.set_xattr(ino, b"user.x", b"1")
    replaced = [await world.fs.open(one, os.O_RDWR, USER) for one in (ino, new)]
    same = await world.fs.open(world.fs.lookup(ROOT, b"same").ino, os.O_RDWR, USER)
    listing = world.fs.opendir(ROOT)
    await restorer(world).restore(b"good", b"", undo=False)
    for handle in replaced:
        with pytest.raises(StaleHandle, match="replaced by a restore"):
            await world.fs.read(handle.fh, 0, 1)
        with pytest.raises(StaleHandle):
            await world.fs.write(handle.fh, 0, b"x")
        world.fs.release(handle.fh)
    assert await world.fs.read(same.fh, 0, 10) == b"same"
    assert world.fs.handle(listing.fh) is listing
    world.fs.orphans.purge_batch()
    with pytest.raises(StaleHandle):
        world.table.get(new)


async def test_a_write_that_waits_for_room_does_not_reach_what_came_back(world: RealWorld) -> None:
    ino = await written(world, b"f", b"before")
    taken(world, b"good")
    handle = await world.fs.open(ino, os.O_RDWR, USER)
    await world.fs.write(handle.fh, 0, b"spoilt")
    made, admit = restorer(world), world.cache.admit

    async def admit_after_a_restore(nbytes: int) -> None:
        await made.restore(b"good", b"/", undo=False)
        await admit(nbytes)

    world.cache.admit = admit_after_a_restore  # type: ignore[method-assign]
    with pytest.raises(StaleHandle):
        await world.fs.write(handle.fh, 0, b"late")
    assert await content(world, b"f") == b"before"


async def test_the_kernel_is_told_of_what_it_knows(world: RealWorld) -> None:
    ino, unknown = await written(world, b"f", b"before"), await written(world, b"u", b"before")
    taken(world, b"good")
    world.fs.looked_up(ino)
    for one in (ino, unknown):
        world.fs.set_xattr(one, b"user.x", b"1")
    gone = await written(world, b"gone", b"")
    kernel = Kernel()
    await Restorer(exchange_in(world, kernel)).restore(b"good", b"/", undo=False)
    (told,) = kernel.told
    assert set(told.inodes()) == {ROOT, ino}
    assert list(told.names()) == [(ROOT, b"gone")]
    assert gone not in told.inodes()


async def test_what_fails_changes_nothing(world: RealWorld) -> None:
    await written(world, b"f", b"before")
    taken(world, b"good")
    await written(world, b"g", b"after")
    with pytest.raises(NotFound):
        await restorer(world).restore(b"good", b"/g", undo=True)
    assert [one.name for one in world.table.snapshots()] == [b"good"]
    world.gate.close("lost")
    with pytest.raises(ReadOnly):
        await restorer(world).restore(b"good", b"/", undo=True)
    assert await content(world, b"g") == b"after"
