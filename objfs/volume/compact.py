"""Compaction: what is left of sparse and small segments is written into new ones.

Owns the choice of segments (``plan``) and the rewriting.  Promises that a version is moved only when its
bytes were read, authenticated and stored again, and only if it still lies where they were read; that no
version has less redundancy after the move than before; and that nothing is deleted here: emptied segments
are condemned, and go the way of all others (``reaper``).  Works on about one segment's plain bytes at a time.

A crash before the rows were moved leaves objects that nothing names (``gc`` finds them); one between two
batches of rows leaves two segments that are both in use.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

import trio

from objfs.codec.index import MAX_CHUNKS, entry_size
from objfs.codec.segment import used_code
from objfs.errors import CodecError, Corrupt, ObjfsError, StoreError
from objfs.meta.segment_usage import Usage, read_usage
from objfs.meta.table import MetaDatabase
from objfs.model import Chunk, Code, Location, Move, Placed, Segment, SegmentKind, SegmentNo
from objfs.ports import DOING, Clock, Sealable, WriteGate
from objfs.store.store import SegmentStore
from objfs.volume.reaper import Reaper

log = logging.getLogger(__name__)

INTERVAL_S = 600.0
"""Between two looks of a mount, where the table has changed."""
FAN_IN = 8
"""So many small segments of about the same size make a larger one: a byte is rewritten seldom."""
SMALL_SHARE = 8
"""A segment with less plain bytes than this part of a full one is small."""
AT_ONCE = 256
"""Versions moved in one step of the loop."""
YIELD_S = 1.0
YIELD_MOST_S = 30.0
"""How long one unit makes way for the mount's own work, at most."""
AVOID_S = 3600.0
"""For how long a segment that could not be read is left alone."""

Place = tuple[SegmentNo, int]
"""Segment and position of a stored chunk."""


@dataclass(frozen=True, slots=True)
class Terms:
    """``below``: the share in use under which a segment is rewritten, 0 for none.  ``old_keys``: so are all
    that are sealed under another key than ``key_id``.  ``code``: so are all that a volume of this code would
    not have made.  ``bytes_per_s`` read and written at most, 0 without limit.  ``target_bytes`` of plain
    content make a segment."""

    below: float
    key_id: int
    target_bytes: int
    bytes_per_s: float = 0.0
    old_keys: bool = False
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done: segments emptied and written, bytes of payload in both, and why it ended early."""

    emptied: int = 0
    written: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    failed: int = 0
    stopped: str = ""

    def plus(self, more: Compacted) -> Compacted:
        return Compacted(
            self.emptied + more.emptied,
            self.written + more.written,
            self.bytes_before + more.bytes_before,
            self.bytes_after + more.bytes_after,
            self.failed + more.failed,
            more.stopped or self.stopped,
        )


class Stage(NamedTuple):
    """Where a round is: new segments begun of those planned, and what was done so far."""

    begun: int
    units: int
    done: Compacted


# --- choosing ------------------------------------------------------------------------------


def needed(usage: Usage) -> int:
    """Bytes that what is in use would take as a segment of its own, its part of the index included."""
    return usage.stored + usage.places * entry_size(0) + entry_size(usage.frames) - entry_size(0)


def movable(usage: Usage) -> bool:
    """Whether there is anything to move, and anywhere to read it."""
    segment = usage.segment
    return (
        segment.kind is SegmentKind.DATA and bool(usage.places) and not (usage.condemned or segment.nowhere)
    )


def sparse(usage: Usage, terms: Terms) -> bool:
    """Whether a segment is to be rewritten for what it is."""
    return movable(usage) and (
        outdated(usage.segment, terms) or needed(usage) < terms.below * usage.segment.length
    )


def outdated(segment: Segment, terms: Terms) -> bool:
    """Whether a segment is to be rewritten though all of it is in use."""
    if terms.code is not None and segment.code != used_code(terms.code, segment.length):
        return True
    return terms.old_keys and segment.key_id != terms.key_id


def small(usage: Usage, terms: Terms) -> bool:
    """Whether a segment may be joined with others of about its size."""
    return movable(usage) and bool(terms.below) and usage.plain * SMALL_SHARE < terms.target_bytes


def plan(found: Collection[Usage], terms: Terms) -> list[tuple[SegmentNo, ...]]:
    """Which segments are rewritten together, the emptiest first.  Pure."""
    chosen = sorted(
        (usage for usage in found if sparse(usage, terms)),
        key=lambda usage: (needed(usage) / usage.segment.length, usage.number),
    )
    classes: dict[int, list[Usage]] = {}
    for usage in found:
        if not sparse(usage, terms) and small(usage, terms):
            # Powers of the fan-in: what was joined once meets others of its new size next time.
            classes.setdefault(usage.plain.bit_length() // (FAN_IN - 1).bit_length(), []).append(usage)
    units = _filled(chosen, terms)
    for alike in classes.values():
        units += [unit for unit in _filled(alike, terms) if len(unit) >= FAN_IN]
    return units


def _filled(found: Sequence[Usage], terms: Terms) -> list[tuple[SegmentNo, ...]]:
    """In their order, as many together as make one segment."""
    units: list[list[SegmentNo]] = []
    plain, places = terms.target_bytes, 0
    for usage in found:
        plain, places = plain + usage.plain, places + usage.places
        if not units or plain > terms.target_bytes or places > MAX_CHUNKS:
            units.append([])
            plain, places = usage.plain, usage.places
        units[-1].append(usage.number)
    return [tuple(unit) for unit in units]


# --- rewriting -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a compactor works with.  ``busy``: the mount has work of its own to do now; ``unfit``: why nothing
    must be rewritten now, empty where all is well."""

    table: MetaDatabase
    store: SegmentStore
    reaper: Reaper
    gate: WriteGate
    clock: Clock
    busy: Callable[[], bool]
    unfit: Callable[[], str]


