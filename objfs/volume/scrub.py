"""Scrub: every shard of every segment read and verified, and what is wrong put right where that is asked for.

Owns what counts as which damage: missing, short, altered, misplaced (another shard's object under the name,
or a shard in another bucket), stale (an older object put back, or left where the volume places it no more)
and unknown. Promises that one segment is worked on at a time, in ranges, that a repair counts as one only
after the shard was read again, and that a scrub that is killed goes on after the last segment that was
done.  Deletes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass

import trio

from objfs.codec import Layout
from objfs.errors import CodecError, StoreError
from objfs.model import Segment
from objfs.store import layout
from objfs.store.scan import Found as Named
from objfs.store.workers import gather
from objfs.volume.fsck_map import ShardFaults, shard_faults
from objfs.volume.fsck_report import Finding, Grade, Report
from objfs.volume.fsck_subject import Subject, ask
from objfs.volume.mend import Mender
from objfs.volume.rate import Rate
from objfs.volume.scrub_book import Book
from objfs.volume.scrub_shard import Fault, Reading, beyond_mending, read_shard
from objfs.volume.survey import UNLISTED, Found, Survey, listing_faults

SAVE_S = 2.0
TELL_S = 1.0
REMEDY = "objfs scrub --repair mends it"


@dataclass(frozen=True, slots=True)
class ScrubOrder:
    """Which segments: ``percent`` of all, and of which an object was put since ``since_ns``.  ``kind`` is
    what the person asked for, in words."""

    kind: str = "all"
    percent: float = 100.0
    since_ns: int = 0
    repair: bool = False
    bytes_per_s: float = 0.0


class Scrub:
    """One run over a subject that has a table; findings go to ``report``.  Without a ``mender`` it only
    looks."""

    def __init__(
        self,
        subject: Subject,
        report: Report,
        survey: Survey,
        order: ScrubOrder,
        book: Book,
        mender: Mender | None,
    ) -> None:
        self._subject = subject
        self._report = report
        self._survey = survey
        self._order = order
        self._book = book
        self._mender = mender
        self._rate = Rate(order.bytes_per_s)
        self._first = len(report.findings)
        self._began = self._saved = self._told = trio.current_time()

    @property
    def rate(self) -> Rate:
        """For what is read besides the segments."""
        return self._rate

    async def run(self) -> None:
        """To the end; cancelled, it goes on from there the next time."""
        book, report = self._book, self._report
        report.findings += book.findings
        try:
            await self._all()
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._save()
            raise
        unique = {one.key: one for one in reversed(report.findings)}
        report.findings = list(reversed(unique.values()))
        await ask(book.close)

    async def _all(self) -> None:
        book, before = self._book, self._book.nbytes
        async with aclosing(self._survey.walk()) as walk:
            async for found in walk:
                if found.segment.uuid <= book.cursor or not self._chosen(found):
                    continue
                await self._segment(found)
                book.cursor, book.nbytes = found.segment.uuid, before + self._rate.spent
                await self._note()

    def _chosen(self, found: Found) -> bool:
        if found.mtime_ns and found.mtime_ns < self._order.since_ns:
            return False
        drawn = hashlib.blake2b(found.segment.uuid, key=self._book.seed.encode(), digest_size=4).digest()
        return int.from_bytes(drawn, "big") < self._order.percent / 100 * 2**32

    # --- one segment -------------------------------------------------------------------

    async def _segment(self, found: Found) -> None:
        self._report.seen["segments"] += 1
        listed = shard_faults(found.segment, found.listed, self._survey.seen)
        readings = await self._read(found.segment, self._readable(found, listed))
        faults = listing_faults(found, listed, self._subject.buckets.slots) | {
            shard: reading.fault for shard, reading in readings.items() if reading.fault is not None
        }
        if not faults:
            await self._open_index(found, readings)
        elif not await self._survey.still(found):
            return  # the mount moved or freed it meanwhile
        self._say_strays(found)
        mended = await self._mend(found, listed, faults) if self._mender is not None else set()
        self._say(found, faults, mended)

    def _readable(self, found: Found, listed: ShardFaults) -> list[int]:
        gone = listed.gone | listed.unseen
        return [shard for shard in range(found.segment.code.n) if shard not in gone]

    async def _read(self, segment: Segment, shards: Collection[int]) -> dict[int, Reading]:
        buckets, ring = self._subject.buckets.buckets, self._subject.ring

        async def read(shard: int) -> Reading:
            bucket = buckets[segment.placement[shard]]
            return await read_shard(ring, bucket, segment, shard, self._rate)

        ordered = list(shards)
        done = dict(zip(ordered, await gather(read, ordered), strict=True))
        self._report.seen["objects"] += len(done)
        self._report.seen["bytes"] += sum(reading.nbytes for reading in done.values())
        return done

    async def _open_index(self, found: Found, readings: Mapping[int, Reading]) -> None:
        """What only a recovery by scan needs: nothing else would notice that it does not open."""
        parts = next((each.layout for each in readings.values() if each.layout is not None), None)
        if parts is None or parts.index is None:
            return
        await self._rate.spend(parts.index.length)
        try:
            await self._subject.store.read_index(Named(found.segment, parts))
        except (StoreError, CodecError) as error:
            what = f"its index does not open: {error}"
            self._report.add("index", Grade.REMARK, f"segment {found.segment.uuid.hex()}", what)

    # --- mending -----------------------------------------------------------------------

    async def _mend(self, found: Found, listed: ShardFaults, faults: dict[int, Fault]) -> set[int]:
        """Shards that are right now: each was read again."""
        assert self._mender is not None
        wanted = {shard for shard, fault in faults.items() if not fault.unseen}
        known = {shard for shard in wanted if faults[shard].rule == "shard-found"}
        if not wanted:
            return set()
        try:
            there = await self._mender.mend(found, listed, wanted, known)
        except (StoreError, CodecError) as error:
            self._report.done.append(f"segment {found.segment.uuid.hex()} could not be made whole: {error}")
            return set()
        now = found.segment
        if found.number is not None:
            row = await self._survey.row(found.number)
            now = row.segment if row is not None and row.segment is not None else now
        again = await self._read(now, there)
        sound = {shard for shard, reading in again.items() if reading.fault is None}
        if sound:
            numbers = ", ".join(map(str, sorted(sound)))
            self._report.done.append(f"segment {now.uuid.hex()}: shards {numbers} are right, read again")
        return sound

    # --- telling -----------------------------------------------------------------------

    def _say(self, found: Found, faults: dict[int, Fault], mended: set[int]) -> None:
        segment = found.segment
        left = {shard: fault for shard, fault in faults.items() if shard not in mended}
        lost = beyond_mending(segment, left)
        for shard, fault in sorted(faults.items()):
            if fault.rule == UNLISTED:
                continue  # said once, of the bucket
            grade = Grade.UNSEEN if fault.unseen else Grade.LOSS if lost else Grade.DAMAGE
            if lost and not found.newest:
                grade = Grade.REMARK
            todo = "bring the bucket back; too few shards are left" if lost else REMEDY
            self._report.findings.append(
                Finding(
                    fault.rule,
                    grade,
                    layout.shard_name(segment.uuid, shard),
                    fault.what,
                    self._subject.name(segment.placement[shard]),
                    todo,
                    shard in mended,
                )
            )

    def _say_strays(self, found: Found) -> None:
        """Objects of the segment where the volume does not place them: left of an older placement."""
        segment, right = found.segment, Layout.from_segment(found.segment)
        for slot, shards in sorted(found.listed.items()):
            for shard, size in sorted(shards.items()):
                if shard < segment.code.n and segment.placement[shard] == slot:
                    continue
                copy = shard < segment.code.n and size == right.object_size(shard)
                kind = "a copy" if copy else "an object"
                what = f"{kind} of {size} bytes that the volume does not place there: left of an older place"
                name = layout.shard_name(segment.uuid, shard)
                self._report.add("stray", Grade.REMARK, name, what, bucket=self._subject.name(slot))

    async def _note(self) -> None:
        """Progress for the person and for the next run."""
        now, total = trio.current_time(), self._survey.total_bytes
        if now - self._told >= TELL_S:
            self._told = now
            self._subject.note(self._progress(now, max(total * self._order.percent / 100, 1)))
        if now - self._saved >= SAVE_S:
            self._saved = now
            await self._save()

    async def _save(self) -> None:
        self._book.findings = self._report.findings[self._first :]
        await ask(self._book.save)

    def _progress(self, now: float, total: float) -> str:
        done, elapsed = self._book.nbytes, max(now - self._began, 1e-3)
        rate = self._rate.spent / elapsed
        left = max(total - done, 0) / max(rate, 1)
        return (
            f"scrub: {min(100 * done / total, 100):.0f} %, {done / 2**20:,.0f} of {total / 2**20:,.0f} MiB, "
            f"{rate / 2**20:,.1f} MiB/s, {left / 60:,.0f} min left"
        )
