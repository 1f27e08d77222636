"""The lease: one holder per epoch, lost ones notice, dead ones are succeeded (I5)."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailAfter, Fault
from objfs.errors import HeldElsewhere, LeaseLost, NoQuorum, ReadOnly, Temporary
from objfs.store import layout
from objfs.volume.epochs import Holder, decode, observe
from tests.volume.support import Machine, Site, release


async def test_the_first_mount_gets_epoch_one_everywhere() -> None:
    site = Site(3)
    lease = await site.machine().acquire()
    assert lease.epoch == 1
    for slot in range(3):
        assert await site.keys(slot) == [layout.lease_name(1)]


async def test_a_second_mount_is_told_who_holds_it(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    first = site.machine()
    await first.acquire()
    await trio.sleep(120)
    with pytest.raises(HeldElsewhere, match=rf"{first.holder.host}, process {first.holder.pid}, since 120 s"):
        await site.machine().acquire()


async def test_a_released_lease_is_free() -> None:
    site = Site(3)
    await (await site.machine().acquire()).release(settled=True)
    lease = await site.machine().acquire()
    assert lease.epoch == 2
    assert lease.previous is not None
    assert lease.previous.settled


async def test_our_own_crashed_process_holds_nobody_up() -> None:
    site = Site(3)
    first = site.machine()
    await first.acquire()
    lease = await first.restarted().acquire()
    assert lease.epoch == 2
    assert lease.previous is not None
    assert not lease.previous.released


async def test_a_copy_of_the_state_directory_that_runs_is_noticed() -> None:
    """I5: a restored image of the machine meets the counter of the one that went on."""
    site = Site(3)
    first = site.machine()
    lease = await first.acquire()
    copy = first.restarted()
    await lease.renew()
    with pytest.raises(HeldElsewhere, match="copy of this machine's state"):
        await copy.acquire()


async def test_the_same_state_on_another_host_is_not_trusted() -> None:
    site = Site(3)
    first = site.machine()
    await first.acquire()
    moved = first.restarted()
    moved.holder = Holder(first.holder.state_id, "elsewhere", 1)
    with pytest.raises(HeldElsewhere):
        await moved.acquire()


async def test_take_over_waits_three_intervals_of_silence(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    old = site.machine()
    await old.acquire(interval_s=60)
    started = trio.current_time()
    lease = await site.machine().acquire(take_over=True, interval_s=10)
    assert lease.epoch == 2
    assert 180 <= trio.current_time() - started < 250


async def test_take_over_of_a_living_holder_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    old = site.machine()
    lease = await old.acquire(interval_s=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lease.run)
        with pytest.raises(HeldElsewhere, match="alive"):
            await site.machine().acquire(take_over=True)
        nursery.cancel_scope.cancel()
    assert old.gate.open


async def test_force_does_not_wait(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    await site.machine().acquire()
    started = trio.current_time()
    assert (await site.machine().acquire(force=True)).epoch == 2
    assert trio.current_time() == started


async def test_a_lost_lease_closes_the_gate_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(3)
    old, new = site.machine(), site.machine()
    lease = await old.acquire()
    await lease.check()
    await new.acquire(force=True)
    with pytest.raises(LeaseLost, match=new.holder.host), caplog.at_level(logging.ERROR):
        await lease.check()
    assert not old.gate.open
    assert "lease lost epoch=1" in caplog.text
    with pytest.raises(LeaseLost):
        await lease.check()


async def test_the_log_names_the_new_holder_when_a_manifest_shows_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = Site(3)
    old, new = site.machine(), site.machine()
    lease = await old.acquire()
    await new.acquire(force=True)
    with caplog.at_level(logging.ERROR):
        error = await lease.give_way("epoch 2 published sequence 7")
    assert f"host {new.holder.host}, process {new.holder.pid}" in str(error)
    assert [record.message.count(new.holder.host) for record in caplog.records] == [1]
    assert lease.lost
    assert not old.gate.open


async def test_a_manifest_alone_is_enough_to_give_way(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody can say who it was: every bucket hangs."""
    site = Site(3)
    old = site.machine()
    lease = await old.acquire()
    hung = old.hang("list", "lease/")
    assert "epoch 2 published sequence 7" in str(await lease.give_way("epoch 2 published sequence 7"))
    assert trio.current_time() < 10
    assert lease.lost
    assert not old.gate.open
    release(hung)


