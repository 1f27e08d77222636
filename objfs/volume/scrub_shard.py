"""One shard read in ranges and judged: its header, and every block by its tag.

Owns the verdict on an object that was listed with the right length.  Promises that at most ``STEP`` of a
shard is in memory, and that no bytes move before the rate lets them.  Asks one bucket, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from objfs.backends.base import Bucket
from objfs.codec import BLOCK, DATA_OFFSET, KeyRing, Layout, block_range, open_header
from objfs.errors import BucketError, CodecError, NewerFormat, NoSuchObject, RangeError
from objfs.model import Segment
from objfs.store.blocks import verify
from objfs.store.layout import shard_name
from objfs.volume.rate import Rate

STEP = 32
"""Blocks that are read with one request: 1 MiB."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a shard.  ``blocks`` are those that fail their tags; None: nothing of it can be
    used. ``unseen``: the bucket did not answer."""

    rule: str
    what: str
    blocks: frozenset[int] | None = None
    unseen: bool = False


@dataclass(slots=True)
class Reading:
    """``layout`` is what the shard's own header says, where that is authentic and of this segment."""

    fault: Fault | None = None
    layout: Layout | None = None
    nbytes: int = 0
    bad: set[int] = field(default_factory=set)


async def read_shard(ring: KeyRing, bucket: Bucket, segment: Segment, shard: int, rate: Rate) -> Reading:
    """Raises NewerFormat; whatever else a bucket does is a fault."""
    reading, name = Reading(), shard_name(segment.uuid, shard)
    try:
        await _header(ring, bucket, segment, shard, rate, reading)
        if reading.fault is None:
            await _blocks(ring, bucket, segment, shard, rate, reading)
    except (NoSuchObject, RangeError):
        reading.fault = Fault("shard-missing", "is not there, or empty")
    except BucketError as error:
        reading.fault = Fault("shard-unread", f"{name} cannot be read now: {error}", unseen=True)
    return reading


async def _header(
    ring: KeyRing, bucket: Bucket, segment: Segment, shard: int, rate: Rate, reading: Reading
) -> None:
    await rate.spend(DATA_OFFSET)
    data = await bucket.get(shard_name(segment.uuid, shard), 0, DATA_OFFSET)
    reading.nbytes += len(data)
    try:
        layout, number = open_header(ring, data)
    except NewerFormat:
        raise
    except CodecError as error:
        reading.fault = Fault("shard-damaged", f"its header does not open: {error}")
        return
    if (layout.uuid, number) != (segment.uuid, shard):
        what = f"holds shard {number} of segment {layout.uuid.hex()}"
        reading.fault = Fault("shard-misplaced", what)
        return
    expected = Layout.from_segment(segment)
    if (layout.code, layout.cuts, layout.key_id) != (expected.code, expected.cuts, expected.key_id):
        what = f"is of generation {layout.generation}, laid out otherwise: an older object was put back"
        reading.fault = Fault("shard-stale", what)
        return
    reading.layout = layout


async def _blocks(
    ring: KeyRing, bucket: Bucket, segment: Segment, shard: int, rate: Rate, reading: Reading
) -> None:
    layout, key = Layout.from_segment(segment), ring.get(segment.key_id)
    count = -(-layout.shard_length(shard) // BLOCK)
    for first in range(0, count, STEP):
        last = min(first + STEP, count)
        span = block_range(layout, shard, first * BLOCK, last * BLOCK)
        await rate.spend(span.end - span.start)
        data = await bucket.get(shard_name(segment.uuid, shard), span.start, span.end)
        reading.nbytes += len(data)
        blocks = await trio.to_thread.run_sync(verify, key, layout, shard, first, last, data)
        reading.bad |= blocks.bad
    if reading.bad:
        numbers = ", ".join(map(str, sorted(reading.bad)[:8])) + (" and more" if len(reading.bad) > 8 else "")
        what = f"{len(reading.bad)} of {count} blocks fail their tags: {numbers}"
        reading.fault = Fault("shard-damaged", what, frozenset(reading.bad))


def beyond_mending(segment: Segment, faults: Mapping[int, Fault]) -> bool:
    """Whether some block of the segment has fewer than k sound shards."""
    whole = sum(fault.blocks is None for fault in faults.values())
    partial = [fault.blocks for fault in faults.values() if fault.blocks is not None]
    worst = max(
        (sum(block in blocks for blocks in partial) for block in frozenset().union(*partial)), default=0
    )
    return whole + worst > segment.code.m
