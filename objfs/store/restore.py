"""Shards that are gone or damaged, put again byte for byte.

Owns the way back from a segment's sound shards to the objects of the others.  Promises that what is put is
exactly what was put when the segment was made, and that nothing is put unless all of the payload was
verified.  Decides nothing: the caller says which shards, and into which buckets.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from objfs.codec import BLOCK, KeyRing, Layout, encode_shards
from objfs.errors import BucketError
from objfs.model import Segment, WriteGate
from objfs.store.blocks import Blocks
from objfs.store.fetch import Fetcher
from objfs.store.layout import shard_name
from objfs.store.places import Places
from objfs.store.ranges import Run
from objfs.store.scan import Found
from objfs.store.workers import Workers, gather

log = logging.getLogger("objfs.store")


class Restorer:
    """Rebuilds and puts; holds no state of its own between calls."""

    def __init__(self, fetcher: Fetcher, places: Places, gate: WriteGate, workers: Workers) -> None:
        self._fetcher = fetcher
        self._places = places
        self._gate = gate
        self._workers = workers

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
        if bucket is None or not self._gate.open:
            return False
        try:
            await bucket.put(name, data)
        except BucketError as error:
            log.warning("shard not restored bucket=%s object=%s cause=%r", bucket.url, name, str(error))
            return False
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
