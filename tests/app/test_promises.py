"""What a mount finds out about its buckets, and tells."""

from __future__ import annotations

from collections.abc import Mapping

import trio
import trio.testing

from objfs.app.promises import AFTER_S, AGAIN_S, Promises
from objfs.backends.base import Bucket
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket
from objfs.backends.wrappers.wrapper import Wrapper
from objfs.errors import NoSuchBucket, Unreachable
from objfs.model import Slot
from objfs.volume.quorum import BucketSet
from tests.doubles.buckets import OverwritingBucket, ReadOnlyBucket, StaleListingBucket, memory_bucket
from tests.volume.support import entries


class Talkative(Wrapper):
    """A bucket that says something about itself."""

    async def remarks(self) -> list[str]:
        return ["versioning is on"]


def promises(buckets: Mapping[int, Bucket], *, voters: int | None = None, writes: bool = True) -> Promises:
    table = entries(len(buckets), voters)
    return Promises(BucketSet(table, {Slot(slot): bucket for slot, bucket in buckets.items()}), writes=writes)


async def test_each_bucket_is_named_with_what_it_breaks_and_says() -> None:
    found = promises(
        {
            0: memory_bucket(),
            1: StaleListingBucket(memory_bucket()),
            2: Talkative(memory_bucket()),
            3: ReadOnlyBucket(memory_bucket()),
        }
    )
    assert found.of(Slot(1)) == ()
    await found.look()
    assert found.of(Slot(0)) == ()
    assert "(listing)" in found.of(Slot(1))[0]
    assert found.of(Slot(2)) == ("versioning is on",)
    assert "may not write" in found.of(Slot(3))[0]


async def test_one_that_does_not_answer_hinders_nothing() -> None:
    away = FaultyBucket(memory_bucket())
    away.add(Fault(FailBefore(Unreachable)))
    found = promises({0: away, 1: StaleListingBucket(memory_bucket())})
    await found.look()
    assert found.of(Slot(0)) == ()
    assert found.of(Slot(1)) != ()


async def test_one_that_was_away_is_looked_at_again(autojump_clock: trio.testing.MockClock) -> None:
    """What was wrong with it then stood in status for as long as the mount lived."""
    away = FaultyBucket(Talkative(memory_bucket()))
    away.add(Fault(FailBefore(NoSuchBucket), times=1))
    found = promises({0: away})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await trio.sleep(AFTER_S + 1)
        assert "injected" in found.of(Slot(0))[0]
    assert "injected" not in "".join(found.of(Slot(0)))
    assert trio.current_time() < AFTER_S + 2 * AGAIN_S


async def test_who_does_not_vote_need_not_decide_races() -> None:
    buckets = {0: memory_bucket(), 1: OverwritingBucket(memory_bucket())}
    for voters, complaints in ((2, 1), (1, 0)):
        found = promises(buckets, voters=voters)
        await found.look()
        assert len(found.of(Slot(1))) == complaints


async def test_a_mount_that_reads_makes_no_object() -> None:
    inner = FaultyBucket(MemoryBuckets().open("b"))
    found = promises({0: Talkative(inner)}, writes=False)
    await found.look()
    assert found.of(Slot(0)) == ("versioning is on",)
    assert inner.requests == []
