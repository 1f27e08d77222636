"""Small things that the volume tests share: a key ring, a clock on trio's time, made-up records."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping

import trio

from objfs.backends.base import Operation
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket, Hang
from objfs.codec.keys import Cost, KeyRing, make_slot
from objfs.errors import Unreachable
from objfs.model import Code, Location, Segment, SegmentKind, SegmentNo, Slot
from objfs.ports import WriteGate
from objfs.volume.blobs import BlobRef
from objfs.volume.epochs import Holder, KnownLease
from objfs.volume.features import Features
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.lease import Claim, Lease, acquire
from objfs.volume.quorum import BucketSet
from objfs.volume.table import BucketEntry

VOLUME = bytes(range(16))
CHEAP = Cost(memory_kib=8, passes=1, lanes=1)
PASSPHRASE = Secret("passphrase", b"correct horse")
START_NS = 1_700_000_000_000_000_000


def ring(secret: int = 7, volume: bytes = VOLUME) -> KeyRing:
    return KeyRing(volume, {1: bytes([secret]) * 32}, 1)


class TrioClock:
    """The clock of the running trio loop: a MockClock moves it."""

    def now_ns(self) -> int:
        return START_NS + int(trio.current_time() * 1e9)

    def monotonic(self) -> float:
        return trio.current_time()


def entries(count: int, voters: int | None = None) -> tuple[BucketEntry, ...]:
    voting = count if voters is None else voters
    return tuple(BucketEntry(Slot(n), bytes([n + 1]) * 16, n < voting, f"rack{n}") for n in range(count))


def header(keys: KeyRing, *, generation: int = 1, secret: Secret = PASSPHRASE) -> VolumeHeader:
    slot = make_slot(0, secret.kind, secret.data, keys.secrets(), keys.volume, cost=CHEAP, now_ns=START_NS)
    return VolumeHeader(
        volume=keys.volume,
        generation=generation,
        features=Features(),
        slots=(slot,),
        chunk_size=1 << 20,
        code=Code(2, 1),
        buckets=entries(3),
        key_ids=(1,),
        current_key=1,
        created_ns=START_NS,
        tolerance=1,
        defaults={"compression": "zstd"},
    )


def blob(number: int, kind: SegmentKind = SegmentKind.PAGES) -> BlobRef:
    uuid = number.to_bytes(16, "big")
    segment = Segment(
        uuid, kind, 1, Code(1, 2), 1000, (0, 1000), (Slot(0), Slot(1), Slot(2)), frozenset({2}), 4
    )
    return BlobRef(segment, Location(SegmentNo(0), 0, 0, (600, 400), 5000, bytes([number]) * 32))


class Site:
    """Buckets that several machines share; each machine reaches them through faults of its own."""

    def __init__(self, count: int, voters: int | None = None) -> None:
        self.entries = entries(count, voters)
        self.memory = MemoryBuckets()
        self.ring = ring()

    def machine(self, *, without: Collection[int] = ()) -> Machine:
        """Another machine; ``without`` are the slots that it has no URL for."""
        faulty = {
            entry.slot: FaultyBucket(self.memory.open(f"b{entry.slot}"))
            for entry in self.entries
            if entry.slot not in without
        }
        return Machine(self, faulty)

    async def keys(self, slot: int, prefix: str = "") -> list[str]:
        return [info.key for info in await self.memory.open(f"b{slot}").list(prefix)]


class Machine:
    """One machine's connections, identity, gate and memory of its lease."""

    _count = itertools.count(1)

    def __init__(self, site: Site, faulty: Mapping[Slot, FaultyBucket]) -> None:
        number = next(self._count)
        self.site = site
        self.faulty = dict(faulty)
        self.buckets = BucketSet(site.entries, self.faulty)
        self.gate = WriteGate()
        self.clock = TrioClock()
        self.holder = Holder(number.to_bytes(16, "big"), f"host{number}", 1000 + number)
        self.known: KnownLease | None = None

    def remember(self, known: KnownLease) -> None:
        self.known = known

    async def acquire(
        self, *, take_over: bool = False, force: bool = False, interval_s: float = 60.0
    ) -> Lease:
        claim = Claim(self.holder, interval_s, self.known, take_over, force)
        return await acquire(self.buckets, self.site.ring, claim, self.gate, self.clock, self.remember)

    def restarted(self) -> Machine:
        """The same state directory after the process died."""
        again = self.site.machine()
        again.holder, again.known = self.holder, self.known
        return again

    def hang(
        self, op: Operation, key: str, *, slots: Collection[int] | None = None, how: type[Hang] = Hang
    ) -> list[Fault]:
        """Requests that match hang until released."""
        chosen = [bucket for slot, bucket in self.faulty.items() if slots is None or slot in slots]
        return [bucket.add(Fault(how(), op=op, key=key)) for bucket in chosen]

    def break_bucket(self, slot: int) -> Fault:
        return self.faulty[Slot(slot)].add(Fault(FailBefore(Unreachable)))


def release(faults: Iterable[Fault]) -> None:
    """Hung requests go on."""
    for fault in faults:
        assert isinstance(fault.action, Hang)
        fault.action.release.set()
        fault.times = fault.hits
