"""Opening a volume: the protocol between the state directory and the buckets at mount time.

Owns the order of the steps.  Promises that a writing mount has the lease, with everything older fenced off,
before local state is touched.  What becomes of that is ``reconcile``'s.

The steps: header, labels, lease, newest manifest (settled by a fence unless the holder before left
cleanly), verdict, table.  The caller holds ``home.lock()``.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.backends.base import Bucket
from objfs.cache.recovery import boot_id
from objfs.codec.keys import KeyRing
from objfs.errors import ForeignBucket, LeaseLost, Unclean
from objfs.meta.pages import PageSet
from objfs.meta.replica import Replica
from objfs.meta.table import MetaDatabase
from objfs.model import Slot
from objfs.ports import Clock, WriteGate
from objfs.store.store import SegmentStore, StoreSettings
from objfs.volume.attach import find_headers, identified
from objfs.volume.checkpoint import Moment
from objfs.volume.epochs import Holder
from objfs.volume.features import Features
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.header import newest as newest_header
from objfs.volume.lease import Claim, Lease, acquire
from objfs.volume.local import VolumeHome
from objfs.volume.progress import (
    read_known_lease,
    write_known_lease,
)
from objfs.volume.published import Published, adopt, fence, read_newest
from objfs.volume.quorum import BucketSet
from objfs.volume.reconcile import Reconciled, Reconciliation, Verdict
from objfs.volume.spread import refuse_changed, spread_header
from objfs.volume.table import data_slots, domains_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a mount wants the volume.  ``follow`` needs local state without changes of its own.  ``take_over``
    waits for a silent holder to be proven dead, ``force`` waits for nobody and accepts less than a
    majority and an older moment.  ``min_placed`` is the store's."""

    read_only: bool = False
    follow: bool = False
    take_over: bool = False
    force: bool = False
    lease_interval_s: float = 60.0
    min_placed: int = 0
    store: StoreSettings = field(default_factory=StoreSettings)
    host: str = field(default_factory=socket.gethostname)
    boot: bytes = field(default_factory=boot_id)


@dataclass(slots=True)
class OpenVolume:
    """A volume ready for cache, checkpointer and file system.

    ``carried`` are pages in which the table differs from the replica already.  ``salvage`` is where local
    state was set aside; ``left_out`` says why buckets are not used.  ``lease`` is None where the mount only
    reads (the gate is closed then, and says why).
    """

    home: VolumeHome
    header: VolumeHeader
    ring: KeyRing
    buckets: BucketSet
    left_out: dict[Slot, str]
    store: SegmentStore
    gate: WriteGate
    lease: Lease | None
    moment: Moment
    replica: Replica
    meta: MetaDatabase
    carried: PageSet | None
    verdict: Verdict
    salvage: Path | None

    @property
    def newer_features(self) -> bool:
        """Whether header or moment has features that forbid this program to write anything."""
        return self.header.features.read_only or self.moment.manifest.features.read_only

    async def close(self, *, clean: bool, settled: bool) -> None:
        """Gives lease and files back, after everything that uses them has stopped.

        ``clean``: all of the table is in the last manifest.  ``settled``: no manifest is under way.
        """
        if self.lease is not None:
            await self.lease.release(settled=settled)
        self.meta.close()
        self.replica.close()
        if clean and self.gate.open:
            try:
                await trio.to_thread.run_sync(self.home.mark_clean)
            except OSError as error:
                log.error("no mark of a clean end, the next mount has more to compare: %s", error)


async def open_volume(
    home: VolumeHome,
    secret: Secret,
    buckets: Mapping[bytes, Bucket],
    *,
    clock: Clock,
    options: OpenOptions | None = None,
    note: Callable[[str], None] | None = None,
) -> OpenVolume:
    """Opens a volume that ``volume.toml`` describes; ``buckets`` are those of it, by uuid.

    Raises WrongPassphrase, HeldElsewhere, NoQuorum, ForeignBucket, NewerFormat, Unclean, Corrupt and errors
    of buckets and store.  ``note`` is told in a few words what takes long.
    """
    order = options or OpenOptions()
    tell = note or (lambda _text: None)
    found = await find_headers({bucket.url: bucket for bucket in buckets.values()})
    header, ring = await trio.to_thread.run_sync(newest_header, found, secret)
    config = home.read_config()
    if header.volume != config.volume:
        raise ForeignBucket(f"the buckets hold volume {header.volume.hex()}, not the {home.name} known here")
    voting, left_out = await identified(header, ring, buckets)
    gate = WriteGate()
    opening = _Opening(home, header, ring, voting, gate, clock, order, tell)
    return await opening.run(found, left_out)


RELEASE_S = 30.0
"""How long a failed opening tries to give the lease back."""


