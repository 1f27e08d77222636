"""Segments against buckets: every shard where it should be, with the right length, and what else is there.

Owns the walk over all segments, those of the table and those that manifests name, beside a listing of every
bucket, in parts so that memory stays small.  With ``data`` every object is read and every chunk opened.
Promises that what could not be listed is said to be unseen, never to be missing, and that what nothing names
is only remarked: it is nobody's to delete here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import trio
import trio.lowlevel

from objfs.codec import Layout
from objfs.errors import BucketError, CodecError, Corrupt
from objfs.meta.view import SegmentRow
from objfs.model import Chunk, ChunkId, Segment, SegmentNo
from objfs.store import layout
from objfs.volume.blobs import check_segment
from objfs.volume.fsck_map import ShardFaults, Span, examine, lost_spans, misplaced, shard_faults
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import BATCH, Subject, ask, say_lost
from objfs.volume.listing import (
    Listing,
    Places,
    parts,
    say_foreign,
    say_silent,
    say_unknown,
    total_bytes,
)


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that manifests name; ``newest``: the present moment needs it; ``chunk`` is its one chunk."""

    segment: Segment
    chunk: Chunk
    newest: bool


@dataclass(slots=True)
class Surroundings:
    """What the walk found, for those who repair."""

    lost: dict[ChunkId, list[Span]] = field(default_factory=dict)
    why: dict[ChunkId, str] = field(default_factory=dict)
    misplaced: set[ChunkId] = field(default_factory=set)
    shards: dict[bytes, set[int]] = field(default_factory=dict)
    """Shards to be put again, by segment."""
    moved: dict[bytes, Places] = field(default_factory=dict)
    """Where the shards of segments are whose row says otherwise."""
    broken: dict[SegmentNo, bytes] = field(default_factory=dict)
    """Segments whose row is not true, with the uuid that it says."""
    unknown: dict[bytes, Places] = field(default_factory=dict)
    blobs_lost: bool = False
    """The newest moment cannot be recovered from the buckets."""
    complete: bool = True
    """Every bucket was listed."""


