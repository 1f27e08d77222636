"""Which shards are to be moved where, when buckets come, go or are labelled.

Owns the plan, one segment after the other.  Promises that a shard is moved only where it must be (its bucket
leaves, another bucket holds none of the segment, a domain holds too many) or where it brings the buckets
nearer to an even load, and then by as few moves as that takes; and that no move makes a segment bear
less.  Pure: knows slots, not buckets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from objfs.model import Code, Segment, Slot
from objfs.store.placement import Domains

MARGIN = 8
"""A bucket within an eighth of the mean load is left alone: chance alone spreads so far."""


class Move(NamedTuple):
    """A shard of a segment, and the slot that takes it."""

    shard: int
    target: Slot


def moved(segment: Segment, moves: Collection[Move]) -> Segment:
    """The segment after its moves: what is put anew is not missing any more."""
    placement = list(segment.placement)
    for shard, target in moves:
        placement[shard] = target
    there = {move.shard for move in moves}
    return replace(segment, placement=tuple(placement), missing=segment.missing - there)


@dataclass(slots=True)
class Planner:
    """``slots`` take shards, and every other slot is to be emptied; ``heirs`` say which slot takes all of a
    leaving one.  ``load`` counts the shards of each slot, as they will be after what was planned."""

    slots: frozenset[Slot]
    domains: Domains = field(default_factory=dict)
    heirs: Mapping[Slot, Slot] = field(default_factory=dict)
    load: Counter[Slot] = field(default_factory=Counter)
    _poor: frozenset[Slot] = frozenset()
    _rich: frozenset[Slot] = frozenset()

    def count(self, segments: Iterable[Segment]) -> None:
        """Segments as they lie, counted before any is planned."""
        for segment in segments:
            self.load.update(segment.placement)
        low, high = self.mean()
        self._poor = frozenset(slot for slot in self.slots if self.load[slot] < low - low // MARGIN)
        self._rich = frozenset(slot for slot in self.slots if self.load[slot] > high + high // MARGIN)

    def evens(self, slot: Slot, target: Slot) -> bool:
        """Whether a move brings a bucket that was far from the mean nearer to it."""
        low, high = self.mean()
        if self._poor:
            return target in self._poor and self.load[target] < low < self.load[slot]
        return slot in self._rich and self.load[target] < high < self.load[slot]

    def plan(self, segment: Segment, kept: Collection[tuple[int, Slot]] = (), *, level: bool) -> list[Move]:
        """The moves of one segment; ``level``: also those that only even the load out, which are planned when
        all others have been made.  ``kept`` are copies
        (shard, slot) that still wait to be deleted: no shard goes back to such a place."""
        work = _Segment(self, segment.code, list(segment.placement), frozenset(kept))
        work.drain()
        work.part()
        if level:
            work.level()
        return [
            Move(shard, slot)
            for shard, (was, slot) in enumerate(zip(segment.placement, work.placement, strict=True))
            if was != slot
        ]

    def mean(self) -> tuple[int, int]:
        """The loads of an even spread: all slots have the first or the second."""
        low, rest = divmod(sum(self.load.values()), max(len(self.slots), 1))
        return low, low + bool(rest)


@dataclass(slots=True)
class _Segment:
    """One segment under the planner's hands."""

    planner: Planner
    code: Code
    placement: list[Slot]
    kept: frozenset[tuple[int, Slot]]

    # --- what must be ------------------------------------------------------------------

    def drain(self) -> None:
        """No shard stays in a slot that takes none."""
        for shard, slot in enumerate(self.placement):
            if slot in self.planner.slots:
                continue
            heir = self.planner.heirs.get(slot)
            free = heir in self.planner.slots and (shard, heir) not in self.kept
            target = heir if free else self._best(shard)
            if target is not None:
                self._move(shard, target)

    def part(self) -> None:
        """No two shards in one slot while another has none, and no domain above m where that can be."""
        for shard in range(self.code.n):
            slot = self.placement[shard]
            target = self._best(shard)
            if target is None:
                continue
            crowded = self._held()[slot] > self._held()[target] + 1
            full, room = self._over(slot) > 0, self._over(target) < 0
            even = self._held()[slot] > self._held()[target]
            if crowded or (full and room and even):
                self._move(shard, target)

    # --- what is only fair -------------------------------------------------------------

    def level(self) -> None:
        """From slots above the mean to slots below it, as long as the segment bears as much."""
        load = self.planner.load
        for shard in sorted(range(self.code.n), key=lambda one: -load[self.placement[one]]):
            slot, held = self.placement[shard], self._held()
            for target in sorted(self.planner.slots - held.keys(), key=lambda one: (load[one], one)):
                free = (shard, target) not in self.kept and self._parted(slot, target)
                if free and self.planner.evens(slot, target):
                    self._move(shard, target)
                    break

    # --- helpers -----------------------------------------------------------------------

    def _move(self, shard: int, target: Slot) -> None:
        self.planner.load[self.placement[shard]] -= 1
        self.planner.load[target] += 1
        self.placement[shard] = target

    def _held(self) -> Counter[Slot]:
        return Counter(self.placement)

    def _over(self, slot: Slot) -> int:
        """How far the slot's domain is above m; a slot without one never is."""
        domain = self.planner.domains.get(slot)
        if not domain:
            return -1
        return sum(self.planner.domains.get(one) == domain for one in self.placement) - max(self.code.m, 1)

    def _parted(self, slot: Slot, target: Slot) -> bool:
        """Whether the target's domain has room, or is the one that the shard is in and holds not too many."""
        domains = self.planner.domains
        same = domains.get(slot, "") == domains.get(target, "")
        return self._over(target) < 0 or (same and self._over(target) <= 0)

    def _best(self, shard: int) -> Slot | None:
        """The slot that should take a shard: holds the fewest of the segment, in a domain with room, and has
        the least load."""
        held, load, slot = self._held(), self.planner.load, self.placement[shard]
        free = [one for one in self.planner.slots - {slot} if (shard, one) not in self.kept]
        return min(
            free, key=lambda one: (held[one], not self._parted(slot, one), load[one], one), default=None
        )
