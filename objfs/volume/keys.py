"""Header objects on all buckets: reading them, rewriting them, and what follows: key slots.

Owns the rewrite of a header with the next generation.  Promises that a rewrite counts at a strict majority
of the voters and is never written over one that somebody else rewrote meanwhile, and that the last slot that
opens a volume is not removed.  How buckets that missed one get it is ``spread``'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import trio

from objfs.backends.base import Bucket
from objfs.codec.keys import DEFAULT_COST, Cost, KeyRing, Slot, make_slot
from objfs.errors import BucketError, NewerFormat, NoQuorum, TimedOut, UsageError
from objfs.model import Slot as BucketSlot
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume import header as headers
from objfs.volume.header import HEADER_MAX, Secret, VolumeHeader
from objfs.volume.quorum import STRAGGLER_S, BucketSet
from objfs.volume.spread import put_over_older, refuse_changed

log = logging.getLogger(__name__)


async def read_headers(buckets: Mapping[str, Bucket]) -> tuple[dict[str, bytes], dict[str, BucketError]]:
    """The header objects by the name each bucket is given here, and why others could not be read.

    Once more than half have answered, the rest is not waited for longer than ``STRAGGLER_S``.
    """
    found: dict[str, bytes] = {}
    errors: dict[str, BucketError] = {}

    async def read(name: str, bucket: Bucket) -> None:
        try:
            found[name] = await bucket.get(layout.HEADER, 0, HEADER_MAX + 1)
        except BucketError as error:
            errors[name] = error
            log.warning("header not read bucket=%s: %s", name, error)
        if 2 * len(found) > len(buckets):
            scope.deadline = min(scope.deadline, trio.current_time() + STRAGGLER_S)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for name, bucket in buckets.items():
                nursery.start_soon(read, name, bucket)
    for name in buckets.keys() - found.keys() - errors.keys():
        errors[name] = TimedOut(f"{name} did not answer in time")
        log.warning("header not read bucket=%s: no answer in time", name)
    return found, errors


async def write_header(buckets: BucketSet, ring: KeyRing, header: VolumeHeader) -> None:
    """Puts a header on all buckets but those with a newer one under a key that is not known here.  Raises
    NoQuorum where somebody else has rewritten it since it was read, and when fewer than a majority of the
    voters took it: then nothing is known, and the rewrite must be repeated with a higher generation."""
    await refuse_changed(buckets, ring, header.generation)
    data = headers.encode(header, ring)

    async def put(slot: BucketSlot, bucket: Bucket) -> None:
        await put_over_older(bucket, buckets.name(slot), ring, header.generation, data)

    answers = await buckets.each(put)
    for slot, error in answers.errors.items():
        log.warning("header not written bucket=%s: %s", buckets.name(slot), error)
    won = answers.count(buckets.voters)
    if won < buckets.quorum:
        raise NoQuorum(
            f"the header reached {won} of {len(buckets.voters)} voting buckets, {buckets.quorum} are needed; "
            "repeat the command when they answer"
        )
    log.info("header written generation=%d buckets=%d", header.generation, len(answers.values))


def require_writable(header: VolumeHeader) -> None:
    """Raises NewerFormat where the header has features that this version would lose by rewriting it."""
    if header.features.read_only:
        raise NewerFormat(
            f"the volume has {header.features.unknown}, which only a newer objfs may change; use a newer one"
        )


def list_slots(header: VolumeHeader) -> list[Slot]:
    """The key slots by number."""
    return sorted(header.slots, key=lambda slot: slot.slot_id)


async def add_slot(
    buckets: BucketSet,
    ring: KeyRing,
    header: VolumeHeader,
    secret: Secret,
    clock: Clock,
    *,
    label: str = "",
    cost: Cost = DEFAULT_COST,
) -> VolumeHeader:
    """Wraps the ring for one more secret and rewrites the header.  Raises NoQuorum, UsageError,
    NewerFormat."""
    require_writable(header)
    if len(header.slots) >= headers.SLOTS_MAX:
        raise UsageError(f"a volume has at most {headers.SLOTS_MAX} key slots; remove one first")
    number = max((slot.slot_id for slot in header.slots), default=-1) + 1

    now_ns = clock.now_ns()

    def wrap() -> Slot:
        return make_slot(
            number,
            secret.kind,
            secret.data,
            ring.secrets(),
            ring.volume,
            cost=cost,
            label=label,
            now_ns=now_ns,
        )

    slot = await trio.to_thread.run_sync(wrap)
    changed = replace(header, generation=header.generation + 1, slots=(*header.slots, slot))
    await write_header(buckets, ring, changed)
    return changed


async def remove_slot(buckets: BucketSet, ring: KeyRing, header: VolumeHeader, number: int) -> VolumeHeader:
    """Rewrites the header without a slot.  Old copies of the header that somebody kept still open with
    its secret: what is written from now on is only safe from it once the key is rotated.  Raises UsageError,
    NoQuorum, NewerFormat."""
    require_writable(header)
    kept = tuple(slot for slot in header.slots if slot.slot_id != number)
    if len(kept) == len(header.slots):
        raise UsageError(f"there is no key slot {number}; see objfs key list")
    if not kept:
        raise UsageError(f"slot {number} is the last key slot; add another before removing it")
    changed = replace(header, generation=header.generation + 1, slots=kept)
    await write_header(buckets, ring, changed)
    return changed
