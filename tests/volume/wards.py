"""A running volume with a healer, whose buckets can be taken away and given back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from objfs.backends.base import Bucket
from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket
from objfs.errors import Refused, Unreachable
from objfs.meta.segments import FIRST
from objfs.model import Code, Segment, Slot
from objfs.store import layout
from objfs.volume.heal import Healer, make_healer
from objfs.volume.local import VolumeHome
from objfs.volume.table import BucketEntry
from tests.volume.rigs import Cloud, Rig, running
from tests.volume.support import TrioClock

TWO_ONE = Code(2, 1)


@dataclass
class Ward:
    """A running volume whose buckets can be taken away and given back."""

    cloud: Cloud
    rig: Rig
    faulty: dict[Slot, FaultyBucket]
    healer: Healer

    def away(self, *slots: int, reads: bool = True) -> list[Fault]:
        """These buckets do not answer; not ``reads``: they take nothing."""
        error = Unreachable if reads else Refused
        return [
            self.faulty[Slot(slot)].add(Fault(FailBefore(error), op=None if reads else "put"))
            for slot in slots
        ]

    def back(self, faults: Collection[Fault]) -> None:
        for fault in faults:
            fault.times = fault.hits
        for slot in self.faulty:
            self.rig.volume.store.health.forget(slot)

    async def write(self, name: bytes, data: bytes = b"") -> None:
        """Of its own content: equal chunks would be stored once."""
        self.rig.create(name)
        self.rig.write(name, 0, data or random.Random(name).randbytes(200_000))
        await self.rig.drain()

    async def with_a_late_one(self) -> tuple[Sequence[BucketEntry], Mapping[Slot, Bucket]]:
        """The table of the volume and its buckets, and one more."""
        buckets = self.rig.volume.buckets
        self.cloud.names.append("late")
        late = self.cloud.memory.open("late")
        await late.put(layout.LABEL, b"label")
        entry = BucketEntry(Slot(3), bytes(16), True, "late")
        return [*buckets.entries, entry], {**buckets.buckets, Slot(3): late}

    def use(self, entries: Sequence[BucketEntry], reach: Mapping[Slot, Bucket]) -> None:
        """From now on the volume has this table."""
        self.rig.volume.buckets.become(entries, reach)
        self.rig.volume.store.use_buckets(reach)

    def short(self) -> list[Segment]:
        return [segment for _, segment in self.rig.table.endangered(FIRST, 1000)]

    @property
    def looks(self) -> int:
        """How often a bucket was asked which manifests it has."""
        asked = [request for bucket in self.faulty.values() for request in bucket.requests]
        return sum(one.operation == "list" and one.key == layout.MANIFEST_PREFIX for one in asked)

    @property
    def reads(self) -> int:
        """Requests for bytes of segments."""
        asked = [request for bucket in self.faulty.values() for request in bucket.requests]
        return sum(
            one.operation.startswith("get") and one.key.startswith(layout.SEGMENT_PREFIX) for one in asked
        )

    async def manifests(self, slot: int) -> set[int]:
        """Sequences that a bucket has."""
        found = await self.cloud.memory.open(self.cloud.names[slot]).list(layout.MANIFEST_PREFIX)
        return {sequence for info in found if (sequence := layout.parse_manifest(info.key)) is not None}

    async def shards(self) -> dict[str, set[int]]:
        """Object name of each shard -> slots that have it."""
        found: dict[str, set[int]] = {}
        for number, name in enumerate(self.cloud.names):
            for info in await self.cloud.memory.open(name).list(layout.SEGMENT_PREFIX):
                found.setdefault(info.key, set()).add(number)
        return found


@asynccontextmanager
async def ward(tmp_path: Path, code: Code = TWO_ONE, buckets: int = 3) -> AsyncIterator[Ward]:
    cloud = Cloud(tmp_path, buckets)
    home = cloud.home()
    await cloud.make(home, code)
    async with mounted(cloud, home) as it:
        yield it


@asynccontextmanager
async def mounted(cloud: Cloud, home: VolumeHome) -> AsyncIterator[Ward]:
    """A mount of a volume that is there already, by connections of its own."""
    by_uuid = cloud.buckets(home)
    async with running(await cloud.open_with(home, by_uuid)) as rig:
        entries = rig.volume.header.buckets
        healer = make_healer(rig.volume, rig.checkpointer, rig.reaper, TrioClock(), 0)
        assert healer is not None
        yield Ward(cloud, rig, {entry.slot: by_uuid[entry.uuid] for entry in entries}, healer)
        await rig.leave()
