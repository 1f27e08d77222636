"""The manifests in the buckets: putting one, and finding the newest.

Owns the rule of what counts as published.  Promises that a manifest which any writer was told is published
is found by every later holder of the lease.

Why the rule is safe.  ``manifest/<sequence>`` is written once per bucket (put-if-absent), so two writers
of one sequence split the voters between them.  A manifest on a strict majority is published.  Where
nobody can know (voters do not answer), a manifest with content wins over a fence: a fence acknowledges
nothing by itself, and whoever goes on from it publishes at the next sequence, which a later holder sees
on any majority.  Between manifests with content at one sequence the higher epoch wins: the lower one's writer
was fenced at or before it.

A fence is put only after the newest sequence was settled: filled on a majority, so that no put still under
way can be counted there.  ``tests/volume/test_lease_model.py`` walks through the interleavings.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from objfs.backends.base import Bucket
from objfs.codec.keys import KeyRing
from objfs.errors import (
    CodecError,
    Corrupt,
    LeaseLost,
    NewerFormat,
    NoQuorum,
    NoSuchObject,
    ObjectExists,
    ObjfsError,
    Temporary,
    UnknownKey,
)
from objfs.model import Slot
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume import manifest as manifests
from objfs.volume.lease import Lease
from objfs.volume.manifest import Manifest
from objfs.volume.quorum import Answers, BucketSet

log = logging.getLogger(__name__)

FENCE_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class Published:
    """A manifest as it lies in buckets."""

    manifest: Manifest
    data: bytes
    held_by: tuple[Slot, ...]

    @property
    def hash(self) -> bytes:
        return manifests.hash_of(self.data)

    @property
    def content(self) -> bytes:
        """The hash of the moment: that of the manifest itself, or of the one that a fence repeats."""
        return self.manifest.copy_of if self.manifest.fence else self.hash


@dataclass(frozen=True, slots=True)
class PutResult:
    """``won``: slots that hold exactly our bytes.  ``rivals``: other manifests found in our place."""

    won: tuple[Slot, ...]
    rivals: tuple[Manifest, ...]
    errors: Mapping[Slot, Exception]


async def put(buckets: BucketSet, ring: KeyRing, sequence: int, data: bytes, needed: int) -> PutResult:
    """Puts a manifest on all buckets.  An object in its place that opens is a rival; one that does not
    is damage of that bucket and counts like a failure."""

    async def put_one(slot: Slot, bucket: Bucket) -> Manifest | None:
        return await _put_one(bucket, ring, sequence, data, buckets.name(slot))

    def enough(answers: Answers[Manifest | None]) -> bool:
        return len(_won(answers, buckets.voters)) >= needed

    answers = await buckets.each(put_one, enough=enough)
    for slot, error in answers.errors.items():
        log.warning("manifest not put bucket=%s sequence=%d: %s", buckets.name(slot), sequence, error)
    rivals = tuple(found for found in answers.values.values() if found is not None)
    return PutResult(_won(answers, buckets.slots), rivals, answers.errors)


def _won(answers: Answers[Manifest | None], slots: Iterable[Slot]) -> tuple[Slot, ...]:
    return tuple(slot for slot in slots if slot in answers.values and answers.values[slot] is None)


async def _put_one(bucket: Bucket, ring: KeyRing, sequence: int, data: bytes, where: str) -> Manifest | None:
    name = layout.manifest_name(sequence)
    try:
        await bucket.put_if_absent(name, data)
    except ObjectExists:
        found = await bucket.get(name)
        if found == data:
            return None
        try:
            return manifests.decode(found, sequence, ring)
        except NewerFormat:
            raise
        except CodecError as error:
            raise Corrupt(f"{where}: {name} holds something that is no manifest: {error}") from None
    return None


async def publish(
    buckets: BucketSet, ring: KeyRing, lease: Lease, manifest: Manifest, data: bytes
) -> Published:
    """Makes ``manifest`` the volume's moment; its bytes are ``data``, the same in every retry.  Says too
    which buckets took it.

    Raises LeaseLost when another writer published in its place (the gate is closed then), NoQuorum when
    too few voters took it or said so: then it may or may not be published, and must be put again unchanged.
    """
    result = await put(buckets, ring, manifest.sequence, data, buckets.publish_quorum)
    for rival in result.rivals:
        if rival.epoch >= manifest.epoch:
            raise await lease.give_way(f"epoch {rival.epoch} published sequence {rival.sequence}")
    won = sum(slot in result.won for slot in buckets.voters)
    if won >= buckets.publish_quorum:
        await _confirm(buckets, ring, lease, manifest, data)
        return Published(manifest, data, result.won)
    if len(result.rivals) > len(buckets.voters) - buckets.publish_quorum:
        raise await lease.give_way(f"sequence {manifest.sequence} is taken by epoch {result.rivals[0].epoch}")
    raise NoQuorum(
        f"manifest {manifest.sequence} reached {won} of {len(buckets.voters)} voting buckets, "
        f"{buckets.publish_quorum} are needed; it is tried again"
    )


async def _confirm(buckets: BucketSet, ring: KeyRing, lease: Lease, manifest: Manifest, data: bytes) -> None:
    """Raises LeaseLost where another writer has the volume and does not go on from this manifest: a put that
    slept through a takeover and the recovery window finds its number free again."""
    try:
        await lease.confirm()
    except LeaseLost:
        after, _ = await read_at(buckets, ring, manifest.sequence + 1, buckets.slots)
        if not any(one.manifest.previous == manifests.hash_of(data) for one in after):
            raise


async def complete(
    buckets: BucketSet, ring: KeyRing, one: Published, slots: Iterable[Slot], limit_s: float
) -> Published:
    """Puts a published manifest on ``slots`` that lack it (by the lease's holder only), each within
    ``limit_s``; says who has it then."""

    async def put_one(slot: Slot, bucket: Bucket) -> Manifest | None:
        return await _put_one(bucket, ring, one.manifest.sequence, one.data, buckets.name(slot))

    answers = await buckets.each(put_one, slots=tuple(slots), limit_s=limit_s)
    won = _won(answers, buckets.slots)
    return replace(one, held_by=tuple(sorted({*one.held_by, *won})))


# --- finding -------------------------------------------------------------------------------


async def list_sequences(buckets: BucketSet, slots: Iterable[Slot] | None = None) -> dict[Slot, list[int]]:
    """The sequences each of ``slots`` (default all) lists, ascending; those that do not answer are absent."""

    async def look(_slot: Slot, bucket: Bucket) -> list[int]:
        found = [layout.parse_manifest(info.key) for info in await bucket.list(layout.MANIFEST_PREFIX)]
        return sorted(sequence for sequence in found if sequence is not None)

    def enough(answers: Answers[list[int]]) -> bool:
        return answers.count(buckets.voters) >= buckets.quorum

    asked = None if slots is None else tuple(slots)
    answers = await buckets.each(look, slots=asked, enough=enough)
    for slot, error in answers.errors.items():
        log.warning("manifests not listed bucket=%s: %s", buckets.name(slot), error)
    return answers.values


def all_listed(buckets: BucketSet, listed: Collection[Slot]) -> bool:
    """Whether every published manifest is among what these buckets list."""
    return sum(slot in listed for slot in buckets.voters) >= buckets.quorum


async def read_at(
    buckets: BucketSet, ring: KeyRing, sequence: int, slots: Iterable[Slot]
) -> tuple[list[Published], dict[Slot, ObjfsError]]:
    """The different manifests of one sequence on ``slots``, and why those of other slots do not open."""

    async def fetch(_slot: Slot, bucket: Bucket) -> bytes | None:
        try:
            return await bucket.get(layout.manifest_name(sequence))
        except NoSuchObject:
            return None

    def enough(answers: Answers[bytes | None]) -> bool:
        return answers.count(buckets.voters) >= buckets.quorum

    answers = await buckets.each(fetch, slots=tuple(slots), enough=enough)
    copies: dict[bytes, list[Slot]] = {}
    for slot, data in answers.values.items():
        if data is not None:
            copies.setdefault(data, []).append(slot)
    found: list[Published] = []
    damaged = dict(answers.errors)
    for data, holders in copies.items():
        try:
            found.append(Published(manifests.decode(data, sequence, ring), data, tuple(sorted(holders))))
        except NewerFormat:
            raise
        except CodecError as error:
            log.warning("manifest skipped bucket=%s: %s", buckets.name(holders[0]), error)
            damaged |= dict.fromkeys(holders, error)
    return found, damaged


def counts(buckets: BucketSet, one: Published) -> bool:
    """Whether it is on as many voters as make a manifest count."""
    return sum(slot in one.held_by for slot in buckets.voters) >= buckets.publish_quorum


def choose(buckets: BucketSet, found: Iterable[Published]) -> Published | None:
    """The one of several manifests of a sequence that is or may be published."""

    def rank(item: Published) -> tuple[bool, bool, int]:
        votes = sum(slot in item.held_by for slot in buckets.voters)
        return votes > len(buckets.voters) // 2, not item.manifest.fence, item.manifest.epoch

    return max(found, key=rank, default=None)


async def read_all(buckets: BucketSet, ring: KeyRing) -> tuple[dict[int, Manifest], set[int]]:
    """Every manifest that the buckets list, by sequence, and the sequences of which no copy opens.

    Raises NoQuorum where so few answer that a published one may be missing: what it names would be deleted.
    """
    listed = await list_sequences(buckets)
    if not all_listed(buckets, listed):
        raise NoQuorum("too few buckets answer to know which manifests there are; it is tried again")
    chosen: dict[int, Manifest] = {}
    unread: set[int] = set()
    for sequence in sorted({item for items in listed.values() for item in items}):
        holders = [slot for slot, items in listed.items() if sequence in items]
        found, damaged = await read_at(buckets, ring, sequence, holders)
        best = choose(buckets, found)
        if best is not None:
            chosen[sequence] = best.manifest
        elif any(isinstance(error, Temporary) for error in damaged.values()):
            raise NoQuorum(f"no bucket that has manifest {sequence} answers; it is tried again")
        else:
            unread.add(sequence)
    return chosen, unread


async def read_newest(buckets: BucketSet, ring: KeyRing, *, force: bool = False) -> Published | None:
    """The newest manifest on the buckets that answer, None where there is none at all.

    Raises Corrupt when the newest may have been published but no copy of it opens, UnknownKey when that is
    because the key was rotated; with ``force`` the one before it is taken, with a warning.
    """
    listed = await list_sequences(buckets)
    if not listed:
        raise NoQuorum("no bucket of this volume answers")
    silent = sum(slot not in listed for slot in buckets.voters)
    for sequence in sorted({item for items in listed.values() for item in items}, reverse=True):
        holders = [slot for slot, items in listed.items() if sequence in items]
        found, damaged = await read_at(buckets, ring, sequence, holders)
        chosen = choose(buckets, found)
        if chosen is not None:
            return chosen
        if silent + sum(slot in damaged for slot in buckets.voters) >= buckets.publish_quorum:
            _refuse_loss(sequence, damaged, buckets, force)
    return None


def _refuse_loss(sequence: int, damaged: dict[Slot, ObjfsError], buckets: BucketSet, force: bool) -> None:
    rotated = sum(isinstance(damaged.get(slot), UnknownKey) for slot in buckets.voters)
    if rotated >= buckets.publish_quorum:
        raise UnknownKey(
            f"{layout.manifest_name(sequence)} is sealed under a key that this mount does not have: the key "
            "was rotated meanwhile; unmount and mount again"
        )
    where = ", ".join(buckets.name(slot) for slot in damaged) or "nobody"
    if not force:
        raise Corrupt(
            f"{layout.manifest_name(sequence)} is the newest moment and no copy of it opens ({where}); bring "
            "more buckets back, or use --force to fall back to the moment before it"
        )
    log.error("FALLING BACK: manifest %d does not open (%s); the moment before it is used", sequence, where)


# --- taking over ---------------------------------------------------------------------------


async def adopt(buckets: BucketSet, ring: KeyRing, newest: Published) -> bool:
    """Puts the newest manifest on the buckets that lack it (by the lease's holder only).

    Returns False where another manifest stands in its place somewhere: read again.
    """
    if set(buckets.buckets) <= set(newest.held_by):
        return True
    result = await put(buckets, ring, newest.manifest.sequence, newest.data, buckets.quorum)
    log.info("manifest adopted sequence=%d holders=%d", newest.manifest.sequence, len(result.won))
    return not result.rivals


async def settle(buckets: BucketSet, ring: KeyRing, newest: Published) -> Published:
    """Ends all doubt about the newest sequence: fills it on a majority, and reads what stands there.

    Without this an older writer's put of that sequence could still land, and count, under a fence at the
    next one.  What fills a register once stays.  Raises NoQuorum.
    """
    sequence = newest.manifest.sequence
    result = await put(buckets, ring, sequence, newest.data, buckets.quorum)
    if sum(slot in result.won for slot in buckets.voters) >= buckets.quorum:
        return newest
    filled = [slot for slot in buckets.buckets if slot not in result.errors]
    if sum(slot in filled for slot in buckets.voters) < buckets.quorum:
        raise NoQuorum(f"manifest {sequence} could be settled on {len(filled)} buckets only; try again")
    found, _ = await read_at(buckets, ring, sequence, filled)
    return choose(buckets, found) or newest


async def fence(
    buckets: BucketSet, ring: KeyRing, lease: Lease, clock: Clock, *, force: bool = False
) -> Published | None:
    """Publishes a copy of the newest manifest under the next sequence and this epoch, at a strict majority:
    whatever an older writer still has under way loses.  None where the volume has no manifest yet.

    Raises NoQuorum, LeaseLost, Corrupt.
    """
    for _ in range(FENCE_ATTEMPTS):
        newest = await read_newest(buckets, ring, force=force)
        if newest is None:
            return None
        await lease.check()
        newest = await settle(buckets, ring, newest)
        await lease.check()
        bar = fence_of(newest, lease, clock)
        data = manifests.encode(bar, ring)
        result = await put(buckets, ring, bar.sequence, data, buckets.quorum)
        if any(rival.epoch > lease.epoch for rival in result.rivals):
            raise await lease.give_way(f"another epoch published sequence {bar.sequence}")
        if sum(slot in result.won for slot in buckets.voters) >= buckets.quorum:
            log.info("fence published sequence=%d epoch=%d", bar.sequence, lease.epoch)
            return Published(bar, data, result.won)
        if not result.rivals:
            raise NoQuorum(f"the fence reached {len(result.won)} of {len(buckets.voters)} voting buckets")
    raise LeaseLost("other writers keep publishing; is another mount of this volume running?")


def fence_of(newest: Published, lease: Lease, clock: Clock) -> Manifest:
    """The copy of ``newest`` that bars every older epoch from the next sequence."""
    manifest = newest.manifest
    return replace(
        manifest,
        epoch=lease.epoch,
        sequence=manifest.sequence + 1,
        previous=newest.hash,
        state_id=lease.record.holder.state_id,
        wall_ns=max(manifest.wall_ns, clock.now_ns()),
        copy_of=newest.content,
    )
