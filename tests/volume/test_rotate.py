"""Rotating the key: what is new is sealed under it, what is old stays readable, nobody is left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope, unpack_envelope
from objfs.errors import (
    HeldElsewhere,
    LeaseLost,
    NewerFormat,
    NoQuorum,
    UnknownKey,
    Unreachable,
    UsageError,
    WrongPassphrase,
)
from objfs.store import layout
from objfs.volume.attach import identified, read_volume
from objfs.volume.features import Features
from objfs.volume.fields import JSON, canonical
from objfs.volume.header import Secret, read_clear
from objfs.volume.keys import add_slot, remove_slot, write_header
from objfs.volume.local import VolumeHome
from objfs.volume.manifest import decode
from objfs.volume.open import OpenOptions
from objfs.volume.readers import PinHolder, PinObserver, new_pin
from objfs.volume.rotate import Rotated, rotate
from objfs.volume.spread import refresh_headers
from tests.volume.rigs import CHEAP, Cloud, running
from tests.volume.support import PASSPHRASE, TrioClock

OTHER = Secret("keyfile", b"k" * 32)


async def made(tmp_path: Path) -> tuple[Cloud, VolumeHome, Secret]:
    """A volume with one file; its first machine, and its recovery key."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    recovery = Secret.recovery((await cloud.make(home)).recovery_key)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"old")
        rig.write(b"old", 0, b"written before " * 1000)
        await rig.leave()
    return cloud, home, recovery


async def rotated(
    cloud: Cloud, home: VolumeHome, given: Sequence[Secret], *, drop: bool = False, away: Sequence[str] = ()
) -> Rotated:
    """``away`` are buckets that do not answer meanwhile."""
    buckets = cloud.buckets(home)
    header, ring = await read_volume({bucket.url: bucket for bucket in buckets.values()}, given[0])
    voting, _ = await identified(header, ring, buckets)
    for bucket in buckets.values():
        if bucket.url.removeprefix("mem://") in away:
            bucket.add(Fault(FailBefore(Unreachable)))
    return await rotate(voting, ring, header, given, TrioClock(), drop=drop)


async def key_ids(cloud: Cloud, kind: Kind, objects: Iterable[tuple[str, str]]) -> set[int]:
    """The keys that objects, as (bucket, key), are sealed under."""
    found = [await cloud.memory.open(bucket).get(key, 0, ENVELOPE_SIZE) for bucket, key in objects]
    return {unpack_envelope(data, kind).key_id for data in found}


async def listed(cloud: Cloud, prefix: str) -> set[tuple[str, str]]:
    """In all buckets: of a small segment not each has a copy."""
    names = ("b0", "b1", "b2")
    return {(name, info.key) for name in names for info in await cloud.memory.open(name).list(prefix)}


async def test_new_data_are_under_the_new_key_and_old_ones_stay_readable(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    done = await rotated(cloud, home, [PASSPHRASE, recovery])
    assert (done.header.key_ids, done.header.current_key, done.dropped) == ((1, 2), 2, ())
    before = await listed(cloud, "segment/")
    async with running(await cloud.open(home)) as rig:
        assert await rig.tree() == {b"old": b"written before " * 1000}
        rig.create(b"new")
        rig.write(b"new", 0, b"written after " * 1000)
        tree = await rig.tree()
        await rig.leave()
    assert await key_ids(cloud, Kind.SHARD, await listed(cloud, "segment/") - before) == {2}
    assert await key_ids(cloud, Kind.SHARD, before) == {1}
    for secret in (PASSPHRASE, recovery):
        elsewhere = await cloud.attach()
        async with running(await cloud.open(elsewhere, OpenOptions(read_only=True), secret)) as reader:
            assert await reader.tree() == tree
        reader.vanish()


async def test_an_old_header_and_its_secret_open_nothing_new(tmp_path: Path) -> None:
    cloud, home, _ = await made(tmp_path)
    _, old_ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    await rotated(cloud, home, [PASSPHRASE], drop=True)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"new")
        await rig.leave()
    assert rig.checkpointer.moment is not None
    sequence = rig.checkpointer.moment.manifest.sequence
    data = await cloud.memory.open("b0").get(layout.manifest_name(sequence))
    with pytest.raises(UnknownKey):
        decode(data, sequence, old_ring)


