"""A bucket in memory that can be told to fail, and a volume of several of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from objfs.backends.base import Bucket, ObjectInfo
from objfs.codec import KeyRing
from objfs.errors import NoSuchObject, ObjectExists, RangeError
from objfs.model import ChunkId, Code, Ino, Location, Placed, Segment, Slot
from objfs.ports import Sealable, WriteGate
from objfs.store.store import SegmentStore, StoreSettings

VOLUME = bytes(range(16))
Fault = Callable[[str, str], Exception | None]
"""(operation, key) -> what to raise, or None."""


@dataclass
class TestBucket:
    """Keeps objects, counts requests; ``fault`` decides who fails, ``hangs`` who never answers."""

    __test__ = False

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """(operation, key, bytes)"""
    entered: list[str] = field(default_factory=list)
    """Keys of all requests, answered or not."""
    spoilt: dict[str, int] = field(default_factory=dict)
    """Keys whose next get comes with one bit flipped, at this offset of the object."""
    delay_s: float = 0.0
    """Seconds that a get takes."""
    fault: Fault | None = None
    hangs: bool = False
    line: trio.Lock | None = None
    """A line of 1 MiB/s that reads share."""
    put_s: float = 0.0
    """Seconds that a put takes."""
    reached: trio.Event = field(default_factory=trio.Event)

    async def _enter(self, operation: str, key: str) -> None:
        self.reached.set()
        self.entered.append(key)
        await trio.lowlevel.checkpoint()
        if self.hangs:
            await trio.sleep_forever()
        error = self.fault(operation, key) if self.fault else None
        if error is not None:
            self.requests.append((operation, key, 0))
            raise error

    def _object(self, key: str) -> bytes:
        if key not in self.objects:
            raise NoSuchObject(f"{self.url} holds no {key}")
        return self.objects[key]

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        await self._enter("get", key)
        data = self._object(key)
        if start > len(data):
            raise RangeError(f"{key} has {len(data)} bytes")
        if self.line is not None:
            async with self.line:
                await trio.sleep(len(data[start:end]) / (1 << 20))
        if self.delay_s:
            await trio.sleep(self.delay_s)
        self.requests.append(("get", key, len(data[start:end])))
        return self._spoilt(key, data)[start:end]

    def _spoilt(self, key: str, data: bytes) -> bytes:
        at = self.spoilt.pop(key, None)
        return data if at is None else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    async def put(self, key: str, data: bytes) -> None:
        await self._enter("put", key)
        if self.put_s:
            await trio.sleep(self.put_s)
        self.requests.append(("put", key, len(data)))
        self.objects[key] = bytes(data)

    async def put_if_absent(self, key: str, data: bytes) -> None:
        if key in self.objects:
            raise ObjectExists(key)
        await self.put(key, data)

    async def delete(self, key: str) -> None:
        await self._enter("delete", key)
        self.requests.append(("delete", key, 0))
        self.objects.pop(key, None)

    async def stat(self, key: str) -> ObjectInfo:
        await self._enter("stat", key)
        return ObjectInfo(key, len(self._object(key)), 0)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await self._enter("list", prefix)
        return [ObjectInfo(k, len(v), 0) for k, v in sorted(self.objects.items()) if k.startswith(prefix)]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class TrioClock:
    """The test's own clock."""

    def now_ns(self) -> int:
        return int(trio.current_time() * 1e9)

    def monotonic(self) -> float:
        return trio.current_time()


class Volume:
    """A store over ``n`` buckets."""

    def __init__(
        self,
        code: Code,
        n: int,
        *,
        settings: StoreSettings | None = None,
        min_placed: int = 0,
        secret: bytes = b"k" * 32,
    ) -> None:
        self.buckets = {Slot(i): TestBucket(f"mem://b{i}") for i in range(n)}
        self.ring = KeyRing(VOLUME, {1: secret}, 1)
        self.gate = WriteGate()
        buckets: dict[Slot, Bucket] = dict(self.buckets)
        self.store = SegmentStore(
            buckets,
            self.ring,
            code,
            clock=TrioClock(),
            settings=settings,
            min_placed=min_placed,
            gate=self.gate,
        )

    def of(self, segment: Segment, shard: int) -> TestBucket:
        """The bucket that holds a shard."""
        return self.buckets[segment.placement[shard]]

    def damage(self, segment: Segment, shard: int, offset: int) -> None:
        """Flips one bit of a shard's object."""
        bucket, name = self.of(segment, shard), key_of(segment, shard)
        data = bytearray(bucket.objects[name])
        data[offset] ^= 1
        bucket.objects[name] = bytes(data)

    def gets(self) -> list[tuple[str, str, int]]:
        """Requests for reading since the last ``forget``."""
        return [r for bucket in self.buckets.values() for r in bucket.requests if r[0] == "get"]

    def forget(self) -> None:
        for bucket in self.buckets.values():
            bucket.requests.clear()


def key_of(segment: Segment, shard: int) -> str:
    """Spelled out here once more, as the format says it."""
    name = segment.uuid.hex()
    return f"segment/{name[:2]}/{name}.{shard:02x}"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int = 1) -> bytes:
    line = b"%d the quick brown fox jumps over the lazy dog\n" % seed
    return (line * (size // len(line) + 1))[:size]


def chunks(*datas: bytes) -> list[Sealable]:
    return [Sealable(ChunkId(i + 1), Ino(7), i, data) for i, data in enumerate(datas)]


def whole(segment: Segment, placed: Sequence[Placed]) -> list[tuple[Segment, Location, int, int]]:
    """A request for all frames of all chunks."""
    return [(segment, one.location, 0, len(one.location.frames) - 1) for one in placed]
