"""Lease objects: what they say, and what the buckets say together.

Owns the record in ``lease/<epoch>``, its bytes, and the reading of the highest epoch.  Promises that an
object which does not open under its own name counts for nothing.  Decides nothing about who may write.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from objfs.backends.base import Bucket
from objfs.codec.envelope import Kind
from objfs.codec.keys import KeyRing
from objfs.codec.seal import open_object, seal_object
from objfs.errors import CodecError, NoSuchObject
from objfs.model import Slot
from objfs.store import layout
from objfs.volume.fields import Fields, canonical
from objfs.volume.quorum import Answers, BucketSet

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who claims: the state directory's random id and, for people, where it runs."""

    state_id: bytes
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """The content of ``lease/<epoch>``.  ``since_ns`` is wall time, for display only.

    ``settled`` is true on a release after which no manifest can still be under way.
    """

    epoch: int
    holder: Holder
    since_ns: int
    interval_s: float
    counter: int = 0
    released: bool = False
    settled: bool = False

    def describe(self, now_ns: int) -> str:
        """For messages: host, process and age."""
        age = max(0, now_ns - self.since_ns) // 1_000_000_000
        return f"host {self.holder.host}, process {self.holder.pid}, since {age} s (epoch {self.epoch})"


@dataclass(frozen=True, slots=True)
class KnownLease:
    """What this state directory last wrote into a lease of its own."""

    epoch: int
    counter: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest epoch that proves itself; epoch 0 means that nobody ever held the volume."""

    epoch: int
    record: LeaseRecord | None
    answered: int


def encode(record: LeaseRecord, ring: KeyRing) -> bytes:
    """The object's bytes."""
    body = canonical(
        {
            "epoch": record.epoch,
            "state_id": record.holder.state_id.hex(),
            "host": record.holder.host,
            "pid": record.holder.pid,
            "since_ns": record.since_ns,
            "interval_s": record.interval_s,
            "counter": record.counter,
            "released": record.released,
            "settled": record.settled,
        }
    )
    return seal_object(ring.oldest, Kind.LEASE, layout.lease_name(record.epoch), body)


def decode(data: bytes, epoch: int, ring: KeyRing) -> LeaseRecord:
    """Raises Corrupt, NewerFormat, UnknownKey."""
    name = layout.lease_name(epoch)
    fields = Fields.parse(open_object(ring, Kind.LEASE, name, data), name)
    if fields.integer("epoch") != epoch:
        raise fields.wrong("epoch", f"{epoch}")
    return LeaseRecord(
        epoch,
        Holder(fields.hexbytes("state_id", 16), fields.text("host", 256), fields.integer("pid")),
        fields.integer("since_ns"),
        fields.number("interval_s", 0, 86400),
        fields.integer("counter"),
        fields.flag("released"),
        fields.flag("settled"),
    )


# --- looking -------------------------------------------------------------------------------


async def observe(buckets: BucketSet, ring: KeyRing) -> Seen:
    """The highest epoch on any voter that answers; an object that does not open is no lease."""

    async def look(slot: Slot, bucket: Bucket) -> LeaseRecord | None:
        return await read_highest(bucket, ring, buckets.name(slot))

    def enough(answers: Answers[LeaseRecord | None]) -> bool:
        return answers.count(buckets.voters) >= buckets.quorum

    answers = await buckets.each(look, slots=buckets.voters, enough=enough)
    record = _decide([record for record in answers.values.values() if record is not None])
    return Seen(record.epoch if record is not None else 0, record, len(answers.values))


def _decide(records: Sequence[LeaseRecord]) -> LeaseRecord | None:
    """Of the records of the highest epoch one that still counts.

    Of one claimant the highest counter is the latest word, whatever a late renewal left elsewhere.  Of
    several claimants (a split claim) one that has not released: it may have won.
    """
    top = max((record.epoch for record in records), default=0)
    latest: dict[bytes, LeaseRecord] = {}
    for record in sorted((record for record in records if record.epoch == top), key=lambda r: r.counter):
        latest[record.holder.state_id] = record
    return min(latest.values(), key=lambda record: record.released, default=None)


async def read_highest(bucket: Bucket, ring: KeyRing, where: str) -> LeaseRecord | None:
    """The highest lease on one bucket that opens."""
    epochs = [layout.parse_lease(info.key) for info in await bucket.list(layout.LEASE_PREFIX)]
    for epoch in sorted((epoch for epoch in epochs if epoch is not None), reverse=True):
        try:
            return decode(await bucket.get(layout.lease_name(epoch)), epoch, ring)
        except NoSuchObject:
            continue
        except CodecError as error:
            log.warning("lease skipped bucket=%s epoch=%d: %s", where, epoch, error)
    return None


async def read_epoch(bucket: Bucket, ring: KeyRing, epoch: int) -> LeaseRecord | None:
    """One epoch's lease on one bucket; None where it is absent or does not open."""
    try:
        return decode(await bucket.get(layout.lease_name(epoch)), epoch, ring)
    except NoSuchObject:
        return None
    except CodecError as error:
        log.warning("lease skipped bucket=%s epoch=%d: %s", bucket.url, epoch, error)
        return None


async def read_higher(bucket: Bucket, ring: KeyRing, epoch: int, where: str) -> LeaseRecord | None:
    """The highest lease on one bucket if it is beyond ``epoch``."""
    found = await read_highest(bucket, ring, where)
    return found if found is not None and found.epoch > epoch else None
