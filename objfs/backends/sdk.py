"""Requests through a cloud's SDK, which blocks: made in threads, for every kind of bucket alike.

Owns one bucket's threads and its client.  The client, which takes a while to make, is made at the first
request.  Promises that a cancelled request is answered at once, its thread abandoned to the SDK's own time
limits, and that nothing but the errors of objfs comes out of a request.  Knows no cloud.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import trio

from objfs.backends.base import ObjectInfo, progress
from objfs.errors import BucketError, ContractBroken, ObjfsError

C = TypeVar("C")
T = TypeVar("T")

THREADS = 16
"""Worker threads and connections of one bucket, those that wait for a dead server included."""

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
"""Seconds without a byte after which a thread that was given up ends."""

Translate = Callable[[Exception, str], BucketError]
"""From what an SDK raised, and the words that name bucket, operation and object, to an error of ours."""

Page: TypeAlias = tuple[list[ObjectInfo], str | None]
"""A part of a listing, and what to ask for the next part with; None where there is no more."""


class Sdk(Generic[C]):
    """``connect`` makes the client and ``close`` gives its connections back, both in a thread."""

    def __init__(
        self, url: str, connect: Callable[[], C], close: Callable[[C], None], translate: Translate
    ) -> None:
        self._url = url
        self._connect = connect
        self._close = close
        self._translate = translate
        self._threads = trio.CapacityLimiter(THREADS)
        self._client: C | None = None
        self._connecting = trio.Lock()

    async def run(self, operation: str, key: str, work: Callable[[C], T]) -> T:
        """What ``work`` answers, asked in a thread.  Raises BucketError and its kind."""
        client = await self._connected()
        where = f"{self._url}: {operation} {key}"
        return await trio.to_thread.run_sync(
            self._work, where, work, client, abandon_on_cancel=True, limiter=self._threads
        )

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await trio.to_thread.run_sync(self._close, client, limiter=self._threads)

    async def _connected(self) -> C:
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await trio.to_thread.run_sync(
                        self._connect, abandon_on_cancel=True, limiter=self._threads
                    )
        return self._client

    def _work(self, where: str, work: Callable[[C], T], client: C) -> T:
        try:
            return work(client)
        except ObjfsError:
            raise
        except Exception as failure:  # also whatever a parser trips over in an answer that makes no sense
            raise self._translate(failure, where) from failure


async def every_page(url: str, ask: Callable[[str | None], Awaitable[Page]]) -> list[ObjectInfo]:
    """A whole listing, sorted by key.  ContractBroken where the server does not go on with it."""
    found: list[ObjectInfo] = []
    token: str | None = None
    while True:
        page, following = await ask(token)
        found += page
        if following is None:
            return sorted(found, key=lambda info: info.key)
        if following in ("", token):
            raise ContractBroken(f"{url}: the server does not go on with a listing of many pages")
        token = following
        progress()
