"""The look for garbage: it says what is there and why, and deletes only what nothing can need."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket
from objfs.errors import LeaseLost, Unreachable
from objfs.model import ChunkId, Ino, Slot
from objfs.ports import Sealable
from objfs.store import layout
from objfs.volume.debts import shards_of
from objfs.volume.gc import Known, Order, Survey
from objfs.volume.gc_report import GcReport
from objfs.volume.open import OpenOptions
from objfs.volume.reaper import Retention
from tests.volume.rigs import Cloud, Rig, running
from tests.volume.support import TrioClock
from tests.volume.test_compact import data_segments, filled, objects, settle, thinned

STRAY = "segment/ab/abababababababababababababababab."


def survey(rig: Rig, *, grace_s: float = 0, youngest_s: float = 0) -> Survey:
    """``grace_s`` and ``youngest_s`` 0: whatever nothing names is old."""

    async def known() -> Known:
        await rig.reaper.learn()
        reaper = rig.reaper
        return Known(reaper.kept, reaper.pinned, frozenset(reaper.unread), reaper.waiting)

    order = Order(
        rig.volume,
        Retention(window_s=0, keep=2, grace_s=grace_s),
        rig.compactor.terms,
        TrioClock(),
        known,
        rig.reaper.debts.owed,
        lambda _text: None,
        youngest_s,
    )
    return Survey(order)


async def look(
    rig: Rig, name_all: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint, **ages: float
) -> GcReport:
    return await survey(rig, **ages).look(name_all)


async def delete(rig: Rig, **ages: float) -> int:
    """As ``gc --delete``."""
    found = survey(rig, **ages)
    await found.look(rig.checkpointer.flush)
    assert rig.volume.lease is not None
    return await found.delete_unknown(rig.volume.lease)


async def strew(cloud: Cloud, name: str, data: bytes = b"left by somebody") -> None:
    """An object that nothing names, in every bucket."""
    for number, bucket in enumerate(cloud.names):
        await cloud.memory.open(bucket).put(name.format(f"{number:02x}"), data)


async def test_it_says_what_is_empty_sparse_and_waiting_and_changes_nothing(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        await thinned(rig)
        (sparse,) = data_segments(rig).values()
        before, changes = await objects(cloud.memory, cloud.names, ""), rig.table.changes
        report = await look(rig)
        assert (report.segments.segments, report.sparse.segments, report.units) == (1, 1, 1)
        assert report.sparse_alive_bytes == report.alive_bytes == sparse.stored
        held = {name: size for name, size in before.items() if sparse.segment.uuid.hex() in name}
        assert report.segments.nbytes == report.sparse.nbytes == sum(held.values())
        assert sum(sum(ages.values()) for ages in report.doomed.values()) == sum(held.values())
        assert (await objects(cloud.memory, cloud.names, ""), rig.table.changes) == (before, changes)

        await rig.compactor.round(rig.compactor.terms)
        assert (await look(rig)).waiting.keys() == {"unpublished"}
        await rig.checkpointer.flush()
        waiting = await look(rig, grace_s=1000)
        assert waiting.waiting.keys() == {"grace"}
        assert 0 < waiting.grace_left_s <= 1000
        assert json.loads(json.dumps(waiting.to_json()))["waiting"]["grace"]["segments"] == 1
        assert (await look(rig)).waiting.keys() == {"moments"}
        await settle(rig)
        report = await look(rig)
        assert (report.segments.segments, report.sparse.segments, len(report.waiting)) == (1, 0, 0)
        for name in (b"f0", b"f1"):
            rig.unlink(name)
        assert (await look(rig)).empty.segments == 1
        await rig.leave()


async def test_unknown_objects_are_told_and_go_only_when_they_are_old(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await filled(rig)
        await strew(cloud, STRAY + "{}")
        await strew(cloud, "segment/somebody/else")
        report = await look(rig, youngest_s=3600)
        (one,) = report.unknown
        assert (one.uuid, one.objects, one.old) == ("ab" * 16, 3, False)
        assert sum(report.foreign.values()) == 3
        assert await delete(rig, youngest_s=3600) == 0
        assert await delete(rig, grace_s=3600) == 0
        assert await delete(rig) == 3
        assert not (await look(rig)).unknown
        assert len([name for name in await objects(cloud.memory, cloud.names) if "somebody" in name]) == 3
        assert await rig.tree() == content
        await rig.leave()
    async with running(await cloud.open(await cloud.attach())) as other:
        assert await other.tree() == content
        await other.leave()


async def test_what_is_named_only_after_the_listing_is_not_unknown(tmp_path: Path) -> None:
    """An upload that was under way."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        segment, _ = await rig.volume.store.write_segment([Sealable(ChunkId(999), Ino(1), 0, b"late")])

        async def name_all() -> None:
            await trio.lowlevel.checkpoint()
            rig.table.place(segment, [])

        assert not (await look(rig, name_all)).unknown
        await rig.leave()


async def test_what_is_owed_to_a_bucket_is_not_unknown(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        segment, _ = await rig.volume.store.write_segment([Sealable(ChunkId(999), Ino(1), 0, b"late")])
        await rig.reaper.debts.owe(shards_of(segment))
        report = await look(rig)
        assert not report.unknown
        assert sum(report.owed.values()) == len(segment.placement)
        await rig.leave()


async def test_nothing_is_deleted_while_a_checkpoint_does_not_open(tmp_path: Path) -> None:
    """Nobody knows what it names."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"a")
        await rig.drain()
        await rig.leave()
    for name in cloud.names:
        await cloud.memory.open(name).put(layout.manifest_name(1), b"rotten")
    async with running(await cloud.open(home)) as rig:
        await strew(cloud, STRAY + "{}")
        report = await look(rig)
        assert "does not open" in report.unsure
        assert await delete(rig) == 0
        await rig.leave()


async def test_a_bucket_that_is_away_is_said_to_be_unseen(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        await strew(cloud, STRAY + "{}")
        bucket = rig.volume.buckets.buckets[Slot(1)]
        assert isinstance(bucket, FaultyBucket)
        fault = bucket.add(Fault(FailBefore(Unreachable)))
        report = await look(rig)
        assert len(report.silent) == 1
        assert [one.objects for one in report.unknown] == [2]
        bucket.remove(fault)
        await rig.leave()


async def test_nothing_is_deleted_after_a_takeover(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        await strew(cloud, STRAY + "{}")
        found = survey(rig)
        await found.look(trio.lowlevel.checkpoint)
        taker = await cloud.open(await cloud.attach(), OpenOptions(host="other", force=True))
        await taker.close(clean=True, settled=True)
        assert rig.volume.lease is not None
        with pytest.raises(LeaseLost):
            await found.delete_unknown(rig.volume.lease)
        assert len([name for name in await objects(cloud.memory, cloud.names) if "abab" in name]) == 3
        await rig.close()
