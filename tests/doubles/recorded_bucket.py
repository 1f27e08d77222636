"""A bucket in memory whose changes go into a journal, beside those of a disk."""

from __future__ import annotations

from collections.abc import Mapping

from objfs.backends.base import Bucket
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.wrapper import Wrapper
from tests.doubles.journal import Journal


class RecordedBucket(Wrapper):
    """Records what took effect, in the step in which it did."""

    def __init__(self, inner: Bucket, name: str, journal: Journal) -> None:
        super().__init__(inner)
        self._name = name
        self._journal = journal

    async def put(self, key: str, data: bytes) -> None:
        await self.inner.put(key, data)
        self._journal.put(self._name, key, bytes(data))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        await self.inner.put_if_absent(key, data)
        self._journal.put(self._name, key, bytes(data))

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)
        self._journal.delete(self._name, key)


async def filled(objects: Mapping[str, Mapping[str, bytes]]) -> MemoryBuckets:
    """Buckets that hold these objects."""
    buckets = MemoryBuckets()
    for name, contents in objects.items():
        bucket = buckets.open(name)
        for key, data in contents.items():
            await bucket.put(key, data)
    return buckets
