"""Shards to buckets: all of a segment at once, each to its slot or to one that stands in.

Owns when a segment counts as stored: all its shards are settled (placed or given up) and at least
``min_placed`` are placed.  Promises that every attempt puts the identical bytes, that a bucket known to be
down is not waited for, that stragglers are given up a bounded time after the segment became readable,
and that the shards of one that did not are taken back where that can be done.  Knows neither keys nor chunks.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import trio

from objfs.errors import BucketError, NotEnoughShards, Temporary, TimedOut
from objfs.model import Slot
from objfs.ports import WriteGate
from objfs.store.counters import Counters
from objfs.store.health import HealthBoard
from objfs.store.layout import shard_name
from objfs.store.pace import PaceBoard
from objfs.store.placement import spares
from objfs.store.places import Places

log = logging.getLogger(__name__)

TAKE_BACK_S = 10.0
"""For the shards of a segment that was not stored."""


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """How long uploads are worth waiting for.

    ``attempts`` are made per bucket, each with what the bucket's own wrappers retry inside, with
    ``pause_s`` between them on average.  Once enough shards are placed the rest has
    ``straggler_s`` more, or as long again as it took so far, whichever is longer.
    """

    attempts: int = 2
    pause_s: float = 0.5
    straggler_s: float = 30.0


class Placement(NamedTuple):
    """Where the shards of a segment went: a slot for each, and the numbers of those not placed."""

    slots: tuple[Slot, ...]
    missing: frozenset[int]


@dataclass(slots=True)
class _Upload:
    """One segment on its way."""

    uuid: bytes
    objects: Sequence[bytes] = field(repr=False)
    min_placed: int
    slots: list[Slot]
    spares: list[Slot]
    asked: set[Slot]
    started: float
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    placed: set[int] = field(default_factory=set)
    causes: dict[int, str] = field(default_factory=dict)


class Uploader:
    """Places the shards of segments; holds no state of its own between them."""

    def __init__(
        self,
        places: Places,
        health: HealthBoard,
        counters: Counters,
        gate: WriteGate,
        settings: UploadSettings,
        pace: PaceBoard,
    ) -> None:
        self._places = places
        self._health = health
        self._pace = pace
        self._counters = counters
        self._gate = gate
        self._settings = settings

    async def place(
        self, uuid: bytes, objects: Sequence[bytes], slots: Sequence[Slot], min_placed: int
    ) -> Placement:
        """Puts object i to slot i, all at once; returns when each is settled.

        Raises NotEnoughShards when fewer than ``min_placed`` are placed, ReadOnly when the gate
        is closed.
        """
        self._gate.check()
        upload = self._begin(uuid, objects, slots, min_placed)
        with upload.scope:
            async with trio.open_nursery() as nursery:
                for shard in range(len(objects)):
                    nursery.start_soon(self._place_one, upload, shard)
        self._gate.check()
        if len(upload.placed) < min_placed:
            await self._take_back(upload)
        return self._settle(upload)

    def _begin(
        self, uuid: bytes, objects: Sequence[bytes], slots: Sequence[Slot], min_placed: int
    ) -> _Upload:
        """Decides which buckets to ask; down ones too where there are not enough others."""
        asked = {slot for slot in set(slots) if self._places.bucket(slot) and self._health.admit_put(slot)}
        free = spares(uuid, slots, self._places.writable, self._places.domains)
        standing_in = [slot for slot in free if self._health.admit_put(slot)]
        likely = sum(slot in asked for slot in slots) + len(standing_in)
        if likely < min_placed:
            asked = {slot for slot in set(slots) if self._places.bucket(slot)}
            standing_in = free
        return _Upload(uuid, objects, min_placed, list(slots), standing_in, asked, trio.current_time())

    async def _place_one(self, upload: _Upload, shard: int) -> None:
        slot = upload.slots[shard]
        if slot not in upload.asked:
            upload.causes[shard] = f"bucket is {self._health.of(slot).state.word}"
        elif await self._put(upload, shard, slot):
            return
        while upload.spares:
            spare = upload.spares.pop(0)
            upload.slots[shard] = spare
            if await self._put(upload, shard, spare):
                self._counters.add(shards_diverted=1)
                return
        upload.slots[shard] = slot

    async def _put(self, upload: _Upload, shard: int, slot: Slot) -> bool:
        """Whether the shard is in that bucket now; an identical object there already is no harm."""
        for attempt in range(self._settings.attempts):
            if attempt:
                await trio.sleep(self._settings.pause_s * random.uniform(0.5, 1.5))
            bucket = self._places.bucket(slot)
            if bucket is None or not self._gate.open:
                upload.causes[shard] = "bucket was removed" if bucket is None else "the mount is read-only"
                return False
            began = trio.current_time()
            try:
                await bucket.put(shard_name(upload.uuid, shard), upload.objects[shard])
            except BucketError as error:
                self._health.not_stored(slot, error)
                upload.causes[shard] = f"{type(error).__name__}: {error}"
                if not isinstance(error, Temporary) or self._health.down(slot):
                    return False
            else:
                self._pace.put(slot, trio.current_time() - began)
                self._placed(upload, shard, slot)
                return True
        return False

    def _placed(self, upload: _Upload, shard: int, slot: Slot) -> None:
        self._health.stored(slot)
        self._counters.add(shards_placed=1, bytes_written=len(upload.objects[shard]))
        upload.placed.add(shard)
        if len(upload.placed) == upload.min_placed:
            now = trio.current_time()
            patience = max(self._settings.straggler_s, now - upload.started)
            upload.scope.deadline = now + patience

    async def _take_back(self, upload: _Upload) -> None:
        """Nobody will name this segment, and each try makes a new one: an outage would fill the buckets that
        answer.  What cannot be deleted now is an unknown object to ``gc``."""

        async def delete(shard: int) -> None:
            bucket = self._places.bucket(upload.slots[shard])
            if bucket is not None:
                with contextlib.suppress(BucketError):
                    await bucket.delete(shard_name(upload.uuid, shard))

        with trio.move_on_after(TAKE_BACK_S):
            async with trio.open_nursery() as nursery:
                for shard in upload.placed:
                    nursery.start_soon(delete, shard)

    def _settle(self, upload: _Upload) -> Placement:
        missing = frozenset(range(len(upload.objects))) - upload.placed
        for shard in sorted(missing):
            self._note_missing(upload, shard)
        if len(upload.placed) < upload.min_placed:
            self._counters.add(segments_failed=1)
            raise NotEnoughShards(
                f"segment {upload.uuid.hex()}: only {len(upload.placed)} of {len(upload.objects)} shards "
                f"could be placed, {upload.min_placed} are needed ({self._complaints(upload, missing)}); "
                "the data stay in the local cache: check the buckets"
            )
        self._counters.add(segments_written=1, shards_missing=len(missing))
        return Placement(tuple(upload.slots), missing)

    def _note_missing(self, upload: _Upload, shard: int) -> None:
        slot = upload.slots[shard]
        if upload.scope.cancelled_caught and shard not in upload.causes:
            late = f"no answer {trio.current_time() - upload.started:.1f} s after the upload began"
            self._health.failed(slot, TimedOut(late))
            upload.causes[shard] = late
        # A bucket that is closed was reported when that began; each of its shards would be noise.
        log.log(
            logging.INFO if slot not in upload.asked else logging.WARNING,
            "shard not placed; repair will bring it back bucket=%s object=%s cause=%r",
            *(self._places.url(slot), shard_name(upload.uuid, shard), upload.causes.get(shard, "")),
        )

    def _complaints(self, upload: _Upload, missing: frozenset[int]) -> str:
        return "; ".join(
            f"{self._places.url(upload.slots[shard])}: {upload.causes.get(shard, 'gave up')}"
            for shard in sorted(missing)
        )
