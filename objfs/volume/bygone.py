"""The store as a mount that only reads uses it: what another machine deleted is told from what is damaged.

Owns that verdict.  A moment is kept while it is pinned, and for the volume's grace after that; then whoever
writes may delete what only it needs.  Promises MomentGone (ESTALE), with a line in the log that says what to
do, where a segment is in no bucket and the volume went on since; else the store's own error: loss.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from objfs.errors import MomentGone, ObjfsError, SegmentGone
from objfs.model import Location, Placed, Segment
from objfs.ports import Sealable, SegmentPort
from objfs.volume.follow import Follower
from objfs.volume.open import OpenVolume

log = logging.getLogger(__name__)


class BygoneStore:
    """``ports.SegmentPort`` over the store of a volume that was opened for reading."""

    def __init__(self, volume: OpenVolume) -> None:
        self._volume = volume
        self._store: SegmentPort = volume.store
        self._follower = Follower(volume)
        self.gone = ""
        """What was said of the moment that is shown, once something of it was found to be deleted."""

    async def write_segment(self, chunks: Sequence[Sealable]) -> tuple[Segment, list[Placed]]:
        return await self._store.write_segment(chunks)

    def identify(self, data: bytes) -> bytes:
        return self._store.identify(data)

    def nowhere(self, size: int) -> tuple[Segment, Location]:
        return self._store.nowhere(size)

    async def read_chunks(self, wanted: Sequence[tuple[Segment, Location, int, int]]) -> list[bytes]:
        shown = self._volume.moment.manifest.sequence
        try:
            return await self._store.read_chunks(wanted)
        except SegmentGone as error:
            newest = await self._newest()
            if newest == shown:
                raise
            raise MomentGone(self._tell(shown, newest)) from error

    async def _newest(self) -> int:
        """The sequence of the newest moment that can be learned of; who follows may show it by now."""
        shown = self._volume.moment.manifest.sequence
        try:
            newer = await self._follower.look()
        except ObjfsError as error:
            log.warning("no bucket says whether the volume went on: %s", error)
            return shown
        return shown if newer is None else newer.manifest.sequence

    def _tell(self, shown: int, newest: int) -> str:
        told = (
            f"moment {shown} is not kept any more: the volume went on to {newest}, and what only the older"
            " one needs was deleted; unmount and mount again, or mount with --follow"
        )
        if shown == self._volume.moment.manifest.sequence and not self.gone:
            self.gone = told
            log.error("%s", told)
        return told
