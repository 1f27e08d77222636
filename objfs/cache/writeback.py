"""Upload: dirty versions become segments.

Owns what is frozen when, batches, retries and cuts.  Promises: a version is uploaded only after the
base that it needs is stored; a failed upload loses nothing and is tried again with growing delay; a
version that a cut needs is uploaded also when its row is gone; others freed are not.  Reads and writes
never wait.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import trio

from objfs.cache.cut import Cut
from objfs.cache.dedup import DedupIndex
from objfs.cache.entry import Entry, State, visible_length
from objfs.cache.loss import Loss, Losses
from objfs.cache.reader import Reader
from objfs.cache.settings import CacheSettings
from objfs.cache.shelf import Shelf
from objfs.cache.space import Space
from objfs.errors import ObjfsError, StoreError
from objfs.model import FRAME_SIZE, ChunkId, ChunkState, Location, Placed, Segment, SegmentNo
from objfs.ports import DOING, ChunkTable, Clock, Sealable, SegmentPort, WriteGate

log = logging.getLogger(__name__)

_BREATH_BYTES = 1024 * 1024
_BREATH_CHUNKS = 32
_SHORTEST_S = 0.05
_PLACED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _Whole:
    """A version with all its bytes, on its way."""

    entry: Entry
    item: Sealable
    identity: bytes


class Writeback:
    """The uploader; ``run`` is its task."""

    def __init__(
        self,
        shelf: Shelf,
        space: Space,
        reader: Reader,
        losses: Losses,
        table: ChunkTable,
        store: SegmentPort,
        settings: CacheSettings,
        gate: WriteGate,
        clock: Clock,
    ) -> None:
        self._shelf = shelf
        self._space = space
        self._reader = reader
        self._losses = losses
        self._table = table
        self._store = store
        self._settings = settings
        self._gate = gate
        self._clock = clock
        self._dedup = DedupIndex(settings.dedup_entries, table)
        self._cuts: list[Cut] = []
        self._cut_bases: set[ChunkId] = set()
        self._wake = trio.Event()
        self._uploads = 0
        self._retry_at = 0.0
        self.failures = 0
        self.last_error: str | None = None

    def kick(self) -> None:
        """Something changed: the uploader looks again, unless all of its hands are full."""
        if self._uploads < self._settings.uploads:
            self._wake.set()

    # --- cuts ---

    def freeze(self) -> list[Entry]:
        """Freezes every version that the table shows as dirty; later writes layer over them.

        The table is asked, not the shelf: a truncation may begin a version without writing a byte,
        and versions that were freed before are none of them.
        """
        return self.freeze_only(self._table.dirty_ids())

    def freeze_only(self, chunks: Iterable[ChunkId]) -> list[Entry]:
        """The same for these, which the table shows as dirty."""
        entries = [self._frozen(chunk) for chunk in chunks]
        if entries:
            self.kick()
        return entries

    def cut(self) -> Cut:
        """Freezes, and names all that is frozen now."""
        entries = self.freeze()
        for entry in entries:
            entry.cuts += 1
            self._remember_base(entry)
        cut = Cut(entry.chunk for entry in entries)
        if entries:
            self._cuts.append(cut)
        return cut

    def _frozen(self, chunk: ChunkId) -> Entry:
        entry = self._shelf.unplaced.get(chunk)
        if entry is None:
            row = self._table.chunk(chunk)
            assert row is not None
            entry = self._shelf.track(row, self._clock.monotonic())
        self._freeze(entry)
        return entry

    def _freeze(self, entry: Entry) -> None:
        row = entry.row
        if entry.state is State.DIRTY and row is not None and row.base is not None:
            # The base's share may have shrunk by a truncate that touched no byte of this version.
            entry.row = self._table.chunk(entry.chunk) or row
        entry.freeze()

    def _remember_base(self, entry: Entry) -> None:
        """Keeps the row of a stored base: the cut reads through it even when the table drops it."""
        base = entry.row.base if entry.row is not None else None
        if base is None:
            return
        if base in self._shelf.unplaced:
            self._cut_bases.add(base)
            return
        row = self._reader.row(base)
        if row is not None:
            segment = self._reader.segment_of(row) if row.location is not None else None
            self._reader.known_rows[base] = (row, segment)

    def _tell_cuts(self, entry: Entry, placed: Placed, segment: Segment) -> None:
        for cut in self._cuts:
            if cut.note(placed, segment):
                entry.cuts -= 1
        self._cuts = [cut for cut in self._cuts if cut.pending]
        if not self._cuts:
            self._reader.known_rows.clear()
            self._cut_bases.clear()

    # --- choosing ---

    def _pressure(self) -> bool:
        waiting = self._shelf.dirty_bytes - self._space.in_flight
        crowded = len(self._shelf.unplaced) > self._settings.max_entries // 2
        return self._space.waiting > 0 or waiting > self._settings.upload_above or crowded

    def _pick(self, now: float) -> list[Entry]:
        """The next batch, oldest first; empty when nothing is due."""
        everything, batch, size = self._pressure(), [], 0
        settings = self._settings
        for entry in self._shelf.unplaced.values():
            due = everything or entry.state is State.FROZEN
            if not due and now - entry.first_dirty < settings.dirty_age_s:
                if self._cuts or self.failures:
                    continue
                break  # ascending age: the rest is younger
            if not self._ready(entry, now):
                continue
            batch.append(entry)
            size += visible_length(entry.row, entry) if entry.row is not None else 0
            if size >= settings.segment_bytes or len(batch) >= settings.segment_chunks:
                break
        return batch

    def _ready(self, entry: Entry, now: float) -> bool:
        if entry.uploading or entry.retry_at > now or (entry.freed and not entry.cuts):
            return False
        row = entry.row
        if row is None or row.base is None or row.base not in self._shelf.unplaced:
            return True
        if entry.state is State.DIRTY and self.failures:
            return False  # frozen while nothing can be placed, it would only get another version over it
        return entry.present.covers(0, row.base_size)  # it needs nothing of what lies below

    def _next_time(self, now: float) -> float:
        """When to look again without being woken."""
        if self._retry_at > now:
            return self._retry_at
        age = self._settings.dirty_age_s
        times = [now + age]
        for entry in self._shelf.unplaced.values():
            if entry.retry_at > now:
                times.append(entry.retry_at)
            elif not entry.uploading:
                if entry.state is State.DIRTY:
                    times.append(entry.first_dirty + age)
                break
        return max(min(times), now + _SHORTEST_S)

    # --- uploading ---

    async def run(self) -> None:
        """Uploads until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                now = self._clock.monotonic()
                while self._may_start(now) and (batch := self._pick(now)):
                    for entry in batch:
                        self._freeze(entry)
                        entry.uploading = True
                    self._uploads += 1
                    nursery.start_soon(self._upload, batch)
                with trio.move_on_after(self._next_time(now) - now):
                    await self._wake.wait()

    def _may_start(self, now: float) -> bool:
        return self._gate.open and self._uploads < self._settings.uploads and now >= self._retry_at

    async def _upload(self, batch: list[Entry]) -> None:
        size = sum(visible_length(e.row, e) for e in batch if e.row is not None)
        try:
            with self._counted(size):
                wholes = await self._complete(batch)
                await self._send(wholes)
            self.failures = 0
            if len(wholes) == len(batch):
                self.last_error = None
        except (ObjfsError, OSError) as error:
            self._failed(error)
        finally:
            self._uploads -= 1
            for entry in batch:
                entry.uploading = False
                self._shelf.forget_if_unneeded(entry)
            self._space.wake()
            self.kick()

    @contextmanager
    def _counted(self, size: int) -> Iterator[None]:
        self._space.in_flight += size
        try:
            yield
        finally:
            self._space.in_flight -= size

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.last_error = str(error)
        delay = self._delay(self.failures)
        self._retry_at = self._clock.monotonic() + delay
        log.warning("upload failed: failures=%d retry_s=%.1f error=%s", self.failures, delay, error)

    def _delay(self, failures: int) -> float:
        full = min(self._settings.retry_most_s, self._settings.retry_first_s * 2.0 ** min(failures - 1, 30))
        return full * random.uniform(0.5, 1.0)

    async def _complete(self, batch: list[Entry]) -> list[_Whole]:
        """All bytes of each version; one whose base cannot be read waits without stopping the others."""
        items: list[tuple[Entry, Sealable]] = []
        since = 0
        for number, entry in enumerate(batch):
            if self._unwanted(entry):
                continue
            try:
                data = await self._whole(entry)
            except (ObjfsError, OSError) as error:
                if not await self._lost(entry):
                    self._cannot_complete(entry, error)
                continue
            row = entry.row
            if row is not None:
                items.append((entry, Sealable(row.chunk, row.ino, row.index, data)))
            since += len(data)
            if since >= _BREATH_BYTES or number % _BREATH_CHUNKS == 0:
                since = 0
                await trio.lowlevel.checkpoint()
        identities = await trio.to_thread.run_sync(self._identify, [item.data for _, item in items])
        return [_Whole(entry, item, name) for (entry, item), name in zip(items, identities, strict=True)]

    def _unwanted(self, entry: Entry) -> bool:
        """Whether nobody could ever read it: its row was freed, or rolled back before it was committed."""
        if entry.cuts:
            return False
        entry.freed = entry.freed or self._table.chunk(entry.chunk) is None
        return entry.freed

    async def _whole(self, entry: Entry) -> bytes:
        row = entry.row
        assert row is not None
        # A version of nothing but zeros still needs a frame to be stored.
        length = max(1, visible_length(row, entry))
        data = self._reader.read_nowait(row, 0, length)
        return data if data is not None else await self._reader.read(row, 0, length)

    async def _lost(self, entry: Entry) -> bool:
        """Whether a version was given up, because it can never be whole: nobody waits for it any longer."""
        try:
            loss = await self._losses.look(entry)
        except (ObjfsError, OSError) as error:
            log.warning("what is left of chunk=%x cannot be kept yet: %s", entry.chunk, error)
            return False
        if loss is None or not self._gate.open:
            return False
        if not self._unwanted(entry):
            self._give_up(entry, loss)
        return True

    def _give_up(self, entry: Entry, loss: Loss) -> None:
        """It is placed where nothing is: reading is an error from now on, here and after a recovery."""
        segment, location = self._store.nowhere(loss.length)
        with self._table.transaction():
            number = self._table.place(segment, [])
            assert number is not None
            placed = Placed(entry.chunk, _numbered(location, number))
            self._table.place(None, [placed])
        if entry.present:  # else it only shows what was lost before
            self._losses.tell(loss)
        self._remember_stored(entry, placed, segment)
        self._tell_cuts(entry, placed, segment)
        self._shelf.drop(entry)

    def _remember_stored(self, entry: Entry, placed: Placed, segment: Segment) -> None:
        """For versions of a cut that lie over it, should its row go."""
        if entry.chunk in self._cut_bases and entry.row is not None:
            stored = replace(entry.row, state=ChunkState.STORED, location=placed.location, base=None)
            self._reader.known_rows[entry.chunk] = (stored, segment)

    def _cannot_complete(self, entry: Entry, error: Exception) -> None:
        entry.failures += 1
        delay = self._delay(entry.failures)
        entry.retry_at = self._clock.monotonic() + delay
        self.last_error = str(error)
        log.warning("chunk waits for its base: chunk=%x retry_s=%.1f error=%s", entry.chunk, delay, error)

    def _identify(self, datas: list[bytes]) -> list[bytes]:
        return [self._store.identify(data) for data in datas]

    async def _send(self, wholes: list[_Whole]) -> None:
        """Places what is known already by reference, the rest in a new segment."""
        fresh: dict[bytes, _Whole] = {}
        twins: list[_Whole] = []
        for number, whole in enumerate(wholes):
            if whole.identity in fresh:
                twins.append(whole)
            elif not self._place_known(whole):
                fresh[whole.identity] = whole
            if number % _BREATH_CHUNKS == 0:
                await trio.lowlevel.checkpoint()
        if not fresh:
            return
        self._gate.check()
        segment, placed = await self._store.write_segment([whole.item for whole in fresh.values()])
        where = {one.chunk: one.location for one in placed}
        located = [(whole, where[whole.item.chunk]) for whole in fresh.values()]
        located += [(twin, where[fresh[twin.identity].item.chunk]) for twin in twins]
        await self._place(segment, located)

    def _place_known(self, whole: _Whole) -> bool:
        known = self._dedup.find(whole.identity)
        if known is None:
            return False
        location, segment = known
        self._gate.check()
        placed = Placed(whole.entry.chunk, location)
        try:
            self._table.place(None, [placed])
        except StoreError:
            self._dedup.forget(whole.identity)  # condemned: it is uploaded as if never seen
            return False
        self._finish(whole, placed, segment)
        return True

    async def _place(self, segment: Segment, located: list[tuple[_Whole, Location]]) -> None:
        """In steps that do not hold the loop for long; what a crash leaves between two of them is dirty."""
        number = self._table.place(segment, [])
        assert number is not None
        for at in range(0, len(located), _PLACED_AT_ONCE):
            if at:
                await trio.lowlevel.checkpoint()
            part = [
                (whole, Placed(whole.entry.chunk, _numbered(location, number)))
                for whole, location in located[at : at + _PLACED_AT_ONCE]
            ]
            DOING.operation = "place"
            self._table.place(None, [placed for _, placed in part])
            for whole, placed in part:
                self._finish(whole, placed, segment)
                self._dedup.note(whole.identity, whole.entry.chunk)

    def _finish(self, whole: _Whole, placed: Placed, segment: Segment) -> None:
        """The version is stored: its file is complete and clean, and whoever waits hears of it."""
        entry = whole.entry
        if self._shelf.entries.get(entry.chunk) is not entry or entry.row is None:
            return
        self._remember_stored(entry, placed, segment)
        self._shelf.settle(entry)
        self._fill(entry, whole.item.data)
        self._tell_cuts(entry, placed, segment)
        self._shelf.forget_if_unneeded(entry)

    def _fill(self, entry: Entry, data: bytes) -> None:
        """Adds what came from the base, as far as there is room, and notes the checksums."""
        entry.freed = entry.freed or self._table.chunk(entry.chunk) is None
        if entry.freed:
            return
        for at in range(0, len(data), FRAME_SIZE):
            frame = data[at : at + FRAME_SIZE]
            if entry.present.covers(at, at + len(frame)):
                self._shelf.note_clean(entry.chunk, at, frame)
            elif self._space.room_for(len(frame)):
                self._shelf.keep(entry.chunk, entry.ino, at, frame)


def _numbered(location: Location, number: SegmentNo) -> Location:
    return location._replace(segment=number)
