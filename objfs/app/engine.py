"""The object graph of one open volume: from buckets to a file system, without the kernel.

Owns the wiring, the services that run while it is open, and the drain at the end.  Promises that what is
started here is closed here, in reverse order; and that local state which holds data not yet in the
buckets keeps the lease, so that no other machine goes on without them by accident.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from objfs.app.browse import NoBarrier, Showing
from objfs.app.buckets import OpenBucket, opened
from objfs.app.clock import SystemClock, VolumeClock
from objfs.app.cloning import Cloner
from objfs.app.compaction import make_compactor
from objfs.app.exchange import Exchange
from objfs.app.follow import Following
from objfs.app.footprint import Footprint, log_limit
from objfs.app.losses import Losses
from objfs.app.options import MountOptions
from objfs.app.promises import Promises
from objfs.app.restoring import Restorer
from objfs.app.room import Room
from objfs.app.safety import MutationGate, Safety
from objfs.app.schedule import Schedule, policy_of
from objfs.app.standing import Standing
from objfs.app.upkeep import Upkeep
from objfs.cache import CacheSettings, ChunkCache, GroupSync
from objfs.errors import LeaseLost, NoSuchSnapshot, NotDirectory, NotFound, ObjfsError, ReadOnly, UsageError
from objfs.fs import FileSystem, FsSettings
from objfs.fuse.operations import Operations
from objfs.meta import SCHEMA_VERSION
from objfs.model import ROOT, Ino, Segment
from objfs.ports import Clock, InodeTable, WriteGate
from objfs.store.store import StoreSettings
from objfs.volume.bygone import BygoneStore
from objfs.volume.checkpoint import Checkpointer, Parts
from objfs.volume.compact import Compactor
from objfs.volume.debts import Debts
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.heal import make_healer
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions, OpenVolume, open_volume
from objfs.volume.readers import PinHolder, new_pin
from objfs.volume.reaper import Reaper, Retention
from objfs.volume.recode import Recoder
from objfs.volume.settings import VolumeSettings
from objfs.volume.snapshots import SnapshotKeeper
from objfs.volume.spread import refresh_headers
from objfs.volume.strays import StrayReaper
from objfs.volume.trash import Trash

log = logging.getLogger(__name__)

RETRY_FIRST_S = 1.0
RETRY_MOST_S = 60.0
RELEASE_S = 10.0
STOP_S = 30.0
"""For so long the end of a mount waits for a segment that is being rewritten."""
HEADERS_S = 600.0
"""Between two looks at the headers: one request a bucket."""


@dataclass(frozen=True, slots=True)
class Order:
    """Which volume, opened by which secret, and how."""

    home: VolumeHome
    secret: Secret
    options: MountOptions


class Engine:
    """An open volume.  ``run`` in a nursery; ``finish`` when nobody uses ``fs`` any more."""

    def __init__(
        self,
        volume: OpenVolume,
        settings: VolumeSettings,
        options: MountOptions,
        opened_buckets: dict[bytes, OpenBucket],
        clock: Clock,
    ) -> None:
        self.volume = volume
        self.settings = settings
        self.gate: WriteGate = volume.gate
        self.table = volume.meta
        self.opened_buckets = opened_buckets
        self.read_only = volume.lease is None
        self._asked_to_read = options.read_only
        self.outcome = ""
        self.clean = False
        self.clock = clock
        self.opened_at = clock.monotonic()
        self._volume_clock = VolumeClock(clock, volume.moment.manifest.wall_ns)
        self._log_sync = GroupSync(volume.meta.sync_log, volume.gate, lambda: volume.meta.changes)
        self._footprint = Footprint(volume.home, volume.meta, settings.cache_size)
        self._bygone = BygoneStore(volume) if self.read_only else None
        self.cache = self._make_cache()
        volume.meta.on_damage(volume.gate.close)
        self.losses = Losses(volume.meta)
        self.cache.on_loss(self.losses.note)
        self.reaper = self._make_reaper()
        self.compactor = self._make_compactor()
        self.pin = self._make_pin()
        self._mutations = MutationGate(volume.gate)
        self.safety = Safety(self._mutations, self.reaper)
        self.checkpointer = self._make_checkpointer()
        self.snapshots = SnapshotKeeper(
            volume.meta, self.cache, self._mutations, self._volume_clock, self.flush
        )
        self.trash = Trash(
            volume.meta, self.snapshots, self._mutations, self._volume_clock, settings.trash_days
        )
        self.healer = make_healer(volume, self.checkpointer, self.reaper, clock, settings.heal_rate)
        self.recoder = self._make_recoder()
        self.schedule = Schedule(self.snapshots, policy_of(settings), self._volume_clock)
        self.writeback = options.writeback
        self.room = Room(
            lambda: self.header.code, [item.url for item in opened_buckets.values()], volume.meta
        )
        self.promises = Promises(volume.buckets, writes=not self.read_only)
        self._showing = Showing(self.table, self.cache, self.gate, clock, self.room.capacity)
        self.standing = Standing(lambda: self.table.path, lambda: self.header, self._blobs)
        self.fs = self._make_fs(options)
        self.snapshot_dir = options.snapshot_dir
        self.exchange = Exchange(
            volume.meta, self.cache, self.fs, self._mutations, clock, self._log_sync.sync
        )
        self.restorer = Restorer(self.exchange)
        self.cloner = Cloner(self.exchange)
        self.following = self._make_following() if options.follow else None
        self.operations = self._make_operations(options)
        self._upkeep = self._make_upkeep()
        self._mutations.on_many = self._upkeep.look

    @property
    def header(self) -> VolumeHeader:
        """As it is now: its table of buckets may change."""
        return self.volume.header

    # --- wiring ------------------------------------------------------------------------

    def _make_cache(self) -> ChunkCache:
        volume = self.volume
        return ChunkCache(
            volume.home.cache_path,
            self.header.chunk_size,
            volume.meta,
            self._log_sync,
            self._bygone or volume.store,
            CacheSettings(
                cache_bytes=self.settings.cache_size,
                reserve_bytes=self.settings.cache_reserve,
                full_timeout_s=self.settings.full_timeout,
            ),
            volume.gate,
            self.clock,
            extra=self._footprint.bytes,
        )

    def _make_reaper(self) -> Reaper | None:
        volume, settings = self.volume, self.settings
        if volume.lease is None:
            return None
        retention = Retention(settings.recovery_window, settings.recovery_keep, settings.delete_grace)
        reaper = Reaper(
            volume.meta,
            volume.buckets,
            volume.ring,
            volume.lease,
            self._volume_clock,
            retention,
            Debts(volume.home, self._volume_clock),
            StrayReaper(
                volume.store, volume.meta.strays, volume.lease, self._volume_clock, retention.grace_s
            ),
        )
        reaper.resume(volume.moment.manifest)
        return reaper

    def _make_compactor(self) -> Compactor | None:
        if self.reaper is None:
            return None
        return make_compactor(self.volume, self.cache, self.reaper, self.settings, self.clock)

    def _make_pin(self) -> PinHolder | None:
        """None too where the volume has features that forbid this version to write anything."""
        volume = self.volume
        if not self.read_only or volume.newer_features:
            return None
        return PinHolder(volume.buckets, volume.ring, new_pin(volume.moment.manifest.sequence))

    def _make_checkpointer(self) -> Checkpointer | None:
        volume, reaper = self.volume, self.reaper
        if volume.lease is None or reaper is None:
            return None
        parts = Parts(
            pages=volume.meta.log,
            replica=volume.replica,
            cache=self.cache,
            store=volume.store,
            buckets=volume.buckets,
            ring=volume.ring,
            lease=volume.lease,
            home=volume.home,
            gate=volume.gate,
            clock=self._volume_clock,
            sync=self._log_sync.sync,
            schema=SCHEMA_VERSION,
        )
        return Checkpointer(
            parts,
            start=volume.moment,
            interval_s=self.settings.checkpoint_interval,
            carried=volume.carried,
            condemn=self.safety.at_cut,
            note=self.safety.at_publish,
        )

    def _make_recoder(self) -> Recoder | None:
        if self.checkpointer is None or self.compactor is None:
            return None
        return Recoder(
            self.volume, self.checkpointer, self.compactor, self.compactor.terms, lambda: self.standing.look()
        )

    def _make_operations(self, options: MountOptions) -> Operations:
        browsing = None if options.snapshot else self._showing.browsing(options)
        return Operations(self.fs, writeback=options.writeback, acl=options.acl, browsing=browsing)

    def _make_fs(self, options: MountOptions) -> FileSystem:
        if options.snapshot:
            past = self.table.at(self.table.snapshot(os.fsencode(options.snapshot)))
            return self._showing.past(past, find_root(past, options.subdir))
        settings = FsSettings(
            chunk_size=self.header.chunk_size,
            read_only=self.read_only,
            fsync="bucket" if self.settings.fsync == "bucket" else "local",
            atime=options.atime,
            diratime=options.diratime,
            root=find_root(self.table, options.subdir),
        )
        barrier = self.checkpointer or NoBarrier()
        return FileSystem(
            self.table,
            self.cache,
            settings,
            self._mutations,
            self.clock,
            barrier,
            self.room.capacity,
            removing=self.trash.removing if self.trash.days else None,
        )

    def _make_following(self) -> Following:
        return Following(self.volume, self.fs, self.pin, self.clock, self.settings.follow_interval)

    def _make_upkeep(self) -> Upkeep:
        limit = log_limit(self.settings.cache_size)
        self.table.limit_log(limit)
        pages = self.table.log
        return Upkeep(pages, limit, self._footprint, self.cache, self.reaper, self.checkpointer)

    # --- running -----------------------------------------------------------------------

    async def recover(self) -> None:
        """Before anybody is served: what the last mount left is taken up."""
        report = self.cache.recover()
        log.info("cache recovered %s", report)
        self.snapshots.recover()
        await self.fs.recover()
        if not self.read_only:
            # What is shown from here on must not depend on rows that a power cut may take.
            await self._log_sync.sync()
        self.safety.opened(clean=not self.changed)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """All background work, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.cache.run)
            nursery.start_soon(self.fs.run)
            nursery.start_soon(self.room.run)
            nursery.start_soon(self.snapshots.run)
            if self.checkpointer is not None and self.volume.lease is not None:
                nursery.start_soon(self.checkpointer.run)
                nursery.start_soon(self.volume.lease.run)
                nursery.start_soon(self._renew_headers)
                nursery.start_soon(self.trash.run)
            if self.healer is not None:
                nursery.start_soon(self.healer.run)
            if self.pin is not None:
                nursery.start_soon(self.pin.run)
            if self.compactor is not None:
                nursery.start_soon(self.compactor.run)
            if self.recoder is not None:
                nursery.start_soon(self.recoder.run)
            nursery.start_soon(self._upkeep.run)
            nursery.start_soon(self.promises.run)
            nursery.start_soon(self.standing.run)
            nursery.start_soon(self.losses.run)
            task_status.started()

    def _blobs(self) -> list[Segment]:
        """Those of the newest moment that is known here."""
        moment = self.checkpointer.moment if self.checkpointer is not None else None
        return [blob.segment for blob in (moment or self.volume.moment).manifest.blobs]

    async def _renew_headers(self) -> None:
        """Until cancelled, or until the volume is another machine's."""
        while self.gate.open:
            await trio.sleep(HEADERS_S)
            if self.gate.open:
                await refresh_headers(self.volume.buckets, self.volume.ring)

    def require_writing(self, done: str) -> None:
        """Raises ReadOnly, with what cannot be ``done`` here."""
        if self.read_only:
            raise ReadOnly(f"this mount is read-only: nothing can be {done} in it")

    @property
    def epoch(self) -> int:
        return self.volume.lease.epoch if self.volume.lease is not None else 0

    @property
    def lease_lost(self) -> bool:
        """Another machine has the volume: what has not left yet never will."""
        return self.volume.lease is not None and self.volume.lease.lost

    @property
    def reason(self) -> str:
        """Why nothing can be written; empty where it can, or where nobody asked for it.  Also why what a
        mount that only reads shows is not kept any more."""
        if self._bygone is not None and self._bygone.gone:
            return self._bygone.gone
        return "" if self._asked_to_read else self.gate.reason or ""

    @property
    def safe(self) -> bool:
        """Everything that was acknowledged is recoverable from the buckets."""
        return self.read_only or self.safety.safe

    @property
    def changed(self) -> bool:
        """Whether there is anything left to ship, be it only where chunks were stored."""
        return self.checkpointer is not None and self.checkpointer.changed

    @property
    def left_bytes(self) -> int:
        """Bytes of content that still have to leave."""
        return self.cache.statistics().dirty_bytes

    async def flush(self) -> None:
        """Returns when all that was written before is recoverable from the buckets; see Checkpointer."""
        if self.checkpointer is not None:
            await self.checkpointer.flush()

    async def catch_up(self) -> None:
        """Returns when a mount that follows shows the newest moment there is; see Following."""
        if self.following is not None:
            await self.following.catch_up()

    async def flush_if_possible(self) -> None:
        """One try; what fails is tried again by ``finish``."""
        try:
            await self.flush()
        except ObjfsError as error:
            log.warning("flush before unmounting failed: %s", error)

    async def finish(self) -> None:
        """Drains to the end, however long the buckets take; gives up only when the gate is closed, which is
        an end with an ``outcome`` where that leaves something behind."""
        await self.fs.aclose()
        if self.compactor is not None:
            with trio.move_on_after(STOP_S):
                await self.compactor.stop()
        delay = RETRY_FIRST_S
        while self.changed:
            try:
                await self.flush()
            except (LeaseLost, ReadOnly) as error:
                if not self.safe:
                    self.outcome = f"what is not in the buckets is left in the local state: {error}"
                return
            except ObjfsError as error:
                log.warning("drain failed, tried again in %.0f s: %s", delay, error)
                await trio.sleep(delay)
                delay = min(2 * delay, RETRY_MOST_S)
        self.clean = True

    async def close(self) -> None:
        """Gives everything back.  Without a clean end a lease that is ours stays, for the next mount here."""
        await self._ship_the_rest()
        self.cache.close()
        if self.following is not None:
            self.following.close()
        if self.pin is not None:
            await self.pin.remove()
        settled = self.checkpointer is None or self.checkpointer.settled
        with trio.move_on_after(RELEASE_S) as scope:
            scope.shield = True
            nothing_left = self.clean or not self.changed
            if nothing_left or self.lease_lost:
                await self.volume.close(clean=nothing_left, settled=settled)
                return
        log.warning("closed with data left in the local state; the lease stays with this machine")
        self.volume.meta.close()
        self.volume.replica.close()

    async def _ship_the_rest(self) -> None:
        """What background work still changed while it was stopped, after ``finish`` had shipped everything: a
        table that ended clean is what was published, byte for byte."""
        if not (self.clean and self.changed):
            return
        with trio.move_on_after(RELEASE_S) as scope:
            scope.shield = True
            await self.flush_if_possible()
        self.clean = not self.changed


