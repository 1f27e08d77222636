"""The local write-back cache: the one door for ``fs`` and ``volume``.

Owns the composition of the cache's parts and its tasks.  Promises: writes and reads of cached bytes wait
for no bucket (I8); disk use stays below the cap (I6); fsync is durable (I1); a cut names every
unplaced version and tells when all of them are stored (I2).  Knows table, log and store only as ports.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import trio
import xxhash

from objfs.cache.copies import Copies, Spend, verify_copies
from objfs.cache.cut import Cut
from objfs.cache.disk import VersionFiles
from objfs.cache.durability import Durability
from objfs.cache.entry import Entry, State, visible_length
from objfs.cache.fetch import FrameFetcher, FrameRun
from objfs.cache.ledger import CleanLog
from objfs.cache.loss import Loss, Losses
from objfs.cache.prefetch import Scout
from objfs.cache.reader import Reader
from objfs.cache.recovery import Recovery, RecoveryReport, boot_id
from objfs.cache.settings import CacheSettings, CacheStatistics
from objfs.cache.shelf import Shelf
from objfs.cache.space import Space
from objfs.cache.view import CacheView
from objfs.cache.writeback import Writeback
from objfs.errors import ObjfsError
from objfs.model import Chunk, ChunkId, DirtyRange, Ino
from objfs.ports import ChunkTable, Clock, LogSync, SegmentPort, WriteGate

log = logging.getLogger(__name__)

_REAP_BATCH = 256
_REAP_INTERVAL_S = 1.0
_PREFETCHES = 4


class ChunkCache:
    """Chunk versions on the local disk, between programs and buckets.

    ``extra`` gives the bytes that others keep on the same budget (the log of the inode table, its
    replica); ``boot`` is the boot id that the inode table was opened with (the kernel's by default).
    All methods belong to the loop's thread.  ``recover`` once before anything else, ``run`` in a
    nursery for as long as the cache is used, ``close`` at the end.
    """

    def __init__(
        self,
        directory: Path,
        chunk_size: int,
        table: ChunkTable,
        log: LogSync,
        store: SegmentPort,
        settings: CacheSettings,
        gate: WriteGate,
        clock: Clock,
        *,
        extra: Callable[[], int] | None = None,
        boot: bytes | None = None,
    ) -> None:
        self._chunk_size = chunk_size
        self._boot = boot if boot is not None else boot_id()
        self._table = table
        self._clock = clock
        self._files = VersionFiles(directory, settings.open_files)
        self._ledger = CleanLog(directory)
        self._shelf = Shelf(self._files, self._ledger)
        self._space = Space(self._shelf, settings, gate, extra)
        self._fetcher = FrameFetcher(store, table, self._shelf, self._space)
        self._settings = settings
        self._scout = self._scout_of(table)
        self._reader = Reader(self._shelf, table, self._fetcher)
        self._losses = Losses(self._files, self._reader, table, chunk_size)
        self._writeback = Writeback(
            self._shelf, self._space, self._reader, self._losses, table, store, settings, gate, clock
        )
        self._durability = Durability(self._shelf, self._files, table, log, settings, gate)
        self._space.on_pressure = self._writeback.kick
        self._upload_above = settings.upload_above
        self._nursery: trio.Nursery | None = None
        self._prefetching = 0

    # --- writing ---

    async def admit(self, nbytes: int) -> None:
        """Returns when ``nbytes`` may be written, without a checkpoint while there is room.

        The room is certain until the caller awaits.  First come, first served.  Raises NoSpace
        (nothing can make room, or ``full_timeout_s`` is over) and ReadOnly (the gate is closed).
        """
        await self._space.admit(nbytes)

    def writable(self, chunk: Chunk) -> bool:
        """Whether this version may still be written and clipped: else begin a new one over it."""
        if chunk.location is not None:
            return False
        entry = self._shelf.entries.get(chunk.chunk)
        return entry is None or entry.state is State.DIRTY

    def write(self, chunk: Chunk, offset: int, data: bytes) -> DirtyRange:
        """Puts ``data`` at ``offset`` of a writable version; the range is for ``record_write``.

        The bytes are in the page cache on return.  A version that is begun over another must name it as
        base even where the write covers all of it: until the new bytes are on the disk, a power cut
        falls back to the old ones (I1).  Raises NoSpace (the host's disk is full), Corrupt (over a part of
        what is lost), ObjfsError (not writable, beyond the chunk, local disk failure).
        """
        end = offset + len(data)
        if end > self._chunk_size or not data:
            raise ObjfsError(
                f"chunk {chunk.chunk:x}: cannot write [{offset}, {end}) of {self._chunk_size} bytes"
            )
        if not self.writable(chunk):
            raise ObjfsError(f"chunk {chunk.chunk:x} is frozen or stored: begin a new version over it")
        entry = self._shelf.track(chunk, self._clock.monotonic())
        self._losses.check_write(chunk, entry, offset, end)
        grown = max(0, end - visible_length(chunk, entry))
        self._shelf.write(entry, offset, data, self._clock.monotonic())
        if end == self._chunk_size:
            self._durability.chunk_full(chunk.chunk)
        if self._shelf.dirty_bytes > self._upload_above:
            self._writeback.kick()
        checksum = xxhash.xxh3_64_intdigest(data)
        return DirtyRange(chunk.chunk, offset, len(data), checksum, grown=grown)

    def clip(self, chunk: Chunk, length: int) -> None:
        """A writable version keeps its first ``length`` bytes; beyond them it reads as zeros.

        The caller commits ``clip_chunk`` in the same step.
        """
        if not self.writable(chunk):
            raise ObjfsError(f"chunk {chunk.chunk:x} is frozen or stored: begin a new version over it")
        self._shelf.track(chunk, self._clock.monotonic()).clip(length)

    # --- reading ---

    def visible_length(self, chunk: Chunk) -> int:
        """How many bytes of the version are defined, in bytes; all beyond are zeros."""
        return visible_length(self._reader.present_row(chunk), self._shelf.entries.get(chunk.chunk))

    def read_nowait(self, chunk: Chunk, offset: int, length: int) -> bytes | None:
        """Exactly ``length`` bytes, or None when some of them are not in memory or not verified yet."""
        return self.read_nowait_of(self._scout, chunk, offset, length)

    async def read(self, chunk: Chunk, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes: own ones, the base's, the store's, zeros.

        Raises NotEnoughShards or BucketError within the store's bound when a bucket is needed and
        cannot give, Corrupt when local bytes are lost.
        """
        return await self.read_of(self._scout, chunk, offset, length)

    def at(self, table: ChunkTable) -> CacheView:
        """What another tree of the volume reads through this cache; ``table`` says which version is where."""
        return CacheView(self, self._scout_of(table))

    def _scout_of(self, table: ChunkTable) -> Scout:
        return Scout(self._shelf, self._space, table, self._fetcher, self._settings, self._chunk_size)

    def read_nowait_of(self, scout: Scout, chunk: Chunk, offset: int, length: int) -> bytes | None:
        """``read_nowait`` of a tree."""
        data = self._reader.read_nowait(chunk, offset, length)
        if data is not None and chunk.location is not None:
            self._prefetch(scout.with_hit(chunk, offset, length))
        return data

    async def read_of(self, scout: Scout, chunk: Chunk, offset: int, length: int) -> bytes:
        """``read`` of a tree."""
        data = self.read_nowait_of(scout, chunk, offset, length)
        return data if data is not None else await self._reader.read(chunk, offset, length, scout)

    def _prefetch(self, runs: Sequence[FrameRun]) -> None:
        if runs and self._nursery is not None and self._prefetching < _PREFETCHES:
            self._prefetching += 1
            self._nursery.start_soon(self._fetch_ahead, runs)

    async def _fetch_ahead(self, runs: Sequence[FrameRun]) -> None:
        try:
            await self._fetcher.fetch(runs)
        except ObjfsError as error:
            log.debug("prefetch failed: error=%s", error)
        finally:
            self._prefetching -= 1

    # --- durability ---

    async def fsync(self, ino: Ino) -> None:
        """Data, rows and size of one file are on the local disk (I1); waits for no other file's data."""
        await self._durability.fsync(ino)

    async def sync(self) -> None:
        """Everything written before the call is on the local disk."""
        await self._durability.sync()

    # --- uploading ---

    def trim(self) -> None:
        """Gives clean bytes up for what others now take of the budget; never waits."""
        self._space.room_for(0)

    def cut(self) -> Cut:
        """Every unplaced version of this moment, frozen.  Synchronous."""
        return self._writeback.cut()

    def freeze(self) -> None:
        """No version of this moment changes any more: writes begin new ones over them.  Synchronous."""
        self._writeback.freeze()

    def freeze_only(self, chunks: Iterable[ChunkId]) -> None:
        """The same for these dirty versions.  Synchronous."""
        self._writeback.freeze_only(chunks)

    async def drain(self) -> None:
        """Returns when everything dirty at the call is in segments; needs ``run``."""
        await self._writeback.cut().placed()

    async def verify_copies(self, spend: Spend) -> Copies:
        """Every clean frame against its checksum; what does not match is dropped.  ``spend`` sets the
        pace."""
        return await verify_copies(self._shelf, self._files, self._ledger, spend)

    # --- life ---

    def recover(self) -> RecoveryReport:
        """At mount, before anything else: what the last mount left becomes entries again."""
        recovery = Recovery(
            self._shelf, self._files, self._ledger, self._table, self._clock, self._chunk_size, self._boot
        )
        report = recovery.run()
        self._reader.sums = recovery.sums
        return report

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Uploads, syncs in the background, drops freed versions and prefetches, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._writeback.run)
                nursery.start_soon(self._durability.run)
                nursery.start_soon(self._reap_forever)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def close(self) -> None:
        """Closes the files and writes the checksums of what stays warm; nothing is synced."""
        self._ledger.flush()
        self._files.close()

    async def _reap_forever(self) -> None:
        while True:
            try:
                while await self._reap() == _REAP_BATCH:
                    await trio.lowlevel.checkpoint()
            except (ObjfsError, OSError) as error:
                log.error("freed versions stay for now: %s", error)
            await trio.sleep(_REAP_INTERVAL_S)

    async def _reap(self) -> int:
        """Drops a batch of freed versions; those still needed go when they are not any more.

        Files go in a worker, because removing many waits for the disk, and count until they are gone.
        """
        freed = self._table.freed(_REAP_BATCH)
        if not freed:
            return 0
        going = [entry for chunk in freed if (entry := self._freed(chunk)) is not None]
        try:
            await trio.to_thread.run_sync(self._files.unlink_files, [entry.chunk for entry in going])
        finally:  # what a failing disk keeps is a file of nobody at the next mount
            for entry in going:
                self._shelf.removed(entry)
        self._table.forget_freed(freed)
        return len(freed)

    def _freed(self, chunk: ChunkId) -> Entry | None:
        """A freed version's entry if nobody needs it: it is forgotten, and its file may go."""
        entry = self._shelf.entries.get(chunk)
        if entry is None:
            return None
        entry.freed = True
        if entry.needed or not self._shelf.forget(entry):
            return None
        self._files.close_file(chunk)
        return entry

    def on_loss(self, told: Callable[[Loss], None]) -> None:
        """``told`` hears of every chunk that is lost for good: its dirty bytes are gone from here."""
        self._losses.on_loss = told

    def statistics(self) -> CacheStatistics:
        shelf = self._shelf
        oldest = next(iter(shelf.unplaced.values()), None)
        return CacheStatistics(
            cached_bytes=shelf.held_bytes,
            dirty_bytes=shelf.dirty_bytes,
            dirty_chunks=len(shelf.unplaced),
            oldest_dirty_age_s=self._clock.monotonic() - oldest.first_dirty if oldest is not None else 0.0,
            entries=len(shelf.entries),
            hits=self._reader.hits,
            misses=self._reader.misses,
            uploading=self._space.in_flight,
            waiting_writers=self._space.waiting,
            inline_bytes=shelf.inline_bytes,
            upload_failures=self._writeback.failures,
            last_error=self._writeback.last_error,
        )
