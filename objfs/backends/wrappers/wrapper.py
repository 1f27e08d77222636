"""A bucket around a bucket: passes everything on, through one method that a wrapper overrides.

Owns the delegation, so that a wrapper is only its concern.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from objfs.backends.base import Bucket, ObjectInfo, Remarkable, Request

T = TypeVar("T")
Call = Callable[[], Awaitable[T]]


class Wrapper:
    """The same bucket; ``around`` sees every request."""

    def __init__(self, inner: Bucket) -> None:
        self.inner = inner

    async def around(self, request: Request, call: Call[T]) -> T:
        """Performs ``call`` (anew each time it is called) and returns what it returns."""
        return await call()

    @property
    def url(self) -> str:
        return self.inner.url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        return await self.around(Request("get", key), lambda: self.inner.get(key, start, end))

    async def put(self, key: str, data: bytes) -> None:
        await self.around(Request("put", key, len(data)), lambda: self.inner.put(key, data))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        request = Request("put_if_absent", key, len(data))
        await self.around(request, lambda: self.inner.put_if_absent(key, data))

    async def delete(self, key: str) -> None:
        await self.around(Request("delete", key), lambda: self.inner.delete(key))

    async def stat(self, key: str) -> ObjectInfo:
        return await self.around(Request("stat", key), lambda: self.inner.stat(key))

    async def remarks(self) -> list[str]:
        """What the innermost bucket can tell about itself."""
        return await self.inner.remarks() if isinstance(self.inner, Remarkable) else []

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await self.around(Request("list", prefix), lambda: self.inner.list(prefix))
