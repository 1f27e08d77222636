"""Publishing and finding manifests: what was acknowledged is found, an older epoch never wins (I2, I5)."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailAfter, Fault, HangAfter, WrongBytes
from objfs.errors import Corrupt, LeaseLost, NoQuorum, Temporary
from objfs.model import Slot
from objfs.store import layout
from objfs.volume import manifest as manifests
from objfs.volume.lease import Lease
from objfs.volume.manifest import Manifest
from objfs.volume.published import adopt, fence, publish, put, read_newest
from tests.volume.support import Machine, Site, blob, release


def moment(lease: Lease, sequence: int, previous: bytes = bytes(32)) -> Manifest:
    """A manifest with content; page_count tells moments apart."""
    return Manifest(
        volume=lease._ring.volume,
        epoch=lease.epoch,
        sequence=sequence,
        previous=previous,
        state_id=lease.record.holder.state_id,
        wall_ns=sequence,
        page_size=4096,
        page_count=100 * lease.epoch + sequence,
        digest=0,
        base=(blob(1),),
    )


async def publish_one(machine: Machine, lease: Lease, sequence: int) -> bytes:
    manifest = moment(lease, sequence)
    data = manifests.encode(manifest, machine.site.ring)
    await publish(machine.buckets, machine.site.ring, lease, manifest, data)
    return data


async def newest(machine: Machine, *, force: bool = False) -> Manifest:
    found = await read_newest(machine.buckets, machine.site.ring, force=force)
    assert found is not None
    return found.manifest


async def test_what_is_published_is_found_by_anybody() -> None:
    site = Site(3)
    machine = site.machine()
    assert await read_newest(machine.buckets, site.ring) is None
    lease = await machine.acquire()
    for sequence in (1, 2, 3):
        data = await publish_one(machine, lease, sequence)
    for lost in range(3):
        found = await read_newest(site.machine(without={lost}).buckets, site.ring)
        assert found is not None
        assert found.data == data
    assert await site.keys(0, "manifest/") == [layout.manifest_name(n) for n in (1, 2, 3)]


async def test_putting_the_same_bytes_again_is_harmless() -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    for bucket in machine.faulty.values():
        bucket.add(Fault(FailAfter(Temporary), op="put_if_absent", key="manifest/", times=1))
    manifest = moment(lease, 1)
    data = manifests.encode(manifest, site.ring)
    with pytest.raises(NoQuorum, match="tried again"):
        await publish(machine.buckets, site.ring, lease, manifest, data)
    await publish(machine.buckets, site.ring, lease, manifest, data)


async def test_below_the_quorum_nothing_is_acknowledged() -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    machine.break_bucket(0)
    await publish_one(machine, lease, 1)
    machine.break_bucket(1)
    with pytest.raises(NoQuorum):
        await publish_one(machine, lease, 2)
    assert machine.gate.open


async def test_a_mirror_of_two_goes_on_with_one() -> None:
    """I5: below a majority a mount that is writing goes on; a new one needs force."""
    site = Site(2)
    machine = site.machine()
    lease = await machine.acquire()
    machine.break_bucket(0)
    await lease.check(needed=machine.buckets.publish_quorum)
    await publish_one(machine, lease, 1)
    with pytest.raises(NoQuorum):
        await site.machine(without={0}).acquire()
    assert (await newest(site.machine(without={0}))).sequence == 1


async def test_rubbish_in_our_place_is_the_buckets_fault() -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    await site.memory.open("b0").put(layout.manifest_name(1), b"rubbish")
    await publish_one(machine, lease, 1)
    assert (await newest(machine)).sequence == 1


async def test_another_writers_manifest_in_our_place_ends_this_mount() -> None:
    site = Site(3)
    old, new = site.machine(), site.machine()
    old_lease = await old.acquire()
    new_lease = await new.acquire(force=True)
    await publish_one(new, new_lease, 1)
    with pytest.raises(LeaseLost):
        await publish_one(old, old_lease, 1)
    assert not old.gate.open


async def test_a_put_that_lands_where_the_reaper_made_room_is_not_published(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Asleep between the look at the lease and the put, for longer than manifests are kept: the number is
    free again by then, so the put itself tells the old host nothing."""
    site = Site(3)
    old, new = site.machine(), site.machine()
    old_lease = await old.acquire()
    await publish_one(old, old_lease, 1)
    hung = old.hang("put_if_absent", "manifest/")
    async with trio.open_nursery() as nursery:

        async def sleeper() -> None:
            with pytest.raises(LeaseLost):
                await publish_one(old, old_lease, 2)

        nursery.start_soon(sleeper)
        for fault in hung:
            await fault.reached.wait()
        new_lease = await new.acquire(take_over=True)
        assert await fence(new.buckets, site.ring, new_lease, new.clock) is not None
        await publish_one(new, new_lease, 3)
        for slot in range(3):
            await site.memory.open(f"b{slot}").delete(layout.manifest_name(2))
        release(hung)
    assert not old.gate.open
    assert (await newest(new)).epoch == new_lease.epoch