async def test_confirming_asks_nobody_while_the_lease_is_young(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire(interval_s=60)
    before = requests(machine)
    await trio.sleep(110)
    await lease.confirm()
    assert requests(machine) == before
    await lease.renew()
    before = requests(machine)
    await trio.sleep(110)
    await lease.confirm()
    assert requests(machine) == before
    await trio.sleep(20)
    await lease.confirm()
    assert requests(machine) > before


async def test_confirming_after_a_long_pause_notices_a_takeover(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """I5: no renewal, no check has run since; the first thing to happen asks."""
    site = Site(3)
    old = site.machine()
    lease = await old.acquire(interval_s=60)
    new = site.machine()
    await new.acquire(take_over=True)
    with pytest.raises(LeaseLost, match=new.holder.host):
        await lease.confirm()
    with pytest.raises(LeaseLost, match=new.holder.host):
        await lease.confirm()


async def test_a_gate_closed_by_others_is_no_lost_lease() -> None:
    machine = Site(3).machine()
    lease = await machine.acquire()
    machine.gate.close("the cache's disk cannot be synced")
    for ask in (lease.check, lease.confirm):
        with pytest.raises(ReadOnly, match="cannot be synced"):
            await ask()
    assert not lease.lost


def requests(machine: Machine) -> int:
    return sum(len(bucket.requests) for bucket in machine.faulty.values())


async def test_a_renewal_notices_too_and_leaves_the_new_lease_alone() -> None:
    site = Site(3)
    old, new = site.machine(), site.machine()
    lease = await old.acquire()
    await new.acquire(force=True)
    with pytest.raises(LeaseLost):
        await lease.renew()
    assert not old.gate.open
    seen = await observe(new.buckets, site.ring)
    assert seen.record is not None
    assert seen.record.holder == new.holder


async def test_after_a_long_pause_missing_objects_prove_nothing() -> None:
    """Epochs 2 and 3 came and went and were swept; the holder of 1 looks for 2, which is gone."""
    site = Site(3)
    old = site.machine()
    lease = await old.acquire()
    for _ in range(4):
        newest = await site.machine().acquire(force=True)
    await newest.sweep()
    assert await site.keys(0) == [layout.lease_name(4), layout.lease_name(5)]
    with pytest.raises(LeaseLost):
        await lease.check()


async def test_an_idle_mount_makes_two_requests_a_renewal_and_bucket() -> None:
    machine = Site(3).machine()
    lease = await machine.acquire()
    before = {slot: len(bucket.requests) for slot, bucket in machine.faulty.items()}
    await lease.renew()
    for slot, bucket in machine.faulty.items():
        assert len(bucket.requests) - before[slot] == 2


async def test_one_bucket_of_three_may_be_silent() -> None:
    site = Site(3)
    machine = site.machine(without={1})
    lease = await machine.acquire()
    await lease.check()
    await lease.renew()


async def test_below_a_majority_only_force_helps() -> None:
    site = Site(3)
    with pytest.raises(NoQuorum, match="1 of 3"):
        await site.machine(without={1, 2}).acquire()
    lease = await site.machine(without={1, 2}).acquire(force=True)
    await lease.check()


async def test_a_holder_that_loses_the_majority_cannot_prove_its_lease() -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    machine.break_bucket(0)
    await lease.check()
    machine.break_bucket(1)
    with pytest.raises(NoQuorum):
        await lease.check()
    assert machine.gate.open


async def test_of_two_that_claim_at_once_at_most_one_wins(autojump_clock: trio.testing.MockClock) -> None:
    for count in (1, 2, 3, 4, 5):
        site = Site(count)
        won: list[int] = []
        refused: list[Exception] = []

        async def claim(site: Site = site, won: list[int] = won, refused: list[Exception] = refused) -> None:
            try:
                won.append((await site.machine().acquire()).epoch)
            except (HeldElsewhere, NoQuorum) as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(claim)
        assert len(won) == 1
        assert len(refused) == 3


async def test_a_split_claim_frees_itself() -> None:
    """One claimant got slot 0, another slot 1, and slot 2 was down: neither may stand in the way."""
    site = Site(3)
    one, two = site.machine(without={1, 2}), site.machine(without={0, 2})
    for machine in (one, two):
        machine.buckets.quorum = 1
        await machine.acquire(force=True)
    held = site.machine()
    with pytest.raises(HeldElsewhere):
        await held.acquire()
    assert (await held.acquire(force=True)).epoch == 2


async def test_non_voters_hold_no_lease() -> None:
    site = Site(3, voters=1)
    lease = await site.machine().acquire()
    await lease.renew()
    assert await site.keys(0) != []
    assert await site.keys(1) == []


async def test_a_claim_whose_answers_were_lost_is_still_the_claimants(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Site(3)
    machine = site.machine()
    for bucket in machine.faulty.values():
        bucket.add(Fault(FailAfter(Temporary), op="put_if_absent", times=1))
    assert (await machine.acquire()).epoch == 2


async def test_an_object_that_is_no_lease_holds_nobody_up() -> None:
    site = Site(3)
    machine = site.machine()
    await machine.faulty[site.entries[0].slot].put(layout.lease_name(2**63), b"rubbish")
    assert (await machine.acquire()).epoch == 1


async def test_a_lease_under_another_epochs_name_is_not_believed() -> None:
    site = Site(3)
    lease = await site.machine().acquire()
    inner = site.memory.open("b0")
    await inner.put(layout.lease_name(9), await inner.get(layout.lease_name(1)))
    await lease.check()


async def test_a_late_renewal_does_not_undo_a_release(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    machine = site.machine()
    lease = await machine.acquire()
    hung = machine.hang("put", "lease/", slots={0})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lease.renew)
        await hung[0].reached.wait()
        hung[0].times = hung[0].hits
        await lease.release(settled=True)
        release(hung)
    stale = decode(await site.memory.open("b0").get(layout.lease_name(1)), 1, site.ring)
    assert not stale.released
    assert (await site.machine().acquire()).epoch == 2
