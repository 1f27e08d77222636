"""A volume moves house while it is in use: buckets are added, replaced, removed, labelled.

Owns the order of each: the table of buckets first, then the shards, then the table once more.  Promises that
each can be interrupted anywhere and goes on when it is asked for again, and that a bucket leaves the table
only when nothing that is in use needs it.  How tables change is ``membership``'s, how shards move is
``mover``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from objfs.errors import NotEnoughShards, UsageError
from objfs.model import Slot
from objfs.ports import Clock
from objfs.store.placement import domain_tolerance, tolerance
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.header import VolumeHeader
from objfs.volume.membership import Edit, Membership, Newcomer
from objfs.volume.mover import Mover, Plan, Progress
from objfs.volume.moves import Planner
from objfs.volume.open import OpenVolume
from objfs.volume.table import BucketEntry, data_slots, domains_of


class Rehousing:
    """One change of one volume; ``mover.progress`` says how far it is."""

    def __init__(self, volume: OpenVolume, checkpointer: Checkpointer, clock: Clock) -> None:
        self._volume = volume
        self._checkpointer = checkpointer
        self.members = Membership(volume, checkpointer)
        self.mover = Mover(volume.meta, volume.store, checkpointer, clock)

    # --- what it would take ----------------------------------------------------------------

    async def estimate_spread(self, joining: int = 0) -> Progress:
        """Of ``rebalance``, or of ``add`` with so many new buckets."""
        header = self._volume.header
        new = [Slot(header.free_slot + number) for number in range(joining)]
        return await self.mover.estimate(self._plan(header.buckets, new), level=True, silent=self._silent)

    async def estimate_replace(self, old: BucketEntry) -> Progress:
        """Of ``replace`` by a new bucket."""
        new = Slot(self._volume.header.free_slot)
        plan = self._plan(self._without(old), [new], {old.slot: new})
        return await self.mover.estimate(plan, level=False, silent=self._silent)

    async def estimate_remove(self, old: BucketEntry) -> Progress:
        """Of ``remove``."""
        return await self.mover.estimate(self._plan(self._without(old)), level=False, silent=self._silent)

    # --- doing it --------------------------------------------------------------------------

    async def add(self, newcomer: Newcomer) -> Progress:
        """A bucket more, and its share of the shards."""
        await self.members.join(newcomer)
        return await self.rebalance()

    async def rebalance(self) -> Progress:
        """Shards to where they would be placed now, by as few moves as that takes."""
        return await self.mover.run(self._plan(self._volume.header.buckets), level=True)

    async def replace(self, old: BucketEntry, newcomer: Newcomer, *, force: bool = False) -> Progress:
        """Another bucket in the place of one, which may be gone."""
        if newcomer.entry.uuid == old.uuid:
            raise UsageError(f"{newcomer.bucket.url} is the bucket that is to be replaced")
        await self.members.join(newcomer, _leaving(old))
        heirs = {old.slot: newcomer.entry.slot}
        done = await self.mover.run(self._plan(self._volume.header.buckets, (), heirs), level=False)
        await self._retire(old, force=force)
        return done

    async def remove(self, old: BucketEntry, *, force: bool = False) -> Progress:
        """A bucket less; its shards go to the others.  Raises UsageError where less could be lost afterwards
        than the volume promises."""
        if not force:
            refuse_weaker(self._volume.header, old)
        await self.members.change(_leaving(old))
        done = await self.mover.run(self._plan(self._volume.header.buckets), level=False)
        await self._retire(old, force=force)
        return done

    async def label(self, entry: BucketEntry, domain: str) -> None:
        """Another domain; shards stay where they are until the volume is rebalanced."""

        def named(entries: Sequence[BucketEntry]) -> list[BucketEntry]:
            return [replace(one, domain=domain) if one.uuid == entry.uuid else one for one in entries]

        await self.members.change(named)

    async def _retire(self, old: BucketEntry, *, force: bool) -> None:
        """The bucket is none of the volume's any more, and its slot is never used again."""
        left = await self.mover.left(old.slot)
        if left and not force:
            stuck = self.mover.progress.stuck
            why = f", of which {len(stuck)} have too few sound shards ({stuck[0]})" if stuck else ""
            raise NotEnoughShards(
                f"{left} segments still need bucket {old.slot}{why}: it stays in the volume; bring what is "
                "missing back and repeat the command, or give them up with --force"
            )
        await self.members.change(lambda entries: [one for one in entries if one.uuid != old.uuid])
        self._volume.meta.strays.forget_slot(old.slot)
        self._volume.store.health.forget(old.slot)
        await self._checkpointer.flush()

    # --- plans -----------------------------------------------------------------------------

    def _plan(
        self,
        entries: Sequence[BucketEntry],
        more: Sequence[Slot] = (),
        heirs: Mapping[Slot, Slot] | None = None,
    ) -> Plan:
        slots = frozenset([*data_slots(entries), *more])
        return lambda: Planner(slots, domains_of(entries), heirs or {})

    def _without(self, old: BucketEntry) -> list[BucketEntry]:
        return [entry for entry in self._volume.header.buckets if entry.uuid != old.uuid]

    @property
    def _silent(self) -> list[Slot]:
        """Buckets that give nothing now."""
        volume = self._volume
        return [
            slot
            for slot in volume.buckets.slots
            if slot not in volume.buckets.buckets or volume.store.health.down(slot)
        ]


def _leaving(old: BucketEntry) -> Edit:
    def edit(entries: Sequence[BucketEntry]) -> list[BucketEntry]:
        gone = replace(old, shards=False, leaving=True)
        return [replace(gone, domain=one.domain) if one.uuid == old.uuid else one for one in entries]

    return edit


def refuse_weaker(header: VolumeHeader, old: BucketEntry) -> None:
    """Raises UsageError where the buckets that stay bear less, or cannot take all shards of a segment."""
    stay = [entry for entry in header.buckets if entry.uuid != old.uuid]
    slots, domains = data_slots(stay), domains_of(stay)
    if not slots:
        raise UsageError("it is the last bucket with data; add another first")
    left = tolerance(header.code, len(slots))
    if left < header.tolerance:
        raise UsageError(
            f"without it the volume bears the loss of {left} buckets and not of {header.tolerance}: add a "
            "bucket first, use objfs bucket replace, or accept it with --force"
        )
    if not any(entry.domain for entry in header.buckets):
        return
    before = domain_tolerance(header.code, data_slots(header.buckets), domains_of(header.buckets))
    if domain_tolerance(header.code, slots, domains) < before:
        raise UsageError(
            f"without it the volume does not bear the loss of any {before} domains any more: add a bucket "
            "first, or accept it with --force"
        )