class BucketWalk:
    """One walk; ``blobs`` by uuid, ``named`` gives the uuids of those that manifests name by now."""

    def __init__(
        self,
        subject: Subject,
        report: Report,
        blobs: Mapping[bytes, Blob],
        named: Callable[[], Awaitable[Collection[bytes]]],
    ) -> None:
        self._subject = subject
        self._report = report
        self._blobs = blobs
        self._named = named
        self._rows: dict[bytes, list[SegmentNo]] = {}
        self._nameless: list[SegmentRow] = []
        self._listing = Listing(subject.buckets, subject.left_out)
        self.found = Surroundings()

    async def run(self) -> Surroundings:
        """Raises what the table's reading raises."""
        subject, found = self._subject, self.found
        await self._read_rows()
        for row in self._nameless:
            await self._check_row(row, {})
        split = parts((*self._rows, *self._blobs))
        for number, (prefix, uuids) in enumerate(split.items()):
            await self._part(prefix, uuids)
            if number % 16 == 0:
                subject.note(f"segments against buckets: {100 * number // len(split)} %")
        say_silent(self._report, self._listing, subject.name, "bring it back and run fsck again")
        await self._settle_unknown()
        if subject.table is not None:
            await say_lost(subject, self._report, found.lost, found.why)
        found.complete = not self._listing.silent
        return found

    # --- what should be there ----------------------------------------------------------

    async def _read_rows(self) -> None:
        """The uuids of all rows; the rest of a row is read again when its part of the buckets is."""
        after, table = 0, self._subject.table
        self._rows, self._nameless = {}, []
        while table is not None and (rows := await ask(table.segments, after, BATCH)):
            for row in rows:
                if len(row.uuid) == layout.UUID_SIZE:
                    self._rows.setdefault(row.uuid, []).append(row.number)
                else:
                    self._nameless.append(row)
            after = rows[-1].number

    async def _part(self, prefix: str, uuids: Sequence[bytes]) -> None:
        """All segments whose objects' names begin with ``prefix``."""
        part = await self._listing.part(prefix)
        say_foreign(self._report, part)
        self._report.seen["objects"] += part.objects
        for uuid in uuids:
            seen = part.places.pop(uuid, {})
            for number in self._rows.get(uuid, ()):
                row = await ask(self._subject.view.segment_row, number)
                if row is not None:
                    await self._check_row(row, seen)
            if uuid in self._blobs:
                await self._check_blob(self._blobs[uuid], seen)
        self.found.unknown |= part.places

    # --- one segment -------------------------------------------------------------------

    async def _check_row(self, row: SegmentRow, listed: Places) -> None:
        report, subject = self._report, self._subject
        report.seen["segments"] += 1
        segment = row.segment
        try:
            if segment is None:
                raise Corrupt("its row means nothing")
            check_segment(segment, "its row")
        except Corrupt as error:
            self.found.broken[row.number] = row.uuid
            report.add("segment-row", Grade.DAMAGE, f"segment {row.number}", str(error))
            return
        chunks = await ask(subject.view.chunks_in, row.number)
        for chunk, why in misplaced(segment, chunks, subject.header.chunk_size):
            self.found.misplaced.add(chunk.chunk)
            thing = f"chunk {chunk.chunk} in segment {segment.uuid.hex()}"
            report.add("place", Grade.DAMAGE, thing, f"{why} (chunk {chunk.index} of inode {chunk.ino})")
        if chunks and not row.condemned:  # nobody needs a segment without chunks
            sound = [chunk for chunk in chunks if chunk.chunk not in self.found.misplaced]
            await self._check_shards(row, segment, listed, sound)

    async def _check_shards(
        self, row: SegmentRow, segment: Segment, listed: Places, chunks: Sequence[Chunk]
    ) -> None:
        faults = shard_faults(segment, listed, self._listing.seen)
        if faults.gone and self._subject.live and await self._changed(row):
            return
        damaged: dict[int, str] = {}
        if self._subject.data:
            damaged = await self._read(segment, faults.gone | faults.unseen, chunks)
        bad = faults.gone | damaged.keys() | faults.unseen
        rest = segment.code.n - len(bad)
        moved = rest < segment.code.k <= rest + len(faults.moved)
        grade = Grade.DAMAGE if rest >= segment.code.k or moved else Grade.LOSS
        if len(segment.missing) < segment.code.n:
            self._say_shards(segment, faults, damaged, grade)
        if faults.found or moved:
            self.found.moved[segment.uuid] = listed
        if grade is Grade.DAMAGE and bad - faults.unseen:
            self.found.shards[segment.uuid] = bad - faults.unseen
        if grade is Grade.LOSS:
            self._lose(row, segment, bad, listed, chunks)

    async def _changed(self, row: SegmentRow) -> bool:
        """Whether the running mount moved or freed the segment while we looked."""
        await trio.lowlevel.checkpoint()
        return await ask(self._subject.view.segment_row, row.number) != row

    def _say_shards(
        self, segment: Segment, faults: ShardFaults, damaged: Mapping[int, str], grade: Grade
    ) -> None:
        right = Layout.from_segment(segment)
        for shard in sorted(faults.gone):
            if shard in faults.moved:
                what = f"is in {self._subject.name(faults.moved[shard])} instead"
                self._say(segment, shard, "shard-moved", grade, what)
            elif shard in faults.short:
                what = f"has {faults.short[shard]} bytes, not {right.object_size(shard)}"
                self._say(segment, shard, "shard-length", grade, what)
            elif shard in segment.missing:
                self._say(segment, shard, "shard-unplaced", grade, "could not be placed when it was written")
            else:
                self._say(segment, shard, "shard-missing", grade, "is not there")
        for shard, why in sorted(damaged.items()):
            self._say(segment, shard, "shard-damaged", grade, why)
        for shard in sorted(faults.found):
            what = "is there, and counts as missing in the table"
            self._say(segment, shard, "shard-found", Grade.DAMAGE, what)

    def _say(self, segment: Segment, shard: int, rule: str, grade: Grade, what: str) -> None:
        name, bucket = layout.shard_name(segment.uuid, shard), self._subject.name(segment.placement[shard])
        todo = "bring the bucket back; too few shards are left" if grade is Grade.LOSS else ""
        self._report.add(rule, grade, name, what, bucket=bucket, todo=todo)

    def _lose(
        self,
        row: SegmentRow,
        segment: Segment,
        bad: set[int],
        listed: Places,
        chunks: Sequence[Chunk],
    ) -> None:
        if not any(listed.values()) and not segment.missing:
            # No shard at all: perhaps only the row names a segment that never was.
            self.found.broken[row.number] = row.uuid
        why = f"segment {segment.uuid.hex()} has {segment.code.n - len(bad)} of {segment.code.n} shards"
        if len(segment.missing) == segment.code.n:
            why = "given up by an earlier repair"
        for chunk in chunks:
            assert chunk.location is not None
            spans = lost_spans(segment, bad, chunk.location)
            if spans:
                self.found.lost[chunk.chunk] = spans
                self.found.why[chunk.chunk] = why

    async def _check_blob(self, blob: Blob, listed: Places) -> None:
        segment = blob.segment
        if self._subject.live and not blob.newest:
            return  # it may be deleted at this moment
        self._report.seen["blobs"] += 1
        faults = shard_faults(segment, listed, self._listing.seen)
        damaged: dict[int, str] = {}
        if self._subject.data:
            damaged = await self._read(segment, faults.gone | faults.unseen, [blob.chunk])
        bad = faults.gone | damaged.keys() | faults.unseen
        lost = segment.code.n - len(bad) < segment.code.k
        if lost and not blob.newest:
            thing = f"segment {segment.uuid.hex()}"
            what = "too few shards of a blob that only moments before the newest need"
            self._report.add("old-moment", Grade.REMARK, thing, what)
            return
        self.found.blobs_lost |= lost
        grade = Grade.DAMAGE if not lost or self._subject.table is not None else Grade.LOSS
        self._say_shards(segment, replace(faults, moved={}, found=set()), damaged, grade)
        if not lost and (faults.gone or damaged):
            self.found.shards[segment.uuid] = faults.gone | damaged.keys()

    # --- every byte --------------------------------------------------------------------

    async def _read(self, segment: Segment, without: set[int], chunks: Sequence[Chunk]) -> dict[int, str]:
        """Reads all shards but some; says which lie, and which chunks are not what their rows say."""
        objects: dict[int, bytes] = {}
        damaged: dict[int, str] = {}

        async def get(shard: int) -> None:
            bucket = self._subject.buckets.buckets.get(segment.placement[shard])
            try:
                if bucket is not None:
                    objects[shard] = await bucket.get(layout.shard_name(segment.uuid, shard))
            except BucketError as error:
                damaged[shard] = f"cannot be read: {error}"

        async with trio.open_nursery() as nursery:
            for shard in range(segment.code.n):
                if shard not in without:
                    nursery.start_soon(get, shard)
        self._report.seen["bytes"] += sum(map(len, objects.values()))
        try:
            found = await ask(examine, self._subject.ring, segment, objects, chunks)
        except CodecError as error:
            self._report.add("index", Grade.REMARK, f"segment {segment.uuid.hex()}", str(error))
            return damaged
        for chunk, why in found.wrong.items():
            self.found.misplaced.add(chunk)
            thing = f"chunk {chunk} in segment {segment.uuid.hex()}"
            self._report.add("place", Grade.DAMAGE, thing, f"does not open there: {why}")
        return damaged | found.damaged

    # --- the end -----------------------------------------------------------------------

    async def _settle_unknown(self) -> None:
        """Says what nothing names, and still does not after a second look at the table.  Without a table
        nobody can tell."""
        if self._subject.table is None:
            return
        if self._subject.live and self.found.unknown:
            await self._read_rows()
            known = {*self._rows, *await self._named()}
            self.found.unknown = {
                uuid: seen for uuid, seen in self.found.unknown.items() if uuid not in known
            }
        say_unknown(self._report, {uuid: total_bytes(seen) for uuid, seen in self.found.unknown.items()})
