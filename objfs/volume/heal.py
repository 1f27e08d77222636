"""The healer of a running mount: what was stored with fewer shards than its code has gets the rest, unasked.

Owns when that happens: as soon as a bucket that lacks shards, or a kept manifest, answers again, or has
left the volume for good; the segments that bear the fewest losses first, at a bounded rate.  Promises that
a bucket which is down, or which takes nothing, is asked no more often than its pauses allow, and that
nothing is asked of any bucket while nothing is at risk, after one look at what former mounts left.  All that
it knows is in the rows and in the buckets, so a crash costs it nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from objfs.codec import Layout
from objfs.errors import BucketError, CodecError, LeaseLost, ObjfsError, ReadOnly, StoreError
from objfs.meta.segments import FIRST, rank
from objfs.model import Segment, SegmentNo, Slot
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.copies import ManifestCopies, Outcome
from objfs.volume.mend import Mender
from objfs.volume.open import OpenVolume
from objfs.volume.rate import Rate
from objfs.volume.reaper import Reaper

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at the rows."""
REST_FIRST_S = 10.0
REST_LAST_S = 300.0
"""How long a bucket that answers and takes no shard is left alone; doubled from first to last."""
BATCH = 64


@dataclass(frozen=True, slots=True)
class HealStatistics:
    """``oldest_ns`` is the wall time at which the oldest segment at risk was stored, 0 where none is;
    ``blobs`` of the inode table are at risk besides the segments, and ``buckets`` lack a manifest."""

    segments: int = 0
    nbytes: int = 0
    blobs: int = 0
    buckets: int = 0
    oldest_ns: int = 0
    healed_segments: int = 0
    healed_bytes: int = 0
    last_error: str = ""


