"""Bytes that were written here, were not uploaded, and are gone from the cache's directory.

Owns the verdict that a version can never be whole again, and what becomes of the rest of it.  Promises that
what is left is on the disk in ``lost/``, beside the cache, before anybody gives the version up; and that what
rides in the log is not lost with a file.  No crash explains such a loss: somebody removed or cut a file, or
the local disk does not read it any more.  Changes no row.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.cache.disk import VersionFiles
from objfs.cache.entry import Entry, visible_length
from objfs.cache.ranges import Range, RangeSet
from objfs.cache.reader import Piece, Reader
from objfs.durable import sync_directory
from objfs.errors import Corrupt
from objfs.model import Chunk, ChunkId, DirtyRange, Ino
from objfs.ports import ChunkTable

log = logging.getLogger(__name__)

LOST = "lost"
_BLOCK = 4096
_GONE = (errno.ENOENT, errno.EIO)
Bytes = list[tuple[int, bytes]]
"""Pieces of a chunk, each with its place."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A chunk of a file that cannot be read any more.  ``offset`` is where it begins in its file, ``length``
    its bytes; ``ranges`` are gone, counted from there, the others are in ``kept``, each at its place (None:
    nothing is left)."""

    ino: Ino
    chunk: ChunkId
    offset: int
    length: int
    ranges: tuple[Range, ...]
    kept: Path | None

    @property
    def left(self) -> str:
        """Where what is left can be found, for a person."""
        return "nothing of it is left" if self.kept is None else f"what is left of it is in {self.kept}"


class Losses:
    """The verdicts of one cache; ``on_loss`` hears of each when it counts."""

    def __init__(self, files: VersionFiles, reader: Reader, table: ChunkTable, chunk_size: int) -> None:
        self._files = files
        self._reader = reader
        self._table = table
        self._chunk_size = chunk_size
        self.on_loss: Callable[[Loss], None] = lambda _loss: None

    # --- a write over what is lost -----------------------------------------------------

    def check_write(self, chunk: Chunk, entry: Entry, offset: int, end: int) -> None:
        """A lost chunk takes only a write over all of it: with less it could never be whole.  Raises
        Corrupt."""
        if chunk.base is None or entry.present:
            return
        if (offset > 0 or end < chunk.base_size) and self._is_lost(chunk.base):
            raise Corrupt(
                f"chunk {chunk.index} of inode {chunk.ino} is lost: write over all of it, truncate or "
                "delete the file (objfs status names what is lost)"
            )

    def _is_lost(self, chunk: ChunkId) -> bool:
        row = self._reader.row(chunk)
        return row is not None and row.location is not None and self._reader.segment_of(row).nowhere

    # --- the verdict -------------------------------------------------------------------

    async def look(self, entry: Entry) -> Loss | None:
        """What of a frozen version that could not be read is gone for good; None where nothing is.

        What rides in the log is put into the file again.  Raises OSError when what is left cannot be kept,
        and what reading the versions below raises.
        """
        row = entry.row
        assert row is not None
        riding = list(_riding(self._table.dirty_ranges(entry.chunk)))
        own = entry.present.minus(RangeSet((at, at + len(data)) for at, data in riding))
        gone = await trio.to_thread.run_sync(self._unreadable, entry.chunk, own)
        length = max(1, visible_length(row, entry))
        below = [piece for piece in self._reader.plan(row, 0, length) if piece.entry is not entry]
        lost = [piece for piece in below if piece.run is not None and piece.run.segment.nowhere]
        for piece in lost:
            gone.add(piece.start, piece.end)
        if not gone:
            await trio.to_thread.run_sync(self._put_back, entry.chunk, riding)
            return None
        pieces = [piece for piece in below if piece not in lost]
        pieces += [Piece(start, end, entry=entry) for start, end in own.minus(gone)]
        left = riding + [(piece.start, await self._reader.read_piece(row, piece)) for piece in pieces]
        kept = await trio.to_thread.run_sync(self._keep, row, length, left) if left else None
        return Loss(entry.ino, entry.chunk, row.index * self._chunk_size, length, tuple(gone), kept)

    def _unreadable(self, chunk: ChunkId, ranges: RangeSet) -> RangeSet:
        """What of these its file does not give.  Raises OSError where that may be otherwise in a moment."""
        gone, end = RangeSet(), self._files.length(chunk)
        for low, high in ranges:
            gone.add(max(low, end), high)
            for start in range(low, min(high, end), _BLOCK):
                stop = min(start + _BLOCK, high, end)
                try:
                    self._files.read(chunk, start, stop - start)
                except OSError as error:
                    if error.errno not in _GONE:
                        raise
                    gone.add(start, stop)
        return gone

    def _put_back(self, chunk: ChunkId, pieces: Bytes) -> None:
        for offset, data in pieces:
            self._files.put_back(chunk, offset, data)

    def _keep(self, row: Chunk, length: int, pieces: Bytes) -> Path:
        """What is left, durably; holes are what is lost."""
        folder = self._files.directory.parent / LOST
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{row.ino}-{row.index * self._chunk_size}-{row.chunk:x}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, length)
            for offset, data in pieces:
                os.pwrite(descriptor, data, offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(folder)
        sync_directory(folder.parent)
        return path

    def tell(self, loss: Loss) -> None:
        """In the log at once, and to whoever knows paths."""
        ranges = ", ".join(f"{loss.offset + start} to {loss.offset + end - 1}" for start, end in loss.ranges)
        log.error(
            "lost: ino=%d bytes %s were written here and not uploaded, and are gone from the cache's "
            "directory; chunk %x reads as an error, %s",
            loss.ino,
            ranges,
            loss.chunk,
            loss.left,
        )
        self.on_loss(loss)


def _riding(ranges: Sequence[DirtyRange]) -> Iterator[tuple[int, bytes]]:
    """Bytes that are in the log and that nothing newer covers."""
    newer = RangeSet()
    for one in reversed(ranges):
        if one.data is not None:
            for start, end in newer.gaps(one.offset, one.offset + one.length):
                yield start, one.data[start - one.offset : end - one.offset]
        newer.add(one.offset, one.offset + one.length)
