"""Copies of the kept manifests: each on every bucket, also where one was away when it was published.

Owns which buckets may lack some.  Promises that a manifest is copied only where the volume keeps it and as
many buckets have it as count, that a bucket which lacks nothing costs one LIST per mount, and that a copy
which came after the manifest had gone is owed to its bucket as a delete.  Knows nothing of when: that is the
healer's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from objfs.errors import NoQuorum
from objfs.model import Slot
from objfs.store import layout
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.open import OpenVolume
from objfs.volume.published import Published, complete, counts, list_sequences, read_at
from objfs.volume.reaper import Reaper

log = logging.getLogger(__name__)


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
        """Buckets that may lack one."""
        return self.short | (set(self._buckets.slots) - self._seen)

    async def spread(self, ready: Collection[Slot], answering: Collection[Slot]) -> set[Slot]:
        """Gives the buckets ``ready`` what they lack of what those ``answering`` have; returns those that did
        not take all of it.

        Raises NoQuorum where too few answer to know whether a manifest counts, or who has the volume, and
        CodecError where one does not open; then it may be tried again.  Raises LeaseLost, ReadOnly.
        """
        short = self._checkpointer.passed_over
        # Before the listing: whoever is passed over meanwhile is short again.
        short.difference_update(ready)
        try:
            refused = await self._give(set(ready), answering)
        except BaseException:
            short.update(ready)
            raise
        self._seen.update(ready)
        short.update(refused)
        return refused

    async def _give(self, ready: set[Slot], answering: Collection[Slot]) -> set[Slot]:
        listed = await list_sequences(self._buckets, answering)
        named = self._kept().union(*listed.values())
        lacking = {sequence: _lacking(sequence, ready, listed) for sequence in sorted(named, reverse=True)}
        if any(lacking.values()):
            await self._reaper.learn()
        refused = ready - listed.keys()
        for sequence, slots in lacking.items():
            if slots and sequence in self._kept():
                refused |= await self._copy(sequence, slots, answering)
        return refused

    def _kept(self) -> set[int]:
        """As far as is known without asking."""
        return {manifest.sequence for manifest in self._reaper.kept}

    async def _copy(self, sequence: int, slots: set[Slot], answering: Collection[Slot]) -> set[Slot]:
        """Returns which of ``slots`` did not take it."""
        one = await self._find(sequence, answering)
        if one is None:
            return set()
        await self._lease.confirm()
        done = await complete(self._buckets, self._ring, one, slots)
        if sequence not in self._kept():
            await self._reaper.debts.owe((slot, layout.manifest_name(sequence)) for slot in slots)
            return set()
        took = slots & set(done.held_by)
        log.info("manifest copied sequence=%d buckets=%d of %d", sequence, len(took), len(slots))
        return slots - took

    async def _find(self, sequence: int, answering: Collection[Slot]) -> Published | None:
        """The bytes of a kept manifest; None where it was deleted meanwhile."""
        latest = self._checkpointer.latest
        if latest is not None and latest.manifest.sequence == sequence:
            return latest  # those that took it may be away by now
        found, damaged = await read_at(self._buckets, self._ring, sequence, answering)
        kept = {manifest.sequence: manifest for manifest in self._reaper.kept}.get(sequence)
        if kept is None:
            return None
        for one in found:
            if one.manifest == kept and counts(self._buckets, one):
                return one
        why = "; ".join(str(error) for error in damaged.values()) or "the others are away"
        raise NoQuorum(f"manifest {sequence} is on fewer buckets than count, as far as they answer ({why})")


def _lacking(sequence: int, ready: set[Slot], listed: Mapping[Slot, Collection[int]]) -> set[Slot]:
    return {slot for slot in ready & listed.keys() if sequence not in listed[slot]}
