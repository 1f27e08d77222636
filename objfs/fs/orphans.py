"""Inodes without a name: kept while somebody holds them, then purged in small batches.

Owns the queue of orphans that nobody uses any more and the task that purges them.  Promises that an
orphan in use stays whole, that a batch holds the event loop for about ``BATCH_SECONDS``, and that
what was left behind by a crash is found again at the next mount, because the table lists it.
Knows nothing of names or bytes.
"""

from __future__ import annotations

import logging
from collections import deque

import trio

from objfs.errors import ObjfsError, StaleHandle
from objfs.fs.handles import Handles
from objfs.fs.ports import Tables
from objfs.model import Ino
from objfs.ports import DOING, Clock, WriteGate

log = logging.getLogger(__name__)

BATCH_SECONDS = 0.01
GATHER_S = 0.1
"""How long orphans gather before they are purged: many in one transaction, and not between two requests of
whoever removes a tree."""
CHUNKS_PER_STEP = 256
_SCAN = 4096
RETRY_S = 1.0
"""Pause after a purge that failed: the local disk is full, or worse."""


class Orphans:
    """The orphans of one mount.  ``unlinked`` and ``unused`` are told by the namespace and the handles."""

    def __init__(self, table: Tables, gate: WriteGate, clock: Clock) -> None:
        self._table = table
        self._gate = gate
        self._clock = clock
        self._held: set[Ino] = set()
        self._queue: deque[Ino] = deque()
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._idle.set()

    def unlinked(self, ino: Ino, handles: Handles) -> None:
        """An inode lost its last name."""
        if handles.in_use(ino):
            self._held.add(ino)
        else:
            self._enqueue(ino)

    def unused(self, ino: Ino) -> None:
        """An inode lost its last user."""
        if ino in self._held:
            self._held.discard(ino)
            self._enqueue(ino)

    @property
    def waiting(self) -> int:
        """How many orphans wait to be purged; those still in use are not counted."""
        return len(self._queue)

    async def wait_idle(self) -> None:
        """Returns when no orphan waits."""
        await self._idle.wait()

    async def finish_truncates(self) -> None:
        """Completes truncations that a crash interrupted: files that still have a name.

        Must run before the mount serves anybody, else chunks beyond the size would come back to
        sight when the file grows.  True orphans are left to ``run``.
        """
        limit = _SCAN
        while True:
            found = self._table.orphans(limit)
            for ino in found:
                if self._table.get(ino).nlink > 0:
                    await self._finish(ino)
            if len(found) < limit:
                return
            limit *= 2

    async def run(self) -> None:
        """Purges until cancelled; starts with what earlier mounts left."""
        while True:
            if not self._refill():
                self._idle.set()
                self._wake = trio.Event()
                await self._wake.wait()
                await trio.sleep(GATHER_S)
            if not self._gate.open:
                return
            DOING.operation = "purge"
            try:
                self.purge_batch()
            except ObjfsError as error:
                log.error("purge failed, tried again in %.0f s: %s", RETRY_S, error)
                await trio.sleep(RETRY_S)
            await trio.lowlevel.checkpoint()

    def purge_batch(self) -> int:
        """Purges for at most about ``BATCH_SECONDS``; returns how many inodes are gone."""
        until = self._clock.monotonic() + BATCH_SECONDS
        gone = 0
        with self._table.transaction():
            while self._queue:
                if self._purge_step(self._queue[0]):
                    self._queue.popleft()
                    gone += 1
                if self._clock.monotonic() >= until:
                    break
        return gone

    async def release_all(self) -> None:
        """After the mount has ended: purges everything, as nobody can hold anything any more."""
        self._queue.extend(self._held)
        self._held.clear()
        try:
            while self._gate.open and self._refill():
                self.purge_batch()
                await trio.lowlevel.checkpoint()
        except ObjfsError as error:
            log.error("orphans are left for the next mount: %s", error)

    def _purge_step(self, ino: Ino) -> bool:
        try:
            return self._table.purge(ino, CHUNKS_PER_STEP)
        except StaleHandle:  # gone already: a truncate that ended, or an orphan of an earlier listing
            return True

    def _refill(self) -> bool:
        if not self._queue:
            listed = self._table.orphans(_SCAN + len(self._held))
            self._queue.extend(ino for ino in listed if ino not in self._held)
        return bool(self._queue)

    def _enqueue(self, ino: Ino) -> None:
        self._queue.append(ino)
        if self._idle.is_set():
            self._idle = trio.Event()
        self._wake.set()

    async def _finish(self, ino: Ino) -> None:
        log.info("finishing an interrupted truncate ino=%d", ino)
        while not self._table.purge(ino, CHUNKS_PER_STEP):
            await trio.lowlevel.checkpoint()
