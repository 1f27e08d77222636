"""A bound on the bytes that background work moves.

Owns the time at which the next bytes may move.  Promises an average of at most so many bytes a second, and
that whoever is first goes at once.  One for each kind of work: who shares it shares the rate.
"""

from __future__ import annotations

import trio


class Rate:
    """``bytes_per_s`` 0 is without limit.  ``spent`` counts all bytes that were let through."""

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = float("-inf")
        self.spent = 0

    async def spend(self, nbytes: int) -> None:
        """Returns when so many bytes may move."""
        self.spent += nbytes
        if self._bytes_per_s <= 0:
            await trio.lowlevel.checkpoint()
            return
        start = max(self._free_at, trio.current_time())
        self._free_at = start + nbytes / self._bytes_per_s
        await trio.sleep_until(start)
