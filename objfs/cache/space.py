"""Room: who may put how many bytes into the cache, and who waits.

Owns the caps (bytes, entries, the host's reserve) and the queue of writers.  Promises: first come,
first served; a writer that is let in finds its room as long as it does not ``await`` before writing;
eviction of clean bytes never waits; when nothing is left to upload nobody waits.
Knows no table and no store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

from objfs.cache.entry import BLOCK
from objfs.cache.settings import MIB, CacheSettings
from objfs.cache.shelf import Shelf
from objfs.errors import NoSpace
from objfs.ports import WriteGate

_CHECK_BYTES = 16 * MIB
_POLL_S = 1.0


class _Turn:
    """One waiting writer."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        self.woken = trio.Event()


class Space:
    """Admission to the cache.  ``extra`` are bytes that others keep on the same budget."""

    def __init__(
        self, shelf: Shelf, settings: CacheSettings, gate: WriteGate, extra: Callable[[], int] | None
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._gate = gate
        self._extra = extra if extra is not None else lambda: 0
        self._queue: deque[_Turn] = deque()
        self._unchecked = 0
        self._check_every = 0
        self._let_in = float("-inf")
        """When a writer that had to wait was let in last."""
        self.in_flight = 0
        """Bytes of segments on their way."""
        # Kept free for what uploads will take, so that starting one never breaks the cap.
        self._headroom = min(settings.uploads * settings.segment_bytes, settings.cache_bytes // 2)
        self.on_pressure: Callable[[], None] = lambda: None
        shelf.on_room = self.wake

    @property
    def used(self) -> int:
        """Bytes that count against the cap."""
        return self._shelf.held_bytes + max(self.in_flight, self._headroom) + self._extra()

    @property
    def waiting(self) -> int:
        """Writers in the queue: above 0 means that uploads are wanted."""
        return len(self._queue)

    def wake(self) -> None:
        """Room may have come free: the first in the queue looks again."""
        if self._queue:
            self._queue[0].woken.set()

    async def admit(self, nbytes: int) -> None:
        """Returns when ``nbytes`` may be written; at once, without a checkpoint, while there is room.

        Raises NoSpace when waiting cannot help or ``full_timeout_s`` is over, ReadOnly when the
        mount may not change the volume any more.
        """
        need = -(-nbytes // BLOCK) * BLOCK + BLOCK
        if self._queue or not self._make_room(need):
            await self._wait(need)

    async def _wait(self, need: int) -> None:
        turn = _Turn()
        self._queue.append(turn)
        limit = self._settings.full_timeout_s
        patience, began = float("inf") if limit is None else limit, trio.current_time()
        try:
            with trio.move_on_after(patience) as scope:
                while not (self._queue[0] is turn and self._make_room(need)):
                    self._gate.check()
                    self.on_pressure()
                    await self._sleep(turn)
                    scope.deadline = max(began, self._let_in) + patience
                self._let_in = trio.current_time()
                return
            raise NoSpace(f"the cache is full and nothing could be uploaded for {limit} s: check the buckets")
        finally:
            self._queue.remove(turn)
            self.wake()

    async def _sleep(self, turn: _Turn) -> None:
        # The poll is for room that nobody announces: the host's disk, the log of the inode table.
        with trio.move_on_after(_POLL_S):
            await turn.woken.wait()
        turn.woken = trio.Event()

    def room_for(self, nbytes: int) -> bool:
        """Whether clean bytes may be added, after eviction of older ones; never waits."""
        need = nbytes + 2 * BLOCK
        short = max(0, self.used + need - self._settings.cache_bytes)
        spare = self._settings.max_entries - len(self._shelf.entries)
        if short or spare < 1:
            self._shelf.evict(short, 1 - spare)
        fits = self.used + need <= self._settings.cache_bytes
        return fits and len(self._shelf.entries) < self._settings.max_entries and self._reserve_kept(need)

    def _make_room(self, need: int) -> bool:
        shelf, settings = self._shelf, self._settings
        short = max(0, self.used + need - settings.cache_bytes)
        spare = settings.max_entries - len(shelf.entries)
        if short or spare < 1:
            shelf.evict(short, 1 - spare)
        if not shelf.unplaced and not self.in_flight:
            # Nothing can be uploaded to make room: one write goes in, or nobody ever would.
            return self._reserve_or_raise(need)
        if self.used + need > settings.cache_bytes or len(shelf.entries) >= settings.max_entries:
            return False
        return self._reserve_kept(need)

    def _reserve_or_raise(self, need: int) -> bool:
        if not self._reserve_kept(need):
            raise NoSpace(
                f"the host's file system below {self._shelf.files.directory} has less than the reserve of"
                f" {self._settings.reserve_bytes} bytes free: free some space or lower reserve_bytes"
            )
        return True

    def _reserve_kept(self, need: int) -> bool:
        """Asks the file system once per so many admitted bytes, more often when it gets tight."""
        reserve = self._settings.reserve_bytes
        self._unchecked += need
        if not reserve or self._unchecked < self._check_every:
            return True
        free = self._shelf.files.free_bytes()
        while free - need < reserve and self._shelf.evict(reserve + need - free):
            free = self._shelf.files.free_bytes()
        if free - need < reserve:
            self._check_every = 0
            return False
        self._unchecked = 0
        self._check_every = min(_CHECK_BYTES, (free - need - reserve) // 4)
        return True
