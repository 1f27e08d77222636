"""Opening a volume: the protocol between the state directory and the buckets at mount time.

Owns the order of the steps and the verdict about local state.  Promises that a table is handed out only when
it is that of the newest published moment or descends from it; that local state which another machine's
publishing overtook is set aside, never mixed in and never deleted while it may hold data; and that a
writing mount has the lease, with everything older fenced off.

The steps: header, labels, lease, newest manifest (settled by a fence unless the holder before left
cleanly), verdict, table.  The caller holds ``home.lock()``.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeAlias

import trio

from objfs.backends.base import Bucket
from objfs.cache.recovery import boot_id
from objfs.codec.identity import page_hash
from objfs.codec.keys import KeyRing
from objfs.errors import ForeignBucket, LeaseLost, Unclean
from objfs.meta.database import settle
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
from objfs.volume.manifest import Manifest
from objfs.volume.progress import (
    Progress,
    read_delta_pages,
    read_known_lease,
    read_progress,
    write_known_lease,
    write_progress,
)
from objfs.volume.published import Published, adopt, fence, read_newest
from objfs.volume.quorum import BucketSet
from objfs.volume.recover import audited, catch_up, rebuild_table, replay
from objfs.volume.shipping import Stack, read_stack
from objfs.volume.spread import refuse_changed, spread_header
from objfs.volume.table import data_slots, domains_of

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What local state is, compared with the newest manifest."""

    MISSING = "missing"
    """Nothing usable here: recover."""
    SAME = "same"
    """The replica stands for the newest moment: go on."""
    OWN = "own"
    """The newest moment is ours, published just before a crash: bring the replica forward, go on."""
    BEHIND = "behind"
    """Another machine published since: set aside, recover."""
    ROTTEN = "rotten"
    """Nothing was changed since the newest moment, and yet the table is another one: recover."""
    AHEAD = "ahead"
    """The buckets are older than what was published from here."""


def judge(progress: Progress | None, newest: Published) -> Verdict:
    """Compares contents, so that a fence over our own moment changes nothing.  Pure."""
    if progress is None:
        return Verdict.MISSING
    if newest.content == progress.published.content:
        return Verdict.SAME
    if progress.intent is not None and newest.content == progress.intent.content:
        return Verdict.OWN
    if newest.manifest.sequence <= progress.published.sequence:
        return Verdict.AHEAD
    return Verdict.BEHIND


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


def holds_nothing(home: VolumeHome) -> bool:
    """Whether nothing of the local contents can be anything that the buckets lack.  Raises Corrupt."""
    holds_data = home.cache_path.exists() and any(home.cache_path.iterdir())
    # Without checkpoint.json the table is what an interrupted recovery left.
    unfinished = read_progress(home) is None or not home.database_path.exists()
    return unfinished and not holds_data and not home.half_set_aside


RELEASE_S = 30.0
"""How long a failed opening tries to give the lease back."""

