"""So many requests at a time, in the order they came.

Owns the count of one bucket's requests.  A request that is cancelled gives its place back at
once, also when its thread hangs on.
"""

from __future__ import annotations

import math
from typing import TypeVar

import trio

from objfs.backends.base import Bucket, Request
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import TimedOut

T = TypeVar("T")


class ConcurrencyBucket(Wrapper):
    """At most ``connections`` requests at once; TimedOut for one that waited ``patience_s``."""

    def __init__(self, inner: Bucket, connections: int, patience_s: float = math.inf) -> None:
        super().__init__(inner)
        self._places = trio.Semaphore(connections, max_value=connections)
        self._patience_s = patience_s

    async def around(self, request: Request, call: Call[T]) -> T:
        await self._enter(request)
        try:
            return await call()
        finally:
            self._places.release()

    async def _enter(self, request: Request) -> None:
        with trio.move_on_after(self._patience_s):
            await self._places.acquire()
            return
        what = f"{request.operation} {request.key or 'everything'}"
        raise TimedOut(f"{self.url}: {what} found no free connection within {self._patience_s:g} s")