@dataclass(slots=True)
class _Unit:
    """Segments that are rewritten together, and the versions in them by place."""

    sources: dict[SegmentNo, Segment]
    places: dict[Place, list[Chunk]] = field(default_factory=dict)

    @property
    def first(self) -> list[Chunk]:
        """One version of each place."""
        return [chunks[0] for chunks in self.places.values()]

    @property
    def spare(self) -> int:
        """How many losses the least safe of them bears."""
        return min(map(spare, self.sources.values()))


def spare(segment: Segment) -> int:
    """How many shards of a segment may still be lost."""
    return segment.code.m - len(segment.missing)


class Compactor:
    """One per writing mount.  On the loop's thread; ``run`` is its task."""

    def __init__(self, around: Surroundings, terms: Terms) -> None:
        self._around = around
        self.terms = terms
        self._running: trio.Event | None = None
        self._avoided: dict[SegmentNo, float] = {}
        self._stopping = False
        self.total = Compacted()

    async def run(self) -> None:
        """Looks now and then, while the mount may write; a table that did not change is not looked at."""
        around, seen = self._around, self._around.table.changes
        while around.gate.open and self.terms.below:
            await trio.sleep(INTERVAL_S)
            if around.table.changes == seen:
                continue
            seen = around.table.changes
            try:
                done = await self.round(self.terms)
            except ObjfsError as error:
                log.warning("compaction failed: %s", error)
            else:
                log.info("compacted %s", done)

    async def round(
        self, terms: Terms, told: Callable[[Stage], None] = lambda _stage: None, *, most: int | None = None
    ) -> Compacted:
        """Rewrites what there is to rewrite now, into at most so many segments; one round at a time.

        What cannot be read is left alone.  Raises ReadOnly, LeaseLost, and errors of the table.
        """
        async with self.alone():
            found = await trio.to_thread.run_sync(read_usage, self._around.table.path)
            units = plan([usage for usage in found if not self._avoid(usage.number)], terms)[:most]
            done = Compacted()
            for number, unit in enumerate(units):
                told(Stage(number, len(units), done))
                await self._make_way()
                if why := "the mount ends" if self._stopping else self._around.unfit():
                    done = replace(done, stopped=why)
                    break
                done = done.plus(await self._paced(unit, terms))
            self.total = self.total.plus(done)
            return done

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No round runs inside."""
        while self._running is not None:
            await self._running.wait()
        self._running = trio.Event()
        try:
            yield
        finally:
            self._running.set()
            self._running = None

    async def stop(self) -> None:
        """For good: returns when the segment that is being written is done."""
        self._stopping = True
        async with self.alone():
            pass

    def forgive(self) -> None:
        """What could not be rewritten is tried again with the next round."""
        self._avoided.clear()

    def _avoid(self, number: SegmentNo) -> bool:
        return self._avoided.get(number, 0.0) > self._around.clock.monotonic()

    async def _make_way(self) -> None:
        waited = 0.0
        while self._around.busy() and not self._stopping and waited < YIELD_MOST_S:
            await trio.sleep(YIELD_S)
            waited += YIELD_S

    async def _paced(self, numbers: Sequence[SegmentNo], terms: Terms) -> Compacted:
        begun = self._around.clock.monotonic()
        done = await self._tried(numbers)
        if terms.bytes_per_s:
            wanted = (done.bytes_before + done.bytes_after) / terms.bytes_per_s
            await trio.sleep(max(0.0, wanted - (self._around.clock.monotonic() - begun)))
        return done

    async def _tried(self, numbers: Sequence[SegmentNo]) -> Compacted:
        """One segment that cannot be read does not keep the others."""
        try:
            return await self._rewrite(numbers)
        except (StoreError, CodecError) as error:
            if len(numbers) > 1:
                done = Compacted()
                for number in numbers:
                    done = done.plus(await self._tried([number]))
                return done
            log.warning("segment not compacted number=%d: %s", numbers[0], error)
            self._avoided[numbers[0]] = self._around.clock.monotonic() + AVOID_S
            return Compacted(failed=1)

    async def _rewrite(self, numbers: Sequence[SegmentNo]) -> Compacted:
        around = self._around
        around.gate.check()
        unit = await self._unit(numbers)
        if not unit.places:
            return Compacted()
        items = await self._read(unit)
        segment, placed = await around.store.write_segment(items)
        # A volume of a weaker code than before asks for no more than that one bears.
        if spare(segment) < min(unit.spare, around.store.code.m):
            await self._give_up(segment, "a bucket did not take its shard of what was compacted")
        await self._move(unit, segment, placed)
        emptied = around.reaper.condemn_emptied(unit.sources)
        log.debug("segments compacted sources=%d into=%s", len(numbers), segment.uuid.hex())
        before = sum(one.length for one in unit.sources.values())
        return Compacted(emptied, 1, before, segment.length)

    async def _give_up(self, segment: Segment, why: str) -> NoReturn:
        """Nothing refers to it yet.  Raises StoreError."""
        await self._around.store.delete_segment(segment)
        raise StoreError(f"{why}; it is tried again")

    async def _unit(self, numbers: Sequence[SegmentNo]) -> _Unit:
        unit = _Unit({number: self._around.table.segment(number) for number in numbers})
        for number in numbers:
            await trio.lowlevel.checkpoint()
            for chunk in self._around.table.chunks_in_segment(number):
                assert chunk.location is not None
                unit.places.setdefault((number, chunk.location.position), []).append(chunk)
        return unit

    async def _read(self, unit: _Unit) -> list[Sealable]:
        """The bytes of every place, authenticated, and those that its row names.  Raises Corrupt,
        NotEnoughShards."""
        store, chunks = self._around.store, unit.first
        wanted = [
            (unit.sources[at.segment], at, 0, len(at.frames) - 1)
            for at in (chunk.location for chunk in chunks)
            if at is not None
        ]
        datas = await store.read_chunks(wanted)

        def verify() -> None:
            for (segment, location, _, _), data in zip(wanted, datas, strict=True):
                if not store.is_of(segment, location, data):
                    uuid = segment.uuid.hex()
                    raise Corrupt(f"segment {uuid}: the row of a chunk names the bytes of another; run fsck")

        await trio.to_thread.run_sync(verify)
        return [
            Sealable(chunk.chunk, chunk.ino, chunk.index, data)
            for chunk, data in zip(chunks, datas, strict=True)
        ]

    async def _move(self, unit: _Unit, segment: Segment, placed: Sequence[Placed]) -> None:
        """In steps that do not hold the loop for long; the rows of all who share a place, also of those who
        came to share it since."""
        table = self._around.table
        now = await self._unit(list(unit.sources))
        self._around.gate.check()
        if not self._around.store.takes_shards(segment):  # nothing may run between this and the next step
            await self._give_up(segment, "a bucket left while a shard was on its way to it")
        number = table.place(segment, [])
        assert number is not None
        moves = list(_moves(unit, now, number, placed))
        for at in range(0, len(moves), AT_ONCE):
            if at:
                await trio.lowlevel.checkpoint()
                self._around.gate.check()
            DOING.operation = "compact"
            table.move(moves[at : at + AT_ONCE])


def _moves(unit: _Unit, now: _Unit, number: SegmentNo, placed: Sequence[Placed]) -> Sequence[Move]:
    new: Mapping[Place, Location] = {
        place: one.location._replace(segment=number) for place, one in zip(unit.places, placed, strict=True)
    }
    return [
        Move(chunk.chunk, chunk.location, new[place])
        for place, chunks in now.places.items()
        if place in new
        for chunk in chunks
        if chunk.location is not None
    ]
