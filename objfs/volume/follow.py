"""From one published moment to the next, for a mount that only reads.

Owns the look for newer manifests and the making of a table for the newest.  Promises that a table is handed
out whole or not at all, that the one in use stays open until the one after the next is begun, and that the
local state on the disk keeps saying what it said when the mount began: the replica may run ahead of it, which
every later mount notices by its digest.  Does not know who reads, nor when to look.
"""

from __future__ import annotations

import logging

import trio

from objfs.backends.base import Bucket
from objfs.cache.recovery import boot_id
from objfs.errors import BucketError, NoQuorum
from objfs.meta.table import MetaDatabase
from objfs.store import layout
from objfs.volume.checkpoint import Moment
from objfs.volume.manifest import Manifest
from objfs.volume.open import OpenVolume
from objfs.volume.published import Published, read_newest
from objfs.volume.recover import advance, rebuild_table
from objfs.volume.shipping import Stack

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""How long one bucket may take to say what is new before the next one is asked."""


class Follower:
    """The moments of one read-only mount."""

    def __init__(self, volume: OpenVolume, boot: bytes | None = None) -> None:
        self._volume = volume
        self._boot = boot if boot is not None else boot_id()
        self._replica_of: Manifest | None = volume.moment.manifest
        """What the replica stands for; None while nobody knows."""
        self._former: MetaDatabase | None = None
        self._asked = 0

    async def look(self) -> Published | None:
        """A moment newer than the one shown; None where there is none.

        Costs one LIST to one bucket, another one each time, while there is nothing new; else what
        ``read_newest`` costs.  Raises NoQuorum, Corrupt, NewerFormat.
        """
        present = self._volume.moment.manifest.sequence
        if max(await self._listed(), default=0) <= present:
            return None
        newest = await read_newest(self._volume.buckets, self._volume.ring)
        return newest if newest is not None and newest.manifest.sequence > present else None

    async def _listed(self) -> list[int]:
        """The sequences that the next bucket in turn lists, or the first after it that answers."""
        buckets = list(self._volume.buckets.buckets.values())
        for _ in buckets:
            self._asked = (self._asked + 1) % len(buckets)
            found = await _sequences(buckets[self._asked])
            if found is not None:
                return found
        raise NoQuorum("no bucket of this volume says what was published since")

    async def build(self, newest: Published) -> MetaDatabase | None:
        """A table for that moment, beside the one in use; None where it is the same moment under a new
        number.  Raises Corrupt, NewerFormat, OSError, and what the store raises."""
        if newest.content == self._volume.moment.mark.content:
            return None
        manifest, store, replica = newest.manifest, self._volume.store, self._volume.replica
        before, self._replica_of = self._replica_of, None
        await advance(store, before, manifest, replica)
        self._replica_of = manifest
        await trio.to_thread.run_sync(self.close)
        path = next(path for path in self._volume.home.follow_paths if path != self._volume.meta.path)
        return await rebuild_table(store, manifest, replica, path, self._boot)

    def adopt(self, newest: Published, table: MetaDatabase | None) -> None:
        """One step: whoever holds the volume's table sees that moment from now on."""
        self._volume.moment = Moment.of(newest, Stack())
        if self._replica_of is not None:
            self._replica_of = newest.manifest
        if table is not None:
            self._former = self._volume.meta.become(table)

    def close(self) -> None:
        """Closes what is not in use any more; the volume closes the table that is."""
        former, self._former = self._former, None
        if former is not None:
            former.close()


async def _sequences(bucket: Bucket) -> list[int] | None:
    """None where the bucket does not answer in time."""
    with trio.move_on_after(LOOK_S):
        try:
            listed = await bucket.list(layout.MANIFEST_PREFIX)
        except BucketError as error:
            log.debug("moments not listed bucket=%s: %s", bucket.url, error)
            return None
        names = [layout.parse_manifest(info.key) for info in listed]
        return [sequence for sequence in names if sequence is not None]
    return None
