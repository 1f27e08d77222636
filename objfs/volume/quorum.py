"""The buckets of a volume as one body that votes.

Owns the asking of several buckets at once and the arithmetic of majorities.  Promises that a slow or
silent bucket delays a decision that the others have already made by ``STRAGGLER_S`` at most.  Knows
nothing of what is asked.

Counting.  With v voters a lease (and a fence) is held at a strict majority v//2 + 1.  A manifest
of the lease's holder counts at v - (v//2 + 1) + 1 = (v + 1)//2 voters: the least number that meets
every majority, so that whoever holds the next lease sees it.  For an odd v the two are the same; for
an even v a writing mount goes on with half of its voters, which a new mount could not start with.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from objfs.backends.base import Bucket
from objfs.errors import ForeignBucket, ObjfsError, TimedOut, Unreachable
from objfs.model import Slot
from objfs.volume.table import BucketEntry

log = logging.getLogger(__name__)

T = TypeVar("T")

STRAGGLER_S = 5.0
"""How long the rest is waited for once a decision stands."""
LIMIT_S = 300.0
"""How long the whole body is waited for, whatever its buckets' own limits are."""


@dataclass(slots=True)
class Answers(Generic[T]):
    """What came back from each bucket that was asked."""

    values: dict[Slot, T] = field(default_factory=dict)
    errors: dict[Slot, ObjfsError] = field(default_factory=dict)

    def count(self, slots: Sequence[Slot]) -> int:
        """How many of ``slots`` gave a value."""
        return sum(slot in self.values for slot in slots)


class BucketSet:
    """The table of a volume and the buckets of it that this machine can reach.

    A bucket of the table without a connection here counts as unreachable, so the volume is degraded
    and not refused.  ``quorum`` is what a claim needs, ``publish_quorum`` what a manifest needs.
    """

    def __init__(self, entries: Sequence[BucketEntry], buckets: Mapping[Slot, Bucket]) -> None:
        unknown = sorted(set(buckets) - {entry.slot for entry in entries})
        if unknown:
            raise ForeignBucket(f"slot {unknown[0]} is not in the volume's bucket table")
        self.entries = tuple(sorted(entries, key=lambda entry: entry.slot))
        self.buckets = dict(buckets)
        self.voters = tuple(entry.slot for entry in self.entries if entry.voter)
        self.slots = tuple(entry.slot for entry in self.entries)
        self.quorum = len(self.voters) // 2 + 1
        self.publish_quorum = (len(self.voters) + 1) // 2
        self.changing = False
        """Whether the table is about to change, and more is asked of a manifest than usual."""
        self._lowered: int | None = None

    def become(self, entries: Sequence[BucketEntry], buckets: Mapping[Slot, Bucket]) -> None:
        """Another table and its buckets from now on, for everybody who holds this object.  What a person
        forced stays forced."""
        lowered = self._lowered
        BucketSet.__init__(self, entries, buckets)
        if lowered is not None:
            self.lower_to(lowered)

    def demand_majority(self) -> None:
        """While tables change, a manifest counts at a strict majority as well: that meets the majorities of
        the tables before and after, as long as they differ by one voter."""
        self.publish_quorum = self.quorum
        self.changing = True

    def lower_to(self, answered: int) -> None:
        """Forced: decisions count at what answers, at least one.  Only on a person's word."""
        self._lowered = answered
        self.quorum = max(1, min(self.quorum, answered))
        self.publish_quorum = max(1, min(self.publish_quorum, answered))

    def name(self, slot: Slot) -> str:
        """A bucket's name for messages."""
        bucket = self.buckets.get(slot)
        return f"slot {slot} ({bucket.url})" if bucket is not None else f"slot {slot} (no URL here)"

    async def each(
        self,
        ask: Callable[[Slot, Bucket], Awaitable[T]],
        *,
        slots: Sequence[Slot] | None = None,
        enough: Callable[[Answers[T]], bool] | None = None,
        limit_s: float = LIMIT_S,
    ) -> Answers[T]:
        """Asks ``slots`` (default all) at once.  Errors of the objfs tree become answers.

        When ``enough`` says so the others have ``STRAGGLER_S`` left; what has not answered by then,
        or by ``limit_s``, is TimedOut.  Its effect on that bucket is unknown.
        """
        asked = self.slots if slots is None else tuple(slots)
        answers: Answers[T] = Answers()
        with trio.move_on_after(limit_s) as scope:
            async with trio.open_nursery() as nursery:
                for slot in asked:
                    nursery.start_soon(self._ask_one, slot, ask, answers, enough, scope)
        for slot in asked:
            if slot not in answers.values and slot not in answers.errors:
                answers.errors[slot] = TimedOut(f"{self.name(slot)} did not answer in time")
        return answers

    async def _ask_one(
        self,
        slot: Slot,
        ask: Callable[[Slot, Bucket], Awaitable[T]],
        answers: Answers[T],
        enough: Callable[[Answers[T]], bool] | None,
        scope: trio.CancelScope,
    ) -> None:
        bucket = self.buckets.get(slot)
        try:
            if bucket is None:
                raise Unreachable(f"slot {slot} has no URL on this machine")
            answers.values[slot] = await ask(slot, bucket)
        except ObjfsError as error:
            answers.errors[slot] = error
        if enough is not None and enough(answers):
            scope.deadline = min(scope.deadline, trio.current_time() + STRAGGLER_S)
