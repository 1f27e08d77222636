"""What makes written data survive a power cut.

Owns the group sync of the log, fsync of one file, the background sync and the early start of the
kernel's writeback.  Promises (I1): when ``fsync`` returns, the data, rows and size of that file as they were
at the call are on the disk; one file's fsync waits for no other file's data.  Knows nothing of uploads.

Order, always: data on the disk (or in the log), then rows saying so, then one sync of the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import trio

from objfs.cache.disk import VersionFiles
from objfs.cache.entry import Entry
from objfs.cache.ranges import RangeSet
from objfs.cache.settings import CacheSettings
from objfs.cache.shelf import Shelf
from objfs.errors import Corrupt, ObjfsError
from objfs.model import ChunkId, Ino
from objfs.ports import DOING, ChunkTable, LogSync, WriteGate

log = logging.getLogger(__name__)

_ROUNDS = 8
_THREADS = 4
_MANY_FILES = 64
_QUEUE = 64
_BATCH = 64


class GroupSync:
    """LogSync over a blocking function: all who arrive before a sync starts share it.

    A failed sync closes the gate and fails every later call: after it nobody can know what the
    disk holds (the kernel drops the pages that it could not write).  ``changes`` is a number that is another
    one after every commit.
    """

    def __init__(
        self, sync: Callable[[], object], gate: WriteGate, changes: Callable[[], int] = lambda: 0
    ) -> None:
        self._sync = sync
        self._gate = gate
        self._changes = changes
        self._covered: int | None = None
        """``changes`` when the last sync began.  What a former process committed may not be on the disk."""
        self._started = 0
        self._finished = 0
        self._running = False
        self._changed = trio.Event()
        self._error: str | None = None

    async def sync(self) -> None:
        """Returns when everything committed before the call is on the disk.  Raises ObjfsError."""
        needed = self._started + 1
        while self._finished < needed:
            if self._error is not None:
                raise ObjfsError(self._error)
            if self._running:
                await self._changed.wait()
            else:
                await self._run()

    @property
    def behind(self) -> bool:
        return self._covered != self._changes()

    @property
    def syncs(self) -> int:
        """How many syncs have been started."""
        return self._started

    async def _run(self) -> None:
        self._running = True
        self._started += 1
        covered = self._changes()
        try:
            # Others wait for this one: the caller's cancellation must not take it from them.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._sync)
            self._finished, self._covered = self._started, covered
        except (OSError, ObjfsError) as error:
            self._error = f"the log of the inode table cannot be synced: {error}"
            self._gate.close(self._error)
            raise ObjfsError(self._error) from error
        finally:
            self._running = False
            self._changed.set()
            self._changed = trio.Event()


class Durability:
    """fsync, the background sync, and early writeback."""

    def __init__(
        self,
        shelf: Shelf,
        files: VersionFiles,
        table: ChunkTable,
        log_sync: LogSync,
        settings: CacheSettings,
        gate: WriteGate,
    ) -> None:
        self._shelf = shelf
        self._files = files
        self._table = table
        self._log = log_sync
        self._settings = settings
        self._gate = gate
        self._threads = trio.CapacityLimiter(_THREADS)
        self._full_send, self._full_receive = trio.open_memory_channel[ChunkId](_QUEUE)

    async def fsync(self, ino: Ino) -> None:
        """Data, rows and size of one file are on the disk.  Raises ObjfsError when the disk fails."""
        await self._settle(ino)
        await self._log.sync()

    async def sync(self) -> None:
        """Everything written before the call is on the disk.  Raises ObjfsError where that fails."""
        inodes = self._shelf.unsynced_inodes()
        entries = [e for ino in inodes for e in self._shelf.of_inode(ino) if e.unsynced]
        if len(entries) > _MANY_FILES:
            # Thousands of small files: one call, though it waits for the host's other writers too.
            await self._data_to_disk(entries, self._files.sync_everything)
        failure: ObjfsError | None = None
        for number, ino in enumerate(inodes):
            try:
                await self._settle(ino)
            except ObjfsError as error:
                failure = error  # one file that cannot be read must not keep the others from the disk
            if number % _BATCH == 0:
                await trio.lowlevel.checkpoint()
        await self._log.sync()
        if failure is not None:
            raise failure

    async def run(self) -> None:
        """Syncs every ``sync_interval_s`` and starts writeback of full chunks, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_full_chunks)
            while True:
                await trio.sleep(self._settings.sync_interval_s)
                try:
                    await self._empty_log()
                    # Names and attributes have no bytes in the cache, and are no older than these when lost.
                    if self._shelf.unsynced_inodes() or self._log.behind:
                        await self.sync()
                except ObjfsError as error:
                    log.error("background sync failed: error=%s", error)

    def chunk_full(self, chunk: ChunkId) -> None:
        """A write has reached the end of a chunk: the kernel may begin writing it."""
        try:
            self._full_send.send_nowait(chunk)
        except trio.WouldBlock:
            return  # only a head start is lost

    async def _write_full_chunks(self) -> None:
        async for chunk in self._full_receive:
            chunks = [chunk]
            while self._full_receive.statistics().current_buffer_used:
                chunks.append(self._full_receive.receive_nowait())
            await trio.to_thread.run_sync(self._files.start_writeback, chunks, limiter=self._threads)

    # --- one file ---

    async def _settle(self, ino: Ino) -> None:
        """The data of one file are on the disk, or in the log and there with its next sync."""
        for number in range(_ROUNDS):
            entries = [e for e in self._shelf.of_inode(ino) if e.unsynced and self._has_row(e)]
            if self._inline_fits(entries) or number == _ROUNDS - 1:
                self._into_log(entries)
                return
            await self._data_to_disk(entries, None)

    def _has_row(self, entry: Entry) -> bool:
        """Whether anybody could miss it: rows of freed versions take no ranges any more."""
        return not entry.freed and self._table.chunk(entry.chunk) is not None

    def _inline_fits(self, entries: Sequence[Entry]) -> bool:
        total = sum(entry.unsynced.total for entry in entries)
        if total > self._settings.inline_limit:
            return False
        return not total or total + self._shelf.inline_bytes <= self._settings.inline_total

    def _into_log(self, entries: Sequence[Entry]) -> None:
        """One commit of what is not in the files yet."""
        with self._table.transaction():
            for entry in entries:
                self._table.commit_inline(entry.chunk, self._bytes_of(entry))
        for entry in entries:
            self._shelf.ride(entry, entry.inline + entry.unsynced.total)
            entry.unsynced.clear()

    def _bytes_of(self, entry: Entry) -> list[tuple[int, bytes]]:
        """The unsynced bytes of a version.  Raises Corrupt when its file lost them."""
        try:
            return self._unsynced_bytes(entry)
        except OSError as error:
            raise Corrupt(f"cache file of chunk {entry.chunk:x} (not uploaded yet): {error}") from error

    def _unsynced_bytes(self, entry: Entry) -> list[tuple[int, bytes]]:
        pieces = []
        for start, end in entry.unsynced:
            data = self._files.read_nowait(entry.chunk, start, end - start)
            if data is None:  # written within seconds, yet no longer in memory
                data = self._files.read(entry.chunk, start, end - start)
            pieces.append((start, data))
        return pieces

    # --- through the files ---

    async def _data_to_disk(self, entries: Sequence[Entry], everything: Callable[[], None] | None) -> None:
        """Syncs versions' files and says so in their rows; what is written meanwhile stays unsynced."""
        watchers = [(entry, RangeSet()) for entry in entries]
        for entry, watcher in watchers:
            entry.watchers = (*entry.watchers, watcher)
        try:
            await self._sync_files(entries, everything)
            for at in range(0, len(watchers), _BATCH):
                DOING.operation = "sync"
                with self._table.transaction():
                    for entry, watcher in watchers[at : at + _BATCH]:
                        self._rows_synced(entry, watcher)
                await trio.lowlevel.checkpoint()
        finally:
            for entry, watcher in watchers:
                entry.watchers = tuple(other for other in entry.watchers if other is not watcher)

    async def _sync_files(self, entries: Sequence[Entry], everything: Callable[[], None] | None) -> None:
        names = [entry.chunk for entry in entries]
        new = [entry.chunk for entry in entries if entry.new_file]
        failures: list[OSError] = []
        absent: list[ChunkId] = []

        def sync_part(part: Sequence[ChunkId]) -> None:
            self._files.sync_files(part)
            absent.extend(self._files.absent(part))

        if everything is not None:
            await self._in_thread(everything, failures)
        else:
            async with trio.open_nursery() as nursery:
                for at in range(min(_THREADS, len(names))):
                    part = names[at::_THREADS]
                    nursery.start_soon(self._in_thread, partial(sync_part, part), failures)
            if new:
                await self._in_thread(partial(self._files.sync_directories, new), failures)
        if failures:
            reason = f"the cache's disk cannot be synced: {failures[0]}"
            # The kernel forgets what it could not write: no later sync could be believed.
            self._gate.close(reason)
            raise ObjfsError(reason) from failures[0]
        for entry in entries:
            entry.new_file = False
            if entry.chunk in absent and self._shelf.unplaced.get(entry.chunk) is entry and entry.unsynced:
                raise Corrupt(f"the cache file of chunk {entry.chunk:x} (not uploaded yet) is gone")

    async def _in_thread(self, sync: Callable[[], None], failures: list[OSError]) -> None:
        try:
            await trio.to_thread.run_sync(sync, limiter=self._threads)
        except OSError as error:
            failures.append(error)

    def _rows_synced(self, entry: Entry, meanwhile: RangeSet) -> None:
        """The rows of one version after a sync.  They are replaced as a whole, so what was written
        meanwhile must be small enough to ride in the log, else all of it waits for the next round.

        Also where another sync has vouched for it since, by the log: this one's file does not hold it."""
        if self._shelf.unplaced.get(entry.chunk) is not entry or not self._has_row(entry):
            return
        late = entry.present.common(meanwhile)
        if late.total > self._settings.inline_limit:
            return
        entry.unsynced = late
        self._table.mark_synced(entry.chunk, list(entry.present.minus(late)))
        if late:
            self._table.commit_inline(entry.chunk, self._bytes_of(entry))
        self._shelf.ride(entry, late.total)
        entry.unsynced = RangeSet()

    async def _empty_log(self) -> None:
        """Moves inline bytes to their files when half of what may ride in the log is used."""
        if self._shelf.inline_bytes * 2 > self._settings.inline_total:
            entries = [entry for entry in self._shelf.unplaced.values() if entry.inline]
            everything = self._files.sync_everything if len(entries) > _MANY_FILES else None
            await self._data_to_disk(entries, everything)
