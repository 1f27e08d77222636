"""Snapshots among writers, and a machine that dies while one is taken or deleted: before or after, never
between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from objfs.backends.wrappers.faults import Fault, Hang
from objfs.errors import ExitCode
from objfs.model import Snapshot
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions
from objfs.volume.snapshots import SnapshotKeeper
from tests.volume.patients import Patient
from tests.volume.rigs import Cloud, Model, Rig, Tree, running
from tests.volume.test_snapshots import keeper, tree_at

PUTS = range(5)
"""How many puts each bucket takes before the machine dies: a shard of the data, of pages, a manifest."""
READING = OpenOptions(host="other", read_only=True)


async def test_a_snapshot_among_writers_is_a_whole_moment(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    model = Model(7)
    moments: list[tuple[Snapshot, Tree]] = []
    async with running(await cloud.open(home)) as rig:

        async def write() -> None:
            while True:
                model.step(rig)
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            for number in range(8):
                await trio.sleep(0.05)
                before = dict(model.tree)
                taken = await keeper(rig).create(b"%d" % number, wait=number % 2 == 0)
                moments.append((taken, before))
            nursery.cancel_scope.cancel()
        assert await trees(rig, moments) == [before for _, before in moments]
        await rig.leave()
    report = await Patient(cloud, home).check(data=True)
    assert report.exit_code == ExitCode.OK, report.findings
    async with running(await cloud.open(await cloud.attach(without=["b1"]), READING)) as rig:
        assert rig.table.snapshots() == [taken for taken, _ in moments]
        assert await trees(rig, moments) == [before for _, before in moments]
        await rig.close()


async def trees(rig: Rig, moments: list[tuple[Snapshot, Tree]]) -> list[Tree]:
    return [await tree_at(rig, taken.generation) for taken, _ in moments]


async def dying(
    cloud: Cloud,
    home: VolumeHome,
    puts: int,
    prepare: Callable[[Rig], Awaitable[None]],
    last: Callable[[SnapshotKeeper], Awaitable[object]],
) -> bool:
    """A machine that dies after so many puts to each bucket since ``prepare`` ended, at the latest when
    ``last`` has returned; whether it has."""
    buckets = cloud.buckets(home)
    returned = False
    async with running(await cloud.open_with(home, buckets)) as rig:
        await prepare(rig)
        faults = [
            bucket.add(Fault(op=("put", "put_if_absent"), action=Hang(), skip=puts))
            for bucket in buckets.values()
        ]

        async def watch(fault: Fault) -> None:
            await fault.reached.wait()
            scope.cancel()

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                for fault in faults:
                    nursery.start_soon(watch, fault)
                await last(keeper(rig))
                returned = True
            nursery.cancel_scope.cancel()
    rig.vanish()
    return returned


async def shown(cloud: Cloud, home: VolumeHome, options: OpenOptions) -> dict[bytes, Tree]:
    """Each snapshot's tree, as a machine finds it; the table breaks no rule."""
    async with running(await cloud.open(home, options)) as rig:
        if not options.read_only:
            keeper(rig).recover()
        found = {one.name: await tree_at(rig, one.generation) for one in rig.table.snapshots()}
        assert rig.table.check() == []
        if not options.read_only:
            await keeper(rig).clear()
            assert rig.table.check() == []
            await rig.leave()
        else:
            await rig.close()
        return found


BEFORE, AFTER = {b"a": b"1" * 70_000}, {b"a": b"2" * 70_000, b"b": b"dirty"}


async def fill(rig: Rig) -> None:
    rig.create(b"a")
    rig.write(b"a", 0, BEFORE[b"a"])
    await keeper(rig).create(b"old")
    await rig.drain()
    rig.write(b"a", 0, AFTER[b"a"])
    rig.create(b"b")
    rig.write(b"b", 0, AFTER[b"b"])


@pytest.mark.parametrize("puts", PUTS)
async def test_killed_while_a_snapshot_is_taken(tmp_path: Path, puts: int) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    returned = await dying(cloud, home, puts, fill, lambda snapshots: snapshots.create(b"new"))
    elsewhere = await shown(cloud, await cloud.attach(), READING)
    both = {b"old": BEFORE, b"new": AFTER}
    assert elsewhere == both if returned else elsewhere in ({b"old": BEFORE}, both)
    assert await shown(cloud, home, OpenOptions(host="host")) == both


@pytest.mark.parametrize("puts", PUTS)
async def test_killed_while_a_snapshot_is_deleted(tmp_path: Path, puts: int) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)

    async def prepare(rig: Rig) -> None:
        await fill(rig)
        await keeper(rig).create(b"new")

    returned = await dying(cloud, home, puts, prepare, lambda snapshots: snapshots.delete(b"old"))
    elsewhere = await shown(cloud, await cloud.attach(), READING)
    gone = {b"new": AFTER}
    assert elsewhere == gone if returned else elsewhere in ({b"old": BEFORE, **gone}, gone)
    assert await shown(cloud, home, OpenOptions(host="host")) == gone
