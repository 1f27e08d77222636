"""A read-only mount that goes on to newer moments: when it looks, and how the change reaches the kernel.

Owns the task and its order: a table for the newest moment is made beside the one in use, compared with it,
put in its place in one step of the loop, and then the kernel is told what to forget.  Promises that every
request sees one moment as a whole, that the kernel is told sooner or later whatever fails, and that a look
that fails leaves what is shown as it is.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing
from typing import Protocol

import trio

from objfs.errors import NotMounted, ObjfsError
from objfs.fs import FileSystem
from objfs.meta import MetaDatabase
from objfs.meta.compare import Comparison
from objfs.ports import Clock
from objfs.volume.fields import JSON
from objfs.volume.follow import Follower
from objfs.volume.open import OpenVolume
from objfs.volume.published import Published
from objfs.volume.readers import PinHolder

log = logging.getLogger(__name__)

TELL_AGAIN_S = 1.0
"""Until the kernel is told again what it could not be told."""


class Kernel(Protocol):
    """Who remembers what it was told of the tree: ``fuse.Session``."""

    async def forget(self, changes: Comparison) -> None: ...


class Following:
    """One per mount that follows.  ``run`` while requests are answered; ``close`` before the volume is."""

    def __init__(
        self, volume: OpenVolume, fs: FileSystem, pin: PinHolder | None, clock: Clock, interval_s: float
    ) -> None:
        self._volume = volume
        self._follower = Follower(volume)
        self._fs = fs
        self._pin = pin
        self._clock = clock
        self._interval_s = interval_s
        self._wake = trio.Event()
        self._round_over = trio.Event()
        self._begun = 0
        self._ended = 0
        self._over = False
        self._shown = 0
        self._looked = clock.monotonic()
        self._error: ObjfsError | OSError | None = None

    # --- looking -----------------------------------------------------------------------

    async def run(self, kernel: Kernel) -> None:
        """Looks each interval, and when somebody asks, until cancelled."""
        try:
            while True:
                with trio.move_on_after(self._interval_s):
                    await self._wake.wait()
                self._wake = trio.Event()
                await self._round(kernel)
        finally:
            self._over = True
            self._round_over.set()

    async def catch_up(self) -> None:
        """Returns when the moment that is newest now is shown.  Raises what stands in the way."""
        wanted = self._begun + 1
        while self._ended < wanted:
            if self._over:
                raise NotMounted("the mount ends: it shows nothing newer")
            self._wake.set()
            await self._round_over.wait()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Gives the former moment's table back."""
        self._follower.close()

    def status(self) -> dict[str, JSON]:
        """When it last looked (seconds ago), how many moments it went on to, and what failed last."""
        return {
            "interval_s": self._interval_s,
            "looked_s": self._clock.monotonic() - self._looked,
            "moments": self._shown,
            "last_error": "" if self._error is None else str(self._error),
        }

    async def _round(self, kernel: Kernel) -> None:
        self._begun += 1
        try:
            await self._advance(kernel)
            self._error = None
        except (ObjfsError, OSError) as error:
            log.warning("the mount stays at its moment: %s", error)
            self._error = error
        finally:
            self._ended = self._begun
            self._round_over.set()
            self._round_over = trio.Event()

    # --- going on ----------------------------------------------------------------------

    async def _advance(self, kernel: Kernel) -> None:
        newest = await self._follower.look()
        self._looked = self._clock.monotonic()
        if newest is None:
            return
        table = await self._follower.build(newest)
        if table is None:
            self._follower.adopt(newest, None)
        else:
            await self._show(newest, table, kernel)
            self._shown += 1
        log.info("moment shown sequence=%d", newest.manifest.sequence)
        # The former one was pinned until here: it was being read.
        if self._pin is not None:
            await self._pin.move(newest.manifest.sequence)

    async def _show(self, newest: Published, table: MetaDatabase, kernel: Kernel) -> None:
        with ExitStack() as undo:
            undo.callback(table.close)
            changes = await trio.to_thread.run_sync(Comparison, self._volume.meta.path, table.path)
            with closing(changes):
                # What is known by now is compared before the step, so that the kernel hears of it soon after.
                await trio.to_thread.run_sync(changes.note, self._fs.known())
                self._follower.adopt(newest, table)
                undo.pop_all()
                await self._tell(kernel, changes)

    async def _tell(self, kernel: Kernel, changes: Comparison) -> None:
        """Until it worked: whatever the kernel remembers is of the former moment."""
        while True:
            try:
                await trio.to_thread.run_sync(changes.note, self._fs.known())
                await kernel.forget(changes)
                return
            except (ObjfsError, OSError) as error:
                log.error("the kernel could not be told what changed, it is tried again: %s", error)
                self._error = error
            await trio.sleep(TELL_AGAIN_S)
