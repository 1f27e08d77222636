"""All versions that the cache holds, and what they weigh.

Owns the entries, their order (oldest dirty first, least recently used clean first) and the count of
disk bytes.  Promises that the counts equal the sum over the entries and that only CLEAN, unpinned
versions are evicted.  Every method is synchronous: what it changes is whole at the next ``await``.
Knows neither table nor store.
"""

from __future__ import annotations

import errno
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import xxhash

from objfs.cache.disk import VersionFiles
from objfs.cache.entry import Entry, State
from objfs.cache.ledger import CleanLog
from objfs.errors import NoSpace, ObjfsError
from objfs.model import Chunk, ChunkId, Ino


class Shelf:
    """Entries and their files; ``on_room`` is called whenever disk space or an entry came free."""

    def __init__(self, files: VersionFiles, ledger: CleanLog) -> None:
        self.files = files
        self.ledger = ledger
        self.entries: dict[ChunkId, Entry] = {}
        self.unplaced: dict[ChunkId, Entry] = {}
        """DIRTY and FROZEN versions, oldest first."""
        self._clean: OrderedDict[ChunkId, Entry] = OrderedDict()
        self._by_ino: defaultdict[Ino, dict[ChunkId, Entry]] = defaultdict(dict)
        self.held_bytes = 0
        self.dirty_bytes = 0
        self.inline_bytes = 0
        self.on_room: Callable[[], None] = lambda: None

    # --- dirty versions ---

    def track(self, row: Chunk, now: float) -> Entry:
        """The entry of a dirty version, made when it is new."""
        entry = self.unplaced.get(row.chunk)
        if entry is None:
            if row.chunk in self.entries:
                raise ObjfsError(f"chunk {row.chunk:x} is in its segment already: it cannot be written")
            entry = Entry(row.chunk, row.ino, row, now)
            self.entries[row.chunk] = self.unplaced[row.chunk] = entry
            self._by_ino[row.ino][row.chunk] = entry
        return entry

    def write(self, entry: Entry, offset: int, data: bytes, now: float) -> None:
        """Puts ``data`` into the version's file.  Raises NoSpace when the host's disk is full, ObjfsError
        when the file is not what it was: a new one would show zeros for what is lost."""
        try:
            if entry.present:
                self.files.check_length(entry.chunk, entry.present.end)
            self.files.write(entry.chunk, offset, data)
        except OSError as error:
            kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else ObjfsError
            raise kind(f"cannot write the cache file of chunk {entry.chunk:x}: {error}") from error
        grown = entry.wrote(offset, offset + len(data), now)
        self.held_bytes += grown
        self.dirty_bytes += grown

    def ride(self, entry: Entry, nbytes: int) -> None:
        """So many bytes of a version ride in the log of the inode table now."""
        self.inline_bytes += nbytes - entry.inline
        entry.inline = nbytes

    def of_inode(self, ino: Ino) -> list[Entry]:
        """The unplaced versions of one file."""
        found = self._by_ino.get(ino)
        return list(found.values()) if found else []

    def unsynced_inodes(self) -> list[Ino]:
        """Files with data that a power cut would take."""
        return [ino for ino, found in self._by_ino.items() if any(e.unsynced for e in found.values())]

    def settle(self, entry: Entry) -> None:
        """A placed version becomes CLEAN and evictable."""
        self._leave_unplaced(entry)
        entry.place()
        self._clean[entry.chunk] = entry
        self.on_room()

    def _leave_unplaced(self, entry: Entry) -> None:
        if self.unplaced.pop(entry.chunk, None) is not None:
            self.dirty_bytes -= entry.allocated
            self.ride(entry, 0)
            family = self._by_ino[entry.ino]
            family.pop(entry.chunk, None)
            if not family:
                del self._by_ino[entry.ino]

    # --- clean versions ---

    def keep(self, chunk: ChunkId, ino: Ino, offset: int, data: bytes) -> None:
        """Adds the bytes of one frame of a stored version; the caller has made room."""
        entry = self.entries.get(chunk)
        if entry is None:
            entry = Entry(chunk, ino, None, 0.0)
            self.entries[chunk] = self._clean[chunk] = entry
        try:
            self.files.write(chunk, offset, data)
        except OSError:
            # A full disk costs warmth only.  The file may hold half of it: nothing says it is present.
            return
        self.held_bytes += entry.holds(offset, offset + len(data))
        self.note_clean(chunk, offset, data)

    def note_clean(self, chunk: ChunkId, offset: int, data: bytes) -> None:
        """Records the checksum of a frame that the next mount may use."""
        self.ledger.note(chunk, offset, len(data), xxhash.xxh3_64_intdigest(data))

    def warm(self, entry: Entry) -> None:
        """Adds a clean version that a former mount left."""
        self.entries[entry.chunk] = self._clean[entry.chunk] = entry
        self.held_bytes += entry.allocated

    def used(self, entry: Entry) -> None:
        """Notes a read, for the eviction order."""
        if entry.state is State.CLEAN:
            self._clean.move_to_end(entry.chunk)

    def evict(self, nbytes: int, count: int = 0) -> int:
        """Drops least recently used clean versions until ``nbytes`` and ``count`` entries are freed;
        returns the bytes that came free (less when there is no more to drop)."""
        freed = dropped = 0
        victims = []
        for entry in self._clean.values():
            if freed >= nbytes and dropped >= count:
                break
            if not entry.pins:
                victims.append(entry)
                freed += entry.allocated
                dropped += 1
        for entry in victims:
            self.drop(entry)
        return freed

    # --- both ---

    def drop(self, entry: Entry) -> None:
        """Forgets a version and removes its file."""
        if self.forget(entry):
            self.files.remove(entry.chunk)
            self.removed(entry)

    def forget(self, entry: Entry) -> bool:
        """The first half of ``drop``: nobody finds the version any more, its file still counts."""
        if self.entries.pop(entry.chunk, None) is None:
            return False
        self._leave_unplaced(entry)
        self._clean.pop(entry.chunk, None)
        return True

    def removed(self, entry: Entry) -> None:
        """The second half: the file is gone."""
        self.held_bytes -= entry.allocated
        self.on_room()

    def forget_if_unneeded(self, entry: Entry) -> None:
        """Drops a freed version unless a reader, a cut or an upload still needs it."""
        if entry.freed and not entry.needed:
            self.drop(entry)

    @contextmanager
    def pinned(self, entries: Iterable[Entry]) -> Iterator[None]:
        """Keeps the entries' files from being removed meanwhile."""
        held = list(entries)
        for entry in held:
            entry.pins += 1
        try:
            yield
        finally:
            for entry in held:
                entry.pins -= 1
                self.forget_if_unneeded(entry)
            self.on_room()
