"""Deletes that a bucket did not take: remembered, over a crash too, and made up for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from objfs.errors import LeaseLost, ObjfsError
from objfs.model import SegmentNo, Slot
from objfs.store import layout
from objfs.volume.debts import Debts, read_debts, shards_of
from objfs.volume.lease import Lease
from objfs.volume.local import VolumeHome
from tests.volume.support import Site
from tests.volume.test_reaper import change, data_segment, remounted
from tests.volume.writers import Writer, writer


async def with_a_segment_to_delete(site: Site, tmp_path: Path) -> tuple[Writer, list[tuple[Slot, str]]]:
    """A writer, and the objects of a segment that its next round deletes."""
    one = await writer(site, tmp_path)
    segment = await data_segment(one, 5)
    await change(one, b"with")
    one.segments.used.clear()
    one.reaper.search()
    for text in (b"without", b"later", b"and later"):
        await change(one, text)
        await trio.sleep(100)
    return one, shards_of(segment)


@dataclass
class LateLook:
    """A lease that is looked at when it is told to."""

    lease: Lease
    told: trio.Event

    async def check(self) -> None:
        await self.told.wait()
        await self.lease.check()

    def check_open(self) -> None:
        self.lease.check_open()


async def there(site: Site, objects: list[tuple[Slot, str]]) -> list[Slot]:
    return [slot for slot, name in objects if name in await site.keys(slot, "segment/")]


async def test_a_bucket_that_was_down_loses_its_objects_when_it_is_back(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    silent = objects[0][0]
    one.machine.break_bucket(silent)
    assert (await one.reaper.round()).segments == 1
    assert await there(site, objects) == [silent]
    assert objects[0][1] in one.reaper.debts.owed[silent]
    one.machine.faulty[silent].clear()
    await trio.sleep(100)
    await one.reaper.round()
    assert await there(site, objects) == []
    assert not one.reaper.debts.owed
    assert not read_debts(one.home)


async def test_a_bucket_that_stays_down_is_asked_less_and_less(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    fault = one.machine.break_bucket(objects[0][0])
    asked = []
    for _ in range(7):
        before = fault.hits
        await one.reaper.debts.owe(objects[:1])
        await one.reaper.debts.pay(one.machine.buckets, one.lease)
        asked.append(fault.hits > before)
        await trio.sleep(61)
    assert asked == [True, True, False, True, False, False, False]


async def test_what_a_killed_process_had_decided_is_deleted_by_the_next(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    """The row is gone by then: without the list the objects would be nobody's."""
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    await one.reaper.debts.owe(objects)
    one.segments.rows.pop(SegmentNo(5))
    one.segments.gone.pop(SegmentNo(5))
    again = await remounted(one)
    await again.reaper.round()
    assert await there(site, objects) == []


@contextmanager
def full_disk(one: Writer) -> Iterator[None]:
    """Inside, the list cannot be written."""
    in_the_way = one.home.debts_path.with_name(f".{one.home.debts_path.name}.new")
    in_the_way.mkdir()
    yield
    in_the_way.rmdir()


async def test_a_full_local_disk_ends_a_round_and_not_the_mount(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    """Nothing is deleted that is not written down, and the next round does it."""
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    with full_disk(one):
        with pytest.raises(ObjfsError, match="cannot be written"):
            await one.reaper.round()
        assert len(await there(site, objects)) == len(objects)
        with pytest.raises(ObjfsError, match="cannot be written"):
            await one.reaper.round()
    await one.reaper.round()
    assert await there(site, objects) == []
    assert not read_debts(one.home)
    named = {blob.segment.uuid for manifest in one.reaper.kept for blob in manifest.blobs}
    keys = [key for slot in range(3) for key in await site.keys(slot, "segment/")]
    assert {layout.parse_shard(key).uuid for key in keys} == named  # type: ignore[union-attr]


async def test_what_could_not_be_written_down_is_not_owed(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    """The manifest may be one that a reader has pinned by the next round, and its blobs would go."""
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    with full_disk(one), pytest.raises(ObjfsError, match="cannot be written"):
        await one.reaper.debts.owe(objects)
    assert not one.reaper.debts.owed
    await one.reaper.debts.pay(one.machine.buckets, one.lease)
    assert len(await there(site, objects)) == len(objects)


async def test_two_rounds_at_once_pay_each_debt_once(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    """The second one asked for the names that the first had struck out meanwhile, and ended the mount."""
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    debts = one.reaper.debts
    await debts.owe(objects)
    late = LateLook(one.lease, trio.Event())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(debts.pay, one.machine.buckets, cast("Lease", late))
        await trio.testing.wait_all_tasks_blocked()
        await debts.pay(one.machine.buckets, one.lease)
        late.told.set()
    assert not debts.owed
    assert await there(site, objects) == []


async def test_nobody_pays_after_a_takeover(tmp_path: Path, patient_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    one, objects = await with_a_segment_to_delete(site, tmp_path)
    await one.reaper.debts.owe(objects)
    await site.machine().acquire(force=True)
    with pytest.raises(LeaseLost):
        await one.reaper.debts.pay(one.machine.buckets, one.lease)
    assert await there(site, objects) == [slot for slot, _ in objects]


async def test_a_manifest_that_counts_again_is_not_owed(tmp_path: Path) -> None:
    """After a history was given up, its numbers are given anew."""
    site = Site(3)
    one = await writer(site, tmp_path)
    debts = Debts(one.home, one.machine.clock)
    names = {number: layout.manifest_name(number) for number in (1, 2, 3, 9)}
    await debts.owe((Slot(0), name) for name in names.values())
    debts.keep_manifests({3, 5})
    assert list(debts.owed[Slot(0)]) == [names[1], names[2]]


async def test_a_bucket_that_left_the_volume_is_owed_nothing(tmp_path: Path) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    await one.reaper.debts.owe([(Slot(9), "segment/00/none.00")])
    assert await one.reaper.debts.pay(one.machine.buckets, one.lease) == 0
    assert not one.reaper.debts.owed


def test_a_list_that_cannot_be_read_is_as_good_as_none(tmp_path: Path) -> None:
    home = VolumeHome(tmp_path, "v")
    home.path.mkdir()
    home.debts_path.write_bytes(b'{"owed": [{"slot": 1, "names": ["../../etc"]}]}')
    assert read_debts(home) == {}
