"""One of six buckets late by seconds: how long reads take, with and without hedging, and what that costs.

Owns a store over buckets in memory, in one process, whose every request takes a few milliseconds, and
those of one bucket ``--delay`` seconds more.  Each run reads ``--warm`` random pieces of 4 KiB, by
``--readers`` at once, and then measures ``--reads``.

    python -m bench.slow_bucket [--reads 500] [--warm 200] [--delay 2] [--readers 4] [--latency 0.005]
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from objfs.app.clock import SystemClock
from objfs.backends.base import Bucket, Request
from objfs.backends.compose import BucketSettings, compose
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import Fault, FaultyBucket, Slow
from objfs.backends.wrappers.metrics import Metrics
from objfs.backends.wrappers.wrapper import Call, T, Wrapper
from objfs.codec import KeyRing
from objfs.model import ChunkId, Code, Ino, Location, Segment, Slot
from objfs.ports import Clock, Sealable
from objfs.store.pace import PaceSettings
from objfs.store.store import SegmentStore, StoreSettings

CODE = Code(4, 2)
PIECE = 4096
VICTIM = Slot(2)
HEDGED = StoreSettings()
PLAIN = StoreSettings(hedge=0.0, pace=PaceSettings(threshold=10**9))


class JitteryBucket(Wrapper):
    """Requests take about as long as over a line: exponentially spread over a floor."""

    def __init__(self, inner: Bucket, latency_s: float, seed: int) -> None:
        super().__init__(inner)
        self._latency_s = latency_s
        self._random = random.Random(seed)

    async def around(self, request: Request, call: Call[T]) -> T:
        await trio.sleep(self._latency_s * (0.5 + self._random.expovariate(2)))
        return await call()


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is read, and by how many at once; seconds of a request, and of the late bucket on top;
    out of how many segments of how many pieces."""

    reads: int = 500
    warm: int = 200
    readers: int = 4
    latency_s: float = 0.005
    delay_s: float = 2.0
    segments: int = 12
    pieces: int = 1000


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the measured reads: seconds, ascending; requests and bytes of all buckets."""

    seconds: Sequence[float]
    requests: int
    bytes_read: int

    def quantile(self, share: float) -> float:
        return self.seconds[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


async def measure(scale: Scale, settings: StoreSettings, clock: Clock, *, late: bool) -> Figures:
    """One run over fresh buckets."""
    metrics, places = Metrics(), MemoryBuckets()
    faulty = {
        Slot(number): FaultyBucket(JitteryBucket(places.open(f"b{number}"), scale.latency_s, number))
        for number in range(CODE.n)
    }
    composed = {slot: compose(bucket, BucketSettings(), metrics) for slot, bucket in faulty.items()}
    ring = KeyRing(bytes(16), {1: bytes(32)}, 1)
    store = SegmentStore(composed, ring, CODE, clock=clock, settings=settings)
    written = await fill(store, scale)
    if late:
        faulty[VICTIM].add(Fault(Slow(scale.delay_s)))
    await read(store, written, scale.warm, scale.readers, seed=1)
    before = metrics.snapshot()
    seconds = await read(store, written, scale.reads, scale.readers, seed=2)
    after = metrics.snapshot()
    return Figures(
        sorted(seconds),
        after["get"].requests - before["get"].requests,
        after["get"].bytes_in - before["get"].bytes_in,
    )


async def fill(store: SegmentStore, scale: Scale) -> list[tuple[Segment, Location]]:
    """Pieces in segments, so that every bucket holds data of some and parity of others."""
    found: list[tuple[Segment, Location]] = []
    for number in range(scale.segments):
        source = random.Random(number)
        chunks = [
            Sealable(ChunkId(piece + 1), Ino(1), piece, source.randbytes(PIECE))
            for piece in range(scale.pieces)
        ]
        segment, placed = await store.write_segment(chunks)
        found += [(segment, one.location) for one in placed]
    return found


async def read(
    store: SegmentStore, written: Sequence[tuple[Segment, Location]], count: int, readers: int, seed: int
) -> list[float]:
    """Seconds of each of ``count`` reads of random pieces."""
    source, seconds = random.Random(seed), list[float]()
    queue = [source.choice(written) for _ in range(count)]

    async def reader() -> None:
        while queue:
            segment, location = queue.pop()
            begun = trio.current_time()
            await store.read_chunks([(segment, location, 0, 0)])
            seconds.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        for _ in range(readers):
            nursery.start_soon(reader)
    return seconds


RUNS = (
    ("all healthy, hedging", HEDGED, False),
    ("one late, no hedging", PLAIN, True),
    ("one late, hedging", HEDGED, True),
)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench.slow_bucket", description=__doc__)
    parser.add_argument("--reads", type=int, default=500)
    parser.add_argument("--warm", type=int, default=200)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--latency", type=float, default=0.005)
    parser.add_argument("--delay", type=float, default=2.0)
    given = parser.parse_args(arguments)
    scale = Scale(given.reads, given.warm, given.readers, given.latency, given.delay)
    print(f"{scale.reads} reads of {PIECE} bytes after {scale.warm}, code {CODE}, six buckets")
    print(f"{'':24}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'GETs/read':>12}{'KiB/read':>10}")
    tails: list[float] = []
    for name, settings, late in RUNS:
        figures = trio.run(partial(measure, scale, settings, SystemClock(), late=late))
        p50, p95, p99 = (figures.quantile(share) * 1000 for share in (0.5, 0.95, 0.99))
        requests, kib = figures.requests / scale.reads, figures.bytes_read / scale.reads / 1024
        print(f"{name:24}{p50:10.1f}{p95:10.1f}{p99:10.1f}{requests:12.2f}{kib:10.1f}", flush=True)
        tails.append(p99)
    print(f"p99 with hedging is {tails[2] / tails[0]:.2f} times that of healthy buckets (at most 2)")
    return 0 if tails[2] <= 2 * tails[0] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
