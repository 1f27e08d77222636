"""Tries again what may work the next time.

Owns the number of tries, the waiting between them, and what a retry means for put-if-absent,
whose first try may have won although its answer was lost.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import TypeVar

import trio

from objfs.backends.base import Bucket, Request
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import NoSuchObject, ObjectExists, Temporary

log = logging.getLogger(__name__)

T = TypeVar("T")
Jitter = Callable[[float, float], float]

BASE_S = 0.1
CAP_S = 5.0


class RetryBucket(Wrapper):
    """Repeats a request that ended in a Temporary error up to ``retries`` times.

    Waits a random time of up to 0.1 s, 0.2 s, 0.4 s ... 5 s before each (full jitter: callers who
    failed together do not come back together).  No try begins later than ``total_s`` seconds
    after the first.  The last error is raised as it is.
    """

    def __init__(self, inner: Bucket, retries: int, total_s: float, jitter: Jitter = random.uniform) -> None:
        super().__init__(inner)
        self._retries = retries
        self._total_s = total_s
        self._jitter = jitter

    async def around(self, request: Request, call: Call[T]) -> T:
        deadline = trio.current_time() + self._total_s
        for attempt in range(self._retries):
            try:
                return await call()
            except Temporary as failure:
                delay = self._jitter(0.0, min(CAP_S, BASE_S * 2**attempt))
                if trio.current_time() + delay > deadline:
                    raise
                self._tell(request, attempt, delay, failure)
                await trio.sleep(delay)
        return await call()

    async def put_if_absent(self, key: str, data: bytes) -> None:
        """After a try of unknown outcome, an object that holds our bytes is our own."""
        tries = 0

        async def put() -> None:
            nonlocal tries
            tries += 1
            await self.inner.put_if_absent(key, data)

        try:
            await self.around(Request("put_if_absent", key, len(data)), put)
        except ObjectExists:
            if tries == 1 or not await self._holds(key, data):
                raise

    async def _holds(self, key: str, data: bytes) -> bool:
        try:
            return await self.get(key) == data
        except NoSuchObject:
            return False

    def _tell(self, request: Request, attempt: int, delay: float, failure: Temporary) -> None:
        log.info(
            "bucket request repeated bucket=%s operation=%s key=%s try=%d wait_s=%.2f error=%s: %s",
            self.url,
            request.operation,
            request.key,
            attempt + 2,
            delay,
            type(failure).__name__,
            failure,
        )