async def test_slots_whose_secret_is_not_given_are_named_or_left_out(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    with pytest.raises(UsageError, match=r"slot 1 \(recovery\)"):
        await rotated(cloud, home, [PASSPHRASE])
    assert (await read_volume({"b0": cloud.bucket("b0")}, recovery))[0].current_key == 1
    done = await rotated(cloud, home, [PASSPHRASE], drop=True)
    assert [slot.kind for slot in done.dropped] == ["recovery"]
    assert [slot.slot_id for slot in done.header.slots] == [0]
    with pytest.raises(WrongPassphrase):
        await read_volume({"b0": cloud.bucket("b0")}, recovery)


async def test_a_slot_keeps_its_number_label_and_costs(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    buckets = cloud.buckets(home)
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    voting, _ = await identified(header, ring, buckets)
    before = await add_slot(voting, ring, header, OTHER, TrioClock(), label="laptop", cost=CHEAP)
    done = await rotated(cloud, home, [OTHER, PASSPHRASE, recovery])
    for old, new in zip(before.slots, done.header.slots, strict=True):
        assert replace(new, wrapped=old.wrapped, kdf=old.kdf) == old
        assert {**new.kdf, "salt": ""} == {**old.kdf, "salt": ""}
        assert new.kdf["salt"] != old.kdf["salt"]


async def test_it_is_refused_while_somebody_writes_and_after_a_crash(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"only here")
        with pytest.raises(HeldElsewhere, match="unmount it there"):
            await rotated(cloud, home, [PASSPHRASE, recovery])
    rig.vanish()
    with pytest.raises(HeldElsewhere, match="after a crash"):
        await rotated(cloud, home, [PASSPHRASE, recovery])
    async with running(await cloud.open(home)) as again:
        assert b"only here" in await again.tree()
        await again.leave()
    await rotated(cloud, home, [PASSPHRASE, recovery])


async def test_a_writer_with_the_older_ring_sees_who_took_over(tmp_path: Path) -> None:
    """I5: it was paused before the rotation; leases and pins are under a key that it has."""
    cloud, home, recovery = await made(tmp_path)
    async with running(await cloud.open(home)) as paused:
        taker = await cloud.open(await cloud.attach(), OpenOptions(host="other", force=True))
        await taker.close(clean=True, settled=True)
        await rotated(cloud, home, [PASSPHRASE, recovery])
        for _ in range(4):  # enough for the leases under the old ring to be swept
            later = await cloud.open(await cloud.attach(), OpenOptions(host="other"))
            assert later.lease is not None
            await later.lease.sweep()
            pin = PinHolder(later.buckets, later.ring, new_pin(later.moment.manifest.sequence))
            await pin.renew()
            await later.close(clean=True, settled=True)
        assert await key_ids(cloud, Kind.LEASE, await listed(cloud, "lease/")) == {1}
        seen = await PinObserver(paused.volume.buckets, paused.volume.ring, TrioClock()).look()
        assert seen.sequences
        assert paused.volume.lease is not None
        with pytest.raises(LeaseLost):
            await paused.volume.lease.check()
    paused.vanish()


async def test_a_bucket_that_was_away_gets_the_header_from_the_next_mount(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    await rotated(cloud, home, [PASSPHRASE, recovery], away=["b1"])
    stale = cloud.memory.open("b1")
    assert read_clear(await stale.get(layout.HEADER)).generation == 1
    volume = await cloud.open(home)
    assert read_clear(await stale.get(layout.HEADER)).generation == 2
    await volume.close(clean=True, settled=True)


async def test_a_dropped_secret_does_not_open_the_copy_that_missed_the_rotation(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    await rotated(cloud, home, [PASSPHRASE], drop=True, away=["b1"])
    names = {name: cloud.bucket(name) for name in cloud.names}
    with pytest.raises(WrongPassphrase, match="removed"):
        await read_volume(names, recovery)
    assert (await read_volume(names, PASSPHRASE))[0].current_key == 2


async def test_a_key_that_only_a_minority_holds_seals_nothing(tmp_path: Path) -> None:
    """It would be lost with them."""
    cloud, home, recovery = await made(tmp_path)
    buckets = cloud.buckets(home)
    header, ring = await read_volume({bucket.url: bucket for bucket in buckets.values()}, PASSPHRASE)
    voting, _ = await identified(header, ring, buckets)
    for bucket in list(buckets.values())[1:]:
        bucket.add(Fault(FailBefore(Unreachable), op="put", key=layout.HEADER))
    with pytest.raises(NoQuorum):
        await rotate(voting, ring, header, [PASSPHRASE, recovery], TrioClock())
    again = cloud.buckets(home)
    for bucket in list(again.values())[1:]:
        bucket.add(Fault(FailBefore(Unreachable), op="put", key=layout.HEADER))
    with pytest.raises(NoQuorum, match="newest header"):
        await cloud.open_with(home, again)
    volume = await cloud.open(home)
    assert volume.header.current_key == 2
    for name in cloud.names:
        assert read_clear(await cloud.memory.open(name).get(layout.HEADER)).generation == 2
    await volume.close(clean=True, settled=True)


@pytest.mark.parametrize("how", ["removed", "rotated"])
async def test_a_stale_header_is_not_written_over_newer_ones_that_were_silent_when_it_was_read(
    tmp_path: Path, how: str
) -> None:
    """The mount read only the copy that missed the removal, and then put it back on all the others."""
    cloud, home, recovery = await made(tmp_path)
    stale = await cloud.memory.open("b0").get(layout.HEADER)
    if how == "removed":
        volume = await cloud.open(home)
        await remove_slot(volume.buckets, volume.ring, volume.header, 1)
        await volume.close(clean=True, settled=True)
    else:
        await rotated(cloud, home, [PASSPHRASE], drop=True)
    await cloud.memory.open("b0").put(layout.HEADER, stale)
    buckets = cloud.buckets(home)
    for bucket in buckets.values():
        if bucket.url != "mem://b0":
            bucket.add(Fault(FailBefore(Unreachable), op="get", key=layout.HEADER, times=1))
    with pytest.raises(NoQuorum, match=r"newe[a-z]+ header"):
        await cloud.open_with(home, buckets, secret=recovery)
    assert await generations(cloud) == [1, 2, 2]
    with pytest.raises(WrongPassphrase, match="removed"):
        await cloud.open_with(home, cloud.buckets(home), secret=recovery)


async def test_a_removed_secret_is_not_written_over_the_one_newer_header_it_reaches(
    tmp_path: Path,
) -> None:
    """Two buckets answer, of which one missed the rotation: the older header may be believed, not spread."""
    cloud, home, recovery = await made(tmp_path)
    stale = await cloud.memory.open("b0").get(layout.HEADER)
    await rotated(cloud, home, [PASSPHRASE], drop=True)
    await cloud.memory.open("b0").put(layout.HEADER, stale)
    newest = await cloud.memory.open("b1").get(layout.HEADER)
    buckets = cloud.buckets(home)
    for bucket in buckets.values():
        if bucket.url == "mem://b2":
            bucket.add(Fault(FailBefore(Unreachable)))
    header, ring = await read_volume({bucket.url: bucket for bucket in buckets.values()}, recovery)
    voting, _ = await identified(header, ring, buckets)
    with pytest.raises(NoQuorum):
        await add_slot(voting, ring, header, OTHER, TrioClock(), cost=CHEAP)
    assert await cloud.memory.open("b1").get(layout.HEADER) == newest


async def test_no_key_command_changes_a_header_that_a_minority_shows(tmp_path: Path) -> None:
    cloud, home, _ = await made(tmp_path)
    before = await cloud.memory.open("b0").get(layout.HEADER)
    buckets = cloud.buckets(home)
    header, ring = await read_volume({bucket.url: bucket for bucket in buckets.values()}, PASSPHRASE)
    voting, _ = await identified(header, ring, buckets)
    for bucket in list(buckets.values())[1:]:
        bucket.add(Fault(FailBefore(Unreachable)))
    with pytest.raises(NoQuorum, match="1 of 3 voting buckets, 2 are needed; nothing was changed"):
        await add_slot(voting, ring, header, OTHER, TrioClock(), cost=CHEAP)
    assert await cloud.memory.open("b0").get(layout.HEADER) == before


async def generations(cloud: Cloud) -> list[int]:
    """Of the headers on all buckets."""
    return [read_clear(await cloud.memory.open(name).get(layout.HEADER)).generation for name in cloud.names]


async def test_a_bucket_that_comes_back_during_a_mount_gets_the_header(tmp_path: Path) -> None:
    """Also one that a key command rewrote meanwhile; what proves nothing is overwritten."""
    cloud, home, _ = await made(tmp_path)
    volume = await cloud.open(home)
    stale = await cloud.memory.open("b1").get(layout.HEADER)
    changed = await add_slot(volume.buckets, volume.ring, volume.header, OTHER, TrioClock(), cost=CHEAP)
    await cloud.memory.open("b1").put(layout.HEADER, stale)
    document = json.loads(stale[ENVELOPE_SIZE:]) | {"generation": 99}
    await cloud.memory.open("b2").put(layout.HEADER, envelope_of(document))
    await refresh_headers(volume.buckets, volume.ring)
    newest = await cloud.memory.open("b0").get(layout.HEADER)
    assert read_clear(newest).generation == changed.generation
    for name in cloud.names:
        assert await cloud.memory.open(name).get(layout.HEADER) == newest
    await volume.close(clean=True, settled=True)


async def test_two_key_commands_at_once_do_not_undo_each_other(tmp_path: Path) -> None:
    cloud, home, _ = await made(tmp_path)
    volume = await cloud.open(home)
    buckets, ring, before = volume.buckets, volume.ring, volume.header
    await add_slot(buckets, ring, before, OTHER, TrioClock(), cost=CHEAP)
    with pytest.raises(NoQuorum, match="repeat"):
        await remove_slot(buckets, ring, before, 1)
    await volume.close(clean=True, settled=True)


def envelope_of(document: dict[str, JSON]) -> bytes:
    """A header as a forger writes it."""
    payload = canonical(document)
    return pack_envelope(Kind.HEADER, 1, len(payload)) + payload


async def test_features_that_only_a_newer_program_may_write_are_left_alone(tmp_path: Path) -> None:
    cloud, home, recovery = await made(tmp_path)
    buckets = cloud.buckets(home)
    header, ring = await read_volume({"b0": cloud.bucket("b0")}, PASSPHRASE)
    voting, _ = await identified(header, ring, buckets)
    newer = replace(header, generation=2, features=Features(ro_compat=frozenset({"quota"})))
    await write_header(voting, ring, newer)
    with pytest.raises(NewerFormat, match="quota"):
        await rotated(cloud, home, [PASSPHRASE, recovery])
    with pytest.raises(NewerFormat, match="quota"):
        await add_slot(voting, ring, newer, OTHER, TrioClock(), cost=CHEAP)
    with trio.fail_after(60):
        volume = await cloud.open(home)
    assert volume.lease is None
    await volume.close(clean=True, settled=True)
