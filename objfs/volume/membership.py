"""The volume's table of buckets, changed while a mount writes.

Owns the step from one table to the next: who takes part, what a new bucket is given, and the header that says
so.  Promises that nobody who decides by the table before and nobody who decides by the one after can go
on without the other's manifests or hold the lease beside the other; that a bucket votes only when it
holds what the others do; and that a slot is never given twice.  Moves no shard.

Why the step is safe.  Two tables that differ by one voter have majorities that meet.  While no checkpoint
runs, the newest manifest and the lease are put on a strict majority of the new table; until the header
counts, manifests need a strict majority too.  The header goes to so many voters of the table before that
every majority of it meets one, and to a majority of the table after.  Whoever takes the lease reads the
headers once more afterwards (``open``), so a table that was replaced meanwhile is noticed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from objfs.backends.base import Bucket
from objfs.backends.probe import probe
from objfs.errors import CodecError, ForeignBucket, NoQuorum, NoSuchObject, ObjectExists, UsageError
from objfs.model import Slot
from objfs.store import layout
from objfs.store.placement import tolerance
from objfs.volume import header as headers
from objfs.volume import label as labels
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.header import VolumeHeader
from objfs.volume.keys import require_writable
from objfs.volume.label import Label
from objfs.volume.mkfs import refuse_taken
from objfs.volume.open import OpenVolume
from objfs.volume.published import list_sequences, put, read_newest
from objfs.volume.quorum import Answers, BucketSet
from objfs.volume.spread import newest_here, put_over_older, refuse_changed
from objfs.volume.table import BUCKETS_MAX, BucketEntry, data_slots, domains_of, hint

log = logging.getLogger(__name__)

Edit = Callable[[Sequence[BucketEntry]], Sequence[BucketEntry]]


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A bucket that proved itself and has a label, and how it will stand in the table."""

    entry: BucketEntry
    bucket: Bucket
    notes: tuple[str, ...] = ()