_Found: TypeAlias = tuple[Verdict, Moment, Replica, MetaDatabase, PageSet | None]


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
        self._salvage: Path | None = None
        self._unknown = ""
        """Features that only a newer program may write, where header or newest manifest has some."""

    async def run(self, found: Mapping[str, bytes], left_out: dict[Slot, str]) -> OpenVolume:
        lease = await self._take_lease()
        try:
            if lease is not None:
                await spread_header(self._buckets, self._ring, self._header, found)
                # The table of buckets may have changed since it was read: then others decide who writes.
                await refuse_changed(self._buckets, self._ring, self._header.generation + 1)
            verdict, moment, replica, meta, carried = await self._renewing(lease)
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
            moment,
            replica,
            meta,
            carried,
            verdict,
            self._salvage,
        )

    def _why_read_only(self) -> str:
        if not self._unknown:
            return "the volume is mounted read-only"
        return f"the volume has {self._unknown}, which only a newer objfs can write: it is mounted read-only"

    async def _renewing(self, lease: Lease | None) -> _Found:
        """The rest of the protocol, while the lease is renewed: a recovery may take long."""
        failure: BaseException | None = None
        found: _Found
        async with trio.open_nursery() as nursery:
            if lease is not None:
                nursery.start_soon(lease.run)
            try:
                newest = await self._newest(lease)
                found = await self._table(newest, writes=lease is not None and not self._unknown)
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not self._gate.open:
            found[3].close()
            found[2].close()
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
        self._judge(newest)  # a history that is older than ours must not be fenced before a person decides
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

    # --- local state -----------------------------------------------------------------------

    async def _table(self, newest: Published, *, writes: bool) -> _Found:
        verdict = self._judge(newest)
        if verdict is Verdict.SAME and not await self._is_sound(newest.manifest):
            verdict = Verdict.ROTTEN
        # The mark of what has rotted goes with it: until then a crash must not make changes of the damage.
        clean = verdict is Verdict.ROTTEN or await trio.to_thread.run_sync(self._home.take_clean)
        self._home.remove_followed()
        log.info(
            "local state verdict=%s clean=%s sequence=%d", verdict.value, clean, newest.manifest.sequence
        )
        if verdict not in (Verdict.SAME, Verdict.OWN):
            # Such a mark means that the buckets had everything; where they went back they do not.
            copied = clean or self._home.is_mirror()
            await self._clear(copied and verdict is not Verdict.AHEAD)
        with ExitStack() as undo:
            replica = self._open_replica(newest.manifest)
            undo.callback(replica.close)
            if verdict in (Verdict.SAME, Verdict.OWN):
                stack = await self._agree(replica, newest, verdict)
                carried = None if clean and verdict is Verdict.SAME else await self._differences(replica)
                meta = MetaDatabase.open(self._home.database_path, boot_id=self._options.boot)
            else:
                stack, meta = await self._recover(newest.manifest, replica)
                carried = None
            undo.callback(meta.close)
            moment = Moment.of(newest, stack)
            await trio.to_thread.run_sync(write_progress, self._home, Progress(moment.mark))
            if writes:
                await trio.to_thread.run_sync(self._home.clear_mirror)
            else:
                await self._mirror(changed=carried is not None and len(carried.pages) > 0)
            undo.pop_all()
        return verdict, moment, replica, meta, carried

    async def _is_sound(self, manifest: Manifest) -> bool:
        """Whether a table that ended clean still is, byte for byte, what was published: what the disk has
        changed since must not be served, and not be shipped with the next change of its page."""

        def compare() -> bool:
            if not self._home.clean_path.exists():
                return True
            with self._open_replica(manifest) as replica:
                if replica.digest != manifest.digest:
                    return True  # nothing to compare with; the replica is fetched again
                try:
                    return replica.is_image_of(self._home.database_path)
                except Unclean:
                    return True

        if await trio.to_thread.run_sync(compare):
            return True
        told = (
            f"{self._home.database_path} is not what it was when the volume was unmounted: the disk has "
            "damaged it, and the inode table is recovered from the buckets"
        )
        log.error("%s", told)
        self._tell(told)
        return False

    async def _mirror(self, *, changed: bool) -> None:
        """A mount that reads leaves the local state as it is: is it all in the buckets?"""
        if not changed:
            await trio.to_thread.run_sync(self._home.mark_mirror)
        elif self._options.follow and not self._home.is_mirror():
            raise Unclean(
                f"{self._home.path} holds changes that are not in the buckets, and following would throw "
                "them away: mount the volume for writing first, and unmount it"
            )

    async def _recover(self, manifest: Manifest, replica: Replica) -> tuple[Stack, MetaDatabase]:
        self._tell(f"recovering {manifest.page_count} pages of the inode table")
        stack = await replay(self._store, manifest, replica)
        path, boot = self._home.database_path, self._options.boot
        table = await rebuild_table(self._store, manifest, replica, path, boot)
        return stack, await audited(table, manifest)

    def _judge(self, newest: Published) -> Verdict:
        progress = read_progress(self._home)
        if progress is not None and not self._home.database_path.exists():
            progress = None
        verdict = judge(progress, newest)
        if verdict is Verdict.AHEAD and not self._options.force:
            assert progress is not None
            raise Unclean(
                f"the buckets' newest moment is {newest.manifest.sequence}, but "
                f"{progress.published.sequence} was published from here; bring the missing buckets back, "
                "or use --force to go on from theirs"
            )
        return verdict

    def _open_replica(self, manifest: Manifest) -> Replica:
        key = self._ring.get(manifest.digest_key)
        return Replica(self._home.replica_path, lambda number, image: page_hash(key, number, image))

    async def _agree(self, replica: Replica, newest: Published, verdict: Verdict) -> Stack:
        """Makes sure that the replica is the newest moment's, whatever a crash left of it."""
        manifest = newest.manifest
        if verdict is Verdict.SAME and replica.digest == manifest.digest:
            agrees = True
        else:
            agrees = await catch_up(self._store, manifest, replica)
        if not agrees:
            log.warning("replica differs from manifest %d: fetched again", manifest.sequence)
            await trio.to_thread.run_sync(replica.clear)
            return await replay(self._store, manifest, replica)
        return await read_stack(self._store, manifest, read_delta_pages(self._home))

    async def _differences(self, replica: Replica) -> PageSet:
        """Pages that the table has beyond the replica."""
        self._tell("comparing the inode table with its last checkpoint")
        await trio.to_thread.run_sync(settle, self._home.database_path)
        return await trio.to_thread.run_sync(replica.diff, self._home.database_path)

    async def _clear(self, worthless: bool) -> None:
        """Makes room for a recovery; what may hold data that was never uploaded is kept."""
        home = self._home
        if (worthless and not home.half_set_aside) or holds_nothing(home):
            await trio.to_thread.run_sync(home.remove_contents)
            return
        stamp = f"{self._clock.now_ns() // 1_000_000_000}"
        self._salvage = await trio.to_thread.run_sync(self._home.set_aside, stamp)
        told = (
            f"local state is not part of what the buckets hold and is kept at {self._salvage}: "
            "files written here and never uploaded are only there; objfs salvage copies them"
        )
        log.error("%s", told)
        self._tell(told)
