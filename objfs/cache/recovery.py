"""What the last mount left in the cache directory.

Owns the rules by which files and rows become entries again.  Dirty versions: after a crash of the
daemon alone (same boot) every recorded range is trusted; after a reboot or power cut a range counts
when it was synced, rides in the log, or matches its checksum; a file that lost a range with which it
grew ends before it (I1).  Clean versions: kept where ``clean.log`` has checksums, which the first read
verifies (I4).  Files of nobody are removed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import xxhash

from objfs.cache.disk import VersionFiles
from objfs.cache.entry import Entry, visible_length
from objfs.cache.ledger import CleanLog, Sums
from objfs.cache.ranges import RangeSet
from objfs.cache.shelf import Shelf
from objfs.errors import ObjfsError, StaleHandle
from objfs.model import Chunk, ChunkId, DirtyRange, Ino, Snapshot
from objfs.ports import ChunkTable, Clock

log = logging.getLogger(__name__)

_MANY_FILES = 64
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@runtime_checkable
class PowerCutTable(Protocol):
    """What recovery after a power cut asks of the inode table besides the block map."""

    def set_size_after_power_cut(self, ino: Ino, size: int) -> None:
        """The file ends at ``size``, if not before; chunks beyond are removed."""
        ...

    def count_held(self, ino: Ino) -> None:
        """What the file's chunks hold is counted anew from their rows."""
        ...

    def drop_snapshots_showing(self, chunks: Collection[ChunkId]) -> Sequence[Snapshot]:
        """Drops and returns the snapshots that show one of these versions."""
        ...


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What ``recover`` found: versions that wait for upload and that are warm, ranges lost to a power
    cut and the files that are shorter for it, files removed."""

    dirty_chunks: int
    clean_chunks: int
    lost_ranges: int
    shortened: tuple[Ino, ...]
    removed_files: int


class Recovery:
    """One pass over rows and files; afterwards ``sums`` are the checksums still to be verified."""

    def __init__(
        self,
        shelf: Shelf,
        files: VersionFiles,
        ledger: CleanLog,
        table: ChunkTable,
        clock: Clock,
        chunk_size: int,
        boot: bytes,
    ) -> None:
        self._shelf = shelf
        self._files = files
        self._ledger = ledger
        self._table = table
        self._clock = clock
        self._chunk_size = chunk_size
        self._boot = boot
        self.sums: Sums = {}
        self._lost: dict[Ino, int] = {}
        self._torn: set[ChunkId] = set()
        self._grown: list[tuple[Chunk, int]] = []
        """Versions that lost a range with which their file grew, and the size that it had before."""
        self._foreign: list[Entry] = []

    def run(self) -> RecoveryReport:
        """Raises OSError when the cache directory cannot be read or synced."""
        files = dict(self._found())
        dirty = self._table.dirty_chunks()
        for row in dirty:
            self._recover_dirty(row)
        self._drop_torn_snapshots()
        ends = self._ends()
        self._shorten(ends)
        self._adopt_foreign()
        self._count_held()
        clean, removed = self._recover_clean(files)
        report = RecoveryReport(len(dirty), clean, sum(self._lost.values()), tuple(ends), removed)
        log.info("cache recovered: %s", report)
        return report

    def _found(self) -> list[tuple[ChunkId, os.DirEntry[str]]]:
        found = []
        for entry, chunk in self._files.walk():
            if chunk is None:
                log.warning("unknown file removed from the cache: name=%s", entry.name)
                os.unlink(entry)
            else:
                found.append((chunk, entry))
        return found

    # --- dirty ---

    def _recover_dirty(self, row: Chunk) -> None:
        """The newest range decides first: an older one counts only where nothing newer is sound."""
        entry = self._shelf.track(row, self._clock.monotonic())
        sound = RangeSet()
        ranges = self._table.dirty_ranges(row.chunk)
        lacks = self._lacks_bytes(row.chunk, ranges)
        if not lacks and any(not self._of_this_boot(one) for one in ranges):
            self._foreign.append(entry)
        for one in reversed(ranges):
            end = one.offset + one.length
            if self._is_sound(one, sound):
                sound.add(one.offset, end)
            elif one.data is not None:
                if not lacks:
                    self._write_inline(one, sound)
                sound.add(one.offset, end)
            else:
                self._lose(row, one)
            if one.data is not None:
                self._shelf.ride(entry, entry.inline + one.length)
            elif not one.synced:
                entry.unsynced.add(one.offset, end)
        self._fill_entry(entry, sound)

    def _lacks_bytes(self, chunk: ChunkId, ranges: Sequence[DirtyRange]) -> bool:
        """Whether its file was removed or cut, which no crash does: then nothing is put into it, because
        holes would read as zeros, and its rows stay until the uploader has judged what is lost."""
        end = self._files.length(chunk)
        return any(
            one.data is None and one.offset + one.length > end and (one.synced or self._of_this_boot(one))
            for one in ranges
        )

    def _lose(self, row: Chunk, one: DirtyRange) -> None:
        """A range is gone.  Below the file's size of then older bytes show, or zeros that were there before;
        where the file grew with it nothing would show but zeros that nobody wrote, so there it ends."""
        ino = row.ino
        self._torn.add(row.chunk)
        self._lost[ino] = self._lost.get(ino, 0) + 1
        if one.size_before is not None:
            self._grown.append((row, one.size_before))

    def _of_this_boot(self, one: DirtyRange) -> bool:
        return one.boot is None or one.boot == self._boot

    def _is_sound(self, one: DirtyRange, newer: RangeSet) -> bool:
        """Whether the file holds these bytes, or newer ones, for certain."""
        end = one.offset + one.length
        if self._of_this_boot(one) or newer.covers(one.offset, end):
            return True
        if one.data is not None:
            return False  # in the log for certain, in the file perhaps
        return one.synced or (one.checksum is not None and self._checksum(one) == one.checksum)

    def _checksum(self, one: DirtyRange) -> int | None:
        try:
            return xxhash.xxh3_64_intdigest(self._files.read(one.chunk, one.offset, one.length))
        except OSError:
            return None

    def _write_inline(self, one: DirtyRange, newer: RangeSet) -> None:
        assert one.data is not None
        for start, end in newer.gaps(one.offset, one.offset + one.length):
            self._files.write(one.chunk, start, one.data[start - one.offset : end - one.offset])

    def _fill_entry(self, entry: Entry, sound: RangeSet) -> None:
        for start, end in sound:
            entry.holds(start, end)
        entry.slack = self._slack(entry)
        self._shelf.held_bytes += entry.allocated
        self._shelf.dirty_bytes += entry.allocated
        entry.unsynced = entry.unsynced.common(sound)

    def _slack(self, entry: Entry) -> int:
        """Disk blocks that hold nothing any more: clipped, lost or unverifiable bytes."""
        return max(0, self._files.disk_bytes(entry.chunk) - entry.touched.total)

    def _drop_torn_snapshots(self) -> None:
        """A snapshot that shows bytes which are gone never reached the buckets: nobody was told that it is
        there.  Before its versions count as whole."""
        if not self._torn:
            return
        for snapshot in self._power_cut_table().drop_snapshots_showing(self._torn):
            log.warning("power cut: snapshot %r was not durable yet and is gone", snapshot.name)

    def _power_cut_table(self) -> PowerCutTable:
        if not isinstance(self._table, PowerCutTable):
            raise ObjfsError("this inode table cannot be used after a power cut")
        return self._table

    def _ends(self) -> dict[Ino, int]:
        """Where files end that lost what they grew by, if they still show where it was."""
        ends: dict[Ino, int] = {}
        for row, size in self._grown:
            if self._is_shown(row):
                ends[row.ino] = min(size, ends.get(row.ino, size))
        return ends

    def _is_shown(self, row: Chunk) -> bool:
        """By its file, itself or below a newer version: a restore may have brought back an older one."""
        shown = self._table.chunk_at(row.ino, row.index)
        while shown is not None and shown.chunk != row.chunk:
            shown = self._table.chunk(shown.base) if shown.base is not None else None
        return shown is not None

    def _shorten(self, ends: Mapping[Ino, int]) -> None:
        table = self._table
        for ino, size in ends.items():
            log.warning("power cut: ino=%d lost_ranges=%d size=%d", ino, self._lost[ino], size)
            with table.transaction():
                try:
                    self._power_cut_table().set_size_after_power_cut(ino, size)
                except StaleHandle:
                    continue  # it has no name any more: nobody can see a size
                self._clip_tail(ino, size)

    def _clip_tail(self, ino: Ino, size: int) -> None:
        """Nothing is shown beyond a file's end: it would come back when it grows.  The version itself stays,
        as a snapshot may show it too."""
        index, keep = divmod(size, self._chunk_size)
        row = self._table.chunk_at(ino, index)
        if row is not None and visible_length(row, self._shelf.unplaced.get(row.chunk)) > keep:
            shorter = self._table.begin_chunk(ino, index, row.chunk, keep)
            self._shelf.track(shorter, self._clock.monotonic())

    def _adopt_foreign(self) -> None:
        """What survived becomes synced data of this boot: a later crash must not judge it again."""
        self._foreign = [e for e in self._foreign if self._table.chunk(e.chunk) is not None]
        if len(self._foreign) > _MANY_FILES:
            self._files.sync_everything()
        else:
            chunks = [entry.chunk for entry in self._foreign]
            self._files.sync_files(chunks)
            self._files.sync_directories(chunks)
        with self._table.transaction():
            for entry in self._foreign:
                self._table.mark_synced(entry.chunk, list(entry.present))
        for entry in self._foreign:
            entry.unsynced.clear()
            self._shelf.ride(entry, 0)
            entry.new_file = False

    def _count_held(self) -> None:
        """Of files that lost a range.  After their rows say what is left."""
        for ino in self._lost:
            self._power_cut_table().count_held(ino)

    # --- clean ---

    def _recover_clean(self, files: dict[ChunkId, os.DirEntry[str]]) -> tuple[int, int]:
        """Entries for files with checksums of versions that are still stored; the others go."""
        sums = self._ledger.load()
        removed = 0
        for chunk, file in files.items():
            if chunk in self._shelf.entries:
                continue
            row = self._table.chunk(chunk) if chunk in sums else None
            if row is None or row.location is None:
                os.unlink(file)
                removed += 1
                continue
            self._warm(row, sums[chunk], file.stat().st_blocks * 512)
        self._ledger.restart(self.sums)
        return len(self.sums), removed

    def _warm(self, row: Chunk, frames: dict[tuple[int, int], int], disk_bytes: int) -> None:
        entry = Entry(row.chunk, row.ino, None, 0.0)
        for offset, length in frames:
            entry.holds(offset, offset + length)
        entry.unverified = entry.present.copy()
        entry.slack = max(0, disk_bytes - entry.touched.total)
        self._shelf.warm(entry)
        self.sums[row.chunk] = frames


def boot_id() -> bytes:
    """The kernel's name of the present boot, as the inode table is given it."""
    return _BOOT_ID.read_bytes().strip()