class Healer:
    """One per writing mount."""

    def __init__(
        self,
        volume: OpenVolume,
        checkpointer: Checkpointer,
        reaper: Reaper,
        mender: Mender,
        clock: Clock,
    ) -> None:
        self._buckets = volume.buckets
        self._health = volume.store.health
        self._table = volume.meta
        self._gate = volume.gate
        self._checkpointer = checkpointer
        self._reaper = reaper
        self._copies = ManifestCopies(volume, checkpointer, reaper)
        self._mender = mender
        self._clock = clock
        self._whole: set[bytes] = set()
        """Blobs that are whole by now, whatever manifests say."""
        self._answers: dict[Slot, bool] = {}
        self._rests: dict[Slot | bytes | str, tuple[float, float]] = {}
        """Bucket, segment or manifests -> until when it is left alone, and for how long the next time."""
        self._oldest: tuple[SegmentNo | None, int] = (None, 0)
        self._healed = 0
        self._last_error = ""

    async def run(self) -> None:
        """Until cancelled, or until the volume is another machine's."""
        while self._gate.open:
            try:
                await self.round()
            except (LeaseLost, ReadOnly):
                return
            await trio.sleep(LOOK_S)

    async def round(self) -> None:
        """One pass over all that is at risk; raises LeaseLost, ReadOnly."""
        self._answers = {}
        await self._note_oldest()
        await self._spread_manifests()
        for segment in self._short_blobs():
            await self._heal(None, segment)
        after = FIRST
        while rows := self._table.endangered(after, BATCH):
            for number, segment in rows:
                after = rank(number, segment)
                await self._heal(number, segment)

    async def _heal(self, number: SegmentNo | None, segment: Segment) -> None:
        self._gate.check()
        shards = await self._ready(segment)
        if number is None:
            shards &= self._unplaced(segment)
        if not shards or self._resting(segment.uuid):
            return
        try:
            if number is None:
                there = await self._heal_blob(segment, shards)
            else:
                there = await self._mender.mend_row(number, shards)
        except (StoreError, CodecError) as error:
            self._last_error = str(error)
            self._rest(segment.uuid)
            log.warning("segment not healed segment=%s: %s", segment.uuid.hex(), error)
            return
        self._healed += bool(there)
        for shard in shards - there:
            slot = segment.placement[shard]
            self._rest(slot if slot in self._buckets.slots else segment.uuid)
        for shard in there:
            self._rests.pop(segment.placement[shard], None)

    async def _spread_manifests(self) -> None:
        """On every bucket: else they would be lost with those that have them.

        What goes wrong with them has pauses of its own: it must not keep shards waiting.
        """
        if self._resting(layout.MANIFEST_PREFIX):
            return
        unsure = [slot for slot in sorted(self._copies.unsure) if not self._resting(_manifests_of(slot))]
        ready = [slot for slot in unsure if await self._answering(slot)]
        if not ready:
            return
        answering = [slot for slot in self._buckets.slots if await self._answering(slot)]
        self._gate.check()
        try:
            outcome = await self._copies.spread(ready, answering)
        except (LeaseLost, ReadOnly):
            raise
        except ObjfsError as error:
            outcome = Outcome(set(), str(error))
        for slot in ready:
            self._settle(_manifests_of(slot), well=slot not in outcome.refused)
        self._settle(layout.MANIFEST_PREFIX, well=not outcome.doubt)
        if outcome.doubt:
            self._last_error = outcome.doubt
            log.warning("manifests not copied: %s", outcome.doubt)

    async def _heal_blob(self, segment: Segment, shards: set[int]) -> set[int]:
        """What manifests say of a blob stays as it is, so the bucket is asked whether the shard is there."""
        there = {shard for shard in shards if await self._holds(segment, shard)}
        if shards - there:
            there |= await self._mender.mend_blob(segment, shards - there)
        if there == self._unplaced(segment):
            self._whole.add(segment.uuid)
        return there

    async def _holds(self, segment: Segment, shard: int) -> bool:
        slot, size = segment.placement[shard], Layout.from_segment(segment).object_size(shard)
        try:
            found = await self._buckets.buckets[slot].stat(layout.shard_name(segment.uuid, shard))
        except (BucketError, KeyError):
            return False
        return found.size == size

    def _short_blobs(self) -> list[Segment]:
        """Of all kept moments, those of the newest first."""
        moment = self._checkpointer.moment
        named = [*([] if moment is None else [moment.manifest]), *reversed(self._reaper.kept)]
        blobs = [blob.segment for manifest in named for blob in manifest.blobs]
        short = {segment.uuid: segment for segment in blobs if self._unplaced(segment)}
        self._whole &= short.keys()
        return [segment for uuid, segment in short.items() if uuid not in self._whole]

    def _unplaced(self, blob: Segment) -> set[int]:
        """Shards that a manifest calls missing, but for those of buckets that left: what it says of a place
        stays, so they have none any more."""
        left = self._mender.left(blob.placement)
        return {shard for shard in blob.missing if blob.placement[shard] not in left}

    # --- which buckets -----------------------------------------------------------------

    async def _ready(self, segment: Segment) -> set[int]:
        """Missing shards whose bucket takes them, as far as can be known before."""
        left = self._mender.left(segment.placement)
        found = set()
        for shard in segment.missing:
            slot = segment.placement[shard]
            if slot in left or (not self._resting(slot) and await self._answering(slot)):
                found.add(shard)
        return found

    async def _answering(self, slot: Slot) -> bool:
        """Whether a bucket answers at present; it is asked once a round."""
        if slot not in self._answers:
            self._answers[slot] = await self._ask(slot)
        return self._answers[slot]

    async def _ask(self, slot: Slot) -> bool:
        """For its label; where it is down, as often as its pauses allow."""
        bucket, health = self._buckets.buckets.get(slot), self._health
        if bucket is None or not health.admit(slot):
            return False
        try:
            await bucket.stat(layout.LABEL)
        except BucketError as error:
            health.failed(slot, error)
            return False
        if health.down(slot):
            health.succeeded(slot)
        return True

    def _resting(self, who: Slot | bytes | str) -> bool:
        return who in self._rests and self._clock.monotonic() < self._rests[who][0]

    def _settle(self, who: str, *, well: bool) -> None:
        if well:
            self._rests.pop(who, None)
        else:
            self._rest(who)

    def _rest(self, who: Slot | bytes | str) -> None:
        if self._resting(who):
            return
        _, pause = self._rests.get(who, (0.0, REST_FIRST_S))
        self._rests[who] = (self._clock.monotonic() + pause, min(2 * pause, REST_LAST_S))

    # --- for people --------------------------------------------------------------------

    async def _note_oldest(self) -> None:
        """When the oldest segment at risk was stored: its shards know."""
        oldest = self._table.at_risk().oldest
        if oldest is None or oldest == self._oldest[0]:
            return
        segment = self._table.segment(oldest)
        self._oldest = (oldest, self._clock.now_ns())
        for shard in set(range(segment.code.n)) - segment.missing:
            bucket = self._buckets.buckets.get(segment.placement[shard])
            if bucket is None or not self._health.admit(segment.placement[shard]):
                continue
            try:
                found = await bucket.stat(layout.shard_name(segment.uuid, shard))
            except BucketError as error:
                self._health.failed(segment.placement[shard], error)
                continue
            self._oldest = (oldest, min(found.mtime_ns, self._oldest[1]))
            return

    def statistics(self) -> HealStatistics:
        risk = self._table.at_risk()
        return HealStatistics(
            risk.segments,
            risk.nbytes,
            len(self._short_blobs()),
            len(self._copies.short),
            self._oldest[1] if risk.oldest is not None else 0,
            self._healed,
            self._mender.restored_bytes,
            self._last_error,
        )


def _manifests_of(slot: Slot) -> str:
    return f"{layout.MANIFEST_PREFIX}{slot}"


def make_healer(
    volume: OpenVolume,
    checkpointer: Checkpointer | None,
    reaper: Reaper | None,
    clock: Clock,
    bytes_per_s: float,
) -> Healer | None:
    """None where the mount only reads."""
    if checkpointer is None or reaper is None:
        return None
    mender = Mender(volume.store, volume.buckets, volume.meta, volume.gate, Rate(bytes_per_s))
    return Healer(volume, checkpointer, reaper, mender, clock)
