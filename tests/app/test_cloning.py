"""A clone, as whoever uses the mount meets it: real table and cache, no kernel."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from objfs.app.cloning import Cloner
from objfs.errors import Exists, ReadOnly, StaleHandle
from objfs.fs import Caller
from objfs.meta.clone import Cloned, Origin
from objfs.model import ROOT, Ino
from objfs.volume.snapshots import SnapshotKeeper
from tests.app.exchanges import Kernel, exchange_in
from tests.fs.memory import CHUNK
from tests.fs.real import RealWorld

USER = Caller(1000, 100)
LONG = bytes(range(1, 251)) * (3 * CHUNK // 250)
"""Some chunks of a file."""


def cloner(world: RealWorld) -> Cloner:
    return Cloner(exchange_in(world))


async def clone(world: RealWorld, source: bytes, target: bytes) -> Cloned:
    return await cloner(world).clone(Origin(world.fs.lookup(ROOT, source).ino), ROOT, target)


async def write(world: RealWorld, ino: Ino, offset: int, content: bytes) -> None:
    handle = await world.fs.open(ino, os.O_WRONLY, USER)
    await world.fs.write(handle.fh, offset, content)
    world.fs.release(handle.fh)


async def written(world: RealWorld, name: bytes, content: bytes, parent: Ino = ROOT) -> Ino:
    handle, attr = world.fs.create(parent, name, 0o640, os.O_RDWR, USER)
    world.fs.release(handle.fh)
    await write(world, attr.ino, 0, content)
    return attr.ino


async def content(world: RealWorld, name: bytes, parent: Ino = ROOT) -> bytes:
    attr = world.fs.lookup(parent, name)
    handle = await world.fs.open(attr.ino, os.O_RDONLY, USER)
    data = await world.fs.read(handle.fh, 0, attr.size + 1)
    world.fs.release(handle.fh)
    return data


def remove(world: RealWorld, name: bytes) -> None:
    world.fs.unlink(ROOT, name)
    world.fs.orphans.purge_batch()


def recovered(world: RealWorld) -> None:
    """What a mount does after a crash, before anybody is served."""

    async def publish() -> None:
        raise AssertionError("nothing is published")

    SnapshotKeeper(world.table, world.cache, world.gate, world.clock, publish).recover()


async def change_both(world: RealWorld) -> None:
    """Within a chunk, beyond the end, and shorter: nothing of one is seen in the other."""
    source, copy = world.fs.lookup(ROOT, b"f").ino, world.fs.lookup(ROOT, b"g").ino
    was = await content(world, b"f")
    await write(world, source, 3, b"SOURCE")
    assert await content(world, b"g") == was
    await write(world, copy, 5, b"COPY")
    assert await content(world, b"f") == was[:3] + b"SOURCE" + was[9:]
    assert await content(world, b"g") == was[:5] + b"COPY" + was[9:]
    await world.fs.truncate(source, 7, USER)
    await write(world, source, CHUNK, b"x")
    assert await content(world, b"g") == was[:5] + b"COPY" + was[9:]
    assert await content(world, b"f") == was[:3] + b"SOUR" + bytes(CHUNK - 7) + b"x"
    assert world.table.check() == []


async def test_either_is_written_while_no_bucket_has_the_bytes(world: RealWorld) -> None:
    await written(world, b"f", LONG)
    await clone(world, b"f", b"g")
    await change_both(world)
    now = [await content(world, name) for name in (b"f", b"g")]
    await world.flush()
    world.evict()
    assert [await content(world, name) for name in (b"f", b"g")] == now


async def test_either_is_written_when_the_buckets_have_the_bytes(world: RealWorld) -> None:
    await written(world, b"f", LONG)
    await world.flush()
    await clone(world, b"f", b"g")
    assert world.table.dirty_ids() == []
    world.evict()
    await change_both(world)


async def test_after_a_crash_a_shared_version_is_not_written_in_place(world: RealWorld) -> None:
    """There is no snapshot: that a clone names it too is all that says so."""
    await written(world, b"f", LONG)
    await clone(world, b"f", b"g")
    world.restart()
    recovered(world)
    assert [await content(world, name) for name in (b"f", b"g")] == [LONG, LONG]
    await change_both(world)


async def test_after_a_crash_what_only_the_clone_has_left_is_not_clipped_in_place(world: RealWorld) -> None:
    await written(world, b"f", LONG)
    await clone(world, b"f", b"g")
    remove(world, b"f")
    world.restart()
    recovered(world)
    await world.fs.truncate(world.fs.lookup(ROOT, b"g").ino, 5, USER)
    assert await content(world, b"g") == LONG[:5]
    assert world.table.check() == []


async def test_a_power_cut_takes_nothing_from_a_clone(world: RealWorld) -> None:
    """Nothing was synced by anybody else: the clone itself makes what it shares durable."""
    ino = await written(world, b"f", b"before")
    await clone(world, b"f", b"g")
    shared = world.table.chunk_at(ino, 0)
    assert shared is not None
    await write(world, ino, 0, b"AFTER!")
    world.power_cut(lost=shared.chunk)
    recovered(world)
    assert await content(world, b"g") == b"before"
    assert await content(world, b"f") == b"AFTER!"


async def test_the_source_goes_and_the_clone_stays(world: RealWorld) -> None:
    await written(world, b"f", LONG)
    await clone(world, b"f", b"g")
    remove(world, b"f")
    await world.cache._reap()
    assert await content(world, b"g") == LONG
    await world.flush()
    world.evict()
    await clone(world, b"g", b"h")
    remove(world, b"g")
    assert await content(world, b"h") == LONG
    assert world.table.check() == []
    remove(world, b"h")
    assert world.table.statistics().content_bytes == 0
    assert len(world.table.segments_without_chunks(10)) == world.table.statistics().segments


async def test_a_tree_with_all_that_a_copy_keeps(world: RealWorld) -> None:
    fs = world.fs
    top = fs.mkdir(ROOT, b"top", 0o750, USER).ino
    ino = await written(world, b"sparse", b"x", top)
    await write(world, ino, 2 * CHUNK, b"y")
    fs.link(ino, top, b"again")
    fs.set_xattr(ino, b"user.kind", b"text")
    fs.symlink(top, b"link", b"sparse", USER)
    fs.mkdir(fs.mkdir(top, b"d", 0o700, USER).ino, b"e", 0o700, USER)
    made = await clone(world, b"top", b"clone")
    assert made.inodes == 5
    assert [entry.name for entry in fs.readdir(made.ino, 0, 10)] == [b"sparse", b"again", b"link", b"d"]
    copy = fs.lookup(made.ino, b"sparse")
    old = fs.getattr(ino)
    assert copy.ino == fs.lookup(made.ino, b"again").ino
    kept = ("mode", "uid", "gid", "nlink", "size", "held", "mtime_ns", "atime_ns")
    assert [getattr(copy, name) for name in kept] == [getattr(old, name) for name in kept]
    assert fs.get_xattr(copy.ino, b"user.kind") == b"text"
    assert fs.lookup(made.ino, b"link").target == b"sparse"
    assert fs.lookup(ROOT, b"clone").nlink == fs.lookup(ROOT, b"top").nlink
    assert await content(world, b"sparse", made.ino) == b"x" + bytes(2 * CHUNK - 1) + b"y"


async def test_a_clone_out_of_a_snapshot(world: RealWorld) -> None:
    ino = await written(world, b"f", b"before")
    taken = world.table.create_snapshot(b"s", 1)
    world.cache.freeze()
    await write(world, ino, 0, b"AFTER!")
    remove(world, b"f")
    await cloner(world).clone(Origin(ino, taken), ROOT, b"g")
    world.table.drop_snapshot(b"s")
    while not world.table.clear_forgotten(100):
        pass
    assert await content(world, b"g") == b"before"
    assert world.table.check() == []
    with pytest.raises(StaleHandle, match="deleted"):
        await cloner(world).clone(Origin(ino, taken), ROOT, b"h")


async def test_writes_wait_while_the_last_bytes_are_made_durable(world: RealWorld) -> None:
    """One that comes in between is in the source afterwards, and not in the clone."""
    ino = await written(world, b"f", b"before")
    sync, syncs = world.cache.fsync, []

    async def sync_and_let_others_run(one: Ino) -> None:
        syncs.append(one)
        await sync(one)
        if len(syncs) == 2:
            nursery.start_soon(write, world, ino, 0, b"AFTER!")
            await trio.testing.wait_all_tasks_blocked()
            assert await content(world, b"f") == b"before"

    world.cache.fsync = sync_and_let_others_run  # type: ignore[method-assign, assignment]
    async with trio.open_nursery() as nursery:
        await clone(world, b"f", b"g")
    assert await content(world, b"f") == b"AFTER!"
    assert await content(world, b"g") == b"before"


async def test_what_is_refused_leaves_nothing_and_holds_nobody(world: RealWorld) -> None:
    ino = await written(world, b"f", b"before")
    with pytest.raises(Exists):
        await clone(world, b"f", b"f")
    await write(world, ino, 0, b"AFTER!")
    world.gate.close("the lease is lost")
    with pytest.raises(ReadOnly):
        await clone(world, b"f", b"g")
    assert [entry.name for entry in world.fs.readdir(ROOT, 0, 10)] == [b"f"]


async def test_the_kernel_forgets_that_the_name_was_not_there(world: RealWorld) -> None:
    await written(world, b"f", b"before")
    kernel = Kernel()
    await Cloner(exchange_in(world, kernel)).clone(Origin(world.fs.lookup(ROOT, b"f").ino), ROOT, b"g")
    (told,) = kernel.told
    assert list(told.names()) == [(ROOT, b"g")]
    assert list(told.inodes()) == [ROOT]
