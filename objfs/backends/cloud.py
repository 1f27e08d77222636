"""One bucket of a cloud, or the part of it below a prefix: what is the same in all clouds.

Owns names of objects, listings of many pages and the meaning of an empty range.  A cloud's own module says to
its SDK what is to be done, in a worker thread (``sdk``).  Knows no cloud.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime
from typing import Generic, TypeAlias, TypeVar

from objfs.backends.base import ObjectInfo, check_key, check_prefix, check_range, is_key
from objfs.backends.sdk import Page, Sdk, Translate, every_page
from objfs.errors import ContractBroken, NoSuchObject, ObjectExists, RangeError
from objfs.model import NS

C = TypeVar("C")
Listed: TypeAlias = tuple[Iterable[tuple[str, int, int]], str | None]
"""Of each object of ours in a page its name, size in bytes and time of change in nanoseconds; and the token
of the next page."""


class CloudBucket(ABC, Generic[C]):
    """``C`` is the client.  The abstract methods are called in a worker thread; ``name`` is that of an object
    in the cloud, ``key`` the same without the prefix.  What they raise is translated."""

    def __init__(self, prefix: str, url: str, translate: Translate) -> None:
        self._prefix = f"{prefix}/" if prefix else ""
        self._url = url
        self._sdk: Sdk[C] = Sdk(url, self._connect, self._close, translate)

    @property
    def url(self) -> str:
        return self._url

    async def get(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        check_range(key, start, end)
        name = self._name(key)
        try:
            return await self._sdk.run("get", key, lambda client: self._get(client, name, key, start, end))
        except RangeError:
            if start == 0:
                return b""  # servers have no range for an empty object
            raise

    async def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        await self._sdk.run("put", key, lambda client: self._put(client, name, data))

    async def put_if_absent(self, key: str, data: bytes) -> None:
        name = self._name(key)
        if not await self._sdk.run("put_if_absent", key, lambda client: self._create(client, name, data)):
            raise ObjectExists(f"{self.url}: {key} exists already")

    async def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            await self._sdk.run("delete", key, lambda client: self._delete(client, name))
        except NoSuchObject:
            return

    async def stat(self, key: str) -> ObjectInfo:
        name = self._name(key)
        size, mtime_ns = await self._sdk.run("stat", key, lambda client: self._stat(client, name))
        return ObjectInfo(key, size, mtime_ns)

    async def remarks(self) -> list[str]:
        """What the cloud tells that it does behind our back."""
        return await self._sdk.run("remarks", "", self._remarks)

    async def aclose(self) -> None:
        await self._sdk.aclose()

    async def _page(self, prefix: str, token: str | None) -> Page:
        start, skip = self._prefix + prefix, len(self._prefix)

        def look(client: C) -> Page:
            found, following = self._list(client, start, token)
            return [ObjectInfo(name[skip:], size, mtime_ns) for name, size, mtime_ns in found], following

        return await self._sdk.run("list", prefix, look)

    def _name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _ours(self, name: str) -> bool:
        """Whether an object can be one of this bucket's."""
        return is_key(name[len(self._prefix) :])

    def _part(self, key: str, body: bytes, start: int, end: int | None) -> bytes:
        """What was answered to a range, as far as it can be true.  Raises RangeError, ContractBroken."""
        if not body and start:  # some servers answer so where there is nothing left
            raise RangeError(f"{self.url}: {key}: byte {start} is outside the object")
        if end is not None and len(body) > end - start:
            raise ContractBroken(
                f"{self.url}: {key}: asked for {end - start} bytes, answered with {len(body)}"
            )
        return body

    # --- in a worker thread ------------------------------------------------------------

    @abstractmethod
    def _connect(self) -> C:
        """Makes no request."""

    @abstractmethod
    def _close(self, client: C) -> None:
        """Gives its connections back."""

    @abstractmethod
    def _get(self, client: C, name: str, key: str, start: int, end: int | None) -> bytes: ...

    @abstractmethod
    def _put(self, client: C, name: str, data: bytes) -> None: ...

    @abstractmethod
    def _create(self, client: C, name: str, data: bytes) -> bool:
        """False where there is such an object."""

    @abstractmethod
    def _delete(self, client: C, name: str) -> None: ...

    @abstractmethod
    def _stat(self, client: C, name: str) -> tuple[int, int]:
        """Size in bytes, time of change in nanoseconds."""

    @abstractmethod
    def _list(self, client: C, start: str, token: str | None) -> Listed:
        """One page of the names that begin with ``start``; see ``_ours``."""

    @abstractmethod
    def _remarks(self, client: C) -> list[str]: ...

    # --- last, as its name is that of a type -------------------------------------------

    async def list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        return await every_page(self.url, lambda token: self._page(prefix, token))


def whole_seconds(changed: datetime) -> int:
    """Nanoseconds since 1970, for clouds that tell no more than the second."""
    return int(changed.timestamp()) * NS