async def test_a_put_that_was_adopted_is_published_though_the_lease_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The buckets took it, the answer slept through a takeover: whoever took over goes on from it."""
    site = Site(3)
    old, new = site.machine(), site.machine()
    old_lease = await old.acquire()
    await publish_one(old, old_lease, 1)
    hung = old.hang("put_if_absent", "manifest/", how=HangAfter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publish_one, old, old_lease, 2)
        await trio.testing.wait_all_tasks_blocked()
        new_lease = await new.acquire(take_over=True)
        assert await fence(new.buckets, site.ring, new_lease, new.clock) is not None
        release(hung)
    assert not old.gate.open


async def test_a_fence_bars_what_is_still_under_way() -> None:
    site = Site(3)
    old, new = site.machine(), site.machine()
    old_lease = await old.acquire()
    await publish_one(old, old_lease, 1)
    hung = old.hang("put_if_absent", "manifest/")
    lost = trio.Event()

    async def late() -> None:
        with pytest.raises(LeaseLost):
            await publish_one(old, old_lease, 2)
        lost.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late)
        for fault in hung:
            await fault.reached.wait()
        new_lease = await new.acquire(force=True)
        bar = await fence(new.buckets, site.ring, new_lease, new.clock)
        assert bar is not None
        release(hung)
        await lost.wait()
    found = await newest(new)
    assert (found.sequence, found.epoch, found.fence, found.page_count) == (2, 2, True, 101)
    assert not old.gate.open


async def test_a_published_moment_wins_over_the_fence_of_its_sequence() -> None:
    """The old writer's manifest reached a majority, unseen by the fence that reached the rest."""
    site = Site(3)
    old, new = site.machine(), site.machine()
    old_lease = await old.acquire()
    await publish_one(old, old_lease, 1)
    new_lease = await new.acquire(force=True)
    bar = replace(moment(new_lease, 2), copy_of=b"c" * 32)
    await put(site.machine(without={0, 1}).buckets, site.ring, 2, manifests.encode(bar, site.ring), 1)
    data = manifests.encode(moment(old_lease, 2), site.ring)
    await put(site.machine(without={2}).buckets, site.ring, 2, data, 2)
    for lost in ({0}, {1}, {2}, set[int]()):
        assert (await newest(site.machine(without=lost))).page_count == 102
    final = await fence(new.buckets, site.ring, new_lease, new.clock)
    assert final is not None
    assert (final.manifest.sequence, final.manifest.page_count) == (3, 102)


async def test_a_manifest_on_a_minority_is_adopted() -> None:
    site = Site(3)
    old, new = site.machine(), site.machine()
    lease = await old.acquire()
    await publish_one(old, lease, 1)
    old.break_bucket(1)
    old.break_bucket(2)
    with pytest.raises(NoQuorum):
        await publish_one(old, lease, 2)
    found = await read_newest(new.buckets, site.ring)
    assert found is not None
    assert found.held_by == (Slot(0),)
    assert await adopt(new.buckets, site.ring, found)
    assert (await newest(site.machine(without={0}))).sequence == 2


async def test_an_unreadable_newest_is_not_passed_over_in_silence(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    for sequence in (1, 2):
        await publish_one(machine, lease, sequence)
    for slot in (0, 1, 2):
        machine.faulty[Slot(slot)].add(Fault(WrongBytes(-1), op="get", key=layout.manifest_name(2)))
        if slot < 2:
            continue
        with pytest.raises(Corrupt, match="--force"):
            await newest(machine)
    with caplog.at_level(logging.ERROR):
        assert (await newest(machine, force=True)).sequence == 1
    assert "FALLING BACK" in caplog.text


async def test_one_lying_bucket_changes_nothing() -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    for sequence in (1, 2):
        await publish_one(machine, lease, sequence)
    liar = site.memory.open("b0")
    await liar.put(layout.manifest_name(99), await liar.get(layout.manifest_name(2)))
    await liar.put(layout.manifest_name(2), b"")
    assert (await newest(site.machine())).sequence == 2


async def test_no_bucket_no_answer() -> None:
    site = Site(2)
    with pytest.raises(NoQuorum):
        await read_newest(site.machine(without={0, 1}).buckets, site.ring)
