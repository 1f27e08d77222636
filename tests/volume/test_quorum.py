"""Majorities, and answers of buckets that are slow, silent or wrong."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from objfs.backends.base import Bucket
from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.errors import ForeignBucket, Refused, TimedOut, Unreachable
from objfs.model import Slot
from objfs.volume.quorum import STRAGGLER_S, Answers, BucketSet
from tests.volume.support import Site, entries, release


@pytest.mark.parametrize(
    ("voters", "quorum", "publish"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 3, 2), (5, 3, 3), (6, 4, 3)]
)
def test_a_publishing_always_meets_a_claim(voters: int, quorum: int, publish: int) -> None:
    buckets = BucketSet(entries(voters + 2, voters), {})
    assert (buckets.quorum, buckets.publish_quorum) == (quorum, publish)
    assert quorum + publish > voters
    assert 2 * quorum > voters


def test_force_lowers_and_never_raises() -> None:
    buckets = BucketSet(entries(5), {})
    buckets.lower_to(4)
    assert buckets.quorum == 3
    buckets.lower_to(0)
    assert (buckets.quorum, buckets.publish_quorum) == (1, 1)


def test_a_bucket_outside_the_table_is_refused() -> None:
    with pytest.raises(ForeignBucket):
        BucketSet(entries(2), Site(3).machine().faulty)


async def stat(_slot: Slot, bucket: Bucket) -> str:
    await bucket.list("x")
    return bucket.url


async def test_every_answer_and_every_error_is_told() -> None:
    machine = Site(3).machine(without={1})
    machine.faulty[Slot(2)].add(Fault(FailBefore(Refused)))
    answers = await machine.buckets.each(stat)
    assert answers.values == {0: "mem://b0"}
    assert isinstance(answers.errors[Slot(1)], Unreachable)
    assert isinstance(answers.errors[Slot(2)], Refused)


async def test_stragglers_delay_a_standing_decision_a_little_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = Site(3).machine()
    machine.hang("list", "", slots={2})

    def two(answers: Answers[str]) -> bool:
        return len(answers.values) == 2

    started = trio.current_time()
    answers = await machine.buckets.each(stat, enough=two)
    assert trio.current_time() - started == STRAGGLER_S
    assert isinstance(answers.errors[Slot(2)], TimedOut)


async def test_a_late_answer_within_the_patience_counts(autojump_clock: trio.testing.MockClock) -> None:
    machine = Site(2).machine()
    hung = machine.hang("list", "", slots={1})
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(STRAGGLER_S / 2)
            release(hung)

        nursery.start_soon(later)
        answers = await machine.buckets.each(stat, enough=lambda found: bool(found.values))
    assert len(answers.values) == 2


async def test_silence_of_all_ends(autojump_clock: trio.testing.MockClock) -> None:
    machine = Site(2).machine()
    machine.hang("list", "")
    answers = await machine.buckets.each(stat, limit_s=7)
    assert len(answers.errors) == 2
    assert trio.current_time() == pytest.approx(7, abs=0.1)
