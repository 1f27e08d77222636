"""Shards on the move: from the plan to the buckets, while the volume is in use.

Owns the order of a move: the copy at the new place, read back; then the row, in one transaction that also
notes the copy left behind; then, with a checkpoint, the manifest.  Promises that a segment never has fewer
shards than it began with, that a move which was interrupted anywhere is done again or was done, and that
nothing is deleted here: see ``strays``.  What the newest manifest names, pages of the inode table, moves the
same way, with the next manifest in the place of the row.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.codec import Layout
from objfs.errors import NotEnoughShards, ObjfsError
from objfs.meta.strays import left_behind
from objfs.meta.table import MetaDatabase
from objfs.meta.view import SegmentRow, TableView
from objfs.model import Segment, SegmentNo, Slot
from objfs.ports import Clock
from objfs.store.store import SegmentStore
from objfs.volume.checkpoint import Checkpointer
from objfs.volume.moves import Move, Planner, moved

log = logging.getLogger(__name__)

BATCH = 512
"""Rows read at once."""
AT_ONCE = 4
"""Segments on the move at once; each holds the objects of one shard, or of all while one is rebuilt."""
ROUNDS = 8
"""How often what was written meanwhile is looked for."""


@dataclass(slots=True)
class Traffic:
    """What moving takes of one bucket: requests, and bytes from it (``read``) and to it (``written``)."""

    requests: int = 0
    read: int = 0
    written: int = 0


@dataclass(slots=True)
class Progress:
    """Shards and bytes to be moved, and moved; ``stuck`` segments have too few sound shards to move one.
    ``traffic`` is the estimate for each bucket."""

    shards: int = 0
    size: int = 0
    moved: int = 0
    moved_size: int = 0
    rebuilt: int = 0
    stuck: list[str] = field(default_factory=list)
    traffic: dict[Slot, Traffic] = field(default_factory=dict)

    def of(self, slot: Slot) -> Traffic:
        return self.traffic.setdefault(slot, Traffic())


Plan = Callable[[], Planner]
"""A planner that has counted nothing yet."""


class Mover:
    """One per change of the buckets."""

    def __init__(
        self, table: MetaDatabase, store: SegmentStore, checkpointer: Checkpointer, clock: Clock
    ) -> None:
        self._table = table
        self._store = store
        self._checkpointer = checkpointer
        self._clock = clock
        self.progress = Progress()

    # --- before --------------------------------------------------------------------------

    async def estimate(self, plan: Plan, *, level: bool, silent: Collection[Slot] = ()) -> Progress:
        """What ``run`` would do, as far as can be known; ``silent`` buckets give nothing, so what lies there
        is rebuilt.  Requests no bucket."""
        progress, kept = Progress(), self._kept()
        first = plan()
        await self._count(first)
        second = plan()
        async for rows in self._rows():
            for row in rows:
                second.count([moved(row, first.plan(row, kept.get(row.uuid, ()), level=False))])
        again = plan()
        await self._count(again)
        async for rows in self._rows():
            for row in rows:
                left = kept.get(row.uuid, ())
                must = again.plan(row, left, level=False)
                fair = second.plan(moved(row, must), left, level=True) if level else []
                _add(progress, row, [*must, *fair], silent)
        for blob in self._stacked():
            _add(progress, blob, plan().plan(blob, level=False), silent)
        self.progress = progress
        return progress

    # --- moving ------------------------------------------------------------------------

    async def run(self, plan: Plan, *, level: bool) -> Progress:
        """Moves what the plan says, until nothing is left to move; then all of it is in a manifest.

        Raises what the target buckets raise, NoQuorum, LeaseLost, ReadOnly; repeating it goes on.
        """
        await self._checkpointer.flush()  # uploads that began before the buckets changed have ended
        for _ in range(ROUNDS):
            before = self.progress.moved
            await self._round(plan, level=False)
            await self._blobs(plan)
            if self.progress.moved == before:
                break
        if level:
            await self._round(plan, level=True)
        await self._checkpointer.flush()
        return self.progress

    async def _round(self, plan: Plan, *, level: bool) -> None:
        planner, kept = plan(), self._kept()
        self.progress.stuck = []
        await self._count(planner)
        async for rows in self._numbered():
            work = [
                (row.number, row.segment, moves)
                for row in rows
                if row.segment is not None and not row.segment.nowhere
                if (moves := planner.plan(row.segment, kept.get(row.segment.uuid, ()), level=level))
            ]
            await self._together(work)

    async def _together(self, work: Sequence[tuple[SegmentNo, Segment, list[Move]]]) -> None:
        """Raises the first error of a bucket that shall take something; what was begun is begun again."""
        hands = trio.CapacityLimiter(AT_ONCE)
        failures: list[ObjfsError] = []

        async def one(number: SegmentNo, segment: Segment, moves: list[Move]) -> None:
            async with hands:
                try:
                    await self._move(number, segment, moves)
                except ObjfsError as error:
                    failures.append(error)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for item in work:
                nursery.start_soon(one, *item)
        if failures:
            raise failures[0]

    async def _move(self, number: SegmentNo, segment: Segment, moves: list[Move]) -> None:
        """Copies first; the row says so only where it is still what was copied."""
        if not await self._copy(segment, moves):
            return
        if self._table.strays.move(number, segment, moved(segment, moves), self._clock.now_ns()) is None:
            log.info("segment changed while it was moved uuid=%s", segment.uuid.hex())
            return
        self._done(segment, moves)

    async def _copy(self, segment: Segment, moves: Iterable[Move]) -> bool:
        """Whether all copies lie there, verified; a segment that has too few shards is left where it is."""
        for shard, target in moves:
            try:
                copied = await self._store.copy_shard(segment, shard, target)
            except NotEnoughShards as error:
                log.error("segment cannot be moved: %s", error)
                self.progress.stuck.append(segment.uuid.hex())
                return False
            self.progress.rebuilt += copied.rebuilt
        return True

    def _done(self, segment: Segment, moves: Collection[Move]) -> None:
        layout = Layout.from_segment(segment)
        self.progress.moved += len(moves)
        self.progress.moved_size += sum(layout.object_size(move.shard) for move in moves)

    # --- the inode table's own pages -----------------------------------------------------

    async def _blobs(self, plan: Plan) -> None:
        """Base and deltas, which no row names.  A patch is written anew with each manifest."""
        await self._checkpointer.flush()
        elsewhere: dict[bytes, tuple[Segment, Segment]] = {}
        for segment in self._stacked():
            moves = plan().plan(segment, level=False)
            if moves and await self._copy(segment, moves):
                elsewhere[segment.uuid] = (segment, moved(segment, moves))
                self._done(segment, moves)
        if elsewhere:
            await self._restack(elsewhere)

    def _stacked(self) -> list[Segment]:
        """The segments of base and deltas, as the next manifest will name them."""
        moment = self._checkpointer.moment
        assert moment is not None
        blobs = (*moment.stack.base, *(blob for delta, _ in moment.stack.deltas for blob in delta.blobs))
        return list({blob.segment.uuid: blob.segment for blob in blobs}.values())

    async def _restack(self, elsewhere: dict[bytes, tuple[Segment, Segment]]) -> None:
        """One step between two checkpoints: the next manifest names the new places, and its table the copies
        left behind."""
        now_ns = self._clock.now_ns()
        while True:
            await self._checkpointer.flush()
            async with self._checkpointer.quiet():
                if not self._checkpointer.settled:
                    continue
                for before, after in elsewhere.values():
                    self._table.strays.note(left_behind(before, after, now_ns))
                self._checkpointer.restack({uuid: after for uuid, (_, after) in elsewhere.items()})
                break
        await self._checkpointer.flush()

    # --- rows ----------------------------------------------------------------------------

    async def left(self, slot: Slot) -> int:
        """How many segments in use, blobs among them, have a shard in a slot that is to go."""
        moment = self._checkpointer.moment
        assert moment is not None
        blobs = sum(slot in blob.segment.placement for blob in moment.manifest.blobs)
        count = 0
        async for rows in self._rows():
            count += sum(slot in row.placement for row in rows)
        return count + blobs

    async def _count(self, planner: Planner) -> None:
        async for rows in self._rows():
            planner.count(rows)

    async def _rows(self) -> AsyncIterator[list[Segment]]:
        """Segments that lie somewhere, in batches."""
        async for rows in self._numbered():
            yield [row.segment for row in rows if row.segment is not None and not row.segment.nowhere]

    async def _numbered(self) -> AsyncIterator[list[SegmentRow]]:
        after = 0
        while rows := await trio.to_thread.run_sync(_read_rows, self._table.path, after):
            yield [row for row in rows if not row.condemned]
            after = rows[-1].number

    def _kept(self) -> dict[bytes, list[tuple[int, Slot]]]:
        """Copies that wait to be deleted, by segment."""
        kept: dict[bytes, list[tuple[int, Slot]]] = {}
        for stray in self._table.strays.listed():
            kept.setdefault(stray.uuid, []).append((stray.shard, stray.slot))
        return kept


def _read_rows(path: Path, after: int) -> list[SegmentRow]:
    with TableView(path) as view:
        return view.segments(after, BATCH)


def _add(progress: Progress, segment: Segment, moves: Sequence[Move], silent: Collection[Slot]) -> None:
    """Counts a segment's moves into the estimate."""
    layout = Layout.from_segment(segment)
    for shard, target in moves:
        size, source = layout.object_size(shard), segment.placement[shard]
        progress.shards += 1
        progress.size += size
        if source in silent or shard in segment.missing:
            for number in _sources(segment, shard, silent):
                _read(progress, segment.placement[number], layout.object_size(number))
        else:
            _read(progress, source, size)
        _read(progress, target, size)
        put = progress.of(target)
        put.requests += 1
        put.written += size


def _read(progress: Progress, slot: Slot, size: int) -> None:
    traffic = progress.of(slot)
    traffic.requests += 1
    traffic.read += size


def _sources(segment: Segment, shard: int, silent: Collection[Slot]) -> list[int]:
    """The shards from which another is rebuilt: any k that are there."""
    there = [
        number
        for number, slot in enumerate(segment.placement)
        if number != shard and number not in segment.missing and slot not in silent
    ]
    return there[: segment.code.k]
