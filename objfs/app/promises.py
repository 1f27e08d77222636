"""Whether the buckets of a mount keep their promises, and what they do behind one's back.

Owns one look at each bucket soon after the mount, repeated where it failed, and the sentences it gives.
Promises that nothing waits for it and that it never ends the mount.  A mount that only reads makes no object
to try a bucket with.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from objfs.backends.base import Bucket, Remarkable
from objfs.backends.probe import brief_probe
from objfs.errors import ObjfsError, Temporary
from objfs.model import Slot
from objfs.volume.quorum import BucketSet

log = logging.getLogger(__name__)

AFTER_S = 10.0
"""Time after the mount until the look."""
AGAIN_S = 600.0
"""Until a bucket that could not be looked at is looked at again."""


class Promises:
    """The buckets of one mount; ``writes``: it may try them with objects of its own."""

    def __init__(self, buckets: BucketSet, *, writes: bool) -> None:
        self._buckets = buckets
        self._writes = writes
        self._said: dict[Slot, tuple[str, ...]] = {}
        self._unseen = set(buckets.buckets)

    def of(self, slot: Slot) -> tuple[str, ...]:
        """What a person should know about a bucket; empty too while it has not been looked at."""
        return self._said.get(slot, ())

    async def run(self) -> None:
        """Looks when the mount has had time for what it was made for, and ends once it has seen them all."""
        await trio.sleep(AFTER_S)
        await self.look()
        while self._unseen:
            await trio.sleep(AGAIN_S)
            await self.look()

    async def look(self) -> None:
        """All buckets that were not seen yet, one after the other."""
        self._unseen &= self._buckets.buckets.keys()  # those that left the volume are none of ours
        for slot in sorted(self._unseen):
            try:
                self._said[slot] = tuple(await self._look(slot, self._buckets.buckets[slot]))
                self._unseen.remove(slot)
            except Temporary as error:
                log.debug("bucket not looked at bucket=%s: %s", self._buckets.name(slot), error)
            except ObjfsError as error:
                self._said[slot] = (str(error),)
            for sentence in self.of(slot):
                log.warning("bucket %s: %s", self._buckets.name(slot), sentence)

    async def _look(self, slot: Slot, bucket: Bucket) -> Sequence[str]:
        said = await remarks_of(bucket)
        if self._writes:
            report = await brief_probe(bucket)
            said += report.complaints(voter=slot in self._buckets.voters)
        await trio.lowlevel.checkpoint()
        return said


async def remarks_of(bucket: Bucket) -> list[str]:
    """What a bucket can tell about versioning, object lock, expiry rules and archive tiers."""
    return await bucket.remarks() if isinstance(bucket, Remarkable) else []
