"""The life of a mount between ``ready`` and the end: its state, signals, unmounting and draining.

Owns the states ``starting``, ``mounted``, ``unmounted`` (taken away, still draining) and ``stopping``, and
what moves between them.  Promises: the first SIGTERM or SIGINT unmounts and drains, a second stops at once; a
mount taken away from outside drains to its end by itself.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import trio

import objfs
from objfs.app import mountpoint
from objfs.app.engine import Engine
from objfs.app.gauges import bucket_status, cache_status, checkpoint_status, risk_status, snapshot_status
from objfs.app.recode import recode_status
from objfs.app.status import Status, judge, resident_bytes
from objfs.app.systemd import Notifier
from objfs.app.watch import LoopWatch
from objfs.errors import MountError, NotMounted
from objfs.volume.fields import JSON

log = logging.getLogger(__name__)

REMOUNTED = "remounted read-only; the volume stays held for writing by this mount"


class Life:
    """One mount as seen by signals, commands and the service manager."""

    def __init__(self, name: str, directory: Path, watch: LoopWatch, notifier: Notifier) -> None:
        self.name = name
        self.directory = directory
        self.state = "starting"
        self.outcome = ""
        """Why the end was not clean; empty when it was."""
        self.finished = trio.Event()
        self.killed = False
        self.remounted_read_only = False
        """Programs may not write any more, though this process may."""
        self._watch = watch
        self._notifier = notifier
        self._unmounts: list[trio.Event] = []
        """Set when the kernel has returned."""

    # --- states ------------------------------------------------------------------------

    def mounted(self) -> None:
        self.state = "mounted"
        self._notifier.ready(f"mounted at {self.directory}")
        log.info("mounted volume=%s directory=%s pid=%d", self.name, self.directory, os.getpid())

    def unmounted(self, left_bytes: int) -> None:
        self.state = "unmounted"
        self._notifier.stopping(f"unmounted, draining {left_bytes} bytes")
        log.info("unmounted volume=%s left_bytes=%d", self.name, left_bytes)

    def end(self, outcome: str) -> None:
        self.state, self.outcome = "stopping", outcome
        self.finished.set()
        log.info("ended volume=%s clean=%s %s", self.name, not outcome, outcome)

    # --- unmounting --------------------------------------------------------------------

    async def unmount(self, *, lazy: bool = False) -> None:
        """Takes the mount away; raises MountError when it is busy.  Nothing happens when it is gone."""
        if self.state != "mounted":
            return
        returned = trio.Event()
        self._unmounts.append(returned)
        try:
            await trio.to_thread.run_sync(lambda: mountpoint.unmount(self.directory, lazy=lazy))
        except NotMounted:
            log.info("unmounted from outside volume=%s", self.name)
        finally:
            returned.set()

    async def wait_unmounted(self) -> None:
        """Returns when no unmounting is under way: after the last request the kernel still forgets what it
        knew of, for seconds where that was much."""
        for returned in self._unmounts:
            await returned.wait()

    async def obey_signals(self, scope: trio.CancelScope) -> None:
        """Until cancelled.  The second signal cancels ``scope``: local state is safe as it is."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    continue
                if self.killed:
                    log.warning("second signal signal=%d: stopping without draining", number)
                    self.outcome = "stopped by a second signal; the rest is in the local state"
                    scope.cancel()
                    return
                self.killed = True
                log.info("signal=%d: unmounting and draining", number)
                await self._unmount_for_good()

    async def _unmount_for_good(self) -> None:
        try:
            await self.unmount()
        except MountError as error:
            log.warning("%s; unmounting lazily", error)
            await self.unmount(lazy=True)

    async def feed_watchdog(self) -> None:
        """Until cancelled, where the service manager asked for it."""
        await self._notifier.run()

    async def watch_loop(self) -> None:
        """Until cancelled: measures how long the event loop keeps everybody waiting."""
        await self._watch.run()

    # --- status ------------------------------------------------------------------------

    def status(self, engine: Engine, lost: Sequence[JSON]) -> Status:
        """The document for ``objfs status``; ``lost`` are chunks of files that cannot be read any more."""
        cache, lag = engine.cache.statistics(), self._watch.lag
        inodes, content = engine.table.count()
        buckets, risk, borne = bucket_status(engine), engine.table.at_risk(), engine.standing.borne
        return Status(
            volume=self.name,
            uuid=engine.header.volume.hex(),
            version=objfs.__version__,
            state=self.state,
            directory=str(self.directory),
            pid=os.getpid(),
            read_only=self.remounted_read_only or not engine.gate.open,
            reason=engine.reason or (REMOUNTED if self.remounted_read_only else ""),
            lease_lost=engine.lease_lost,
            epoch=engine.epoch,
            inodes=inodes,
            content_bytes=content,
            safe=engine.safe,
            dirty_bytes=engine.left_bytes,
            dirty_chunks=cache.dirty_chunks,
            oldest_dirty_s=cache.oldest_dirty_age_s,
            uploading_bytes=cache.uploading,
            upload_error=cache.last_error or "",
            lost=tuple(lost),
            checkpoint=checkpoint_status(engine),
            follow=engine.following.status() if engine.following is not None else {},
            redundancy=judge(
                engine.header.code, borne.buckets, buckets, (risk.segments, risk.shards), borne.domains
            ),
            at_risk=risk_status(engine, risk),
            buckets=buckets,
            cache=cache_status(engine),
            store=asdict(engine.volume.store.statistics()),
            loop={"longest_s": lag.longest_s, "operation": lag.operation, "over_50ms": lag.over_50ms},
            memory_bytes=resident_bytes(),
            snapshots=snapshot_status(engine),
            recode=recode_status(engine),
        )
