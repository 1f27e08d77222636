"""The bytes of files: read, write, truncate and what fsync promises.

Owns the cutting of a file's range into chunks, the choice between writing a version in place and
beginning a new one over it, and the order of data before rows.  Promises:

- A write waits only in ``admit`` (back-pressure) and for a long truncate of the same file; then it
  puts bytes and commits rows without awaiting, so that nobody sees half of it.
- A frozen or stored version is never written: a new one is begun over it, with ``base_size`` the end
  of what the old one shows, or without a base when the write covers all of that.
- No version shows bytes beyond its file's size: truncating clips the version at the new end, so that
  growing again shows zeros.
- While writes are held back (``held``), none begins: who clones files makes what they hold durable meanwhile.
- A truncate that removes more chunks than fit into one step continues in further steps; until the last
  one, writes and truncates of that file wait (``_busy``, one event per file; nothing else is locked),
  because a file that grew in between would show the old chunks again.  Reads need not wait: the size is
  already the new one.

Knows no names, no handles and no protocol.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

from objfs.errors import FileTooBig, InvalidArgument, IsDirectory, ObjfsError
from objfs.fs.ports import Barrier, ChunkCachePort, FsSettings, Tables
from objfs.model import FILE_SIZE_MAX, Attr, Chunk, DirtyRange, Ino
from objfs.ports import Clock

CHUNKS_PER_STEP = 1024
"""How many chunks one step of a truncate removes; about 10 ms of the event loop."""


class Piece(NamedTuple):
    """The part of a range that lies in one chunk."""

    number: int
    offset: int
    length: int


class Data:
    """The content of the files of one view.  ``writable`` is called before each change."""

    def __init__(
        self,
        table: Tables,
        cache: ChunkCachePort,
        settings: FsSettings,
        clock: Clock,
        barrier: Barrier,
        *,
        writable: Callable[[], None],
    ) -> None:
        self._table = table
        self._cache = cache
        self._chunk_size = settings.chunk_size
        self._bucket_fsync = settings.fsync == "bucket"
        self._clock = clock
        self._barrier = barrier
        self._writable = writable
        self._busy: dict[Ino, trio.Event] = {}
        self._holds: list[trio.Event] = []

    # --- reading -----------------------------------------------------------------------

    async def read(self, ino: Ino, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes, fewer only at the end of the file; holes read as zeros."""
        length = min(length, self._table.get(ino).size - offset)
        if length <= 0:
            return b""
        if offset % self._chunk_size + length <= self._chunk_size:
            return await self._read_piece(ino, self._piece(offset, length))
        return await self._read_pieces(ino, list(self._pieces(offset, length)))

    async def _read_pieces(self, ino: Ino, pieces: list[Piece]) -> bytes:
        """Several chunks, those that are not local at the same time."""
        parts: dict[int, bytes] = {}

        async def fetch(piece: Piece) -> None:
            parts[piece.number] = await self._read_piece(ino, piece)

        cold = []
        live = self._live(ino, pieces[0].number, pieces[-1].number)
        for piece in pieces:
            part = self._read_local(live.get(piece.number), piece)
            if part is None:
                cold.append(piece)
            else:
                parts[piece.number] = part
        if len(cold) == 1:
            await fetch(cold[0])
        elif cold:
            await _all_of(fetch, cold)
        return b"".join(parts[piece.number] for piece in pieces)

    async def _read_piece(self, ino: Ino, piece: Piece) -> bytes:
        chunk = self._table.chunk_at(ino, piece.number)
        while True:
            local = self._read_local(chunk, piece)
            if local is not None or chunk is None:
                return local or bytes(piece.length)
            try:
                return await self._cache.read(chunk, piece.offset, piece.length)
            except ObjfsError:
                # The version may have been replaced, and freed, while its bytes were on their way.
                tried, chunk = chunk, self._table.chunk_at(ino, piece.number)
                if chunk is not None and chunk.chunk == tried.chunk:
                    raise

    def _read_local(self, chunk: Chunk | None, piece: Piece) -> bytes | None:
        if chunk is None:
            return bytes(piece.length)
        return self._cache.read_nowait(chunk, piece.offset, piece.length)

    # --- writing -----------------------------------------------------------------------

    async def write(
        self,
        ino: Ino,
        offset: int,
        data: bytes,
        *,
        clear_suid: bool = False,
        still: Callable[[], object] = lambda: None,
    ) -> int:
        """All of ``data`` at ``offset``; returns its length.  ``still`` is called after the wait for room and
        raises where the file is not the one any more that the caller means.

        Raises FileTooBig, ReadOnly, NoSpace.  When the local disk fails in the middle, what was
        written before stays, as a file system may leave it.
        """
        self._writable()
        end = offset + len(data)
        if end > FILE_SIZE_MAX:
            raise FileTooBig(f"inode {ino}: a write up to byte {end}; at most {FILE_SIZE_MAX}")
        if not data:
            return 0
        await self._admit(ino, len(data))
        self._writable()
        still()
        self._write_now(ino, offset, data, clear_suid)
        return len(data)

    async def _admit(self, ino: Ino, nbytes: int) -> None:
        """The room that the cache promises is certain only until the next await: asked for last."""
        await self._cache.admit(nbytes)
        while self._holds or ino in self._busy:
            if self._holds:
                await self._holds[0].wait()
            await self._wait_turn(ino)
            await self._cache.admit(nbytes)

    @contextmanager
    def held(self) -> Iterator[None]:
        """No write begins while the body runs; those that come wait for its end."""
        over = trio.Event()
        self._holds.append(over)
        try:
            yield
        finally:
            self._holds.remove(over)
            over.set()

    def _write_now(self, ino: Ino, offset: int, data: bytes, clear_suid: bool) -> None:
        """Bytes, then rows, in one transaction that also holds when it ends early."""
        ranges: list[DirtyRange] = []
        failed: Exception | None = None
        done = 0
        with self._table.transaction():
            for piece in self._pieces(offset, len(data)):
                part = data if piece.length == len(data) else data[done : done + piece.length]
                written = self._write_piece(ino, piece, part)
                if isinstance(written, Exception):
                    failed = written
                    break
                ranges.append(written)
                done += piece.length
            if ranges:
                now = self._clock.now_ns()
                self._table.record_write(ino, offset + done, now, ranges, clear_suid=clear_suid)
        if failed is not None:
            raise failed

    def _write_piece(self, ino: Ino, piece: Piece, part: bytes) -> DirtyRange | Exception:
        """Returns an error instead of raising it: the rows are right either way (a version that was
        begun for nothing shows its base, or goes), so that earlier pieces can stay."""
        old = self._table.chunk_at(ino, piece.number)
        chunk = old if old is not None and self._cache.writable(old) else self._begin(ino, piece, old)
        try:
            return self._cache.write(chunk, piece.offset, part)
        except (ObjfsError, OSError) as error:
            if old is None:
                self._table.clip_chunk(chunk.chunk, 0)
            return error

    def _begin(self, ino: Ino, piece: Piece, old: Chunk | None) -> Chunk:
        """A new version over the old one, also where it covers all of it: until the new bytes are
        durable a power cut falls back to what was acknowledged (I1)."""
        if old is None:
            return self._table.begin_chunk(ino, piece.number, None, 0)
        return self._table.begin_chunk(ino, piece.number, old.chunk, self._cache.visible_length(old))

    # --- truncating --------------------------------------------------------------------

    async def truncate(self, ino: Ino, size: int) -> Attr:
        """Cuts or grows (sparsely) a regular file.  Raises FileTooBig, InvalidArgument, IsDirectory."""
        self._writable()
        if not 0 <= size <= FILE_SIZE_MAX:
            raise FileTooBig(f"inode {ino}: a size of {size} bytes; at most {FILE_SIZE_MAX}")
        _check_regular(self._table.get(ino))
        await self._wait_turn(ino)
        self._writable()
        now = self._clock.now_ns()
        with self._table.transaction():
            if size < self._table.get(ino).size:
                self._clip_tail(ino, size)
            finished = self._table.truncate(ino, size, now, CHUNKS_PER_STEP)
        if not finished:
            await self._truncate_further(ino, size, now)
        return self._table.get(ino)

    async def _truncate_further(self, ino: Ino, size: int, now: int) -> None:
        done = self._busy[ino] = trio.Event()
        try:
            # A step that is not taken because the caller went away would let old chunks reappear.
            with trio.CancelScope(shield=True):
                while not self._table.truncate(ino, size, now, CHUNKS_PER_STEP):
                    await trio.lowlevel.checkpoint()
        finally:
            del self._busy[ino]
            done.set()

    def _clip_tail(self, ino: Ino, size: int) -> None:
        """The chunk that straddles the new end keeps what is before it."""
        index, keep = divmod(size, self._chunk_size)
        chunk = self._table.chunk_at(ino, index) if keep else None
        length = 0 if chunk is None else self._cache.visible_length(chunk)
        if chunk is None or length <= keep:
            return
        if self._cache.writable(chunk):
            self._cache.clip(chunk, keep)
        else:
            chunk = self._table.begin_chunk(ino, index, chunk.chunk, length)
        self._table.clip_chunk(chunk.chunk, keep)

    @property
    def truncating(self) -> bool:
        """Whether a truncate goes on that takes several steps."""
        return bool(self._busy)

    async def truncated(self) -> None:
        """Returns when no such truncate goes on, until the caller awaits."""
        for ino in list(self._busy):
            await self._wait_turn(ino)

    async def _wait_turn(self, ino: Ino) -> None:
        while (busy := self._busy.get(ino)) is not None:
            await busy.wait()

    # --- durability --------------------------------------------------------------------

    async def fsync(self, ino: Ino) -> None:
        """Returns when the file's (or directory's) data and rows survive a power cut, and with
        ``fsync = "bucket"`` when a recoverable moment in the buckets contains them."""
        await self._cache.fsync(ino)
        if self._bucket_fsync:
            await self._barrier.flush()

    # --- inside ------------------------------------------------------------------------

    def _piece(self, offset: int, length: int) -> Piece:
        index, start = divmod(offset, self._chunk_size)
        return Piece(index, start, min(length, self._chunk_size - start))

    def _pieces(self, offset: int, length: int) -> Iterator[Piece]:
        end = offset + length
        while offset < end:
            piece = self._piece(offset, end - offset)
            yield piece
            offset += piece.length

    def _live(self, ino: Ino, first: int, last: int) -> dict[int, Chunk]:
        found = self._table.chunks_between(ino, first, last, last - first + 1)
        return {chunk.index: chunk for chunk in found}


def _check_regular(attr: Attr) -> None:
    if attr.is_dir:
        raise IsDirectory(f"inode {attr.ino} is a directory")
    if not attr.is_regular:
        raise InvalidArgument(f"inode {attr.ino} is not a regular file")


async def _all_of(function: Callable[[Piece], Awaitable[None]], pieces: list[Piece]) -> None:
    """Runs all at once; the first error ends the rest and is raised as itself, not in a group."""
    failed: list[ObjfsError] = []

    async def attempt(piece: Piece) -> None:
        try:
            await function(piece)
        except ObjfsError as error:
            failed.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for piece in pieces:
            nursery.start_soon(attempt, piece)
    if failed:
        raise failed[0]
