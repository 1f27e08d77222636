"""A volume moves house while it is in use, and is killed in the middle of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from objfs.backends.base import Bucket
from objfs.backends.wrappers.faults import Fault, FaultyBucket, Hang
from objfs.backends.wrappers.wrapper import Wrapper
from objfs.errors import ForeignBucket, NoQuorum, NotEnoughShards, UsageError, VolumeExists
from objfs.model import Code, Slot
from objfs.store import layout
from objfs.volume import header as headers
from objfs.volume.open import OpenOptions
from tests.volume.houses import Fuse, House, Killed, settle
from tests.volume.rigs import Cloud, running

NEW = "b9"


async def test_a_new_bucket_gets_its_share_and_no_more(tmp_path: Path) -> None:
    house = await House.build(tmp_path)
    house.cloud.names.append(NEW)
    async with house.mounted() as rig:
        work = house.rehousing(rig)
        estimate = await work.estimate_spread(joining=1)
        done = await work.add(await house.welcome(work, NEW))
        segments = house.segments()
        share = sum(Slot(3) in segment.placement for segment in segments)
        total = sum(segment.code.n for segment in segments)
        assert total // 4 - 2 <= share <= total // 4 + 1
        assert done.moved == share
        assert estimate.shards == done.moved
        assert estimate.size == done.moved_size
        assert await rig.tree() == house.tree
        assert (await work.rebalance()).moved == done.moved  # of both: the second had nothing to do
        await settle(rig)
        assert rig.table.strays.listed() == []
        for number, name in enumerate(house.cloud.names):
            named = {one.uuid for one in house.segments() if Slot(number) in one.placement}
            there = await house.shards(name)
            assert {one.uuid for one in segments} & there.keys() <= named
    for lost in house.cloud.names:
        assert await house.shown(lost) == house.tree


async def test_copies_of_moved_shards_stay_while_an_older_moment_names_them(tmp_path: Path) -> None:
    """A mount elsewhere goes on reading what its moment says, and so does a recovery of an older moment."""
    house = await House.build(tmp_path)
    before = {name: await house.shards(name) for name in house.cloud.names}
    other = await house.cloud.attach()
    options = OpenOptions(read_only=True, host="other")
    async with running(await house.cloud.open(other, options)) as reader:
        house.cloud.names.append(NEW)
        async with house.mounted() as rig:
            work = house.rehousing(rig)
            await work.add(await house.welcome(work, NEW))
            await rig.reaper.round()
            strays = rig.table.strays.listed()
            assert len(strays) > 0
            for name, shards in before.items():
                assert shards.keys() <= (await house.shards(name)).keys()
        assert await reader.tree() == house.tree
    reader.vanish()


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_a_bucket_is_replaced(tmp_path: Path, gone: bool) -> None:
    house = await House.build(tmp_path)
    if gone:
        house.take_away("b1")
    house.cloud.names = ["b0", "b2", NEW]
    async with house.mounted() as rig:
        work = house.rehousing(rig)
        estimate = await work.estimate_replace(house.entry(work, "b1"))
        done = await work.replace(house.entry(work, "b1"), await house.welcome(work, NEW))
        assert abs(done.moved - estimate.shards) <= 1  # a delta may have come or gone
        assert bool(done.rebuilt) == gone
        assert [entry.slot for entry in work.members.entries] == [0, 2, 3]
        assert all(Slot(1) not in segment.placement for segment in house.segments())
        rig.create(b"later")
        rig.write(b"later", 0, b"l" * 70_000)
        await rig.checkpointer.flush()
        assert await rig.tree() == house.tree | {b"later": b"l" * 70_000}
        await rig.leave()
    tree = house.tree | {b"later": b"l" * 70_000}
    for lost in house.cloud.names:
        for by in house.cloud.names:
            if by != lost:
                assert await house.shown(lost, by=by) == tree
    if not gone:
        with pytest.raises(ForeignBucket, match="removed from this volume"):
            await house.cloud.attach_first("b1", ["b1"])


async def test_what_compaction_was_writing_does_not_stay_in_a_bucket_that_left(tmp_path: Path) -> None:
    """Its row would have named a bucket that is none of the volume's, and nobody would have healed it."""
    house = await House.build(tmp_path)
    house.cloud.names = ["b0", "b2", NEW]
    async with running(await house.cloud.open(house.home)) as rig:
        leaving = rig.volume.buckets.buckets[Slot(1)]
        assert isinstance(leaving, FaultyBucket)
        slow = leaving.add(Fault(Hang(), op="put", key="segment/", times=1))
        work = house.rehousing(rig)
        async with trio.open_nursery() as nursery:
            terms = replace(rig.compactor.terms, old_keys=True, key_id=99)
            nursery.start_soon(rig.compactor.round, terms)
            with trio.fail_after(30):
                await slow.reached.wait()
            await work.replace(house.entry(work, "b1"), await house.welcome(work, NEW))
            assert isinstance(slow.action, Hang)
            slow.action.release.set()
        await rig.drain()
        assert all(Slot(1) not in segment.placement for segment in house.segments())
        await rig.leave()
    for lost in house.cloud.names:
        by = next(name for name in house.cloud.names if name != lost)
        assert await house.shown(lost, by=by) == house.tree


