"""What the segments themselves tell of places that the inode table has lost.

Owns the search: headers of shards for rows of segments, sealed indexes for rows of versions.  Promises to ask
the segments that are likely first, and to stop when everything is found.  Writes rows through
``meta.repair.Repairs`` and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from objfs.codec import IndexEntry
from objfs.errors import CodecError, StoreError
from objfs.meta.repair import Repairs
from objfs.meta.view import Hint, TableView
from objfs.model import ChunkId, SegmentKind, SegmentNo
from objfs.store import layout
from objfs.store.scan import Found
from objfs.store.store import SegmentStore
from objfs.volume.fsck_buckets import Surroundings
from objfs.volume.fsck_subject import BATCH, ask

log = logging.getLogger(__name__)


class Atlas:
    """One search for one table; ``done`` says what came back."""

    def __init__(self, around: Surroundings, view: TableView, store: SegmentStore, repairs: Repairs) -> None:
        self._around = around
        self._view = view
        self._store = store
        self._repairs = repairs
        self._broken = set(around.broken)
        self._wanted: dict[ChunkId, Hint | None] = {}
        self._rows: dict[bytes, SegmentNo] = {}
        self.done: list[str] = []

    async def run(self) -> None:
        """Brings back what can be found.  Raises the table's errors."""
        around, view = self._around, self._view
        wanted = set(await ask(view.incomplete)) | around.misplaced
        for number, uuid in around.broken.items():
            if not await self._restore_row(number, uuid):
                wanted |= set(await ask(view.all_in, number))
        if not wanted:
            return
        hints = await ask(view.hints, wanted)
        self._wanted = {chunk: hints.get(chunk) for chunk in wanted}
        self._rows = await ask(self._sound_rows)
        for uuid in self._likely():
            if not self._wanted:
                return
            await self._search(uuid)

    def _sound_rows(self) -> dict[bytes, SegmentNo]:
        """Rows of segments by uuid, but for those that are not true."""
        found: dict[bytes, SegmentNo] = {}
        after = 0
        while rows := self._view.segments(after, BATCH):
            found |= {row.uuid: row.number for row in rows if row.number not in self._broken}
            after = rows[-1].number
        return found

    def _likely(self) -> Iterator[bytes]:
        """Segments in the order to ask them: those that rows name, those that nothing names, the others."""
        named = {hint.segment for hint in self._wanted.values() if hint is not None}
        first = [uuid for uuid, number in self._rows.items() if number in named]
        return iter(dict.fromkeys([*first, *self._around.unknown, *reversed(self._rows)]))

    # --- segments ----------------------------------------------------------------------

    async def _restore_row(self, number: SegmentNo, uuid: bytes) -> bool:
        """A row from the headers of the shards that bear its uuid."""
        found = await self._find(uuid)
        if found is None:
            return False
        self._repairs.restore_segment(number, found.segment)
        self._broken.discard(number)
        self.done.append(f"segment {number} ({uuid.hex()}) has the row that its shards describe")
        return True

    async def _find(self, uuid: bytes) -> Found | None:
        if len(uuid) != layout.UUID_SIZE:
            return None
        try:
            if uuid in self._around.unknown:
                found = await self._store.recognize(uuid, self._around.unknown[uuid])
            else:
                found = await self._store.find_segment(uuid.hex())
        except (StoreError, CodecError) as error:
            log.info("segment not readable uuid=%s: %s", uuid.hex(), error)
            return None
        return found if found.segment.kind is SegmentKind.DATA else None

    # --- versions ----------------------------------------------------------------------

    async def _search(self, uuid: bytes) -> None:
        """Takes what one segment's index has of what is wanted."""
        found = await self._find(uuid)
        if found is None:
            return
        try:
            entries = await self._store.read_index(found)
        except (StoreError, CodecError) as error:
            log.info("index not readable uuid=%s: %s", uuid.hex(), error)
            return
        matched = list(self._matched(entries))
        if not matched:
            return
        number = self._number_for(uuid, found, [chunk for chunk, _ in matched])
        for chunk, entry in matched:
            location = entry.location._replace(segment=number)
            self._repairs.restore_version(chunk, entry.ino, entry.index, location)
            del self._wanted[chunk]
            self.done.append(f"chunk {chunk} is in segment {uuid.hex()}, whose index says where")

    def _matched(self, entries: Iterable[IndexEntry]) -> Iterator[tuple[ChunkId, IndexEntry]]:
        """By their number; equal chunks that were stored once by their identity."""
        same = {hint.identity: chunk for chunk, hint in self._wanted.items() if hint and hint.identity}
        for entry in entries:
            if entry.chunk in self._wanted:
                yield entry.chunk, entry
            elif entry.location.identity in same:
                yield same[entry.location.identity], entry

    def _number_for(self, uuid: bytes, found: Found, chunks: Iterable[ChunkId]) -> SegmentNo:
        """The segment's row, which may have been lost: then under the number that its versions name."""
        if uuid in self._rows:
            return self._rows[uuid]
        known = set(self._rows.values())
        hints = [hint.segment for chunk in chunks if (hint := self._wanted[chunk]) is not None]
        number = next((one for one in hints if one is not None and one not in known), None)
        self._rows[uuid] = self._repairs.restore_segment(number, found.segment)
        self._broken.discard(self._rows[uuid])
        self.done.append(f"segment {self._rows[uuid]} ({uuid.hex()}) has its row again")
        return self._rows[uuid]
