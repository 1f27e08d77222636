"""What an open volume does now and then besides serving: bound the log, delete what nothing needs.

Owns the intervals.  Promises that an idle mount makes no request here once what nothing needs is gone.
"""

from __future__ import annotations

import logging

import trio

from objfs.app.footprint import Footprint
from objfs.cache import ChunkCache
from objfs.errors import ObjfsError
from objfs.meta import PageLog
from objfs.meta.wal import REST_FRAMES
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.reaper import Reaper

log = logging.getLogger(__name__)

DISK_INTERVAL_S = 1.0
LOG_ROUNDS = 6
"""How often the log is moved in a row; each round has only what was written during the one before."""
REAP_INTERVAL_S = 60.0


class Upkeep:
    """The services of one mount; without a checkpointer nothing grows and the local disk is only measured.
    ``log_limit`` is the size in bytes from which on the log is shortened."""

    def __init__(
        self,
        pages: PageLog,
        log_limit: int,
        footprint: Footprint,
        cache: ChunkCache,
        reaper: Reaper | None,
        checkpointer: Checkpointer | None,
    ) -> None:
        self._pages = pages
        self._log_limit = log_limit
        self._wake = trio.Event()
        self._footprint = footprint
        self._cache = cache
        self._reaper = reaper
        self._checkpointer = checkpointer

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bound_disk)
            if self._reaper is not None and self._checkpointer is not None:
                nursery.start_soon(self._reap, self._reaper, self._checkpointer)

    def look(self) -> None:
        """Much was written: the local disk is looked at now and not at the next interval."""
        self._wake.set()

    async def _bound_disk(self) -> None:
        """Checkpoints shorten the log; while buckets do not answer, or more is written than they take, this
        does.  What the table takes, the cache gives up."""
        while True:
            self._wake = trio.Event()
            with trio.move_on_after(DISK_INTERVAL_S):
                await self._wake.wait()
            if self._checkpointer is not None and self._pages.size > self._log_limit:
                try:
                    await self._shorten_log()
                except (ObjfsError, OSError) as error:
                    log.error("the log of the inode table cannot be shortened: %s", error)
            self._footprint.refresh()
            self._cache.trim()

    async def _shorten_log(self) -> None:
        """Under steady writing no backfill reaches the end: when the rest is short the loop moves it."""
        for turn in range(LOG_ROUNDS):
            await trio.to_thread.run_sync(self._pages.backfill)
            if self._pages.restart(REST_FRAMES << turn):
                return

    async def _reap(self, reaper: Reaper, checkpointer: Checkpointer) -> None:
        seen = checkpointer.statistics().checkpoints
        while True:
            await trio.sleep(REAP_INTERVAL_S)
            made = checkpointer.statistics().checkpoints
            if made == seen and not reaper.due:
                continue
            seen = made
            try:
                reaped = await reaper.round()
            except ObjfsError as error:
                log.warning("reaping failed: %s", error)
            else:
                log.info("reaped %s", reaped)
