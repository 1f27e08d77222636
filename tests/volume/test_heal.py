"""What was stored with fewer shards gets the rest without being asked: when, in which order, how gently."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.errors import Unreachable
from objfs.meta.segments import FIRST
from objfs.model import Code, Segment, SegmentNo, Slot
from objfs.store import layout
from objfs.volume.heal import LOOK_S, Healer, make_healer
from objfs.volume.mend import Mender
from objfs.volume.open import OpenOptions
from objfs.volume.quorum import BucketSet
from objfs.volume.rate import Rate
from tests.volume.rigs import running
from tests.volume.support import TrioClock
from tests.volume.wards import Ward, ward

DATA = random.Random(5).randbytes(200_000)


async def readable_without(ward: Ward, *slots: int) -> bytes:
    """A file as a new machine reads it that cannot reach these buckets."""
    home = await ward.cloud.attach(without={f"b{slot}" for slot in slots})
    options = OpenOptions(read_only=True, force=True)
    async with running(await ward.cloud.open(home, options)) as rig:
        found = (await rig.tree())[b"file"]
        await rig.close()
    return found


@pytest.mark.parametrize(("code", "buckets"), [(Code(2, 1), 3), (Code(1, 1), 2)], ids=["striped", "copies"])
async def test_what_was_written_degraded_is_whole_once_the_bucket_is_back(
    tmp_path: Path, code: Code, buckets: int
) -> None:
    async with ward(tmp_path, code, buckets) as it:
        away = it.away(1)
        await it.write(b"file", DATA)
        assert it.short()
        risk = it.rig.table.at_risk()
        assert risk.segments == len(it.short())
        assert risk.nbytes == sum(segment.length for segment in it.short())
        await it.healer.round()
        seen = it.healer.statistics()
        assert seen.segments == risk.segments, "the bucket is still away"
        assert seen.oldest_ns
        it.back(away)
        await it.healer.round()
        assert it.short() == []
        assert it.healer.statistics().segments == it.healer.statistics().blobs == 0
        await it.rig.drain()
        for slot in range(buckets):
            assert await readable_without(it, slot) == DATA


async def test_metadata_that_was_written_degraded_is_healed_too(tmp_path: Path) -> None:
    """A manifest names the shard as missing for ever; it is read all the same once it is there, or the loss
    of another bucket would take the inode table with it."""
    async with ward(tmp_path, Code(1, 1), 2) as it:
        away = it.away(1)
        await it.write(b"file", DATA)
        assert it.healer.statistics().blobs
        it.back(away)
        await it.healer.round()
        assert it.healer.statistics().blobs == 0
        # No further checkpoint: the newest manifest is the one of the degraded moment.
        for slot in (0, 1):
            assert await readable_without(it, slot) == DATA


async def test_the_most_endangered_segment_is_healed_first(tmp_path: Path) -> None:
    async with ward(tmp_path, Code(2, 2), 4) as it:
        one = it.away(1)
        await it.write(b"lacks one")
        two = it.away(3)
        await it.write(b"lacks two")
        first, second = it.short()
        assert (len(first.missing), len(second.missing)) == (2, 1)
        it.back([*one, *two])
        it.faulty[Slot(1)].requests.clear()
        await it.healer.round()
        rows = {first.uuid, second.uuid}
        names = [
            layout.parse_shard(request.key)
            for request in it.faulty[Slot(1)].requests
            if request.operation == "put"
        ]
        put = [name.uuid for name in names if name is not None and name.uuid in rows]
        assert put == [first.uuid, second.uuid]


async def test_nothing_is_asked_while_nothing_is_at_risk(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        await it.write(b"file")
        await it.healer.round()  # looks once at what former mounts left
        before = [len(bucket.requests) for bucket in it.faulty.values()]
        await it.healer.round()
        assert [len(bucket.requests) for bucket in it.faulty.values()] == before


async def test_a_bucket_that_answers_and_takes_nothing_is_left_alone_for_longer_and_longer(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1, reads=False)
        await it.write(b"file")
        it.faulty[Slot(1)].requests.clear()
        with trio.move_on_after(600):
            await it.healer.run()
        tries = sum(request.operation == "put" for request in it.faulty[Slot(1)].requests)
        assert 3 <= tries <= 16
        it.back(away)
        with trio.move_on_after(600 + 2 * LOOK_S):
            await it.healer.run()
        assert it.short() == []


async def test_a_bucket_that_is_down_is_asked_as_often_as_its_pauses_allow(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        await it.write(b"file")
        it.faulty[Slot(1)].requests.clear()
        with trio.move_on_after(600):
            await it.healer.run()
        assert 3 <= len(it.faulty[Slot(1)].requests) <= 20
        for fault in away:
            fault.times = fault.hits
        with trio.move_on_after(200):
            await it.healer.run()
        assert it.short() == []


async def test_a_shard_whose_bucket_has_left_for_good_goes_to_one_that_stands_in(tmp_path: Path) -> None:
    async with ward(tmp_path, buckets=4) as it:
        volume, table, gone = it.rig.volume, it.rig.table, Slot(1)
        away = it.away(gone, 3)
        short: list[tuple[SegmentNo, Segment]] = []
        written = itertools.count()
        while not short:  # places are chosen at random
            await it.write(b"f%d" % next(written))
            short = [
                (number, one)
                for number, one in table.endangered(FIRST, 100)
                if gone in {one.placement[shard] for shard in one.missing}
            ]
        it.back(away)
        rest = [entry for entry in volume.buckets.entries if entry.slot != gone]
        buckets = BucketSet(rest, {entry.slot: volume.buckets.buckets[entry.slot] for entry in rest})
        volume.store.use_buckets(buckets.buckets)
        mender = Mender(volume.store, buckets, table, volume.gate, Rate(0))
        moved = replace(volume, buckets=buckets)
        await Healer(moved, it.rig.checkpointer, it.rig.reaper, mender, TrioClock()).round()
        shards = await it.shards()
        for number, _ in short:
            healed = table.segment(number)
            assert not healed.missing
            assert gone not in healed.placement
            assert len(set(healed.placement)) == healed.code.n
            names = [layout.shard_name(healed.uuid, shard) for shard in range(healed.code.n)]
            assert all(slot in shards[name] for name, slot in zip(names, healed.placement, strict=True))
        volume.store.use_buckets(volume.buckets.buckets)


async def test_below_the_minimum_data_stay_dirty_and_it_is_said_why(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        away = it.away(0, 1)
        it.rig.create(b"file")
        it.rig.write(b"file", 0, DATA)
        with trio.fail_after(30):
            while it.rig.cache.statistics().last_error is None:
                await trio.testing.wait_all_tasks_blocked(0.01)
        seen = it.rig.cache.statistics()
        assert "shards could be placed, 2 are needed (mem://b" in str(seen.last_error)
        assert seen.dirty_bytes >= len(DATA)
        assert it.short() == []
        it.back(away)


async def test_a_healing_that_is_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        for number in range(3):
            await it.write(b"f%d" % number)
        it.back(away)
        count = len(it.short())
        hung = it.faulty[Slot(1)].add(
            Fault(FailBefore(Unreachable), op="put", key="segment/", skip=1, times=1)
        )
        await it.healer.round()
        assert hung.hits == 1
        assert 0 < len(it.short()) < count
        it.back([])
        again = make_healer(it.rig.volume, it.rig.checkpointer, it.rig.reaper, TrioClock(), 0)
        assert again is not None
        await again.round()
        assert it.short() == []


@pytest.mark.parametrize("stands_in", [False, True], ids=["nobody stands in", "another bucket"])
async def test_what_lacks_a_bucket_that_left_is_not_read_for_ever(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, *, stands_in: bool
) -> None:
    """A manifest names the place for as long as it is kept, and a row for as long as nothing else is free."""
    async with ward(tmp_path) as it:
        it.away(1)
        for name in (b"one", b"two"):
            await it.write(name)
        buckets = it.rig.volume.buckets
        table = buckets.entries, buckets.buckets
        entries, reach = await it.with_a_late_one() if stands_in else table
        it.use([one for one in entries if one.slot != 1], {slot: reach[slot] for slot in reach if slot != 1})
        with trio.move_on_after(600):
            await it.healer.run()
        before = it.reads
        with trio.move_on_after(600):
            await it.healer.run()
        # Where nobody stands in, it is tried again now and then.
        assert it.reads - before <= (0 if stands_in else 100)
        assert it.healer.statistics().blobs == 0
