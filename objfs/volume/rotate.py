"""Rotating a volume's key: a new one for what is written from now on.

Owns the rule that nobody may have the volume mounted for writing meanwhile, and the renewal of the slots.
Promises that the new key is used by nobody before a majority of the voters holds the header that wraps it.
Old objects stay under their old keys; draining those is the work of garbage collection.

A slot can take the new key only where its secret is given: that is what makes the rotation worth anything
against somebody who kept a secret and an old header.  So slots whose secret is not given must go.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from objfs.codec.keys import MAX_KEYS, KeyRing, Slot, open_slot, rewrap
from objfs.errors import HeldElsewhere, UsageError, WrongPassphrase
from objfs.ports import Clock, WriteGate
from objfs.volume.epochs import Holder, observe
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.keys import require_writable, write_header
from objfs.volume.lease import Claim, Lease, acquire
from objfs.volume.quorum import BucketSet

log = logging.getLogger(__name__)

LEASE_S = 60.0


@dataclass(frozen=True, slots=True)
class Rotated:
    """The new header, and the slots that were left out of it."""

    header: VolumeHeader
    dropped: tuple[Slot, ...]


async def rotate(
    buckets: BucketSet,
    ring: KeyRing,
    header: VolumeHeader,
    given: Sequence[Secret],
    clock: Clock,
    *,
    drop: bool = False,
) -> Rotated:
    """Adds a key to the ring and rewrites the header with the slots that ``given`` opens.

    Slots that it does not open are left out with ``drop``.  Raises UsageError (without), HeldElsewhere where
    the volume is mounted for writing, NewerFormat, NoQuorum.
    """
    require_writable(header)
    if len(header.key_ids) >= MAX_KEYS:
        raise UsageError(f"a volume has at most {MAX_KEYS} keys")
    renewed = ring.rotated()
    slots = await trio.to_thread.run_sync(_renew, header, given, renewed)
    dropped = tuple(slot for slot in header.slots if slot.slot_id not in {kept.slot_id for kept in slots})
    if dropped and not drop:
        raise UsageError(
            f"{_names(dropped)}: no secret that was given opens it, so it cannot take the new key; "
            "give its secret too, or leave it out with --drop-slots"
        )
    changed = replace(
        header,
        generation=header.generation + 1,
        slots=slots,
        key_ids=tuple(sorted(renewed.secrets())),
        current_key=renewed.current.key_id,
    )
    lease, settled = await _take_unused(buckets, ring, clock)
    try:
        await write_header(buckets, renewed, changed)
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEASE_S):
            await lease.release(settled=settled)
    log.info("key rotated current=%d slots=%d dropped=%d", changed.current_key, len(slots), len(dropped))
    return Rotated(changed, dropped)


def _renew(header: VolumeHeader, given: Sequence[Secret], ring: KeyRing) -> tuple[Slot, ...]:
    """The slots that one of the secrets opens, with all keys of the ring.  Runs Argon2id: in a thread."""
    renewed = []
    for slot in header.slots:
        secret = next((secret for secret in given if _opens(slot, secret, header.volume)), None)
        if secret is not None:
            renewed.append(rewrap(slot, secret.data, ring.secrets(), header.volume))
    return tuple(renewed)


def _opens(slot: Slot, secret: Secret, volume: bytes) -> bool:
    if slot.kind != secret.kind:
        return False
    try:
        open_slot(slot, secret.data, volume)
    except WrongPassphrase:
        return False
    return True


def _names(slots: Sequence[Slot]) -> str:
    return ", ".join(f"slot {slot.slot_id} ({slot.label or slot.kind})" for slot in slots)


async def _take_unused(buckets: BucketSet, ring: KeyRing, clock: Clock) -> tuple[Lease, bool]:
    """The lease of a volume that nobody has mounted for writing, and whether its last holder left it settled.

    Its own crashed mount counts as a holder too: what it did not upload is to be taken up first.
    """
    seen = await observe(buckets, ring)
    before = seen.record
    if before is not None and not before.released:
        raise HeldElsewhere(
            f"the volume is in use by {before.describe(clock.now_ns())}; unmount it there before its key is "
            "rotated (after a crash: mount it and unmount it)"
        )
    claim = Claim(Holder(secrets.token_bytes(16), socket.gethostname(), os.getpid()), LEASE_S)
    lease = await acquire(buckets, ring, claim, WriteGate(), clock, lambda _known: None)
    return lease, lease.previous is None or lease.previous.settled