class Membership:
    """One per writing mount; one change at a time."""

    def __init__(self, volume: OpenVolume, checkpointer: Checkpointer) -> None:
        self._volume = volume
        self._checkpointer = checkpointer

    @property
    def entries(self) -> tuple[BucketEntry, ...]:
        """The present table."""
        return self._volume.header.buckets

    def find(self, word: str) -> BucketEntry:
        """The bucket that a person means by slot, uuid or URL.  Raises UsageError."""
        places = self._volume.home.read_config().buckets
        return find_bucket(self.entries, {place.uuid: place.url for place in places}, word)

    # --- a new bucket ------------------------------------------------------------------

    async def welcome(self, bucket: Bucket, *, domain: str = "", shards: bool = True) -> Newcomer:
        """Tries a bucket and labels it.  One that was labelled for this volume and never came into its table
        goes on from there; one that is in it is found again.

        Raises ForeignBucket, VolumeExists, ContractBroken, UsageError and errors of the bucket.
        """
        label = await self._label_of(bucket)
        known = next((entry for entry in self.entries if label and entry.uuid == label.bucket), None)
        if known is not None:
            return Newcomer(known, bucket)
        report = await probe(bucket)
        report.require(voter=False)
        if label is None:
            await refuse_taken([bucket])
            label = await self._give_label(bucket)
        entry = BucketEntry(label.slot, label.bucket, report.voter, domain, shards)
        return Newcomer(entry, bucket, report.notes)

    async def _label_of(self, bucket: Bucket) -> Label | None:
        try:
            data = await bucket.get(layout.LABEL)
        except NoSuchObject:
            return None
        try:
            label = labels.decode(data, self._volume.ring)
        except CodecError as error:
            raise ForeignBucket(f"{bucket.url} is labelled, but not for this volume: {error}") from None
        header = self._volume.header
        if label.volume != header.volume:
            raise ForeignBucket(f"{bucket.url} belongs to volume {label.volume.hex()}")
        fresh = label.slot >= header.free_slot
        if not fresh and all(entry.uuid != label.bucket for entry in header.buckets):
            raise ForeignBucket(
                f"{bucket.url} was a bucket of this volume once (slot {label.slot}); empty it, or use "
                "another prefix"
            )
        return label

    async def _give_label(self, bucket: Bucket) -> Label:
        header = self._volume.header
        if header.free_slot >= BUCKETS_MAX:
            raise UsageError(f"the volume has had {BUCKETS_MAX} buckets, and a slot is never used twice")
        label = Label(header.volume, secrets.token_bytes(16), Slot(header.free_slot))
        try:
            await bucket.put_if_absent(layout.LABEL, labels.encode(label, self._volume.ring))
        except ObjectExists:
            raise ForeignBucket(f"{bucket.url} was labelled by somebody else just now") from None
        return label

    # --- the change --------------------------------------------------------------------

    async def join(self, newcomer: Newcomer, edit: Edit = lambda entries: entries) -> None:
        """The newcomer is part of the volume; ``edit`` changes the other entries in the same step."""
        entry = newcomer.entry
        if any(one.uuid == entry.uuid for one in self.entries):
            await self.change(edit)
            return
        await self._fill(newcomer.bucket)
        await self.change(lambda entries: (*edit(entries), entry), {entry.slot: newcomer.bucket})

    async def change(self, edit: Edit, joining: Mapping[Slot, Bucket] | None = None) -> None:
        """From one table to the next, which may differ by one voter.

        Raises NoQuorum, LeaseLost, ReadOnly: then the table is the one before; or, where only the header may
        not have reached enough buckets, the new one, and the command is to be repeated.
        """
        volume = self._volume
        async with self._checkpointer.quiet():
            known = await newest_here(volume.buckets, volume.ring, volume.header)
            changed = _edited(known, lambda entries: self._with_urls(edit(entries)))
            if changed.buckets == known.buckets == volume.buckets.entries:
                return
            old, before = BucketSet(volume.buckets.entries, volume.buckets.buckets), volume.header
            reach = {**volume.buckets.buckets, **(joining or {})}
            self._use(changed, reach)
            volume.buckets.demand_majority()
            try:
                await self._carry_over()
            except BaseException:
                self._use(before, old.buckets)
                raise
            await self._write(old, changed, reach)
            self._use(changed, reach)  # a manifest counts as it always does

    def _with_urls(self, entries: Sequence[BucketEntry]) -> list[BucketEntry]:
        """With the places where this machine reaches them."""
        places = self._volume.home.read_config().buckets
        hints = {place.uuid: hint(place.url, place.options) for place in places}
        return [replace(entry, url=hints.get(entry.uuid) or entry.url) for entry in entries]

    def _use(self, header: VolumeHeader, reach: Mapping[Slot, Bucket]) -> None:
        """One step: everybody who holds the set or the store sees the new table."""
        volume, entries = self._volume, header.buckets
        slots = {entry.slot for entry in entries}
        buckets = {slot: bucket for slot, bucket in reach.items() if slot in slots}
        volume.header = header
        volume.buckets.become(entries, buckets)
        volume.store.use_buckets(buckets, data_slots(entries), domains_of(entries))

    async def _carry_over(self) -> None:
        """The newest manifest and the lease, on a strict majority of the new voters."""
        volume, moment = self._volume, self._checkpointer.moment
        assert volume.lease is not None
        assert moment is not None
        newest = await read_newest(volume.buckets, volume.ring)
        if newest is None or newest.manifest.sequence < moment.manifest.sequence:
            raise NoQuorum("too few buckets show the newest manifest; bring them back and repeat the command")
        result = await put(
            volume.buckets, volume.ring, newest.manifest.sequence, newest.data, volume.buckets.quorum
        )
        held = sum(slot in result.won for slot in volume.buckets.voters)
        await volume.lease.renew()
        told = volume.lease.statistics().answered
        if min(held, told) < volume.buckets.quorum:
            raise NoQuorum(
                f"{min(held, told)} of {len(volume.buckets.voters)} voting buckets take part, "
                f"{volume.buckets.quorum} are needed to change the table of buckets; bring them back"
            )

    async def _write(self, old: BucketSet, changed: VolumeHeader, reach: Mapping[Slot, Bucket]) -> None:
        """The header to all that were or will be of the volume: one that leaves says so itself."""
        new, ring = self._volume.buckets, self._volume.ring
        union = {entry.slot: entry for entry in (*old.entries, *new.entries)}
        everybody = BucketSet(list(union.values()), reach)
        await refuse_changed(everybody, ring, changed.generation)
        data = headers.encode(changed, ring)

        async def write(slot: Slot, bucket: Bucket) -> None:
            await put_over_older(bucket, everybody.name(slot), ring, changed.generation, data)

        def enough(answers: Answers[None]) -> bool:
            before, after = answers.count(old.voters), answers.count(new.voters)
            return before >= (len(old.voters) + 1) // 2 and after >= new.quorum

        answers = await everybody.each(write, enough=enough)
        for slot, error in answers.errors.items():
            log.warning("header not written bucket=%s: %s", everybody.name(slot), error)
        if not enough(answers):
            raise NoQuorum(
                "the new table of buckets is on too few of them; repeat the command when they answer"
            )
        log.info("table of buckets changed generation=%d", changed.generation)

    async def _fill(self, bucket: Bucket) -> None:
        """Manifests that the others hold, so that the older moments have as many copies as before."""
        volume = self._volume
        listed = await list_sequences(volume.buckets)
        for sequence in sorted({one for found in listed.values() for one in found}):
            holder = next(slot for slot, found in listed.items() if sequence in found)
            name = layout.manifest_name(sequence)
            try:
                await bucket.put_if_absent(name, await volume.buckets.buckets[holder].get(name))
            except (NoSuchObject, ObjectExists):
                continue  # it went meanwhile, or is there from a try before


def _edited(header: VolumeHeader, edit: Edit) -> VolumeHeader:
    """The header with the next generation.  Raises NewerFormat, UsageError."""
    require_writable(header)
    entries = tuple(edit(header.buckets))
    slots = data_slots(entries)
    if not slots or not any(entry.voter for entry in entries):
        raise UsageError("a volume needs a bucket that takes shards, and one that votes")
    return replace(
        header,
        generation=header.generation + 1,
        buckets=entries,
        tolerance=tolerance(header.code, len(slots)),
        next_slot=max(header.free_slot, *(entry.slot + 1 for entry in entries)),
    )


def find_bucket(entries: Sequence[BucketEntry], urls: Mapping[bytes, str], word: str) -> BucketEntry:
    """By slot, uuid or the URL that it has on this machine.  Raises UsageError."""
    for entry in entries:
        if word in (str(entry.slot), entry.uuid.hex(), urls.get(entry.uuid)):
            return entry
    raise UsageError(f"the volume has no bucket {word}: give its slot, uuid or URL; see objfs bucket list")