def find_root(table: InodeTable, subdir: str) -> Ino:
    """The directory that a mount shows as its root.  Raises UsageError."""
    ino = ROOT
    for name in filter(None, subdir.split("/")):
        try:
            attr = table.lookup(ino, name.encode("utf-8", "surrogateescape"))
        except (NotFound, NotDirectory):
            raise UsageError(f"the volume has no directory {subdir}") from None
        if not attr.is_dir:
            raise UsageError(f"{subdir} is not a directory of the volume")
        ino = attr.ino
    return ino


async def _give_back(volume: OpenVolume) -> None:
    """A volume that was opened and is not used, because the mount asked for what it does not have."""
    if volume.carried is None:
        await volume.close(clean=True, settled=True)
        return
    # What is not in the buckets keeps the lease, as in ``Engine.close``.
    volume.meta.close()
    volume.replica.close()


@asynccontextmanager
async def opened_engine(order: Order, note: Callable[[str], None]) -> AsyncIterator[Engine]:
    """Opens the volume, recovers what the last mount left, and closes everything at the end."""
    config = order.home.read_config()
    settings = VolumeSettings.read({**config.settings.changed(), **order.options.settings})
    clock = SystemClock()
    async with opened(config.buckets, settings) as buckets:
        wanted = OpenOptions(
            read_only=order.options.read_only,
            follow=order.options.follow,
            take_over=order.options.take_over,
            force=order.options.force,
            lease_interval_s=settings.lease_interval,
            min_placed=settings.min_placed,
            store=StoreSettings(hedge=settings.hedge / 100),
        )
        plain = {uuid: item.bucket for uuid, item in buckets.items()}
        volume = await open_volume(order.home, order.secret, plain, clock=clock, options=wanted, note=note)
        try:
            engine = Engine(volume, settings, order.options, buckets, clock)
        except (UsageError, NoSuchSnapshot):
            await _give_back(volume)
            raise
        try:
            await engine.recover()
            yield engine
        finally:
            await engine.close()