def _left_settled(lease: Lease) -> bool:
    """Whether no manifest of the holder before can still be under way."""
    before = lease.previous
    return before is None or (before.released and before.settled)


class _Opening:
    """One run of the protocol."""

    def __init__(
        self,
        home: VolumeHome,
        header: VolumeHeader,
        ring: KeyRing,
        buckets: BucketSet,
        gate: WriteGate,
        clock: Clock,
        options: OpenOptions,
        tell: Callable[[str], None],
    ) -> None:
        self._home = home
        self._header = header
        self._ring = ring
        self._buckets = buckets
        self._gate = gate
        self._clock = clock
        self._options = options
        self._tell = tell
        self._store = SegmentStore(
            buckets.buckets,
            ring,
            header.code,
            clock=clock,
            min_placed=options.min_placed,
            gate=gate,
            settings=options.store,
        )
        self._store.use_buckets(buckets.buckets, data_slots(header.buckets), domains_of(header.buckets))
        self._local = Reconciliation(
            home,
            ring,
            self._store,
            clock,
            boot=options.boot,
            force=options.force,
            follow=options.follow,
            tell=tell,
        )
        self._unknown = ""
        """Features that only a newer program may write, where header or newest manifest has some."""

    async def run(self, found: Mapping[str, bytes], left_out: dict[Slot, str]) -> OpenVolume:
        lease = await self._take_lease()
        try:
            if lease is not None:
                await spread_header(self._buckets, self._ring, self._header, found)
                # The table of buckets may have changed since it was read: then others decide who writes.
                await refuse_changed(self._buckets, self._ring, self._header.generation + 1)
            local = await self._renewing(lease)
            if lease is not None and self._unknown:
                await lease.release(settled=_left_settled(lease))
                lease = None
        except BaseException:
            if lease is not None:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
                    await lease.release(settled=False)
            raise
        if lease is None:
            self._gate.close(self._why_read_only())
        return OpenVolume(
            self._home,
            self._header,
            self._ring,
            self._buckets,
            left_out,
            self._store,
            self._gate,
            lease,
            local.moment,
            local.replica,
            local.meta,
            local.carried,
            local.verdict,
            self._local.salvage,
        )

    def _why_read_only(self) -> str:
        if not self._unknown:
            return "the volume is mounted read-only"
        return f"the volume has {self._unknown}, which only a newer objfs can write: it is mounted read-only"

    async def _renewing(self, lease: Lease | None) -> Reconciled:
        """The rest of the protocol, while the lease is renewed: a recovery may take long."""
        failure: BaseException | None = None
        found: Reconciled
        async with trio.open_nursery() as nursery:
            if lease is not None:
                nursery.start_soon(lease.run)
            try:
                newest = await self._newest(lease)
                writes = lease is not None and not self._unknown
                found = await self._local.reconcile(newest, writes=writes)
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not self._gate.open:
            found.meta.close()
            found.replica.close()
            raise LeaseLost(str(self._gate.reason))
        return found

    # --- buckets ---------------------------------------------------------------------------

    async def _take_lease(self) -> Lease | None:
        if self._options.read_only:
            return None
        if self._header.features.read_only:
            self._only_read(self._header.features)
            return None
        state = self._home.read_state() or self._home.new_state(self._header.volume)
        if state.volume != self._header.volume:
            raise Unclean(f"{self._home.state_path} belongs to volume {state.volume.hex()}; remove it")
        claim = Claim(
            Holder(state.state_id, self._options.host, os.getpid()),
            self._options.lease_interval_s,
            read_known_lease(self._home),
            self._options.take_over,
            self._options.force,
        )
        if claim.take_over:
            self._tell("waiting for the holder of the lease to be silent long enough")
        return await acquire(
            self._buckets,
            self._ring,
            claim,
            self._gate,
            self._clock,
            lambda known: write_known_lease(self._home, known),
        )

    async def _newest(self, lease: Lease | None) -> Published:
        """What to go on from, with everything older fenced off."""
        force = self._options.force
        newest = await read_newest(self._buckets, self._ring, force=force)
        if newest is None:
            raise Unclean("the volume has no checkpoint: its mkfs was never finished; make it again")
        self._local.judge(
            newest
        )  # a history that is older than ours must not be fenced before a person decides
        if lease is None:
            return newest
        if newest.manifest.features.read_only:
            self._only_read(newest.manifest.features)
            return newest
        if _left_settled(lease):
            if await adopt(self._buckets, self._ring, newest):
                return newest
            log.warning("manifest %d has a rival", newest.manifest.sequence)
        bar = await fence(self._buckets, self._ring, lease, self._clock, force=force)
        if bar is None:
            raise Unclean("the newest manifest went away while the volume was opened; try again")
        return bar

    def _only_read(self, features: Features) -> None:
        self._unknown = features.unknown
        log.warning("%s", self._why_read_only())
        self._tell(self._why_read_only())
