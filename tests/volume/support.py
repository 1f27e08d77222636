"""Small things that the volume tests share: a key ring, a clock on trio's time, made-up records."""

from __future__ import annotations

import trio

from objfs.codec.keys import Cost, KeyRing, make_slot
from objfs.model import Code, Location, Segment, SegmentKind, SegmentNo, Slot
from objfs.volume.blobs import BlobRef
from objfs.volume.features import Features
from objfs.volume.header import Secret, VolumeHeader
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
