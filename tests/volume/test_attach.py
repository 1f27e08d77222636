"""A new machine learns a volume; key slots; buckets that prove themselves late."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.codec.keys import Cost
from objfs.errors import (
    ForeignBucket,
    NoQuorum,
    NoSuchVolume,
    Refused,
    Unreachable,
    UsageError,
    VolumeExists,
    WrongPassphrase,
)
from objfs.model import Slot
from objfs.store import layout
from objfs.volume.attach import Offered, add_places, attach, identified, learn, read_volume
from objfs.volume.guard import GuardedBucket
from objfs.volume.header import Secret
from objfs.volume.keys import add_slot, list_slots, remove_slot
from objfs.volume.quorum import BucketSet
from tests.volume.rigs import CHEAP, Cloud
from tests.volume.support import PASSPHRASE, TrioClock

NEW = Secret("passphrase", b"another one")


async def made(tmp_path: Path) -> Cloud:
    cloud = Cloud(tmp_path)
    await cloud.make(cloud.home())
    return cloud


def offered(cloud: Cloud, *names: str) -> list[Offered]:
    return [Offered(f"mem://{name}", {"note": name}, cloud.bucket(name)) for name in names]


async def test_one_bucket_is_enough_to_learn_the_volume(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    home = cloud.home()
    attached = attach(home, await learn(offered(cloud, "b2"), PASSPHRASE))
    assert [entry.slot for entry in attached.missing] == [0, 1]
    (place,) = home.read_config().buckets
    assert (place.url, dict(place.options)) == ("mem://b2", {"note": "b2"})
    attached = add_places(home, await learn(offered(cloud, "b0", "b1"), PASSPHRASE))
    assert attached.missing == ()
    assert len(home.read_config().buckets) == 3


async def test_a_taken_name_and_an_empty_bucket_are_refused(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    home = await cloud.attach()
    with pytest.raises(VolumeExists):
        attach(home, await learn(offered(cloud, "b0"), PASSPHRASE))
    with pytest.raises(NoSuchVolume, match="right bucket"):
        attach(cloud.home(), await learn(offered(cloud, "nothing"), PASSPHRASE))
    with pytest.raises(WrongPassphrase):
        attach(cloud.home(), await learn(offered(cloud, "b0"), NEW))


async def test_a_bucket_of_another_volume_is_not_added(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    (tmp_path / "other").mkdir()
    other = Cloud(tmp_path / "other")
    await other.make(other.home())
    home = await cloud.attach(without={"b1"})
    with pytest.raises(ForeignBucket):
        add_places(home, await learn(offered(other, "b1"), PASSPHRASE))


async def test_a_copy_of_a_bucket_is_refused(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    for info in await cloud.memory.open("b0").list(""):
        await cloud.memory.open("copy").put(info.key, await cloud.memory.open("b0").get(info.key))
    with pytest.raises(ForeignBucket, match="same bucket"):
        attach(cloud.home(), await learn(offered(cloud, "b0", "copy"), PASSPHRASE))


async def test_slots_are_added_and_removed_on_every_bucket(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    home = await cloud.attach()
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    buckets, _ = await identified(header, ring, cloud.buckets(home))
    header = await add_slot(buckets, ring, header, NEW, TrioClock(), label="laptop", cost=CHEAP)
    assert [(slot.slot_id, slot.kind) for slot in list_slots(header)] == [
        (0, "passphrase"),
        (1, "recovery"),
        (2, "passphrase"),
    ]
    for name in cloud.names:
        again, _ = await read_volume({name: cloud.bucket(name)}, NEW)
        assert again == header
    header = await remove_slot(buckets, ring, header, 0)
    assert header.generation == 3
    with pytest.raises(WrongPassphrase):
        await read_volume({name: cloud.bucket(name) for name in cloud.names}, PASSPHRASE)


async def test_the_last_slot_and_unknown_slots_stay(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    buckets, _ = await identified(header, ring, cloud.buckets(await cloud.attach()))
    with pytest.raises(UsageError, match="no key slot 7"):
        await remove_slot(buckets, ring, header, 7)
    header = await remove_slot(buckets, ring, header, 0)
    with pytest.raises(UsageError, match="last"):
        await remove_slot(buckets, ring, header, 1)


async def test_a_rewrite_that_reaches_a_minority_is_told(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    buckets = BucketSet(header.buckets, {Slot(0): cloud.bucket("b0")})
    with pytest.raises(NoQuorum, match="1 of 3"):
        await add_slot(buckets, ring, header, NEW, TrioClock(), cost=Cost(8, 1, 1))


async def test_a_bucket_that_was_away_is_used_once_it_proves_itself(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    home = await cloud.attach()
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    given = cloud.buckets(home)
    uuid = header.buckets[1].uuid
    away = given[uuid].add(Fault(FailBefore(Unreachable)))
    buckets, left_out = await identified(header, ring, given)
    assert left_out == {}
    guarded = buckets.buckets[Slot(1)]
    assert isinstance(guarded, GuardedBucket)
    with pytest.raises(Unreachable):
        await guarded.get(layout.HEADER)
    given[uuid].remove(away)
    requests = len(given[uuid].requests)
    await guarded.get(layout.HEADER)
    await guarded.get(layout.HEADER)
    assert len(given[uuid].requests) == requests + 3


async def test_a_bucket_that_comes_back_as_another_is_refused_for_good(tmp_path: Path) -> None:
    cloud = await made(tmp_path)
    home = await cloud.attach()
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    given = cloud.buckets(home)
    uuid = header.buckets[1].uuid
    away = given[uuid].add(Fault(FailBefore(Unreachable)))
    buckets, _ = await identified(header, ring, given)
    given[uuid].remove(away)
    await cloud.memory.open("b1").put(layout.LABEL, await cloud.memory.open("b2").get(layout.LABEL))
    for _ in range(2):
        with pytest.raises(Refused, match="swapped"):
            await buckets.buckets[Slot(1)].put("segment/x", b"")
    assert not any(request.operation == "put" for request in given[uuid].requests)
