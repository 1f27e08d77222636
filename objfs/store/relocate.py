"""A shard copied into another bucket.

Owns one step of a move: the shard's object from where it lies, or rebuilt from the others, and put where it
shall lie.  Promises that what is put is byte for byte what was put when the segment was made, and that it was
read back and is the same before this says so.  Changes nothing at the place where the shard was, and
decides nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from objfs.codec import KeyRing, Layout, open_shard
from objfs.errors import BucketError, CodecError, ContractBroken, Corrupt, Unreachable
from objfs.model import Segment, Slot
from objfs.ports import WriteGate
from objfs.store.health import HealthBoard
from objfs.store.layout import shard_name
from objfs.store.places import Places
from objfs.store.restore import Restorer
from objfs.store.scan import recognize
from objfs.store.workers import Workers

log = logging.getLogger("objfs.store")


@dataclass(frozen=True, slots=True)
class Copied:
    """``length`` is the object's, in bytes; ``rebuilt``: it came from other shards."""

    length: int
    rebuilt: bool


class Relocator:
    """Copies; holds no state of its own between calls."""

    def __init__(
        self, restorer: Restorer, places: Places, health: HealthBoard, gate: WriteGate, workers: Workers
    ) -> None:
        self._restorer = restorer
        self._places = places
        self._health = health
        self._gate = gate
        self._workers = workers

    async def copy(self, ring: KeyRing, segment: Segment, shard: int, target: Slot) -> Copied:
        """The shard lies in the bucket of ``target`` too, verified.

        Raises NotEnoughShards (it cannot be had), BucketError and ContractBroken of the target, ReadOnly
        (gate closed).
        """
        self._gate.check()
        data, rebuilt = await self._read(ring, segment, shard), False
        if data is None:
            data, rebuilt = await self._rebuild(ring, segment, shard), True
        self._gate.check()
        await self._put(target, shard_name(segment.uuid, shard), data)
        return Copied(len(data), rebuilt)

    async def _read(self, ring: KeyRing, segment: Segment, shard: int) -> bytes | None:
        """The object as it lies there; None where it is not to be had, or is not what it should be."""
        slot, name = segment.placement[shard], shard_name(segment.uuid, shard)
        bucket = self._places.bucket(slot)
        if bucket is None or shard in segment.missing or not self._health.admit(slot):
            return None
        try:
            data = await bucket.get(name)
            await self._workers.read(len(data), lambda: _verify(ring, segment, shard, data))
        except BucketError as error:
            self._health.failed(slot, error)
            log.warning("shard not read to be moved bucket=%s object=%s: %s", bucket.url, name, error)
            return None
        except CodecError as error:
            log.warning("shard damaged, it is rebuilt bucket=%s object=%s: %s", bucket.url, name, error)
            return None
        self._health.succeeded(slot)
        return data

    async def _rebuild(self, ring: KeyRing, segment: Segment, shard: int) -> bytes:
        """From the others.  A row does not say where the index lies, a header does."""
        right, lacking = Layout.from_segment(segment), segment.missing | {shard}
        listed: dict[Slot, dict[int, int]] = {}
        for number, slot in enumerate(segment.placement):
            if number not in lacking:
                listed.setdefault(slot, {})[number] = right.object_size(number)
        found = await recognize(self._places, ring, segment.uuid, listed)
        without = found._replace(segment=replace(segment, missing=lacking))
        return (await self._restorer.objects(ring, without))[shard]

    async def _put(self, target: Slot, name: str, data: bytes) -> None:
        bucket = self._places.bucket(target)
        if bucket is None:
            raise Unreachable(f"slot {target} has no URL on this machine")
        try:
            await bucket.put(name, data)
            again = await bucket.get(name)
        except BucketError as error:
            self._health.failed(target, error)
            raise
        if again != data:
            raise ContractBroken(f"{bucket.url}: {name} reads back as something else than was put there")
        self._health.succeeded(target)


def _verify(ring: KeyRing, segment: Segment, shard: int, data: bytes) -> None:
    layout, number, _ = open_shard(ring, data)
    if number != shard or replace(layout, index=None) != Layout.from_segment(segment):
        raise Corrupt(f"it is shard {number} of segment {layout.uuid.hex()}")
