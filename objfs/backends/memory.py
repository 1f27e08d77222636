"""Buckets in this process's memory, for tests: the contract without a disk.

Owns dictionaries.  Buckets are shared by name through a ``MemoryBuckets``; ``SHARED`` is the one
behind ``mem://`` URLs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from objfs.backends.base import ObjectInfo, check_key, check_prefix, check_range, cut_range
from objfs.backends.url import BucketURL
from objfs.errors import NoSuchBucket, NoSuchObject, ObjectExists


@dataclass
class _Place:
    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    there: bool = True


class MemoryBuckets:
    """Names and what is in them."""

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}

    def open(self, name: str, prefix: str = "") -> MemoryBucket:
        """The bucket of that name, which begins to exist."""
        return MemoryBucket(self._places.setdefault(name, _Place()), name, prefix)

    def remove(self, name: str) -> None:
        """The bucket is gone with all it held: those who have it open get NoSuchBucket."""
        place = self._places.pop(name, None)
        if place is not None:
            place.there = False
            place.objects.clear()


SHARED = MemoryBuckets()


class MemoryBucket:
    """One bucket, or the part of it below a prefix."""

    def __init__(self, place: _Place, name: str, prefix: str = "") -> None:
        self._place = place
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = f"mem://{name}/{prefix}" if prefix else f"mem://{name}"

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(key, start, end)
        data, _ = await self._find(key)
        return data[cut_range(key, len(data), start, end)]

    async def put(self, key: str, data: bytes) -> None:
        objects = await self._objects(key)
        objects[self._prefix + key] = (bytes(data), time.time_ns())

    async def put_if_absent(self, key: str, data: bytes) -> None:
        objects = await self._objects(key)
        if self._prefix + key in objects:
            raise ObjectExists(f"{self.url}: {key} exists already")
        objects[self._prefix + key] = (bytes(data), time.time_ns())

    async def delete(self, key: str) -> None:
        objects = await self._objects(key)
        objects.pop(self._prefix + key, None)

    async def stat(self, key: str) -> ObjectInfo:
        data, mtime_ns = await self._find(key)
        return ObjectInfo(key, len(data), mtime_ns)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        objects, skip = await self._objects(), len(self._prefix)
        found = sorted(item for item in objects.items() if item[0].startswith(self._prefix + prefix))
        return [ObjectInfo(key[skip:], len(data), mtime_ns) for key, (data, mtime_ns) in found]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def _objects(self, key: str | None = None) -> dict[str, tuple[bytes, int]]:
        if key is not None:
            check_key(key)
        await trio.lowlevel.checkpoint()
        if not self._place.there:
            raise NoSuchBucket(f"{self.url}: the bucket is gone")
        return self._place.objects

    async def _find(self, key: str) -> tuple[bytes, int]:
        objects = await self._objects(key)
        try:
            return objects[self._prefix + key]
        except KeyError:
            raise NoSuchObject(f"{self.url}: no object {key}") from None


def open_url(url: BucketURL, options: Mapping[str, str]) -> MemoryBucket:
    """The bucket behind ``mem://name/prefix`` in ``SHARED``; takes no options."""
    return SHARED.open(url.place, url.prefix)
