"""A rescue: a scan of the buckets, and what becomes of it: files in a directory, or the newest moment.

Owns the order, and the one checkpoint of a table that was made from nothing: all pages as a base, and a
manifest under a number above every one that any bucket lists.  Promises that it is put only under the lease,
and never over a moment that can be recovered: then nothing has to be rescued.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from objfs.backends.base import Bucket
from objfs.cache.recovery import boot_id
from objfs.codec.identity import page_hash
from objfs.codec.keys import KeyRing
from objfs.errors import CodecError, ForeignBucket, StoreError, Unclean
from objfs.meta import PAGE_SIZE, SCHEMA_VERSION
from objfs.meta.replica import Replica
from objfs.model import Ino
from objfs.ports import Clock, WriteGate
from objfs.store.store import SegmentStore
from objfs.volume import manifest as manifests
from objfs.volume.attach import identified, read_volume
from objfs.volume.checkpoint import Moment
from objfs.volume.epochs import Holder
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.lease import Claim, Lease, acquire
from objfs.volume.local import VolumeHome
from objfs.volume.manifest import NO_HASH, Manifest
from objfs.volume.progress import Progress, read_known_lease, write_known_lease, write_progress
from objfs.volume.published import Published, list_sequences, publish, read_newest
from objfs.volume.quorum import BucketSet
from objfs.volume.recover import replay
from objfs.volume.recover_scan import Scanned, build_table, copy_out, scan
from objfs.volume.shipping import Stack, ship_pages
from objfs.volume.table import data_slots, domains_of

log = logging.getLogger(__name__)

RELEASE_S = 30.0


@dataclass(frozen=True, slots=True)
class RescueOptions:
    """As those of a mount."""

    host: str
    take_over: bool = False
    force: bool = False
    lease_interval_s: float = 60.0
    boot: bytes = field(default_factory=boot_id)


class Rescue:
    """One volume whose checkpoints are gone; its state directory is locked by the caller."""

    def __init__(
        self,
        home: VolumeHome,
        header: VolumeHeader,
        ring: KeyRing,
        buckets: BucketSet,
        clock: Clock,
        options: RescueOptions,
    ) -> None:
        self._home = home
        self._header = header
        self._ring = ring
        self._buckets = buckets
        self._clock = clock
        self._options = options
        self._gate = WriteGate()
        self._store = SegmentStore(buckets.buckets, ring, header.code, clock=clock, gate=self._gate)
        self._store.use_buckets(buckets.buckets, data_slots(header.buckets), domains_of(header.buckets))

    @classmethod
    async def open(
        cls,
        home: VolumeHome,
        secret: Secret,
        raw: Mapping[bytes, Bucket],
        clock: Clock,
        options: RescueOptions,
    ) -> Rescue:
        """Raises NoSuchVolume, WrongPassphrase, ForeignBucket and errors of buckets."""
        header, ring = await read_volume({bucket.url: bucket for bucket in raw.values()}, secret)
        if header.volume != home.read_config().volume:
            raise ForeignBucket(
                f"the buckets hold volume {header.volume.hex()}, not the {home.name} known here"
            )
        buckets, _left_out = await identified(header, ring, raw)
        return cls(home, header, ring, buckets, clock, options)

    async def scan(self, note: Callable[[str], None]) -> Scanned:
        """Reads what all segments say of themselves."""
        return await scan(self._buckets, self._store, self._header.chunk_size, note)

    async def copy_out(self, found: Scanned, directory: Path) -> dict[Ino, list[str]]:
        """See ``recover_scan.copy_out``."""
        return await copy_out(found, self._store, directory)

    # --- publishing --------------------------------------------------------------------

    async def publish(self, found: Scanned) -> int:
        """Makes what was found the volume's newest moment, and the local state; returns its sequence.

        Raises Unclean where a moment opens, or local state is in the way; HeldElsewhere, NoQuorum, LeaseLost
        and errors of the store.
        """
        before = await self._before()
        sequence = await self._next_sequence()
        await trio.to_thread.run_sync(self._make_room)
        lease = await self._lease()
        settled = False
        try:
            settled = await self._publish(found, lease, sequence, before)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
                await lease.release(settled=settled)
        return sequence

    def _make_room(self) -> None:
        """Raises Unclean where a local table knows more than any scan."""
        home = self._home
        if home.database_path.exists():
            raise Unclean(
                f"{home.database_path} is an inode table of this volume: objfs fsck --repair goes on from "
                "it; or move it away"
            )
        if home.cache_path.exists() and any(home.cache_path.iterdir()):
            home.set_aside(f"{self._clock.now_ns() // 1_000_000_000}")

    async def _before(self) -> Published | None:
        """The newest manifest that opens.  Raises Unclean where its moment can be recovered."""
        newest = await read_newest(self._buckets, self._ring, force=True)
        if newest is not None and await self._recoverable(newest.manifest):
            raise Unclean(
                f"moment {newest.manifest.sequence} of the volume can be recovered: mount it (--force goes "
                "back to it where a newer one does not open); it has the names, which a scan has not"
            )
        return newest

    async def _recoverable(self, manifest: Manifest) -> bool:
        key = self._ring.get(manifest.digest_key)
        with self._home.scratch("recover") as place:
            hasher = partial(page_hash, key)
            with Replica(place / "pages", hasher) as replica:
                try:
                    await replay(self._store, manifest, replica)
                except (CodecError, StoreError) as error:
                    log.info("moment not recoverable sequence=%d: %s", manifest.sequence, error)
                    return False
        return True

    async def _next_sequence(self) -> int:
        """Above all that any bucket lists."""
        listed = await list_sequences(self._buckets)
        return 1 + max((number for numbers in listed.values() for number in numbers), default=0)

    async def _lease(self) -> Lease:
        home, options = self._home, self._options
        state = home.read_state() or home.new_state(self._header.volume)
        claim = Claim(
            Holder(state.state_id, options.host, os.getpid()),
            options.lease_interval_s,
            read_known_lease(home),
            options.take_over,
            options.force,
        )
        return await acquire(
            self._buckets,
            self._ring,
            claim,
            self._gate,
            self._clock,
            lambda known: write_known_lease(home, known),
        )

    async def _publish(self, found: Scanned, lease: Lease, sequence: int, before: Published | None) -> bool:
        """While the lease is renewed; what a failure leaves here is removed again."""
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lease.run)
            try:
                await self._put(found, lease, sequence, before)
            except Exception as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            await trio.to_thread.run_sync(self._home.remove_contents)
            raise failure
        return True

    async def _put(self, found: Scanned, lease: Lease, sequence: int, before: Published | None) -> None:
        home, now_ns, key = self._home, self._clock.now_ns(), self._ring.current

        def build() -> None:
            boot = self._options.boot
            build_table(found, home.database_path, self._header.volume, key.key_id, now_ns, boot)

        await trio.to_thread.run_sync(build)
        with Replica(home.replica_path, lambda number, page: page_hash(key, number, page)) as replica:
            await trio.to_thread.run_sync(replica.clear)
            pages = await trio.to_thread.run_sync(replica.diff, home.database_path)
            stack = await ship_pages(
                self._store, Stack(), pages.pages, pages.page_count, PAGE_SIZE, pages.pages.__getitem__
            )
            manifest = Manifest(
                volume=self._header.volume,
                epoch=lease.epoch,
                sequence=sequence,
                previous=before.hash if before is not None else NO_HASH,
                state_id=lease.record.holder.state_id,
                wall_ns=max(now_ns, before.manifest.wall_ns if before is not None else 0),
                page_size=PAGE_SIZE,
                page_count=pages.page_count,
                digest=await trio.to_thread.run_sync(replica.digest_with, pages),
                base=stack.base,
                schema=SCHEMA_VERSION,
                digest_key=key.key_id,
            )
            data = manifests.encode(manifest, self._ring)
            await lease.check()
            await publish(self._buckets, self._ring, lease, manifest, data)
            await trio.to_thread.run_sync(replica.apply, pages)
        moment = Moment.of(Published(manifest, data, ()), stack)
        await trio.to_thread.run_sync(write_progress, home, Progress(moment.mark))
        await trio.to_thread.run_sync(home.mark_clean)
        log.info("rescued moment published sequence=%d files=%d", sequence, len(found.files))
