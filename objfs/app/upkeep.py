"""What an open volume does now and then besides serving: bound the log, delete what nothing needs.

Owns the intervals.  Promises that an idle mount makes no request here.
"""

from __future__ import annotations

import logging

import trio

from objfs.errors import ObjfsError
from objfs.meta import WAL_SOFT_LIMIT, PageLog
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.reaper import Reaper

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 1.0
REAP_INTERVAL_S = 60.0


class Upkeep:
    """The services of one mount; without a checkpointer only the log is looked after."""

    def __init__(self, pages: PageLog, reaper: Reaper | None, checkpointer: Checkpointer | None) -> None:
        self._pages = pages
        self._reaper = reaper
        self._checkpointer = checkpointer

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bound_log)
            if self._reaper is not None and self._checkpointer is not None:
                nursery.start_soon(self._reap, self._reaper, self._checkpointer)

    async def _bound_log(self) -> None:
        """Checkpoints shorten the log; while buckets do not answer, this does."""
        while True:
            await trio.sleep(LOG_INTERVAL_S)
            if self._pages.size <= WAL_SOFT_LIMIT:
                continue
            done = await trio.to_thread.run_sync(self._pages.backfill)
            if not done.complete:
                self._pages.restart()

    async def _reap(self, reaper: Reaper, checkpointer: Checkpointer) -> None:
        seen = checkpointer.statistics().checkpoints
        while True:
            await trio.sleep(REAP_INTERVAL_S)
            made = checkpointer.statistics().checkpoints
            if made == seen:
                continue
            seen = made
            try:
                reaped = await reaper.round()
            except ObjfsError as error:
                log.warning("reaping failed: %s", error)
            else:
                log.info("reaped %s", reaped)
