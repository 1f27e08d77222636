"""Garbage: what lies in the buckets and nobody needs, what becomes of it, and what nothing names.

Owns the look (``Survey``) and the deletion of unknown objects.  Promises that an object is unknown only when
neither a row nor a manifest names it that was read after the listing, and that one is deleted only when
somebody asked for it, it is older than any upload can take and than the grace, and everything that this mount
had uploaded by the time of the listing is named since.  A bucket's objects are aged by its own clock.  What
cannot be seen is said to be unseen.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import trio

from objfs.backends.base import Bucket, ObjectInfo
from objfs.codec import Layout
from objfs.meta.segment_usage import Usage, UsageView, read_usage
from objfs.model import NS, Segment, Slot
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume.compact import Terms, plan, small, sparse
from objfs.volume.gc_report import GcReport, Pile, Unknown
from objfs.volume.lease import Lease
from objfs.volume.listing import Listing, prefixes
from objfs.volume.manifest import Condemned, Manifest
from objfs.volume.open import OpenVolume
from objfs.volume.reaper import Retention, expired

log = logging.getLogger(__name__)

YOUNGEST_S = 3600.0
"""An object that is younger may belong to an upload, whatever the grace is."""
BATCH = 64
"""Objects deleted between two looks at the lease."""
DAY_NS = 86400 * NS

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known besides the table: the kept manifests, those that somebody reads, those that do not open,
    and since when segments are condemned (None: no published manifest says so)."""

    kept: Sequence[Manifest]
    pinned: frozenset[int]
    unread: frozenset[int]
    condemned: Mapping[bytes, Condemned | None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to look at, and by which rules.  ``owed`` are deletes that are under way already."""

    volume: OpenVolume
    retention: Retention
    terms: Terms
    clock: Clock
    known: Callable[[], Awaitable[Known]]
    owed: Mapping[Slot, Collection[str]]
    note: Note
    youngest_s: float = YOUNGEST_S


@dataclass(slots=True)
class Stray:
    """Objects of one segment that nothing names: bucket, name, bytes and time of each."""

    objects: list[tuple[Slot, str, int, int]] = field(default_factory=list)


class Survey:
    """One look at one volume; ``look`` first."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._buckets = order.volume.buckets
        self._strays: dict[bytes, Stray] = {}
        self._newest: dict[Slot, int] = {}
        self._listing = Listing(order.volume.buckets, order.volume.left_out)
        self._doomed: set[bytes] = set()
        self.report = GcReport()

    async def look(self, name_all: Callable[[], Awaitable[None]]) -> GcReport:
        """``name_all`` is called after the listing: what it returns from, rows or manifests name whatever was
        uploaded before."""
        order = self._order
        order.note("reading the inode table")
        found = await trio.to_thread.run_sync(read_usage, order.volume.meta.path)
        known = await order.known()
        self._count(found, known)
        await self._list({one.segment.uuid for one in found} | _blobs(known.kept), len(found))
        await name_all()
        after = await order.known()
        named = await trio.to_thread.run_sync(self._uuids) | _blobs(after.kept)
        self._strays = {
            uuid: left
            for uuid, stray in self._strays.items()
            if uuid not in named and (left := self._not_owed(stray)).objects
        }
        self._say_unknown(after)
        return self.report

    def _uuids(self) -> set[bytes]:
        with UsageView(self._order.volume.meta.path) as view:
            return view.uuids()

    # --- what the table says -----------------------------------------------------------

    def _count(self, found: Sequence[Usage], known: Known) -> None:
        report, order = self.report, self._order
        report.checkpoints = len(known.kept)
        report.units = len(plan(found, order.terms))
        for one in found:
            self._count_one(one)
        for why, left_s, nbytes in self._waiting(found, known):
            report.waiting.setdefault(why, Pile()).add(nbytes)
            report.grace_left_s = max(report.grace_left_s, left_s)

    def _count_one(self, one: Usage) -> None:
        report, terms, nbytes = self.report, self._order.terms, object_bytes(one.segment)
        report.segments.add(nbytes)
        report.alive_bytes += one.stored
        if one.condemned or not one.places:
            self._doomed.add(one.segment.uuid)
            if not one.condemned:
                report.empty.add(nbytes)
            return
        if one.segment.key_id != terms.key_id:
            report.old_keys.add(nbytes)
        if sparse(one, terms):
            self._doomed.add(one.segment.uuid)
            report.sparse.add(nbytes)
            report.sparse_alive_bytes += one.stored
            report.reads += min(one.places, one.segment.code.k)
        elif small(one, terms):
            report.small.add(nbytes)

    def _waiting(self, found: Sequence[Usage], known: Known) -> Iterator[tuple[str, float, int]]:
        """For each condemned segment why it is still there, how much of the grace is left, and its bytes."""
        retention, now_ns = self._order.retention, self._order.clock.now_ns()
        gone = {one.sequence for one in expired(known.kept, retention, now_ns, known.pinned)}
        oldest = min((one.sequence for one in known.kept if one.sequence not in gone), default=0)
        for one in found:
            if not one.condemned:
                continue
            item = known.condemned.get(one.segment.uuid)
            why, left_s = _why(item, oldest, now_ns, retention)
            yield why, left_s, object_bytes(one.segment)

    # --- what the buckets say ----------------------------------------------------------

    async def _list(self, named: set[bytes], segments: int) -> None:
        split = prefixes(segments)
        # Leases are renewed all the time: they show the bucket's clock.
        await self._listing.each(layout.LEASE_PREFIX, lambda slot, _, info: self._age(slot, info))
        for number, prefix in enumerate(split):
            self._order.note(f"listing buckets: {100 * number // len(split)} %")
            await self._listing.each(prefix, lambda slot, _, info: self._see(slot, info, named))
        report, name = self.report, self._buckets.name
        report.silent = {name(slot): why for slot, why in sorted(self._listing.silent.items())}
        report.owed = {name(slot): len(names) for slot, names in sorted(self._order.owed.items()) if names}

    def _age(self, slot: Slot, info: ObjectInfo) -> None:
        self._newest[slot] = max(self._newest.get(slot, 0), info.mtime_ns)

    def _see(self, slot: Slot, info: ObjectInfo, named: set[bytes]) -> None:
        self._age(slot, info)
        shard = layout.parse_shard(info.key)
        if shard is None:
            name = self._buckets.name(slot)
            self.report.foreign[name] = self.report.foreign.get(name, 0) + 1
        elif shard.uuid not in named:
            found = self._strays.setdefault(shard.uuid, Stray()).objects
            found.append((slot, info.key, info.size, info.mtime_ns))
        elif shard.uuid in self._doomed:
            self.report.doom(slot, max(0, self._newest[slot] - info.mtime_ns) // DAY_NS, info.size)

    # --- what nothing names ------------------------------------------------------------

    def _not_owed(self, stray: Stray) -> Stray:
        owed = self._order.owed
        return Stray([one for one in stray.objects if one[1] not in owed.get(one[0], ())])

    def _say_unknown(self, known: Known) -> None:
        report = self.report
        report.unsure = self._unsure(known)
        for uuid, stray in sorted(self._strays.items()):
            age_s, nbytes = self._age_s(stray), sum(item[2] for item in stray.objects)
            old = self._old(stray)
            report.unknown.append(Unknown(uuid.hex(), len(stray.objects), nbytes, age_s, old))
            report.unknown_pile.add(nbytes)
            if old:
                report.unknown_old.add(nbytes)

    def _unsure(self, known: Known) -> str:
        if known.unread:
            first = layout.manifest_name(min(known.unread))
            return f"{first} does not open, so nobody knows what it names; run objfs fsck"
        voters = self._buckets.voters
        if sum(slot not in self._listing.silent for slot in voters) < self._buckets.quorum:
            return "too few buckets answer to know every checkpoint"
        return ""

    def _age_s(self, stray: Stray) -> float:
        return min((self._newest[slot] - mtime) / NS for slot, _, _, mtime in stray.objects)

    def _old(self, stray: Stray) -> bool:
        return self._age_s(stray) >= max(self._order.retention.grace_s, self._order.youngest_s)

    async def delete_unknown(self, lease: Lease) -> int:
        """Deletes what is old enough, of the buckets that answer; returns how many objects went.  A bucket
        that fails keeps the rest, to be found again.  Raises LeaseLost, NoQuorum, ReadOnly."""
        if self.report.unsure:
            return 0
        doomed: dict[Slot, list[str]] = {}
        for stray in self._strays.values():
            if self._old(stray):
                for slot, name, _, _ in stray.objects:
                    doomed.setdefault(slot, []).append(name)
        gone = 0

        async def delete(slot: Slot, bucket: Bucket) -> None:
            nonlocal gone
            for number, name in enumerate(doomed[slot]):
                await (lease.confirm() if number % BATCH else lease.check())
                await bucket.delete(name)
                log.info("unknown object deleted bucket=%s object=%s", self._buckets.name(slot), name)
                gone += 1

        answers = await self._buckets.each(delete, slots=sorted(doomed), limit_s=float("inf"))
        for slot, error in answers.errors.items():
            log.warning("unknown objects left bucket=%s: %s", self._buckets.name(slot), error)
        lease.check_open()
        return gone


def object_bytes(segment: Segment) -> int:
    """What a segment takes in its buckets."""
    right = Layout.from_segment(segment)
    return sum(right.object_size(shard) for shard in range(segment.code.n) if shard not in segment.missing)


def _blobs(kept: Sequence[Manifest]) -> set[bytes]:
    return {blob.segment.uuid for manifest in kept for blob in manifest.blobs}


def _why(item: Condemned | None, oldest: int, now_ns: int, retention: Retention) -> tuple[str, float]:
    if item is None:
        return "unpublished", 0.0
    left_s = retention.grace_s - (now_ns - item.since_ns) / NS
    if left_s > 0:
        return "grace", left_s
    return ("moments", 0.0) if item.sequence > oldest else ("due", 0.0)
