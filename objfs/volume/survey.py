"""All segments of a volume, one after the other, each beside what the buckets list of it.

Owns the order (by uuid), which segments there are (those of the table that chunks lie in, and the blobs of
manifests), and what is left over: objects that nothing names.  Lists buckets in parts, so that memory stays
small.  Promises that beside a running mount a difference is believed only after the row was read again, and
that a bucket which is listed counts as one that answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

from objfs.codec import Layout
from objfs.errors import Corrupt
from objfs.meta.view import SegmentRow
from objfs.model import Segment, SegmentNo, Slot
from objfs.volume.blobs import check_segment
from objfs.volume.fsck_buckets import Blob
from objfs.volume.fsck_map import ShardFaults
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import BATCH, Subject, ask
from objfs.volume.listing import (
    Listing,
    Places,
    parts,
    say_foreign,
    say_silent,
    say_unknown,
    total_bytes,
)
from objfs.volume.scrub_shard import Fault

UNLISTED = "shard-unlisted"
Named = Callable[[], Awaitable[Collection[bytes]]]
"""The uuids of blobs that manifests name by now."""


class Found(NamedTuple):
    """One segment: ``number`` None where only manifests name it, and then ``newest`` if the present moment
    needs it.  ``mtime_ns`` is when the newest of its objects was put, 0 where there is none."""

    segment: Segment
    number: SegmentNo | None
    newest: bool
    listed: Places
    mtime_ns: int


class Survey:
    """One walk over a subject that has a table."""

    def __init__(self, subject: Subject, report: Report, blobs: Mapping[bytes, Blob], named: Named) -> None:
        self._subject = subject
        self._report = report
        self._blobs = blobs
        self._named = named
        self._rows: dict[bytes, SegmentNo] = {}
        self._listing = Listing(subject.buckets, subject.left_out)
        self._unknown: dict[bytes, int] = {}
        self.total_bytes = 0
        """Of all objects that should be there."""

    @property
    def seen(self) -> list[Slot]:
        """Buckets that were listed."""
        return self._listing.seen

    async def walk(self) -> AsyncGenerator[Found, None]:
        """Every segment; what is wrong with rows, buckets and names is reported on the way."""
        await self._read_rows()
        self.total_bytes += sum(_size(blob.segment) for blob in self._blobs.values())
        for prefix, uuids in parts((*self._rows, *self._blobs)).items():
            part = await self._listing.part(prefix)
            self._tell_health()
            say_foreign(self._report, part)
            for uuid in uuids:
                places = part.places.pop(uuid, {})
                for found in await self._found(uuid, places, part.newest_ns.get(uuid, 0)):
                    yield found
            self._unknown |= {uuid: total_bytes(places) for uuid, places in part.places.items()}
        say_silent(self._report, self._listing, self._subject.name, "bring it back and look again")
        await self._settle_unknown()

    def _tell_health(self) -> None:
        """A bucket that was just listed answers: what it lacks need not wait for the end of its pause."""
        for slot in self.seen:
            self._subject.store.health.succeeded(slot)

    async def row(self, number: SegmentNo) -> SegmentRow | None:
        """The row of a segment in use as it is now."""
        row = await ask(self._subject.view.segment_row, number)
        return None if row is None or row.condemned else row

    async def still(self, found: Found) -> bool:
        """Whether the volume still names the segment as it was found."""
        if found.number is None:
            return not self._subject.live or found.segment.uuid in await self._named()
        row = await self.row(found.number)
        return row is not None and row.segment == found.segment

    # --- what should be there ----------------------------------------------------------

    async def _read_rows(self) -> None:
        after, table = 0, self._subject.view
        self._rows, self.total_bytes = {}, 0
        while rows := await ask(table.segments, after, BATCH):
            for row in rows:
                if row.segment is None:
                    self._say_row(row, "its row means nothing")
                else:
                    self._rows[row.uuid] = row.number
                    self.total_bytes += _size(row.segment)
            after = rows[-1].number

    async def _found(self, uuid: bytes, places: Places, mtime_ns: int) -> list[Found]:
        found = []
        row = await self.row(self._rows[uuid]) if uuid in self._rows else None
        if row is not None and row.segment is not None and row.uuid == uuid and await self._sound(row):
            found.append(Found(row.segment, row.number, True, places, mtime_ns))
        blob = self._blobs.get(uuid)
        if blob is not None:
            found.append(Found(blob.segment, None, blob.newest, places, mtime_ns))
        return found

    async def _sound(self, row: SegmentRow) -> bool:
        """Whether a row can be worked with, and chunks lie in its segment."""
        assert row.segment is not None
        try:
            check_segment(row.segment, "its row")
        except Corrupt as error:
            self._say_row(row, str(error))
            return False
        return not row.segment.nowhere and bool(await ask(self._subject.view.all_in, row.number))

    def _say_row(self, row: SegmentRow, why: str) -> None:
        self._report.add("segment-row", Grade.DAMAGE, f"segment {row.number}", why)

    async def _settle_unknown(self) -> None:
        """Says what nothing names, and still does not after a second look."""
        if self._subject.live and self._unknown:
            await self._read_rows()
            known = {*self._rows, *await self._named()}
            self._unknown = {uuid: size for uuid, size in self._unknown.items() if uuid not in known}
        say_unknown(self._report, self._unknown)


def _size(segment: Segment) -> int:
    """Of all objects of a segment."""
    try:
        check_segment(segment, "its row")
    except Corrupt:
        return 0
    parts = Layout.from_segment(segment)
    return sum(parts.object_size(shard) for shard in range(segment.code.n))


def listing_faults(found: Found, listed: ShardFaults, slots: Collection[Slot]) -> dict[int, Fault]:
    """What a listing shows of a segment of a volume with these slots.

    A shard that only a manifest calls missing, and that is there, is no fault: a manifest cannot be changed.
    So one that was to go into a bucket which has left the volume meanwhile cannot be mended either: it is as
    far away as that bucket.
    """
    segment, right = found.segment, Layout.from_segment(found.segment)
    faults = {shard: Fault(UNLISTED, "its bucket was not listed", unseen=True) for shard in listed.unseen}
    for shard in listed.gone:
        if shard in listed.short:
            what = f"has {listed.short[shard]} bytes, not {right.object_size(shard)}"
            faults[shard] = Fault("shard-length", what)
        elif shard in listed.moved:
            faults[shard] = Fault("shard-moved", f"is in slot {listed.moved[shard]} instead")
        elif found.number is None and segment.placement[shard] not in slots:
            faults[shard] = Fault(UNLISTED, "its bucket has left the volume", unseen=True)
        elif shard in segment.missing:
            faults[shard] = Fault("shard-unplaced", "could not be placed when it was written")
        else:
            faults[shard] = Fault("shard-missing", "is not there")
    if found.number is not None:
        for shard in listed.found:
            faults[shard] = Fault("shard-found", "is there, and counts as missing in the table", frozenset())
    return faults
