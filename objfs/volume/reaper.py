"""Removing what no kept moment needs: old manifests, their blobs, condemned segments.

Owns the rule of what is kept and the order of deleting.  Promises that nothing is deleted that a kept
manifest refers to, that every batch is preceded by a look at the lease, that a process which was stopped in
the middle of one looks again before the next delete, and that a segment is deleted only after it was
condemned in the table of a published manifest, the grace is over, every kept manifest is at least as new as
the condemning one, and its row is gone, so that nothing can refer to it again.  What a bucket does not delete
now is owed (``debts``) and deleted later.

A manifest lists when segments were condemned, for the mount that comes after, but only of the oldest ones, as
it is put with every checkpoint.  Of more this mount alone knows when; the next one counts the grace anew.

A manifest is kept while it was the newest at some time within the recovery window or a read-only mount has
it pinned (``readers``), and at least ``keep`` of them in any case.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from objfs.codec.keys import KeyRing
from objfs.model import NS, Segment, SegmentNo
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume.debts import Debts, shards_of
from objfs.volume.lease import Lease
from objfs.volume.manifest import CONDEMNED_MAX, Condemned, Manifest
from objfs.volume.ports import SegmentTable
from objfs.volume.published import read_all
from objfs.volume.quorum import BucketSet
from objfs.volume.readers import PinObserver
from objfs.volume.strays import StrayReaper

log = logging.getLogger(__name__)

SEARCH_INTERVAL_S = 600.0
SEARCH_BATCH = 512
"""Segments condemned by one search, and deleted at once."""
WAITING_MAX = 65_536
"""Segments that wait for the end of the grace at once: 512 GiB of 8 MiB each, what searches find in a day."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept: seconds of the recovery window, least manifests, seconds of grace of a segment."""

    window_s: float = 3600.0
    keep: int = 8
    grace_s: float = 86400.0


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one round deleted."""

    manifests: int = 0
    blobs: int = 0
    segments: int = 0


@dataclass(frozen=True, slots=True)
class ReaperStatistics:
    """Gauges: manifests kept, segments condemned and waiting, and what was deleted since the mount."""

    kept_manifests: int
    condemned: int
    total: Reaped


def expired(
    kept: Sequence[Manifest], retention: Retention, now_ns: int, pinned: Collection[int] = ()
) -> list[Manifest]:
    """The manifests (ascending) that need not be kept; ``pinned`` are sequences in use.  Pure."""
    horizon = now_ns - int(retention.window_s * NS)
    superseded = [manifest for manifest, successor in pairwise(kept) if successor.wall_ns < horizon]
    old = superseded[: max(0, len(kept) - retention.keep)]
    return [manifest for manifest in old if manifest.sequence not in pinned]


class Reaper:
    """One per writing mount.  It remembers the kept manifests, so that a round lists and reads only
    what is new; the first one reads all that the buckets hold."""

    def __init__(
        self,
        table: SegmentTable,
        buckets: BucketSet,
        ring: KeyRing,
        lease: Lease,
        clock: Clock,
        retention: Retention,
        debts: Debts,
        strays: StrayReaper | None = None,
    ) -> None:
        self.debts = debts
        self._table = table
        self._buckets = buckets
        self._ring = ring
        self._lease = lease
        self._clock = clock
        self.retention = retention
        self._pins = PinObserver(buckets, ring, clock)
        self._known: dict[int, Manifest] = {}
        self._noted: dict[int, Manifest] = {}
        self._pinned_last: frozenset[int] = frozenset()
        self.unread: set[int] = set()
        """Manifests in the buckets that do not open: nobody knows what they name."""
        self._searched: float | None = None
        self._total = Reaped()
        self._rows: dict[bytes, SegmentNo] = {}
        self._condemned: dict[bytes, Condemned] = {}
        self._strays = strays

    # --- condemning ------------------------------------------------------------------------

    def resume(self, manifest: Manifest) -> None:
        """Begins with what the table holds as condemned, and since when according to the newest manifest."""
        self._rows = {segment.uuid: number for number, segment, _ in self._table.condemned()}
        self._condemned = {item.uuid: item for item in manifest.condemned if item.uuid in self._rows}

    def condemn(self, sequence: int, wall_ns: int) -> tuple[Condemned, ...]:
        """What the manifest of a cut lists of all that is condemned, the oldest first; called at the cut, on
        the loop.  Rows condemned by now are so in the image of that cut, and no chunk will ever refer to them
        again."""
        if self._strays is not None:
            self._strays.at_cut(sequence)
        for uuid in self._rows:
            if uuid not in self._condemned:
                self._condemned[uuid] = Condemned(uuid, sequence, wall_ns)
        return tuple(islice(self._condemned.values(), CONDEMNED_MAX))

    def search(self) -> int:
        """Condemns segments without chunks, a bounded number; returns how many were found.  On the loop."""
        found = dict(self._table.segments_without_chunks(min(self._room, SEARCH_BATCH)))
        self.condemn_emptied(found)
        return len(found)

    def condemn_emptied(self, segments: Mapping[SegmentNo, Segment]) -> int:
        """Condemns those of them that have no chunks, as far as there is room; returns how many."""
        newest = max(self._known | self._noted, default=0)
        condemned = self._table.condemn(list(segments)[: self._room], newest + 1)
        for number in condemned:
            self._rows[segments[number].uuid] = number
            log.debug("segment condemned uuid=%s", segments[number].uuid.hex())
        return len(condemned)

    @property
    def _room(self) -> int:
        return max(0, WAITING_MAX - len(self._rows))

    async def _search_when_due(self) -> None:
        """Now and then, since it looks at every segment's row; with it, old leases go."""
        now = self._clock.monotonic()
        if self._searched is None or now - self._searched >= SEARCH_INTERVAL_S:
            self._searched = now
            self.search()
            await self._lease.sweep()

    # --- deleting --------------------------------------------------------------------------

    def note(self, manifest: Manifest) -> None:
        """A manifest was published."""
        self._noted[manifest.sequence] = manifest

    async def round(self) -> Reaped:
        """Deletes what may go, and what is owed.  Raises LeaseLost, NoQuorum, ReadOnly, and ObjfsError where
        the local disk is full; then the next round does it."""
        await self.learn()
        await self._search_when_due()
        pinned = self._pinned_last = await self._pinned()
        kept = [self._known[sequence] for sequence in sorted(self._known)]
        old = expired(kept, self.retention, self._clock.now_ns(), pinned)
        for manifest in old:
            del self._known[manifest.sequence]
        remaining = [manifest for manifest in kept if manifest.sequence in self._known]
        self.debts.keep_manifests(self._known.keys())
        try:
            await self._delete_manifests(old)
            blobs = await self._delete_blobs(old, remaining)
        except BaseException:
            self._known |= {manifest.sequence: manifest for manifest in old}  # all of it again in the next
            raise
        needed = pinned.union(item.sequence for item in remaining)
        segments = await self._delete_condemned(needed)
        if self._strays is not None:
            await self._strays.round(min(needed, default=0))
        await self.debts.pay(self._buckets, self._lease)
        total = self._total
        self._total = Reaped(total.manifests + len(old), total.blobs + blobs, total.segments + segments)
        return Reaped(len(old), blobs, segments)

    @property
    def waiting(self) -> Mapping[bytes, Condemned | None]:
        """Condemned segments by uuid; None while no published manifest says so."""
        return {uuid: self._condemned.get(uuid) for uuid in self._rows}

    @property
    def pinned(self) -> frozenset[int]:
        """Sequences that read-only mounts were seen to use."""
        return self._pinned_last

    @property
    def kept(self) -> list[Manifest]:
        """The manifests that are kept, ascending, as far as is known without asking."""
        return [manifest for _, manifest in sorted((self._known | self._noted).items())]

    @property
    def due(self) -> bool:
        """Whether a round would delete anything, as far as is known without asking."""
        kept = [self._known[sequence] for sequence in sorted(self._known)]
        old = expired(kept, self.retention, self._clock.now_ns(), self._pinned_last)
        remaining = self._known.keys() - {manifest.sequence for manifest in old}
        return bool(self.debts.due or old or self._ripe(self._pinned_last | remaining))

    def statistics(self) -> ReaperStatistics:
        return ReaperStatistics(len(self._known), len(self._rows), self._total)

    async def learn(self) -> None:
        """Completes what is known of the manifests in the buckets."""
        if not self._known:
            known, unread = await read_all(self._buckets, self._ring)
            if not self._known:  # else somebody was faster, and may have deleted some since
                self._known, self.unread = known, unread
        self._known |= self._noted
        self._noted = {}

    async def _pinned(self) -> frozenset[int]:
        """The sequences that read-only mounts use; pins that were left behind go."""
        pinned = await self._pins.look()
        for reader in pinned.expired:
            log.info("pin expired reader=%s", reader.hex())
            await self._delete_everywhere([layout.reader_name(reader)])
        return pinned.sequences

    async def _delete_everywhere(self, names: Sequence[str]) -> None:
        """Objects of which each bucket has a copy."""
        if names:
            await self._lease.check()
            await self.debts.owe((slot, name) for slot in self._buckets.slots for name in names)
            await self.debts.pay(self._buckets, self._lease)

    async def _delete_manifests(self, old: Sequence[Manifest]) -> None:
        await self._delete_everywhere([layout.manifest_name(manifest.sequence) for manifest in old])

    async def _delete_blobs(self, old: Sequence[Manifest], kept: Sequence[Manifest]) -> int:
        needed = {blob.segment.uuid for manifest in kept for blob in manifest.blobs}
        unneeded = {
            blob.segment.uuid: blob.segment
            for manifest in old
            for blob in manifest.blobs
            if blob.segment.uuid not in needed
        }
        await self._delete_segments(unneeded.values())
        return len(unneeded)

    async def _delete_condemned(self, kept: Collection[int]) -> int:
        """All that is ripe, in batches."""
        ripe, deleted = iter(self._ripe(kept)), 0
        while batch := set(islice(ripe, SEARCH_BATCH)):
            deleted += await self._delete_batch(batch)
        return deleted

    async def _delete_batch(self, ripe: set[bytes]) -> int:
        """What is to be deleted is noted, then the rows go: from then on no chunk can refer to the segment,
        and its objects are garbage."""
        await self._lease.check()
        ripe &= self._condemned.keys()  # another round may have gone on meanwhile
        segments = [self._table.segment(self._rows[uuid]) for uuid in sorted(ripe)]
        await self.debts.owe(place for segment in segments for place in shards_of(segment))
        ripe &= self._condemned.keys()
        gone = self._table.drop_segments([self._rows[uuid] for uuid in sorted(ripe)])
        for uuid in ripe:
            del self._rows[uuid], self._condemned[uuid]
        await self.debts.pay(self._buckets, self._lease)
        log.debug("segments deleted count=%d", len(gone))
        return len(gone)

    def _ripe(self, kept: Collection[int]) -> set[bytes]:
        """Condemned long enough ago, and before everything that may still be recovered."""
        oldest = min(kept, default=0)
        horizon = self._clock.now_ns() - int(self.retention.grace_s * NS)
        return {
            uuid
            for uuid, item in self._condemned.items()
            if item.sequence <= oldest and item.since_ns <= horizon
        }

    async def _delete_segments(self, segments: Iterable[Segment]) -> None:
        if places := [place for segment in segments for place in shards_of(segment)]:
            await self._lease.check()
            await self.debts.owe(places)
            await self.debts.pay(self._buckets, self._lease)
