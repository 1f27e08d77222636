"""Every request ends in time.

Owns the limit of one request.  Promises TimedOut after that many seconds without an answer, and,
of a listing, without another page.  Relies on the backend to abandon its thread when cancelled.
"""

from __future__ import annotations

from typing import TypeVar

import trio

from objfs.backends.base import Bucket, Request, on_progress
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import TimedOut

T = TypeVar("T")


class TimeoutBucket(Wrapper):
    """Raises TimedOut where ``inner`` does not answer within ``seconds``."""

    def __init__(self, inner: Bucket, seconds: float) -> None:
        super().__init__(inner)
        self._seconds = seconds

    async def around(self, request: Request, call: Call[T]) -> T:
        with trio.move_on_after(self._seconds) as scope:
            if request.operation == "list":
                on_progress(lambda: self._restart(scope))
            return await call()
        what = f"{request.operation} {request.key or 'everything'}"
        raise TimedOut(f"{self.url}: no answer to {what} within {self._seconds:g} s")

    def _restart(self, scope: trio.CancelScope) -> None:
        scope.deadline = trio.current_time() + self._seconds
