"""One moment of a volume, read without mounting it and without the lease.

Owns the way from buckets and a secret to rows and bytes of the newest moment, in a directory of its own.
Promises that nothing of the local state is used or changed, so that it runs beside a mount, here or
elsewhere, and that the moment is pinned while it is read.  Does not know what is read, nor why.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.backends.base import Bucket
from objfs.cache.recovery import boot_id
from objfs.codec.identity import page_hash
from objfs.codec.keys import KeyRing
from objfs.errors import Unclean
from objfs.fs import Tables
from objfs.meta.replica import Replica
from objfs.meta.table import MetaDatabase
from objfs.model import Slot
from objfs.ports import Clock, WriteGate
from objfs.store.store import SegmentStore
from objfs.volume.attach import identified, read_volume
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.manifest import Manifest
from objfs.volume.published import Published, read_newest
from objfs.volume.quorum import BucketSet
from objfs.volume.readers import PinHolder, new_pin
from objfs.volume.recover import rebuild_table, replay

log = logging.getLogger(__name__)

PREFIX = "visit-"


@dataclass(frozen=True, slots=True)
class Visit:
    """What is there to be read.  ``table`` may be used in one thread at a time; ``left_out`` says why buckets
    are not used."""

    header: VolumeHeader
    ring: KeyRing
    buckets: BucketSet
    left_out: dict[Slot, str]
    store: SegmentStore
    published: Published
    table: MetaDatabase

    def newest(self) -> Source:
        """The moment that the volume stands at."""
        manifest = self.published.manifest
        return Source(self.table, self.table.chunk_size, self.store, self.ring, manifest.wall_ns)

    def at(self, snapshot: bytes) -> Source:
        """A named moment.  Raises NoSuchSnapshot."""
        found = self.table.snapshot(snapshot)
        tree = self.table.at(found)
        return Source(tree, self.table.chunk_size, self.store, self.ring, found.created_ns)


@dataclass(frozen=True, slots=True)
class Source:
    """The tree of one moment and where its bytes are.  ``moment_ns`` is when that was, for people."""

    table: Tables
    chunk_size: int
    store: SegmentStore
    ring: KeyRing
    moment_ns: int


@asynccontextmanager
async def visited(
    raw: Mapping[bytes, Bucket], secret: Secret, place: Path, clock: Clock, note: Callable[[str], None]
) -> AsyncIterator[Visit]:
    """The newest moment of the volume in the buckets ``raw`` (by uuid), for the body.

    Needs room for two inode tables below ``place``.  Raises NoSuchVolume, WrongPassphrase, NoQuorum, Unclean
    (no moment yet), Corrupt, NewerFormat, errors of buckets and of the disk.
    """
    header, ring = await read_volume({bucket.url: bucket for bucket in raw.values()}, secret)
    buckets, left_out = await identified(header, ring, raw)
    newest = await read_newest(buckets, ring)
    if newest is None:
        raise Unclean("the volume has no checkpoint: its mkfs was never finished; make it again")
    gate = WriteGate()
    gate.close("the volume is only read")
    store = SegmentStore(buckets.buckets, ring, header.code, clock=clock, gate=gate)
    async with _pinned(header, buckets, ring, newest.manifest):
        note(f"reading {newest.manifest.page_count} pages of the inode table")
        with scratch(place) as directory:
            table = await _table(store, ring, newest.manifest, directory)
            try:
                yield Visit(header, ring, buckets, left_out, store, newest, table)
            finally:
                table.close()


@asynccontextmanager
async def _pinned(
    header: VolumeHeader, buckets: BucketSet, ring: KeyRing, manifest: Manifest
) -> AsyncIterator[None]:
    """Holds the moment for the body; not where a newer objfs alone may write anything."""
    if header.features.read_only or manifest.features.read_only:
        yield
        return
    pin = PinHolder(buckets, ring, new_pin(manifest.sequence))
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pin.run)
            try:
                yield
            except Exception as error:  # raised again outside, as itself and not in a group
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        await pin.remove()
    if failure is not None:
        raise failure


async def _table(store: SegmentStore, ring: KeyRing, manifest: Manifest, directory: Path) -> MetaDatabase:
    key = ring.get(manifest.digest_key)
    with Replica(directory / "pages", lambda number, image: page_hash(key, number, image)) as replica:
        await replay(store, manifest, replica)
        return await rebuild_table(store, manifest, replica, directory / "meta.db", boot_id())


@contextmanager
def scratch(place: Path) -> Iterator[Path]:
    """A directory of mode 0700 for the body, locked; what killed processes left there is removed first."""
    for old in place.glob(f"{PREFIX}*"):
        _remove_unused(old)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place) as made:
        descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(made)
        finally:
            os.close(descriptor)


def _remove_unused(directory: Path) -> None:
    with suppress(OSError):  # it is in use, or somebody else's
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory)
        finally:
            os.close(descriptor)
