"""Shards that are gone or damaged, put again byte for byte.

Owns the way back from a segment's sound shards to the objects of the others, and where a shard goes whose
bucket has left the volume: to one that stands in.  Promises that what is put is exactly what was put when the
segment was made, that nothing is put unless all of the payload was verified, and that a bucket known to be
down is not asked.  The caller says which shards.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from objfs.codec import BLOCK, KeyRing, Layout, encode_shards
from objfs.errors import BucketError
from objfs.model import Segment, Slot
from objfs.ports import WriteGate
from objfs.store.blocks import Blocks
from objfs.store.counters import Counters
from objfs.store.fetch import Fetcher
from objfs.store.health import HealthBoard
from objfs.store.layout import shard_name
from objfs.store.placement import spares
from objfs.store.places import Places
from objfs.store.ranges import Run
from objfs.store.scan import Found, recognize
from objfs.store.workers import Workers, gather

log = logging.getLogger("objfs.store")


class Restorer:
    """Rebuilds and puts; holds no state of its own between calls."""

    def __init__(
        self,
        fetcher: Fetcher,
        places: Places,
        health: HealthBoard,
        counters: Counters,
        gate: WriteGate,
        workers: Workers,
    ) -> None:
        self._fetcher = fetcher
        self._places = places
        self._health = health
        self._counters = counters
        self._gate = gate
        self._workers = workers

    async def heal(
        self, ring: KeyRing, segment: Segment, shards: Collection[int], left: Collection[Slot] = ()
    ) -> Segment:
        """Puts ``shards`` again, each where the segment says, or, where that slot has ``left`` the volume,
        into a bucket that stands in; returns the segment as it is then.

        Its ``missing`` are those that are so now: of ``shards``, those that no bucket took.  Raises
        NotEnoughShards, ReadOnly (gate closed).
        """
        self._gate.check()
        wanted = frozenset(shards)
        known = await recognize(self._places, ring, segment.uuid, self._likely(segment, wanted))
        target = replace(segment, placement=self._settle(segment, wanted, left))
        there = await self.restore(ring, Found(target, known.layout), wanted)
        return replace(target, missing=(segment.missing | wanted) - there)

    def _likely(self, segment: Segment, wanted: frozenset[int]) -> dict[Slot, dict[int, int]]:
        """Shards whose header tells the layout: not those in doubt, nor in buckets that are down, unless too
        few are left."""
        layout = Layout.from_segment(segment)
        placed = [shard for shard in range(segment.code.n) if shard not in segment.missing]
        best = [
            shard for shard in placed
            if shard not in wanted and not self._health.down(segment.placement[shard])
        ]  # fmt: skip
        rest = [shard for shard in placed if shard not in best]
        found: dict[Slot, dict[int, int]] = {}
        for shard in best if len(best) >= segment.code.k else best + rest:
            found.setdefault(segment.placement[shard], {})[shard] = layout.object_size(shard)
        return found

    def _settle(self, segment: Segment, wanted: frozenset[int], left: Collection[Slot]) -> tuple[Slot, ...]:
        """The placement, with others for slots that have left where any is free."""
        slots = list(segment.placement)
        for shard in sorted(wanted):
            if slots[shard] in left:
                free = spares(segment.uuid, slots, self._places.writable)
                slots[shard] = free[0] if free else slots[shard]
        return tuple(slots)

    async def restore(self, ring: KeyRing, found: Found, shards: Collection[int]) -> set[int]:
        """Puts ``shards`` into the buckets that the segment names; returns those that are there now.

        Raises NotEnoughShards, ReadOnly (gate closed).
        """
        self._gate.check()
        objects = await self.objects(ring, found)

        async def put(shard: int) -> bool:
            return await self._put(found.segment, shard, objects[shard])

        ordered = sorted(shards)
        done = await gather(put, ordered)
        return {shard for shard, there in zip(ordered, done, strict=True) if there}

    async def objects(self, ring: KeyRing, found: Found) -> list[bytes]:
        """All objects of a segment, from its sound shards.  Raises NotEnoughShards."""
        layout = found.layout
        blocks = await self._fetcher.fetch(ring, whole(found.segment, layout))
        return await self._workers.read(layout.length, lambda: _encode(ring, layout, blocks))

    async def _put(self, segment: Segment, shard: int, data: bytes) -> bool:
        slot, name = segment.placement[shard], shard_name(segment.uuid, shard)
        bucket = self._places.bucket(slot)
        if bucket is None or not self._gate.open or not self._health.admit(slot):
            return False
        try:
            await bucket.put(name, data)
        except BucketError as error:
            self._health.failed(slot, error)
            log.warning("shard not restored bucket=%s object=%s cause=%r", bucket.url, name, str(error))
            return False
        self._health.succeeded(slot)
        self._counters.add(shards_restored=1, bytes_written=len(data))
        log.info("shard restored bucket=%s object=%s", bucket.url, name)
        return True


def whole(segment: Segment, layout: Layout) -> list[Run]:
    """The requests that bring all of a payload: its data shards, or one copy."""
    shards = range(1 if layout.code.k == 1 else layout.code.k)
    counts = [-(-layout.shard_length(shard) // BLOCK) for shard in shards]
    return [
        Run(segment, shard, 0, count, frozenset(range(count)))
        for shard, count in zip(shards, counts, strict=True)
        if count
    ]


def _encode(ring: KeyRing, layout: Layout, blocks: Sequence[Blocks]) -> list[bytes]:
    payload = b"".join(bytes(part.data) for part in blocks)
    return encode_shards(ring.get(layout.key_id), layout, payload)
