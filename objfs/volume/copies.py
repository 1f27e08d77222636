"""Copies of the kept manifests: each on every bucket, also where one was away when it was published.

Owns which buckets may lack some.  Promises that a manifest is copied only where the volume keeps it, and this
mount published it or as many buckets have it as count, that a bucket which lacks nothing costs one LIST per
mount, and that a copy which came after the manifest had gone is owed to its bucket as a delete.  Knows
nothing of when: that is the healer's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from objfs.errors import BucketError
from objfs.model import Slot
from objfs.store import layout
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.debts import owes_manifest
from objfs.volume.manifest import Manifest
from objfs.volume.open import OpenVolume
from objfs.volume.published import Published, all_listed, complete, counts, list_sequences, read_at
from objfs.volume.reaper import Reaper

log = logging.getLogger(__name__)

COPY_S = 30.0
"""How long a bucket may take for one manifest; then it is left alone, and others go on."""


@dataclass(slots=True)
class Outcome:
    """Of one try: buckets that did not take all that they lack, and why something else is not known to count;
    empty where all is."""

    refused: set[Slot]
    doubt: str = ""


class ManifestCopies:
    """One per writing mount."""

    def __init__(self, volume: OpenVolume, checkpointer: Checkpointer, reaper: Reaper) -> None:
        self._buckets = volume.buckets
        self._ring = volume.ring
        assert volume.lease is not None
        self._lease = volume.lease
        self._checkpointer = checkpointer
        self._reaper = reaper
        self._seen: set[Slot] = set()
        """Buckets that were looked at: what others lack of former mounts, or of the time before they joined,
        nobody knows."""

    @property
    def short(self) -> set[Slot]:
        """Buckets that are known to lack a manifest."""
        return self._checkpointer.passed_over & set(self._buckets.slots)

    @property
    def unsure(self) -> set[Slot]:
        """Buckets that may lack one.  One that left, and comes again, is looked at again."""
        self._seen.intersection_update(self._buckets.slots)
        return self.short | (set(self._buckets.slots) - self._seen)

    async def spread(self, ready: Collection[Slot], answering: Collection[Slot]) -> Outcome:
        """Gives the buckets ``ready`` what they lack of what those ``answering`` have.

        Raises CodecError where a manifest of a newer format is found, NoQuorum where nobody knows who has the
        volume; then it may be tried again.  Raises LeaseLost, ReadOnly.
        """
        passed_over = self._checkpointer.passed_over
        before = passed_over & set(ready)
        # Before the listing: whoever is passed over meanwhile is short again.
        passed_over.difference_update(ready)
        try:
            outcome = await self._give(set(ready), answering)
        except BaseException:
            passed_over.update(before)
            raise
        passed_over.update(before if outcome.doubt else outcome.refused)
        if not outcome.doubt:
            self._seen.update(set(ready) - outcome.refused)
        return outcome

    async def _give(self, ready: set[Slot], answering: Collection[Slot]) -> Outcome:
        listed = await list_sequences(self._buckets, answering)
        outcome = Outcome(ready - listed.keys())
        named = await self._named(ready, listed, outcome)
        for sequence in sorted(named, reverse=True):
            if slots := _lacking(sequence, ready, listed) - outcome.refused:
                one = await self._find(sequence, listed.keys(), outcome)
                if one is not None:
                    outcome.refused |= await self._copy(one, slots)
        return outcome

    async def _named(
        self, ready: set[Slot], listed: Mapping[Slot, Collection[int]], outcome: Outcome
    ) -> set[int]:
        """Sequences that every bucket should have, as far as those that answer can tell."""
        latest = self._checkpointer.latest
        if self._buckets.changing:
            outcome.doubt = "the table of buckets is changing"
            return set() if latest is None else {latest.manifest.sequence}
        if not all_listed(self._buckets, listed):
            outcome.doubt = "too few buckets list their manifests"
            return set() if latest is None else {latest.manifest.sequence}
        named = self._kept().union(*listed.values())
        if any(_lacking(sequence, ready, listed) for sequence in named):
            await self._reaper.learn()
        return named & self._kept()

    def _kept(self) -> set[int]:
        """As far as is known without asking; what is being deleted is not kept."""
        owed = self._reaper.debts.owed
        return {one.sequence for one in self._reaper.kept if not owes_manifest(owed, one.sequence)}

    async def _copy(self, one: Published, slots: set[Slot]) -> set[Slot]:
        """Returns which of ``slots`` did not take it."""
        await self._lease.confirm()
        done = await complete(self._buckets, self._ring, one, slots, COPY_S)
        sequence = one.manifest.sequence
        if self._gone(sequence):
            await self._reaper.debts.owe((slot, layout.manifest_name(sequence)) for slot in slots)
            return set()
        took = slots & set(done.held_by)
        log.info("manifest copied sequence=%d buckets=%d of %d", sequence, len(took), len(slots))
        return slots - took

    def _gone(self, sequence: int) -> bool:
        """Whether it was published and is not kept any more."""
        return sequence <= self._newest and all(one.sequence != sequence for one in self._reaper.kept)

    @property
    def _newest(self) -> int:
        moment = self._checkpointer.moment
        return 0 if moment is None else moment.manifest.sequence

    async def _find(self, sequence: int, slots: Collection[Slot], outcome: Outcome) -> Published | None:
        """The bytes of a kept manifest; None where it went meanwhile, or may never have counted."""
        latest = self._checkpointer.latest
        if latest is not None and latest.manifest.sequence == sequence:
            return latest  # those that took it may be away by now
        found, damaged = await read_at(self._buckets, self._ring, sequence, slots)
        kept = {manifest.sequence: manifest for manifest in self._reaper.kept}.get(sequence)
        for one in found:
            if one.manifest == kept and (self._published_here(kept) or counts(self._buckets, one)):
                return one
        failed = {slot for slot, error in damaged.items() if isinstance(error, BucketError)}
        if kept is not None and set(self._buckets.voters) - (set(slots) - failed):
            outcome.doubt = f"manifest {sequence} is on fewer buckets than count, as far as they answer"
        return None

    def _published_here(self, manifest: Manifest) -> bool:
        """Whether this mount was told that it counts: then one copy is proof."""
        return manifest.epoch == self._lease.epoch and manifest.sequence <= self._newest


def _lacking(sequence: int, ready: set[Slot], listed: Mapping[Slot, Collection[int]]) -> set[Slot]:
    return {slot for slot in ready & listed.keys() if sequence not in listed[slot]}
