"""Segments made whole again, in the buckets and in the rows that name them.

Owns the step from shards that are known to be gone or wrong to a row that says where they are.  Promises
that a row is changed only to what is in the buckets, that a segment which was moved or freed meanwhile
keeps what its row says by then, and that only slots which the volume has no more are replaced.  Used by the
healer of a running mount, by scrub and by repair.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from objfs.codec import Layout
from objfs.errors import StoreError
from objfs.meta import MetaDatabase
from objfs.model import Segment, SegmentNo, Slot
from objfs.ports import WriteGate
from objfs.store.store import SegmentStore
from objfs.volume.fsck_map import ShardFaults
from objfs.volume.fsck_mend import placed_as_listed
from objfs.volume.quorum import BucketSet
from objfs.volume.rate import Rate
from objfs.volume.survey import Found


class Mender:
    """One volume that this process may change; ``restored_bytes`` is what it has put."""

    def __init__(
        self, store: SegmentStore, buckets: BucketSet, table: MetaDatabase, gate: WriteGate, rate: Rate
    ) -> None:
        self._store = store
        self._buckets = buckets
        self._table = table
        self._gate = gate
        self._rate = rate
        self.restored_bytes = 0

    def left(self, slots: Collection[Slot]) -> set[Slot]:
        """Those that are not in the volume any more."""
        return set(slots) - set(self._buckets.slots)

    async def mend(self, found: Found, listed: ShardFaults, shards: set[int], sound: set[int]) -> set[int]:
        """Makes the faults of one segment good: ``sound`` are shards at their place that the row calls
        missing.

        Returns those of ``shards`` that are right now.  Raises as ``mend_row``.
        """
        if found.number is None:
            return await self.mend_blob(found.segment, shards)
        settled = set(sound)
        if sound:
            self._gate.check()
            self._record(found.number, found.segment, found.segment, sound)
        if listed.moved:
            settled |= self._follow(found.number, found, listed)
        rest = shards - settled
        return settled | (await self.mend_row(found.number, rest) if rest else set())

    def _follow(self, number: SegmentNo, found: Found, listed: ShardFaults) -> set[int]:
        """The row says where shards are that lie in another bucket, unless that leaves two in one which
        were in two before, and the segment can be read without."""
        segment = found.segment
        placement, missing = placed_as_listed(segment, found.listed)
        spread = len(set(placement)) >= len(set(segment.placement))
        if not spread and segment.code.n - len(listed.gone | listed.unseen) >= segment.code.k:
            return set()
        self._gate.check()
        moved = replace(segment, placement=placement, missing=missing)
        self._record(number, segment, moved, set(range(moved.code.n)) - missing)
        return set(listed.moved)

    async def mend_row(self, number: SegmentNo, shards: Collection[int]) -> set[int]:
        """Puts shards of a segment of the table again; returns those that are there now.

        Raises NotEnoughShards, StoreError (the segment is gone), ReadOnly.
        """
        before = self._table.segment(number)
        await self._rate.spend(_moved(before, shards))
        after = await self._store.heal(before, shards, self.left(before.placement))
        there = set(shards) - after.missing
        self._gate.check()
        self._record(number, before, after, there)
        self._count(before, there)
        return there

    async def mend_blob(self, segment: Segment, shards: Collection[int]) -> set[int]:
        """The same of a segment that only manifests name: each shard goes where they say."""
        await self._rate.spend(_moved(segment, shards))
        after = await self._store.heal(segment, shards)
        there = set(shards) - after.missing
        self._count(segment, there)
        return there

    def _record(self, number: SegmentNo, before: Segment, after: Segment, there: set[int]) -> None:
        with self._table.transaction():
            try:
                now = self._table.segment(number)
            except StoreError:
                return  # freed meanwhile
            if (now.uuid, now.placement, now.generation) != (
                before.uuid,
                before.placement,
                before.generation,
            ):
                return
            slots = tuple(
                after.placement[shard] if shard in there else now.placement[shard]
                for shard in range(now.code.n)
            )
            changed = replace(now, placement=slots, missing=now.missing - there)
            if changed != now:
                self._table.update_segment(number, changed)

    def _count(self, segment: Segment, there: set[int]) -> None:
        layout = Layout.from_segment(segment)
        self.restored_bytes += sum(layout.object_size(shard) for shard in there)


def reads(segment: Segment) -> tuple[int, int]:
    """Requests and bytes that it takes to have a whole payload: k shards and one header."""
    layout = Layout.from_segment(segment)
    return segment.code.k + 1, sum(layout.object_size(shard) for shard in range(segment.code.k))


def writes(segment: Segment, shards: Collection[int]) -> int:
    """Bytes of the shards' objects."""
    layout = Layout.from_segment(segment)
    return sum(layout.object_size(shard) for shard in shards)


def _moved(segment: Segment, shards: Collection[int]) -> int:
    return reads(segment)[1] + writes(segment, shards)
