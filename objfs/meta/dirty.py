"""What is dirty, and what a power cut would leave of it.

Owns ``local_dirty``, and of ``inode`` the size and times that a write sets. Promises that every range
carries the boot in which it was written and, where the file grew with it, the size before: that is where a
file ends whose range was lost. Decides nothing: ``cache`` judges ranges.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from objfs.errors import FileTooBig, StaleHandle
from objfs.meta import held
from objfs.meta.database import Database, Row, Value
from objfs.meta.inodes import Inodes
from objfs.model import FILE_SIZE_MAX, NS, ChunkId, DirtyRange, Ino

_SIZE = "SELECT size, mode FROM inode WHERE ino = ?"
_OVERWRITTEN = (
    "UPDATE inode SET mtime_s = ?, mtime_ns = ?, ctime_s = ?, ctime_ns = ? WHERE ino = ? AND size >= ?"
)
_WRITTEN = (
    "UPDATE inode SET size = ?, held = held + ?, mtime_s = ?, mtime_ns = ?, ctime_s = ?, ctime_ns = ?, "
    "mode = ? WHERE ino = ?"
)
_ADD = (
    "INSERT INTO local_dirty (chunk, seq, offset, length, boot, synced, checksum, data, size_before) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
RANGES = (
    "SELECT d.chunk, d.offset, d.length, d.checksum, d.synced, d.data, b.boot, d.size_before "
    "FROM local_dirty d LEFT JOIN local_boot b ON b.number = d.boot WHERE d.chunk = ? ORDER BY d.seq"
)
_FOREIGN = "SELECT 1 FROM local_dirty WHERE chunk = ? AND boot <> ? AND synced = 0 LIMIT 1"
_ALL = 2**62


def to_range(row: Row) -> DirtyRange:
    """A row of ``RANGES``."""
    chunk, offset, length, checksum, synced, data, boot, size_before = row
    known = None if checksum is None else checksum % 2**64
    return DirtyRange(chunk, offset, length, known, bool(synced), data, boot, size_before=size_before)


class Dirty:
    """Ranges of dirty versions."""

    def __init__(self, database: Database, inodes: Inodes, boot: bytes) -> None:
        self._db = database
        self._inodes = inodes
        self._boot_id = boot
        self._boot = self._boot_number(boot)
        row = database.one("SELECT coalesce(max(seq), 0) FROM local_dirty")
        assert row is not None
        self._seq: int = row[0]

    def _boot_number(self, boot: bytes) -> int:
        """This boot's number; older ones that no range speaks of are forgotten."""
        with self._db:
            self._db.run(
                "DELETE FROM local_boot WHERE boot <> ? AND number NOT IN (SELECT boot FROM local_dirty)",
                (boot,),
            )
            row = self._db.one("SELECT number FROM local_boot WHERE boot = ?", (boot,))
            if row is None:
                row = self._db.one("INSERT INTO local_boot (boot) VALUES (?) RETURNING number", (boot,))
            assert row is not None
            return int(row[0])

    def restart(self) -> None:
        """After the local tables were emptied."""
        self._boot = self._boot_number(self._boot_id)

    # --- writing -----------------------------------------------------------------------

    def record_write(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], *, clear_suid: bool = False
    ) -> None:
        """Raises StaleHandle, FileTooBig."""
        if size > FILE_SIZE_MAX:
            raise FileTooBig(f"inode {ino}: a size of {size} bytes; at most {FILE_SIZE_MAX}")
        database = self._db
        when = divmod(now_ns, NS)
        with database:
            changes = database.changes
            # Most writes go over what is there: one statement then says all.
            grows, before = clear_suid or any(one.grown for one in ranges), None
            if grows or not database.run(_OVERWRITTEN, (*when, *when, ino, size)):
                before = self._grow(ino, size, now_ns, ranges, clear_suid)
            for one in ranges:
                self._add(one, before)
            database.bytes_written(changes)

    def _grow(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], clear_suid: bool
    ) -> int | None:
        """The general case: what the file holds, its size or its mode may change.  Returns the size that it
        had, where it is larger now."""
        database = self._db
        row = database.one(_SIZE, (ino,))
        if row is None:
            raise StaleHandle(f"inode {ino} is gone")
        old, mode = row
        when, grown = divmod(now_ns, NS), sum(one.grown for one in ranges)
        mode = _without_suid(mode) if clear_suid else mode
        database.run(_WRITTEN, (max(old, size), grown, *when, *when, mode, ino))
        database.bytes += grown
        return old if size > old else None

    def commit_inline(self, chunk: ChunkId, ranges: Sequence[tuple[int, bytes]]) -> None:
        """The bytes ride in the log."""
        with self._db:
            for offset, data in ranges:
                self._add(DirtyRange(chunk, offset, len(data), None, data=data))

    def mark_synced(self, chunk: ChunkId, ranges: Sequence[tuple[int, int]]) -> None:
        """Replaces all rows of a version by (offset, end) ranges that are on the disk."""
        with self._db:
            self._db.run("DELETE FROM local_dirty WHERE chunk = ?", (chunk,))
            for start, end in ranges:
                self._add(DirtyRange(chunk, start, end - start, None, synced=True))

    def clip(self, chunk: ChunkId, length: int) -> None:
        """Only the first ``length`` bytes stay.  A range that is cut has no known checksum any more."""
        with self._db, held.clipping(self._db, chunk):
            self._db.run("UPDATE chunk SET base_size = min(base_size, ?) WHERE chunk = ?", (length, chunk))
            self._db.run("DELETE FROM local_dirty WHERE chunk = ? AND offset >= ?", (chunk, length))
            self._db.run(
                "UPDATE local_dirty SET length = ?1 - offset, checksum = NULL, "
                "data = substr(data, 1, ?1 - offset) WHERE chunk = ?2 AND offset + length > ?1",
                (length, chunk),
            )

    def _add(self, one: DirtyRange, size_before: int | None = None) -> None:
        self._seq += 1
        checksum = one.checksum
        if checksum is not None and checksum >= 2**63:
            checksum -= 2**64
        row: tuple[Value, ...] = (
            one.chunk,
            self._seq,
            one.offset,
            one.length,
            self._boot,
            1 if one.synced else 0,
            checksum,
            one.data,
            size_before,
        )
        self._db.run(_ADD, row)

    # --- reading -----------------------------------------------------------------------

    def ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        """In the order they were written."""
        return [to_range(row) for row in self._db.all(RANGES, (chunk,))]

    def foreign_boot(self, chunk: ChunkId) -> bool:
        """Whether some range was written under another boot and was not synced."""
        return self._db.one(_FOREIGN, (chunk, self._boot)) is not None

    # --- sizes -------------------------------------------------------------------------

    def set_size_after_power_cut(self, ino: Ino, size: int) -> None:
        """The file ends at ``size``, if not before; chunks wholly beyond go.  Times stay.  Raises
        StaleHandle."""
        with self._db:
            size = min(size, self._inodes.get(ino).size)
            self._inodes.set_size(ino, size)
            self._inodes.cut_off(ino, size, _ALL)

    def count_held(self, ino: Ino) -> None:
        """What the file's chunks hold is counted anew, as ranges may have been lost."""
        with self._db:
            held.count_anew(self._db, ino)


def _without_suid(mode: int) -> int:
    """What a write by somebody else leaves: no set-user-id, and no set-group-id where the group may
    execute."""
    cleared = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    return mode & ~cleared
