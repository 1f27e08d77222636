"""A bucket that could not show its label yet: used once it has.

Owns the wrapper for buckets that do not answer while the volume is mounted.  Promises that nothing else is
asked of such a bucket before its label was read and is the right one; a wrong one is refused for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from objfs.backends.base import Bucket, Request
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import CodecError, ForeignBucket, NoSuchObject, Refused
from objfs.store import layout

log = logging.getLogger(__name__)

T = TypeVar("T")

Check = Callable[[bytes], None]
"""Given the label's bytes, raises CodecError or ForeignBucket unless it is the right one."""


class GuardedBucket(Wrapper):
    """Reads the label before the first other request."""

    def __init__(self, inner: Bucket, check: Check) -> None:
        super().__init__(inner)
        self._check: Check | None = check
        self._refusal: str | None = None

    @property
    def identified(self) -> bool:
        """Whether the label was read and is the right one."""
        return self._check is None

    async def around(self, request: Request, call: Call[T]) -> T:
        if self._refusal is not None:
            raise Refused(self._refusal)
        if self._check is not None:
            await self._verify(self._check)
        return await call()

    async def _verify(self, check: Check) -> None:
        try:
            check(await self.inner.get(layout.LABEL))
        except (CodecError, ForeignBucket, NoSuchObject) as error:
            self._refusal = f"{self.url} is not used: {error}"
            log.error("bucket refused bucket=%s: %s", self.url, error)
            raise Refused(self._refusal) from error
        if self._check is not None:
            log.info("bucket identified bucket=%s", self.url)
        self._check = None
