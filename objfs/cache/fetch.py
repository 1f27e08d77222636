"""Frames from the store, each asked for once at a time.

Owns the table of frames in flight.  Promises: readers of the same frame share one request; no lock is
held across it; a reader that is cancelled does not fail the others; what arrived is kept, where there
is room, before anybody returns.  Knows no layering of versions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from objfs.cache.entry import State
from objfs.cache.shelf import Shelf
from objfs.cache.space import Space
from objfs.errors import Corrupt, ObjfsError
from objfs.model import FRAME_SIZE, Chunk, ChunkId, Location, Segment
from objfs.ports import ChunkTable, SegmentPort

FrameKey = tuple[ChunkId, int]
Frames = dict[FrameKey, bytes]


@dataclass(frozen=True, slots=True)
class FrameRun:
    """Frames ``first`` to ``last`` (inclusive) of one stored version."""

    row: Chunk
    location: Location
    segment: Segment
    first: int
    last: int

    @property
    def keys(self) -> list[FrameKey]:
        return [(self.row.chunk, frame) for frame in range(self.first, self.last + 1)]

    @property
    def end_position(self) -> int:
        """Where the run ends in the segment's payload."""
        return self.location.position + sum(self.location.frames[: self.last + 1])

    @property
    def stored_length(self) -> int:
        return sum(self.location.frames[self.first : self.last + 1])

    @property
    def plain_length(self) -> int:
        return min(self.location.size, (self.last + 1) * FRAME_SIZE) - self.first * FRAME_SIZE


class _Flight:
    """One request under way and, after it, what it brought."""

    __slots__ = ("done", "error", "frames")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.frames: Frames = {}
        self.error: Exception | None = None


class FrameFetcher:
    """Fetches runs of frames and keeps them on the shelf where there is room."""

    def __init__(self, store: SegmentPort, table: ChunkTable, shelf: Shelf, space: Space) -> None:
        self._store = store
        self._table = table
        self._shelf = shelf
        self._space = space
        self._flights: dict[FrameKey, _Flight] = {}

    def in_flight(self, key: FrameKey) -> bool:
        return key in self._flights

    async def fetch(self, wanted: Sequence[FrameRun], extras: Sequence[FrameRun] = ()) -> Frames:
        """The frames of ``wanted``; ``extras`` ride along in the same request and only warm the cache.

        Raises NotEnoughShards, BucketError, Corrupt.
        """
        found: Frames = {}
        while True:
            missing = [key for run in wanted for key in run.keys if key not in found]
            if not missing:
                return found
            free = self._unclaimed(wanted, set(found))
            if free:
                taken = {key for run in free for key in run.keys} | set(found)
                found |= await self._fly(free, self._unclaimed(extras, taken))
                extras = ()
                continue
            flights = {id(self._flights[key]): self._flights[key] for key in missing}
            for flight in flights.values():
                found |= await self._join(flight)

    async def _join(self, flight: _Flight) -> Frames:
        await flight.done.wait()
        if isinstance(flight.error, ObjfsError):
            raise type(flight.error)(*flight.error.args) from flight.error
        # Cancelled or failed in an unforeseen way: what is still missing is asked for again.
        return flight.frames

    def _unclaimed(self, wanted: Sequence[FrameRun], taken: set[FrameKey]) -> list[FrameRun]:
        """The parts of the runs that are not ``taken`` and that nobody is fetching."""
        runs: list[FrameRun] = []
        for run in wanted:
            free = [key[1] for key in run.keys if key not in taken and key not in self._flights]
            runs.extend(replace(run, first=first, last=last) for first, last in consecutive(free))
        return runs

    async def _fly(self, runs: list[FrameRun], extras: list[FrameRun]) -> Frames:
        flight = _Flight()
        keys = {key for run in (*runs, *extras) for key in run.keys}
        self._flights.update(dict.fromkeys(keys, flight))
        try:
            flight.frames = await self._ask(runs, extras)
        except Exception as error:
            flight.error = error
            raise
        finally:
            for key in keys:
                del self._flights[key]
            flight.done.set()
        return flight.frames

    async def _ask(self, runs: list[FrameRun], extras: list[FrameRun]) -> Frames:
        if extras:
            try:
                return await self._request([*runs, *extras])
            except ObjfsError:
                # A damaged neighbour must not fail a read that did not ask for it.
                return await self._request(runs)
        return await self._request(runs)

    async def _request(self, runs: list[FrameRun]) -> Frames:
        answers = await self._store.read_chunks([(r.segment, r.location, r.first, r.last) for r in runs])
        frames: Frames = {}
        for run, data in zip(runs, answers, strict=True):
            if len(data) != run.plain_length:
                raise Corrupt(
                    f"segment {run.segment.uuid.hex()}: frames {run.first} to {run.last} of chunk"
                    f" {run.row.chunk:x} gave {len(data)} bytes, not {run.plain_length}: run objfs scrub"
                )
            for at, key in enumerate(run.keys):
                frames[key] = data[at * FRAME_SIZE : (at + 1) * FRAME_SIZE]
            self._keep(run, frames)
        return frames

    def _keep(self, run: FrameRun, frames: Frames) -> None:
        entry = self._shelf.entries.get(run.row.chunk)
        if self._table.chunk(run.row.chunk) is None or (entry is not None and entry.state is not State.CLEAN):
            return
        for key in run.keys:
            data = frames[key]
            if not self._space.room_for(len(data)):
                return
            self._shelf.keep(run.row.chunk, run.row.ino, key[1] * FRAME_SIZE, data)


def consecutive(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, last) of each unbroken run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