async def test_a_bucket_is_removed_and_its_slot_never_used_again(tmp_path: Path) -> None:
    house = await House.build(tmp_path, 4)
    async with house.mounted() as rig:
        work = house.rehousing(rig)
        estimate = await work.estimate_remove(house.entry(work, "b3"))
        done = await work.remove(house.entry(work, "b3"))
        assert abs(done.moved - estimate.shards) <= 1
        assert done.stuck == []
        assert {slot for segment in house.segments() for slot in segment.placement} == {0, 1, 2}
        with pytest.raises(ForeignBucket, match="was a bucket of this volume once"):
            await house.welcome(work, "b3")
        with pytest.raises(UsageError, match="bears the loss of 0 buckets and not of 1"):
            await work.remove(house.entry(work, "b0"))
        newcomer = await house.welcome(work, NEW)
        assert newcomer.entry.slot == 4
        await work.add(newcomer)
        await rig.leave()
    house.cloud.names = ["b0", "b1", "b2", NEW]
    for lost in house.cloud.names:
        assert await house.shown(lost) == house.tree


async def test_what_cannot_be_rebuilt_keeps_its_bucket_in_the_volume(tmp_path: Path) -> None:
    """Two of three are gone, where one may be: nothing is given up before a person says so."""
    house = await House.build(tmp_path, files=4)
    house.take_away("b1")
    house.cloud.names = ["b0", "b2", NEW]
    async with house.mounted() as rig:
        held = await house.cut("b2")
        work = house.rehousing(rig)
        newcomer = await house.welcome(work, NEW)
        with pytest.raises(NotEnoughShards, match="too few sound shards"):
            await work.replace(house.entry(work, "b1"), newcomer)
        assert Slot(1) in {entry.slot for entry in work.members.entries}
        await house.paste("b2", held)
        await work.replace(house.entry(work, "b1"), newcomer)
        assert Slot(1) not in {entry.slot for entry in work.members.entries}
        await rig.leave()
    assert await house.shown("b0") == house.tree


async def test_a_bucket_that_belongs_elsewhere_is_refused(tmp_path: Path) -> None:
    house = await House.build(tmp_path, files=1)
    (tmp_path / "other").mkdir()
    stranger = Cloud(tmp_path / "other", 1)
    await stranger.make(stranger.home(), Code(1, 0))
    for info in await stranger.memory.open("b0").list(""):
        data = await stranger.memory.open("b0").get(info.key)
        await house.cloud.memory.open("foreign").put(info.key, data)
        if info.key != "label":
            await house.cloud.memory.open("headed").put(info.key, data)
    async with house.mounted() as rig:
        work = house.rehousing(rig)
        with pytest.raises(ForeignBucket, match="not for this volume"):
            await house.welcome(work, "foreign")
        with pytest.raises(VolumeExists):
            await house.welcome(work, "headed")
        with pytest.raises(UsageError, match="is the bucket that is to be replaced"):
            await work.replace(house.entry(work, "b0"), await house.welcome(work, "b0"))
        with pytest.raises(UsageError, match="has no bucket nonsense"):
            work.members.find("nonsense")
        assert len(work.members.entries) == 3


