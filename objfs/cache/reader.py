"""Reading: own bytes, then the base's, then the store's, then zeros.

Owns the resolution of a range of one version into pieces and the assembly of the answer.  Promises: the
answer is the version as it stood when the plan was made, in one step of the loop; reads of cached
bytes wait for nothing but the local disk.  Knows the table only to look rows up.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import trio
import xxhash

from objfs.cache.entry import Entry, State
from objfs.cache.fetch import FrameFetcher, FrameRun, Frames
from objfs.cache.ledger import Sums
from objfs.cache.prefetch import Scout
from objfs.cache.shelf import Shelf
from objfs.errors import Corrupt
from objfs.model import FRAME_SIZE, Chunk, ChunkId, Segment
from objfs.ports import ChunkTable

log = logging.getLogger(__name__)

_TRIES = 3

Range = tuple[int, int]
"""[start, end) of a chunk."""


@dataclass(frozen=True, slots=True)
class Piece:
    """[start, end) of a chunk comes from ``entry``'s file, or from the frames of ``run``."""

    start: int
    end: int
    entry: Entry | None = None
    run: FrameRun | None = None


class Reader:
    """Resolves and reads; ``known_rows`` are rows that a cut needs after the table dropped them."""

    def __init__(self, shelf: Shelf, table: ChunkTable, fetcher: FrameFetcher) -> None:
        self._shelf = shelf
        self._table = table
        self._fetcher = fetcher
        self._disk = trio.CapacityLimiter(8)
        self.known_rows: dict[ChunkId, tuple[Chunk, Segment | None]] = {}
        self.sums: Sums = {}
        self.hits = 0
        self.misses = 0

    # --- resolution ---

    def present_row(self, row: Chunk) -> Chunk:
        """The row as it is now, should the version have been placed since the caller looked."""
        entry = self._shelf.entries.get(row.chunk)
        if row.location is not None or (entry is not None and entry.state is not State.CLEAN):
            return row
        return self.row(row.chunk) or row

    def row(self, chunk: ChunkId) -> Chunk | None:
        """A version's row from the table, an entry, or what a cut has kept."""
        entry = self._shelf.unplaced.get(chunk)
        if entry is not None:
            return entry.row
        known = self.known_rows.get(chunk)
        return self._table.chunk(chunk) or (known[0] if known is not None else None)

    def segment_of(self, row: Chunk) -> Segment:
        """Where a stored version lies: a row that is not what a cut remembers was moved since."""
        assert row.location is not None
        known = self.known_rows.get(row.chunk)
        if known is not None and known[1] is not None and known[0].location == row.location:
            return known[1]
        return self._table.segment(row.location.segment)

    def plan(self, row: Chunk, start: int, end: int) -> list[Piece]:
        """Where the bytes come from; what no piece covers is zeros.  Raises Corrupt when a base is gone."""
        pieces: list[Piece] = []
        wanted = [(start, end)]
        layer: Chunk | None = row
        while layer is not None and wanted:  # one version after the other: there may be thousands
            wanted = self._own(layer, wanted, pieces)
            if layer.location is not None:
                pieces += self._stored(layer, wanted)
                break
            wanted = [(low, min(high, layer.base_size)) for low, high in wanted if low < layer.base_size]
            layer = self._base(layer) if wanted else None
        return pieces

    def _own(self, row: Chunk, wanted: list[Range], pieces: list[Piece]) -> list[Range]:
        """Adds what the version's own file holds; returns what it does not."""
        entry = self._shelf.entries.get(row.chunk)
        if entry is None:
            return wanted
        present = entry.present
        for start, end in wanted:
            pieces.extend(Piece(low, high, entry=entry) for low, high in present.within(start, end))
        return [gap for start, end in wanted for gap in present.gaps(start, end)]

    def _stored(self, row: Chunk, wanted: list[Range]) -> Iterator[Piece]:
        assert row.location is not None
        size = row.location.size
        for start, end in wanted:
            if start < size:
                yield Piece(start, min(end, size), run=self.run(row, start, min(end, size)))

    def _base(self, row: Chunk) -> Chunk | None:
        if row.base is None:
            return None
        base = self.row(row.base)
        if base is None:
            raise Corrupt(f"chunk {row.chunk:x} lies over chunk {row.base:x}, which is gone: run objfs fsck")
        return base

    def run(self, row: Chunk, start: int, end: int) -> FrameRun:
        """The frames of a stored version that hold [start, end)."""
        assert row.location is not None
        first, last = start // FRAME_SIZE, (end - 1) // FRAME_SIZE
        return FrameRun(row, row.location, self.segment_of(row), first, last)

    # --- reading ---

    def read_nowait(self, row: Chunk, offset: int, length: int) -> bytes | None:
        """The bytes, if all of them are local, verified and in the page cache."""
        entry = self._shelf.entries.get(row.chunk)
        if entry is not None and entry.unverified is None and entry.present.covers(offset, offset + length):
            data = self._file_nowait(entry, offset, length)
            if data is not None:
                self.hits += 1
                self._shelf.used(entry)
            return data
        pieces = self.plan(self.present_row(row), offset, offset + length)
        if any(piece.entry is None or piece.entry.unverified is not None for piece in pieces):
            return None
        out = bytearray(length)
        for piece in pieces:
            if not self._place_local(piece, offset, out):
                return None
        self.hits += 1
        return bytes(out)

    def _file_nowait(self, entry: Entry, offset: int, length: int) -> bytes | None:
        try:
            return self._shelf.files.read_nowait(entry.chunk, offset, length)
        except OSError:
            # Whatever is wrong with the file, the waiting path finds out and says so.
            return None

    def _place_local(self, piece: Piece, offset: int, out: bytearray) -> bool:
        assert piece.entry is not None
        data = self._file_nowait(piece.entry, piece.start, piece.end - piece.start)
        if data is None:
            return False
        out[piece.start - offset : piece.end - offset] = data
        self._shelf.used(piece.entry)
        return True

    async def read(self, row: Chunk, offset: int, length: int, ahead: Scout | None = None) -> bytes:
        """Exactly ``length`` bytes; ``ahead`` says what to fetch besides, where something is fetched.

        Raises NotEnoughShards, BucketError, Corrupt."""
        for _ in range(_TRIES):
            await self._verify(row, offset, offset + length)
            pieces = self.plan(self.present_row(row), offset, offset + length)
            try:
                return await self._assemble(pieces, row, offset, length, ahead)
            except OSError as error:
                self._lost_file(pieces, error)
        raise Corrupt(f"the cache files of chunk {row.chunk:x} cannot be read: check the local disk")

    async def _assemble(
        self, pieces: list[Piece], row: Chunk, offset: int, length: int, ahead: Scout | None
    ) -> bytes:
        out = bytearray(length)
        local = [piece for piece in pieces if piece.entry is not None]
        # Local bytes first, in this step: the answer is the version as it stands now.
        cold = [piece for piece in local if not self._place_local(piece, offset, out)]
        runs = [piece.run for piece in pieces if piece.run is not None]
        with self._shelf.pinned(piece.entry for piece in cold if piece.entry is not None):
            for piece in cold:
                assert piece.entry is not None
                data = await trio.to_thread.run_sync(
                    self._shelf.files.read,
                    piece.entry.chunk,
                    piece.start,
                    piece.end - piece.start,
                    abandon_on_cancel=True,
                    limiter=self._disk,
                )
                self._check_kept(piece.entry)
                out[piece.start - offset : piece.end - offset] = data
        if runs:
            self.misses += 1
            extras = ahead.with_miss(row, offset, length, runs) if ahead is not None else ()
            frames = await self._fetcher.fetch(runs, extras)
            for piece in pieces:
                _copy_frames(piece, frames, offset, out)
        else:
            self.hits += 1
        return bytes(out)

    def _check_kept(self, entry: Entry) -> None:
        """Raises OSError where another reader found the file lost: one with holes may be in its place."""
        if self._shelf.entries.get(entry.chunk) is not entry:
            raise OSError(errno.ESTALE, f"the cache file of chunk {entry.chunk:x} was lost meanwhile")

    async def read_piece(self, row: Chunk, piece: Piece) -> bytes:
        """The bytes of one piece of a plan.  Raises OSError, NotEnoughShards, BucketError, Corrupt."""
        return await self._assemble([piece], row, piece.start, piece.end - piece.start, None)

    def _lost_file(self, pieces: list[Piece], error: OSError) -> None:
        """A version's file cannot be read: clean bytes are fetched again, dirty ones are lost."""
        for piece in pieces:
            entry = piece.entry
            if entry is None or self._shelf.entries.get(entry.chunk) is not entry:
                continue
            if entry.state is not State.CLEAN:
                raise Corrupt(f"cache file of chunk {entry.chunk:x} (not uploaded yet): {error}") from error
            log.warning("cache file unreadable, fetched again: chunk=%x error=%s", entry.chunk, error)
            self._shelf.drop(entry)

    # --- bytes of a former mount ---

    async def _verify(self, row: Chunk, start: int, end: int) -> None:
        for piece in self.plan(self.present_row(row), start, end):
            if piece.entry is not None and piece.entry.unverified is not None:
                await self._verify_entry(piece.entry, piece.start, piece.end)

    async def _verify_entry(self, entry: Entry, start: int, end: int) -> None:
        sums = self.sums.get(entry.chunk, {})
        due = [key for key in sums if key[0] < end and start < key[0] + key[1]]
        with self._shelf.pinned([entry]):
            good = await trio.to_thread.run_sync(
                self._check, entry.chunk, [(key, sums[key]) for key in due], limiter=self._disk
            )
        for offset, length in due:
            if (offset, length) not in good:
                log.warning("damaged cache file, fetched again: chunk=%x offset=%d", entry.chunk, offset)
                entry.present.remove(offset, offset + length)
            if entry.unverified is not None:
                entry.unverified.remove(offset, offset + length)
        if not entry.unverified:
            entry.unverified = None
            self.sums.pop(entry.chunk, None)

    def _check(self, chunk: ChunkId, due: list[tuple[tuple[int, int], int]]) -> set[tuple[int, int]]:
        good = set()
        for (offset, length), checksum in due:
            try:
                data = self._shelf.files.read(chunk, offset, length)
            except OSError:
                continue
            if xxhash.xxh3_64_intdigest(data) == checksum:
                good.add((offset, length))
        return good


def _copy_frames(piece: Piece, frames: Frames, offset: int, out: bytearray) -> None:
    if piece.run is None:
        return
    for chunk, frame in piece.run.keys:
        at = frame * FRAME_SIZE
        low, high = max(piece.start, at), min(piece.end, at + FRAME_SIZE)
        out[low - offset : high - offset] = frames[chunk, frame][low - at : high - at]
