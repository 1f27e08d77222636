"""Buckets that break one promise each, over a real one, and one whose threads hang.

What fails on demand is ``objfs.backends.wrappers.faults.FaultyBucket``; what is here is wrong by
nature, for the probe to notice.
"""

from __future__ import annotations

import threading

import trio

from objfs.backends.base import Bucket, ObjectInfo
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.wrapper import Wrapper
from objfs.errors import NoSuchObject, ObjectExists, Refused


def memory_bucket(name: str = "bucket") -> Bucket:
    """An empty bucket in memory that nobody else sees."""
    return MemoryBuckets().open(name)


class CheckThenPutBucket(Wrapper):
    """Put-if-absent looks first and puts then, as OpenStack Swift does: a race has many winners."""

    async def put_if_absent(self, key: str, data: bytes) -> None:
        try:
            await self.inner.stat(key)
        except NoSuchObject:
            await trio.lowlevel.checkpoint()
            await self.inner.put(key, data)
        else:
            raise ObjectExists(f"{self.url}: {key} exists already")


class OverwritingBucket(Wrapper):
    """Put-if-absent is taken for a put, as by servers that ignore If-None-Match."""

    async def put_if_absent(self, key: str, data: bytes) -> None:
        await self.inner.put(key, data)


class WholeObjectBucket(Wrapper):
    """Answers every range with the whole object."""

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return await self.inner.get(key)


class StaleListingBucket(Wrapper):
    """A listing that lags behind: it shows only what was there when the bucket was opened."""

    async def list(self, prefix: str) -> list[ObjectInfo]:
        await trio.lowlevel.checkpoint()
        return []


class StaleReadBucket(Wrapper):
    """A replaced object reads as it was first, as from a cache in between."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self._first: dict[str, bytes] = {}

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        data = await self.inner.get(key, start, end)
        return self._first.setdefault(key, data)


class UndeletingBucket(Wrapper):
    """Says that it deleted, and did not."""

    async def delete(self, key: str) -> None:
        await trio.lowlevel.checkpoint()


class ReadOnlyBucket(Wrapper):
    """Credentials that may read and nothing else."""

    async def put(self, key: str, data: bytes) -> None:
        await self._refuse(key)

    async def put_if_absent(self, key: str, data: bytes) -> None:
        await self._refuse(key)

    async def delete(self, key: str) -> None:
        await self._refuse(key)

    async def _refuse(self, key: str) -> None:
        await trio.lowlevel.checkpoint()
        raise Refused(f"{self.url}: {key}: these credentials may not write")


class HangingBucket(Wrapper):
    """Every get hangs in a thread, as in a dead network mount, until ``release`` is set."""

    def __init__(self, inner: Bucket) -> None:
        super().__init__(inner)
        self.release = threading.Event()
        self.hanging = 0
        self._threads = trio.CapacityLimiter(100)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self.hanging += 1
        await trio.to_thread.run_sync(self.release.wait, abandon_on_cancel=True, limiter=self._threads)
        return await self.inner.get(key, start, end)
