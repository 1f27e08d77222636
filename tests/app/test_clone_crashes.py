"""A machine that dies while a tree is cloned: no clone, or all of it, and each file with its own bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
import trio

from objfs.app.cloning import Cloner
from objfs.app.exchange import Replaced
from objfs.backends.wrappers.faults import Fault, Hang
from objfs.errors import NotFound
from objfs.meta.clone import Origin
from objfs.model import ROOT, ChunkId, Ino
from objfs.volume.open import OpenOptions
from tests.app.exchanges import exchange_in
from tests.app.test_cloning import USER, content, recovered, write, written
from tests.fs.memory import CHUNK
from tests.fs.real import RealWorld
from tests.volume.rigs import Cloud, Rig, running
from tests.volume.test_snapshot_crashes import READING
from tests.volume.test_snapshots import keeper

STORED, DIRTY = b"stored" * CHUNK, b"dirty" * CHUNK


class Died(BaseException):
    """The process is gone."""


class Dying:
    """Dies before its ``last`` place, counted from 0; ``reached`` are those that it came to."""

    def __init__(self, last: int) -> None:
        self._last = last
        self.reached = 0

    def place(self) -> None:
        if self.reached == self._last:
            raise Died
        self.reached += 1

    def before(self, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        async def dying() -> None:
            self.place()
            await work()
            self.place()

        return dying

    async def forget(self, _changes: Replaced) -> None:
        self.place()


async def filled(world: RealWorld) -> Ino:
    top = world.fs.mkdir(ROOT, b"top", 0o755, USER).ino
    await written(world, b"stored", STORED, top)
    await world.flush()
    ino = await written(world, b"dirty", DIRTY, top)
    world.fs.link(ino, top, b"again")
    return top


def cloner(world: RealWorld, dying: Dying) -> Cloner:
    """It dies around each sync, within the transaction, and when the kernel is told."""

    async def sync() -> None:
        await world.cache.sync()

    made = Cloner(exchange_in(world, dying, dying.before(sync)))
    world.cache.sync = dying.before(world.cache.sync)  # type: ignore[method-assign, assignment]
    freeze = world.cache.freeze_only

    def freeze_only(chunks: Iterable[ChunkId]) -> None:
        dying.place()
        freeze(chunks)
        dying.place()

    world.cache.freeze_only = freeze_only  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("last", range(9))
async def test_killed_at_every_place_of_a_clone(last: int) -> None:
    world = RealWorld()
    top = await filled(world)
    dying = Dying(last)
    with pytest.raises(Died):
        await cloner(world, dying).clone(Origin(top), ROOT, b"clone")
    world.restart()
    recovered(world)
    try:
        copy = world.fs.lookup(ROOT, b"clone").ino
    except NotFound:
        assert last <= 5, "the transaction was over"
        assert world.inodes() == 4
    else:
        assert last > 5, "the transaction was not over"
        assert [entry.name for entry in world.fs.readdir(copy, 0, 9)] == [b"stored", b"dirty", b"again"]
        await write(world, world.fs.lookup(top, b"dirty").ino, 0, b"SOURCE")
        await write(world, world.fs.lookup(copy, b"stored").ino, 0, b"CLONE")
        assert await content(world, b"again", copy) == DIRTY
        assert await content(world, b"stored", copy) == b"CLONE" + STORED[5:]
    assert await content(world, b"stored", top) == STORED
    world.close()


async def test_every_place_of_a_clone_was_died_at() -> None:
    world = RealWorld()
    dying = Dying(1000)
    await cloner(world, dying).clone(Origin(await filled(world)), ROOT, b"clone")
    assert dying.reached == 9 + 2, "nine of its own, and two of the sync that ends it"
    world.close()


async def flush_until(rig: Rig, faults: list[Fault]) -> None:
    """Dies when the first of the faults is met, else when all is in the buckets."""
    async with trio.open_nursery() as nursery:

        async def watch(fault: Fault) -> None:
            await fault.reached.wait()
            nursery.cancel_scope.cancel()

        for fault in faults:
            nursery.start_soon(watch, fault)
        await rig.drain()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("puts", range(4))
async def test_killed_while_a_clone_goes_to_the_buckets(tmp_path: Path, puts: int) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    buckets = cloud.buckets(home)
    data = b"1" * 70_000
    async with running(await cloud.open_with(home, buckets)) as rig:
        rig.create(b"a")
        rig.write(b"a", 0, data)
        await rig.drain()
        rig.write(b"a", 0, b"dirty")
        made = rig.table.clone(Origin(rig.table.lookup(ROOT, b"a").ino), ROOT, b"b", 1)
        rig.cache.freeze_only(made.dirty)
        rig.write(b"a", 1, b"later")
        faults = [
            bucket.add(Fault(op=("put", "put_if_absent"), action=Hang(), skip=puts))
            for bucket in buckets.values()
        ]
        await flush_until(rig, faults)
    rig.vanish()
    old = {b"a": data}
    new = {b"a": b"dlater" + data[6:], b"b": b"dirty" + data[5:]}
    async with running(await cloud.open(await cloud.attach(), READING)) as elsewhere:
        assert await elsewhere.tree() in (old, new)
        await elsewhere.close()
    async with running(await cloud.open(home, OpenOptions(host="host"))) as again:
        keeper(again).recover()
        again.write(b"b", 0, b"DIRTY")
        assert await again.tree() == {b"a": new[b"a"], b"b": b"DIRTY" + data[5:]}
        assert again.table.check() == []
        await again.leave()
