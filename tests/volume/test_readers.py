"""Pins of read-only mounts: the record, the holder, the observer, and what the reaper keeps for them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.errors import Corrupt, LeaseLost, NoQuorum, Refused, UnknownKey, Unreachable
from objfs.model import SegmentNo, Slot
from objfs.store import layout
from objfs.volume.manifest import Manifest
from objfs.volume.readers import (
    EXPIRY_INTERVALS,
    GAP_INTERVALS,
    RENEW_S,
    Pin,
    PinBook,
    PinHolder,
    PinObserver,
    decode,
    encode,
    new_pin,
)
from objfs.volume.recover import replay
from tests.volume.support import VOLUME, Machine, Site, ring
from tests.volume.test_reaper import COPIES, change, data_segment, shards
from tests.volume.toys import ToyReplica
from tests.volume.writers import Writer, open_store, writer

PIN = Pin(b"r" * 16, 7, "host", 12, 60.0, 3)
EXPIRY_S = EXPIRY_INTERVALS * RENEW_S


def holder(machine: Machine, sequence: int = 1) -> PinHolder:
    return PinHolder(machine.buckets, machine.site.ring, new_pin(sequence))


def observer(machine: Machine) -> PinObserver:
    return PinObserver(machine.buckets, machine.site.ring, machine.clock)


# --- the record ----------------------------------------------------------------------------


def test_a_pin_comes_back_as_it_was() -> None:
    assert decode(encode(PIN, ring()), PIN.reader, ring()) == PIN
    assert new_pin(4).sequence == 4
    assert new_pin(4).reader != new_pin(4).reader


@pytest.mark.parametrize("at", [40, -1])
def test_a_changed_pin_does_not_open(at: int) -> None:
    data = bytearray(encode(PIN, ring()))
    data[at] ^= 1
    with pytest.raises(Corrupt):
        decode(bytes(data), PIN.reader, ring())


def test_a_pin_of_another_name_key_or_volume_does_not_open() -> None:
    data = encode(PIN, ring())
    with pytest.raises(Corrupt):
        decode(data, b"s" * 16, ring())
    with pytest.raises((Corrupt, UnknownKey)):
        decode(data, PIN.reader, ring(secret=8))
    with pytest.raises((Corrupt, UnknownKey)):
        decode(data, PIN.reader, ring(volume=VOLUME[::-1]))


@pytest.mark.parametrize(
    "wrong", [{"sequence": 0}, {"interval_s": 0.5}, {"interval_s": 1e9}, {"counter": -1}, {"host": "h" * 300}]
)
def test_a_pin_out_of_range_is_corrupt(wrong: dict[str, int]) -> None:
    with pytest.raises(Corrupt):
        decode(encode(replace(PIN, **wrong), ring()), PIN.reader, ring())  # type: ignore[arg-type]


# --- the book ------------------------------------------------------------------------------


def test_a_counter_that_stands_still_expires_and_one_that_grows_does_not() -> None:
    book = PinBook()
    living = replace(PIN, reader=b"l" * 16, sequence=9)
    for at in range(0, 601, 60):
        book.note([PIN, replace(living, counter=at)], at, complete=True)
        assert book.pinned.sequences == ({7, 9} if at < 600 else {9})
    assert book.pinned.expired == (PIN.reader,)


def test_one_long_pause_of_the_observer_expires_nobody() -> None:
    """After an outage that both sides shared the reader has time to renew."""
    book = PinBook()
    book.note([PIN], 0, complete=True)
    book.note([PIN], 100_000, complete=True)
    assert book.pinned.sequences == {7}
    for number in range(2, 2 + EXPIRY_INTERVALS // GAP_INTERVALS):
        book.note([PIN], 100_000 * number, complete=True)
    assert book.pinned.sequences == set()


def test_an_older_record_is_no_sign_of_life_and_a_higher_one_revives() -> None:
    book = PinBook()
    for at in range(0, 601, 60):
        book.note([replace(PIN, counter=at % 3), PIN], at, complete=True)
    assert book.pinned.expired == (PIN.reader,)
    book.note([replace(PIN, counter=4)], 660, complete=True)
    assert book.pinned.sequences == {7}


def test_an_absent_pin_is_gone_only_when_everybody_was_asked() -> None:
    book = PinBook()
    book.note([PIN], 0, complete=True)
    book.note([], 60, complete=False)
    assert book.pinned.sequences == {7}
    book.note([], 120, complete=True)
    assert book.pinned.sequences == set()


# --- holder and observer -------------------------------------------------------------------


async def test_a_pin_is_seen_renewed_and_removed(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    held, look = holder(site.machine(), 5), observer(site.machine())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        for _ in range(30):
            await trio.sleep(RENEW_S)
            assert (await look.look()).sequences == {5}
        nursery.cancel_scope.cancel()
    assert 30 <= held.pin.counter <= 32  # at most one put a minute and bucket
    with trio.CancelScope() as stopped:
        stopped.cancel()
        await held.remove()
    assert [await site.keys(slot) for slot in range(3)] == [[], [], []]
    assert (await look.look()).sequences == set()


async def test_one_voter_that_is_down_hides_no_pin(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    reader, looking = site.machine(), site.machine()
    reader.break_bucket(0)
    looking.break_bucket(1)
    await holder(reader, 5).renew()
    assert (await observer(looking).look()).sequences == {5}
    looking.break_bucket(2)
    with pytest.raises(NoQuorum):
        await observer(looking).look()


async def test_forged_pins_count_for_nothing(autojump_clock: trio.testing.MockClock) -> None:
    site = Site(1)
    bucket = site.memory.open("b0")
    await bucket.put(layout.reader_name(PIN.reader), encode(PIN, ring(secret=9)))
    await bucket.put(layout.reader_name(b"copy"), encode(PIN, ring()))
    await bucket.put("readers/somebody-else", b"")
    assert await observer(site.machine()).look() == PinBook().pinned


async def test_where_put_is_refused_the_reader_goes_on_without(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(3)
    machine = site.machine()
    faults = [bucket.add(Fault(FailBefore(Refused), op="put")) for bucket in machine.faulty.values()]
    held = holder(machine)
    with caplog.at_level(logging.WARNING):
        await held.run()
    assert "no bucket takes a pin" in caplog.text
    assert [fault.hits for fault in faults] == [1, 1, 1]
    await held.remove()


async def test_a_refusal_after_a_pin_and_an_outage_are_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    site = Site(1)
    machine = site.machine()
    machine.faulty[Slot(0)].add(Fault(FailBefore(Unreachable), op="put", times=1))
    machine.faulty[Slot(0)].add(Fault(FailBefore(Refused), op="put", times=1, skip=1))
    held, look = holder(machine), observer(site.machine())
    seen = []
    for _ in range(4):
        await held.renew()
        seen.append((await look.look()).sequences)
    assert seen == [set(), {1}, {1}, {1}]
    assert held.pin.counter == 4


# --- the reaper ----------------------------------------------------------------------------


async def history(one: Writer) -> None:
    """Time and checkpoints enough that nothing old is kept for its own sake."""
    for number in range(6):
        await trio.sleep(60)
        await change(one, b"history %d" % number)
        await one.reaper.round()


async def reads_back(site: Site, manifest: Manifest) -> dict[int, bytes]:
    """A moment, as a machine that still uses it reads it."""
    replica = ToyReplica(site.ring)
    await replay(open_store(site.machine()), manifest, replica)
    return replica.pages


async def test_what_a_pinned_moment_needs_is_kept_until_it_is_given_up(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    segment = await data_segment(one, 5)
    await change(one, b"with the segment")
    pinned, then, moment = one.sequence, dict(one.table.now), one.checkpointer.moment
    assert moment is not None
    held = holder(site.machine(), pinned)
    one.segments.used.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held.run)
        await trio.sleep(1)
        one.reaper.search()
        await history(one)
        await history(one)
        nursery.cancel_scope.cancel()
    assert layout.manifest_name(pinned) in await site.keys(0, "manifest/")
    assert layout.manifest_name(pinned - 1) not in await site.keys(0, "manifest/")
    assert await reads_back(site, moment.manifest) == then
    assert await shards(site, segment) == COPIES
    await held.remove()
    await one.reaper.round()
    assert layout.manifest_name(pinned) not in await site.keys(0, "manifest/")
    assert await shards(site, segment) == 0


async def test_a_dead_reader_delays_deletion_by_a_bounded_time(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    pinned = one.sequence
    dead = holder(site.machine(), pinned)
    await dead.renew()
    await history(one)
    assert layout.manifest_name(pinned) in await site.keys(0, "manifest/")
    await trio.sleep(EXPIRY_S - 6 * 60)
    await history(one)
    assert layout.manifest_name(pinned) not in await site.keys(0, "manifest/")
    assert [await site.keys(slot, "readers/") for slot in range(3)] == [[], [], []]


async def test_a_pin_keeps_segments_even_when_its_manifest_is_gone(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    """A reader that was cut off and comes back keeps what is left."""
    site = Site(3)
    one = await writer(site, tmp_path)
    pinned = one.sequence
    await history(one)
    segment = await data_segment(one, 5)
    await holder(site.machine(), pinned).renew()
    one.segments.used = set[SegmentNo]()
    one.reaper.search()
    await history(one)
    assert layout.manifest_name(pinned) not in await site.keys(0, "manifest/")
    assert await shards(site, segment) == COPIES


async def test_an_expired_pin_is_left_alone_by_who_lost_the_lease(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    dead = holder(site.machine(), one.sequence)
    await dead.renew()
    for _ in range(3):
        await one.reaper.round()
        await trio.sleep(GAP_INTERVALS * RENEW_S)
    lease = await site.machine().acquire(force=True)
    with pytest.raises(LeaseLost):
        await one.reaper.round()
    assert lease.epoch == 2
    assert await site.keys(0, "readers/") == [layout.reader_name(dead.pin.reader)]
