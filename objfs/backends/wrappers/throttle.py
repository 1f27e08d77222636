"""No more than so many bytes a second, both directions together.

Owns the pace of one bucket: bytes to be sent wait beforehand, bytes received are paid for by the
requests after.
"""

from __future__ import annotations

from typing import TypeVar

import trio

from objfs.backends.base import Bucket, Request
from objfs.backends.wrappers.wrapper import Call, Wrapper

T = TypeVar("T")

BURST_S = 1.0
"""A line that was idle may send this many seconds' worth at once."""


class ThrottleBucket(Wrapper):
    """Keeps the average of bytes sent and received under ``bytes_per_s``."""

    def __init__(self, inner: Bucket, bytes_per_s: float) -> None:
        super().__init__(inner)
        self._rate = bytes_per_s
        self._free_at = -BURST_S  # when everything taken so far would have passed at the given rate

    async def around(self, request: Request, call: Call[T]) -> T:
        await self._take(request.size)
        answer = await call()
        if isinstance(answer, bytes):
            self._book(len(answer))
        return answer

    async def _take(self, size: int) -> None:
        wait_until = self._free_at
        self._book(size)
        if wait_until <= trio.current_time():
            return
        try:
            await trio.sleep_until(wait_until)
        except trio.Cancelled:
            self._free_at -= size / self._rate
            raise

    def _book(self, size: int) -> None:
        self._free_at = max(self._free_at, trio.current_time() - BURST_S) + size / self._rate
