"""How much room a volume has: the finite and honest figures of statfs(2).

Owns the estimate.  Buckets that are directories here have a disk behind them, and the fullest of them limits
the volume; what a cloud would still take nobody knows, so it counts as one pebibyte.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from urllib.parse import unquote, urlsplit

import trio

from objfs.fs import Capacity
from objfs.model import Code
from objfs.ports import InodeTable

UNKNOWN = 2**50
INODES = 2**48
INTERVAL_S = 20.0


class Room:
    """Asked on the loop, refreshed in a thread: a directory may be on a network that hangs."""

    def __init__(self, code: Callable[[], Code], urls: Sequence[str], table: InodeTable) -> None:
        self._code = code
        self._table = table
        self._paths = [unquote(urlsplit(url).path) for url in urls if url.startswith("file:")]
        self._free = UNKNOWN
        self._limiter = trio.CapacityLimiter(1)

    def capacity(self) -> Capacity:
        inodes, used = self._table.count()
        return Capacity(used + self._free, self._free, self._free, INODES - inodes)

    async def run(self) -> None:
        """Refreshes the figure until cancelled."""
        while self._paths:
            self._free = await trio.to_thread.run_sync(
                self._measure, abandon_on_cancel=True, limiter=self._limiter
            )
            await trio.sleep(INTERVAL_S)

    def _measure(self) -> int:
        """Each bucket takes a k-th of what is written, so k times the least is what fits."""
        free = [found for path in self._paths if (found := _free_at(path)) is not None]
        return min(min(free) * self._code().k, UNKNOWN) if free else UNKNOWN


def _free_at(path: str) -> int | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