async def test_labels_come_into_the_table_and_shards_follow(tmp_path: Path) -> None:
    house = await House.build(tmp_path, 4, Code(1, 1))
    async with house.mounted() as rig:
        work = house.rehousing(rig)
        for name, domain in (("b0", "x"), ("b1", "x"), ("b2", "y"), ("b3", "y")):
            await work.members.change(lambda entries: entries)
            await work.label(house.entry(work, name), domain)
        await work.rebalance()
        for segment in house.segments():
            assert sorted(slot // 2 for slot in segment.placement) == [0, 1]
        await rig.leave()
    assert await house.shown("b0", "b1") == house.tree
    assert await house.shown("b2", "b3") == house.tree


class Meddling(Wrapper):
    """At the claim of the lease the header changes behind the claimant, on every bucket."""

    def __init__(self, inner: Bucket, cloud: Cloud, newer: bytes) -> None:
        super().__init__(inner)
        self._cloud = cloud
        self._newer = newer

    async def put_if_absent(self, key: str, data: bytes) -> None:
        if key.startswith(layout.LEASE_PREFIX):
            for name in self._cloud.names:
                await self._cloud.memory.open(name).put(layout.HEADER, self._newer)
        await self.inner.put_if_absent(key, data)


async def test_a_table_that_changed_before_the_claim_is_noticed_after_it(tmp_path: Path) -> None:
    """I5: else two machines could each hold the lease at a majority of another table."""
    house = await House.build(tmp_path, files=1)
    async with house.mounted() as rig:
        header = replace(rig.volume.header, generation=rig.volume.header.generation + 1)
        newer = headers.encode(header, rig.volume.ring)
        await rig.leave()
    found = house.cloud.buckets(house.home)
    with pytest.raises(NoQuorum, match="was changed by somebody else"):
        await house.cloud.open_with(
            house.home, {uuid: Meddling(bucket, house.cloud, newer) for uuid, bucket in found.items()}
        )
    await (await house.cloud.open(house.home)).close(clean=True, settled=True)


# --- killed --------------------------------------------------------------------------------


async def _replace(house: House, fuse: Fuse) -> None:
    """The command, as often as it takes; raises Killed where the fuse blows."""
    async with house.mounted(fuse) as rig:
        work = house.rehousing(rig)
        fuse.count = 0
        if all(entry.slot != 1 for entry in work.members.entries):
            return
        await work.replace(work.members.find("1"), await house.welcome(work, NEW, fuse))
        assert await rig.tree() == house.tree


def killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(killed(one) for one in error.exceptions)
    return isinstance(error, Killed)


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
async def test_killed_at_any_request_and_gone_on_with(tmp_path: Path, gone: bool) -> None:
    """I1, I3: never below the redundancy it began with, and clean in the end."""
    whole = await House.build(tmp_path, files=3)
    if gone:
        whole.take_away("b1")
    (tmp_path / "count").mkdir()
    fuse = Fuse()
    await _replace(await whole.copied(tmp_path / "count"), fuse)
    assert fuse.count > 30
    for point in range(1, fuse.count + 1, max(1, fuse.count // 5)):
        place = tmp_path / f"at{point}"
        place.mkdir()
        house = await whole.copied(place)
        try:
            await _replace(house, Fuse(point, after=bool(point % 2)))
        except BaseException as error:
            if not killed(error):
                raise
        house.cloud.names = ["b0", "b1", "b2", NEW]
        await _bears_what_it_bore(house, gone=gone)
        await _replace(house, Fuse())
        house.cloud.names = ["b0", "b2", NEW]
        for lost in house.cloud.names:
            assert await house.shown(lost) == house.tree, f"killed at {point}"


async def _bears_what_it_bore(house: House, *, gone: bool) -> None:
    """Any one of the buckets that it began with, or none more than the one that is gone."""
    for lost in ("b1",) if gone else ("b0", "b1", "b2"):
        assert await house.shown(lost, by="b2" if lost == "b0" else "b0") == house.tree
