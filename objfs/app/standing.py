"""Which losses the segments bear as they lie, not as new ones would be placed.

Owns one figure, surveyed in a worker: soon after the mount, when buckets or shards were moved, and now and
then.  Until the first survey the figures are those of new segments.  Promises that status reads nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.errors import ObjfsError
from objfs.meta.view import TableView
from objfs.model import Code, Segment, Slot
from objfs.store.placement import domain_count, domain_tolerance, losable
from objfs.volume.header import VolumeHeader
from objfs.volume.table import data_slots, domains_of

log = logging.getLogger(__name__)

INTERVAL_S = 600.0

Placements = Sequence[tuple[Code, tuple[Slot, ...]]]


@dataclass(frozen=True, slots=True)
class Borne:
    """How many buckets, and how many of how many domains (0 of 0 where none is named) may be lost."""

    buckets: int
    domains: tuple[int, int] = (0, 0)


class Standing:
    """Of one mount; ``path``, ``header`` and ``blobs`` are asked for anew by each survey."""

    def __init__(
        self,
        path: Callable[[], Path],
        header: Callable[[], VolumeHeader],
        blobs: Callable[[], Sequence[Segment]],
    ) -> None:
        self._path = path
        self._header = header
        self._blobs = blobs
        self._placements: Placements = ()

    @property
    def borne(self) -> Borne:
        """What may be lost in full health."""
        header = self._header()
        slots, domains = data_slots(header.buckets), domains_of(header.buckets)
        buckets = min(header.tolerance, losable(self._placements, {}, len(slots)))
        if not any(slot in domains for slot in slots):
            return Borne(buckets)
        count = domain_count(slots, domains)
        new = domain_tolerance(header.code, slots, domains)
        return Borne(buckets, (min(new, losable(self._placements, domains, count)), count))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.look()
            await trio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """One survey: reads the placements of all segments, in a worker."""
        blobs = [(blob.code, blob.placement) for blob in self._blobs()]
        try:
            found = await trio.to_thread.run_sync(_read, self._path())
        except ObjfsError as error:
            log.warning("placements not surveyed: %s", error)
            return
        self._placements = list({*found, *blobs})


def _read(path: Path) -> Placements:
    with TableView(path) as view:
        return view.placements()
