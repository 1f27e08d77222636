"""What a volume costs: bytes kept and requests made, by bucket, and what that comes to a month.

Owns the arithmetic.  What is kept is counted from the inode table and the kept checkpoints, so no bucket is
asked; requests are those of the running mount.  Estimates, and said to be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import trio

from objfs.app.buckets import OpenBucket
from objfs.app.client import ControlClient
from objfs.app.engine import Engine
from objfs.app.prices import DAYS_PER_MONTH, Price, PriceTable, puts_and_gets, read_prices
from objfs.app.wire import Message
from objfs.backends.wrappers.metrics import MetricsSnapshot
from objfs.codec import Layout
from objfs.errors import NotMounted
from objfs.meta.segment_usage import UsageView
from objfs.model import Segment, Slot
from objfs.volume.fields import JSON, Fields
from objfs.volume.local import VolumeHome

LEAST_S = 600.0
"""From a shorter time nothing is extrapolated."""
MONTH_S = DAYS_PER_MONTH * 86400.0


@dataclass(frozen=True, slots=True)
class BucketCost:
    """One bucket.  ``stored_bytes`` is None where nobody knows its slot here; amounts are a month's, None
    where they cannot be told; ``example``: the price is one of the examples that are shipped."""

    url: str
    uuid: str
    stored_bytes: int | None
    puts: int
    gets: int
    deletes: int
    bytes_in: int
    bytes_out: int
    storage: float | None
    requests: float | None
    match: str
    example: bool


def cost(home: VolumeHome) -> Message:
    """Of a volume, mounted or not.  Raises BadSetting."""
    home.require()
    try:
        with ControlClient(home.control_path) as mount:
            return mount.ask("cost")
    except NotMounted:
        return _of_files(home)


async def cost_of(engine: Engine) -> Message:
    """Of a running mount."""
    volume, home = engine.volume, engine.volume.home
    prices = read_prices(home.path.parent)
    kept = engine.reaper.kept if engine.reaper is not None else [volume.moment.manifest]
    blobs = {blob.segment.uuid: blob.segment for one in kept for blob in one.blobs}
    stored = await trio.to_thread.run_sync(stored_bytes, engine.table.path, list(blobs.values()))
    since_s = engine.clock.monotonic() - engine.opened_at
    slots = {entry.uuid: entry.slot for entry in volume.buckets.entries}
    found = [
        _bucket(prices, item, stored.get(slots[uuid], 0) if uuid in slots else None, since_s)
        for uuid, item in engine.opened_buckets.items()
    ]
    return document(prices, found, since_s)


def _of_files(home: VolumeHome) -> Message:
    """From what this machine remembers; slots are not among it, so what is stored is told as one."""
    prices, config = read_prices(home.path.parent), home.read_config()
    found = [
        BucketCost(place.url, place.uuid.hex(), None, 0, 0, 0, 0, 0, None, None, price.match, price.example)
        for place in config.buckets
        for price in [prices.of(place.url, place.uuid.hex())]
    ]
    stored = stored_bytes(home.database_path, []) if home.database_path.exists() else {}
    return document(prices, found, None) | {"stored_bytes": sum(stored.values())}


def stored_bytes(path: Path, blobs: Collection[Segment]) -> dict[Slot, int]:
    """Bytes of objects by slot: those of the table's segments and of ``blobs``.  Blocking."""
    found: dict[Slot, int] = {}
    with UsageView(path) as view:
        segments = [*view.sound_segments(), *blobs]
    for segment in segments:
        right = Layout.from_segment(segment)
        for shard, slot in enumerate(segment.placement):
            if shard not in segment.missing:
                found[slot] = found.get(slot, 0) + right.object_size(shard)
    return found


def _bucket(prices: PriceTable, item: OpenBucket, stored: int | None, since_s: float) -> BucketCost:
    seen, price = item.metrics.snapshot(), prices.of(item.url, item.uuid.hex())
    puts, gets = puts_and_gets(seen)
    return BucketCost(
        url=item.url,
        uuid=item.uuid.hex(),
        stored_bytes=stored,
        puts=puts,
        gets=gets,
        deletes=seen["delete"].requests,
        bytes_in=seen.bytes_in,
        bytes_out=seen.bytes_out,
        storage=None if stored is None else price.storage_month(stored),
        requests=_a_month(price, seen, since_s),
        match=price.match,
        example=price.example,
    )


def _a_month(price: Price, seen: MetricsSnapshot, since_s: float) -> float | None:
    if since_s < LEAST_S:
        return None
    puts, gets = puts_and_gets(seen)
    return price.requests(puts, gets, seen.bytes_in) * MONTH_S / since_s


def document(prices: PriceTable, found: Sequence[BucketCost], since_s: float | None) -> Message:
    """``month`` is the sum of what can be told; ``since_s`` None: no mount runs, so no request is counted."""
    amounts = [amount for one in found for amount in (one.storage, one.requests) if amount is not None]
    return {
        "currency": prices.currency,
        "example": any(one.example for one in found),
        "since_s": since_s,
        "month": sum(amounts) if amounts else None,
        "stored_bytes": sum(one.stored_bytes or 0 for one in found),
        "buckets": [cast("JSON", asdict(one)) for one in found],
    }


# --- of a collection -----------------------------------------------------------------------


def gc_cost(engine: Engine, report: Mapping[str, JSON]) -> Message:
    """What a collection would cost once and save a month.  Shards lie evenly over the buckets for data, so
    what is not known by bucket is priced at their mean."""
    prices = read_prices(engine.volume.home.path.parent)
    by_slot = {
        entry.slot: prices.of(item.url, item.uuid.hex())
        for entry in engine.volume.buckets.entries
        if entry.shards and (item := engine.opened_buckets.get(entry.uuid)) is not None
    }
    fields, code = Fields({**report}, "gc"), engine.header.code
    alive, units = fields.integer("sparse_alive_bytes"), fields.integer("units")
    puts, gets = units * code.n, fields.integer("reads")
    written = alive * code.n / code.k
    freed = _doomed(fields)
    share = max(1, len(by_slot))
    once = sum(one.requests(puts / share, gets / share, alive / share) for one in by_slot.values())
    early = sum(by_slot[slot].early(days, nbytes) for slot, days, nbytes in freed if slot in by_slot)
    saved = sum(by_slot[slot].storage_month(nbytes) for slot, _, nbytes in freed if slot in by_slot)
    saved -= sum(one.storage_month(written / share) for one in by_slot.values())
    return {
        "currency": prices.currency,
        "example": any(one.example for one in by_slot.values()),
        "puts": puts,
        "gets": gets,
        "bytes_in": alive,
        "bytes_out": int(written),
        "freed_bytes": sum(nbytes for _, _, nbytes in freed),
        "once": once,
        "early": early,
        "saved_month": saved,
    }


def _doomed(report: Fields) -> list[tuple[Slot, int, int]]:
    """Slot, age in days and bytes of the objects that are to go."""
    doomed = report.object("doomed")
    return [
        (Slot(int(slot)), int(days), ages.integer(days))
        for slot in doomed.value
        for ages in [doomed.object(slot)]
        for days in ages.value
    ]
