"""Segments found by looking into buckets, without the inode table.

Owns how a segment's layout, placement and index are learned from the shards themselves: for
rebuilding the map, for repair and for fsck.  Promises that only shards whose header is authentic
and names this segment count (``recognize`` reads one header and takes the other shards at their names and
lengths).  Lists; never used on the way of a program's read.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from objfs.codec import DATA_OFFSET, KeyRing, Layout, open_header
from objfs.errors import BucketError, CodecError, Corrupt, NotEnoughShards
from objfs.model import Segment, Slot
from objfs.store.layout import parse_shard, shard_name, shard_prefix
from objfs.store.places import Places
from objfs.store.workers import gather

log = logging.getLogger("objfs.store")


class Found(NamedTuple):
    """A segment as its shards describe it; ``segment.missing`` are the shards nowhere to be seen."""

    segment: Segment
    layout: Layout


class _Seen(NamedTuple):
    layout: Layout
    shard: int
    slot: Slot


Listed = Mapping[Slot, Mapping[int, int]]
"""What a listing shows of one segment: slot -> shard number -> bytes of the object."""


async def find_segment(places: Places, ring: KeyRing, uuid: bytes) -> Found:
    """One LIST per bucket and one GET of 288 bytes per shard.

    Raises NotEnoughShards when fewer than k shards with a sound header answer.
    """

    async def look(slot: Slot) -> dict[int, int]:
        return await _list(places, uuid, slot)

    slots = [slot for slot, _ in places.items()]
    return await survey(places, ring, uuid, dict(zip(slots, await gather(look, slots), strict=True)))


async def survey(places: Places, ring: KeyRing, uuid: bytes, listed: Listed) -> Found:
    """The same after a listing.  Raises NotEnoughShards."""

    async def header(item: tuple[Slot, int]) -> _Seen | None:
        return await _header(places, ring, item[0], uuid, item[1])

    shards = [(slot, shard) for slot, found in listed.items() for shard in found]
    seen = [one for one in await gather(header, shards) if one is not None]
    # A re-encoded segment has a higher generation; its old shards may still lie about.
    for generation in sorted({one.layout.generation for one in seen}, reverse=True):
        same = [one for one in seen if one.layout.generation == generation]
        slots = {one.shard: one.slot for one in reversed(same)}
        if len(slots) >= same[0].layout.code.k:
            return Found(_segment(same[0].layout, slots), same[0].layout)
    raise NotEnoughShards(
        f"segment {uuid.hex()}: {len(seen)} shards with a sound header answer, too few to read it; "
        "attach the volume's other buckets"
    )


async def recognize(places: Places, ring: KeyRing, uuid: bytes, listed: Listed) -> Found:
    """As ``survey``, but the first sound header speaks for all shards of the right length: one GET.

    Raises NotEnoughShards.
    """
    for slot, shards in listed.items():
        for shard in shards:
            seen = await _header(places, ring, slot, uuid, shard)
            if seen is None:
                continue
            slots = {
                number: place
                for place, found in sorted(listed.items(), reverse=True)
                for number, size in found.items()
                if number < seen.layout.code.n and size == seen.layout.object_size(number)
            }
            if len(slots) >= seen.layout.code.k:
                return Found(_segment(seen.layout, slots), seen.layout)
    raise NotEnoughShards(f"segment {uuid.hex()}: too few sound shards to read it; attach the other buckets")


async def _list(places: Places, uuid: bytes, slot: Slot) -> dict[int, int]:
    """The shards of the segment in one bucket; a bucket that does not answer holds none."""
    bucket = places.bucket(slot)
    if bucket is None:
        return {}
    try:
        listed = await bucket.list(shard_prefix(uuid))
    except BucketError as error:
        log.warning("bucket not scanned bucket=%s segment=%s cause=%r", bucket.url, uuid.hex(), str(error))
        return {}
    return {name.shard: info.size for info in listed if (name := parse_shard(info.key)) is not None}


async def _header(places: Places, ring: KeyRing, slot: Slot, uuid: bytes, shard: int) -> _Seen | None:
    bucket, name = places.bucket(slot), shard_name(uuid, shard)
    try:
        if bucket is None:
            return None
        layout, number = open_header(ring, await bucket.get(name, 0, DATA_OFFSET))
        if layout.uuid != uuid or number != shard:
            raise Corrupt(f"the object holds shard {number} of segment {layout.uuid.hex()}")
    except (BucketError, CodecError) as error:
        log.warning(
            "shard header not usable bucket=%s object=%s cause=%r", places.url(slot), name, str(error)
        )
        return None
    return _Seen(layout, shard, slot)


def _segment(layout: Layout, slots: dict[int, Slot]) -> Segment:
    """Shards nowhere to be seen get the slot of one that is: they count as missing anyway."""
    somewhere = next(iter(slots.values()))
    numbers: Sequence[int] = range(layout.code.n)
    return Segment(
        uuid=layout.uuid,
        kind=layout.kind,
        key_id=layout.key_id,
        code=layout.code,
        length=layout.length,
        cuts=layout.cuts,
        placement=tuple(slots.get(shard, somewhere) for shard in numbers),
        missing=frozenset(numbers) - slots.keys(),
        generation=layout.generation,
    )
