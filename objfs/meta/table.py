"""The inode table as the rest of objfs sees it: one object over one SQLite database.

Owns nothing but the composition and the order of opening and closing. ``MetaDatabase`` satisfies
``ports.InodeTable`` and ``ports.ChunkTable``; what each method means stands there and in the class that
does it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from objfs.meta import schema
from objfs.meta.audit import check, check_counts
from objfs.meta.chunks import Chunks
from objfs.meta.clone import Cloned, Clones, Origin
from objfs.meta.database import Database
from objfs.meta.dirty import Dirty
from objfs.meta.entries import Entries
from objfs.meta.inodes import Inodes
from objfs.meta.moments import MomentsTable
from objfs.meta.rename import Renames
from objfs.meta.repair import Repairs
from objfs.meta.restore import Plan, Restored, Restores
from objfs.meta.segments import AtRisk, Rank, Segments
from objfs.meta.snapshot_view import SnapshotTable
from objfs.meta.snapshots import Snapshots
from objfs.meta.strays import Strays
from objfs.meta.trash import TrashRows
from objfs.meta.wal import PageLog
from objfs.meta.xattrs import Xattrs
from objfs.model import (
    Attr,
    AttrChange,
    Chunk,
    ChunkId,
    DirEntry,
    DirtyRange,
    Ino,
    Move,
    NewInode,
    Placed,
    Renamed,
    RenameFlag,
    Segment,
    SegmentNo,
    Snapshot,
)

RECOVERY_GAP = 2**20
"""How many numbers of each kind a recovery leaves out: the history that was lost may have used them."""


@dataclass(frozen=True, slots=True)
class MetaStatistics:
    """Sizes in rows, pages of ``schema.PAGE_SIZE`` bytes and bytes."""

    inodes: int
    content_bytes: int
    dirty_chunks: int
    segments: int
    segments_missing_shards: int
    orphans: int
    freed_chunks: int
    snapshots: int
    generation: int
    pages: int
    free_pages: int
    log_bytes: int
    log_pending: int


class MetaDatabase:
    """One open inode table; used by the thread that opened it, but for ``log``'s methods that say
    otherwise."""

    def __init__(self, database: Database, boot_id: bytes) -> None:
        self._db = database
        self._inodes = Inodes(database)
        self._entries = Entries(database, self._inodes)
        self._renames = Renames(database, self._inodes, self._entries)
        self._xattrs = Xattrs(database, self._inodes)
        self._chunks = Chunks(database)
        self._dirty = Dirty(database, self._inodes, boot_id)
        self._segments = Segments(database)
        self._snapshots = Snapshots(database)
        self._restores = Restores(database)
        self._clones = Clones(database, self._entries)
        self.trash = TrashRows(database)
        self.strays = Strays(database, self._segments)
        self.log = PageLog(database)

    @classmethod
    def make(
        cls, path: Path, *, uuid: bytes, chunk_size: int, root: NewInode, boot_id: bytes
    ) -> MetaDatabase:
        """A new table with only a root directory.  Raises VolumeExists."""
        table = cls(Database.create(path, uuid, chunk_size, root.now_ns), boot_id)
        table._inodes.insert_root(root)
        return table

    @classmethod
    def open(cls, path: Path, *, boot_id: bytes, movable: bool = False) -> MetaDatabase:
        """An existing table.  ``boot_id`` as the kernel names it.  A movable one may be handed from thread to
        thread: made ready in a worker, used on the loop.  Raises Unclean, Corrupt, NewerFormat."""
        return cls(Database.open(path, movable=movable), boot_id)

    def on_damage(self, told: Callable[[str], None]) -> None:
        """``told`` hears of damage to the file that is met while the table is used."""
        self._db.on_damage = told

    def close(self) -> None:
        """Moves the whole log into the file.  No take or backfill may be under way."""
        self.log.close_connections()
        self._db.close()
        self.log.close()

    def __enter__(self) -> MetaDatabase:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def become(self, other: MetaDatabase) -> MetaDatabase:
        """Is the table of ``other`` from now on, for everybody who holds this object; returns the one that it
        was, still open.  Not inside a transaction."""
        self.__dict__, other.__dict__ = other.__dict__, self.__dict__
        return other

    def transaction(self) -> AbstractContextManager[None]:
        """Atomic; inner ones join the outer."""
        return self._db

    @property
    def changes(self) -> int:
        """A number that is another one after every commit."""
        return self._db.changes

    @property
    def path(self) -> Path:
        return self._db.path

    @property
    def uuid(self) -> bytes:
        """The volume's, 16 bytes."""
        return self._db.uuid

    @property
    def chunk_size(self) -> int:
        """In bytes."""
        return self._db.chunk_size

    @property
    def generation(self) -> int:
        return self._db.generation

    @property
    def schema_version(self) -> int:
        return schema.VERSION

    def limit_log(self, nbytes: int) -> None:
        """The log's file is cut back to ``nbytes`` when it starts over."""
        self._db.limit_log(nbytes)

    def sync_log(self) -> None:
        """Blocking, from any thread: everything committed before is on the disk.  Raises OSError."""
        self.log.sync()

    # --- InodeTable --------------------------------------------------------------------

    def get(self, ino: Ino) -> Attr:
        return self._inodes.get(ino)

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        return self._entries.lookup(parent, name)

    def create(self, parent: Ino, name: bytes, new: NewInode) -> Attr:
        return self._entries.create(parent, name, new)

    def link(self, ino: Ino, parent: Ino, name: bytes, now_ns: int) -> Attr:
        return self._entries.link(ino, parent, name, now_ns)

    def unlink(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        return self._entries.unlink(parent, name, now_ns)

    def rmdir(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        return self._entries.rmdir(parent, name, now_ns)

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flag: RenameFlag, now_ns: int
    ) -> Renamed:
        return self._renames.rename(parent, name, new_parent, new_name, flag, now_ns)

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        return self._entries.readdir(parent, after_cookie, limit)

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr:
        return self._inodes.set_attr(ino, change)

    def set_atimes(self, times: Sequence[tuple[Ino, int]]) -> None:
        self._inodes.set_atimes(times)

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        return self._xattrs.get(ino, name)

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int, now_ns: int) -> None:
        self._xattrs.set(ino, name, value, flags, now_ns)

    def list_xattr(self, ino: Ino) -> list[bytes]:
        return self._xattrs.names(ino)

    def remove_xattr(self, ino: Ino, name: bytes, now_ns: int) -> None:
        self._xattrs.remove(ino, name, now_ns)

    def orphans(self, limit: int) -> list[Ino]:
        return self._inodes.orphans(limit)

    def purge(self, ino: Ino, limit: int) -> bool:
        return self._inodes.purge(ino, limit)

    def count(self) -> tuple[int, int]:
        return self._inodes.count()

    # --- ChunkTable --------------------------------------------------------------------

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        return self._chunks.at(ino, index)

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        return self._chunks.between(ino, first, last, limit)

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        return self._chunks.get(chunk)

    def begin_chunk(self, ino: Ino, index: int, base: ChunkId | None, base_size: int) -> Chunk:
        return self._chunks.begin(ino, index, base, base_size)

    def record_write(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], *, clear_suid: bool = False
    ) -> None:
        self._dirty.record_write(ino, size, now_ns, ranges, clear_suid=clear_suid)

    def truncate(self, ino: Ino, size: int, now_ns: int, limit: int) -> bool:
        return self._inodes.truncate(ino, size, now_ns, limit)

    def clip_chunk(self, chunk: ChunkId, length: int) -> None:
        self._dirty.clip(chunk, length)

    def commit_inline(self, chunk: ChunkId, ranges: Sequence[tuple[int, bytes]]) -> None:
        self._dirty.commit_inline(chunk, ranges)

    def mark_synced(self, chunk: ChunkId, ranges: Sequence[tuple[int, int]]) -> None:
        self._dirty.mark_synced(chunk, ranges)

    def dirty_ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        return self._dirty.ranges(chunk)

    def dirty_chunks(self) -> list[Chunk]:
        return self._chunks.dirty()

    def dirty_ids(self) -> list[ChunkId]:
        return self._chunks.dirty_ids()

    def place(self, segment: Segment | None, placed: Iterable[Placed]) -> SegmentNo | None:
        return self._segments.place(segment, placed)

    def freed(self, limit: int) -> list[ChunkId]:
        return self._chunks.freed(limit)

    def forget_freed(self, chunks: Sequence[ChunkId]) -> None:
        self._chunks.forget_freed(chunks)

    def segment(self, number: SegmentNo) -> Segment:
        return self._segments.get(number)

    def chunks_in_segment(self, number: SegmentNo) -> list[Chunk]:
        return self._segments.chunks_in(number)

    # --- after a power cut (cache) -----------------------------------------------------

    def foreign_boot(self, chunk: ChunkId) -> bool:
        """Whether a range of a version was written under another boot and never synced."""
        return self._dirty.foreign_boot(chunk)

    def set_size_after_power_cut(self, ino: Ino, size: int) -> None:
        """The file ends at ``size`` bytes, if not before; chunks wholly beyond are removed."""
        self._dirty.set_size_after_power_cut(ino, size)

    def count_held(self, ino: Ino) -> None:
        """Counts anew what the file's chunks hold."""
        self._dirty.count_held(ino)

    def drop_snapshots_showing(self, chunks: Collection[ChunkId]) -> list[Snapshot]:
        """Forgets those that show a version, or one over it; looks at the whole map."""
        return self._snapshots.drop_showing(chunks)

    # --- segments (volume) -------------------------------------------------------------

    def apply_patch(self, segments: Mapping[SegmentNo, Segment], placed: Sequence[Placed]) -> None:
        """Brings in the patch of the manifest that the table was recovered from.  Raises Corrupt."""
        self._segments.apply_patch(segments, placed)

    def clear_local(self) -> None:
        """After a recovery: nothing of what another cache directory held is true here."""
        with self._db:
            for name in schema.LOCAL_TABLES:
                self._db.run(f"DELETE FROM {name}")
            self._db.skip_numbers(RECOVERY_GAP)
            self._dirty.restart()

    def move(self, moves: Iterable[Move]) -> int:
        """Versions get another place; returns how many still lay at the old one.  Raises StoreError."""
        return self._segments.move(moves)

    def segments_without_chunks(self, limit: int) -> list[tuple[SegmentNo, Segment]]:
        """Placed segments that no version lies in, lowest number first; looks at every segment."""
        return self._segments.without_chunks(limit)

    def condemn(self, numbers: Sequence[SegmentNo], sequence: int) -> list[SegmentNo]:
        """Condemns those that still have no chunks, as of manifest ``sequence``; returns which."""
        return self._segments.condemn(numbers, sequence)

    def condemned(self) -> list[tuple[SegmentNo, Segment, int]]:
        """Each with the sequence number of the manifest that condemned it."""
        return self._segments.condemned()

    def drop_segments(self, numbers: Sequence[SegmentNo]) -> list[Segment]:
        """Removes the rows of those that still have no chunks; returns them."""
        return self._segments.drop(numbers)

    def recent_identities(self, limit: int) -> list[tuple[bytes, ChunkId]]:
        """Of stored versions, newest first."""
        return self._segments.recent_identities(limit)

    def lost_chunks(self, limit: int) -> list[Chunk]:
        """Live versions that are lost for good, by inode and index."""
        return self._segments.lost_chunks(limit)

    def at_risk(self) -> AtRisk:
        """See ``Segments.at_risk``."""
        return self._segments.at_risk()

    def endangered(self, after: Rank, limit: int) -> list[tuple[SegmentNo, Segment]]:
        """See ``Segments.endangered``."""
        return self._segments.endangered(after, limit)

    def update_segment(self, number: SegmentNo, segment: Segment) -> None:
        """New placement, missing shards and placement generation.  Raises StoreError."""
        self._segments.update(number, segment)

    # --- named moments -----------------------------------------------------------------

    def truncates(self, limit: int) -> list[Ino]:
        """Files with a name of which a truncate goes on, lowest first; ``purge`` continues it."""
        return self._inodes.truncates(limit)

    def create_snapshot(self, name: bytes, now_ns: int, comment: str = "", flags: int = 0) -> Snapshot:
        """Names the present moment of the rows; which bytes it needs is the caller's care.  Raises
        SnapshotExists."""
        return self._snapshots.create(name, now_ns, comment, flags)

    def snapshot(self, name: bytes) -> Snapshot:
        """Raises NoSuchSnapshot."""
        return self._snapshots.get(name)

    def snapshots(self) -> list[Snapshot]:
        """All, oldest first."""
        return self._snapshots.listed()

    def at(self, snapshot: Snapshot) -> SnapshotTable:
        """The tree of a named moment, read-only, over the same connection."""
        return SnapshotTable(self, lambda: self._db, snapshot)

    def moments(self, path: Sequence[bytes] = ()) -> MomentsTable:
        """The directory of all named moments, over the same connection; ``path`` leads to the directory of
        each that is shown as its root."""
        return MomentsTable(self, lambda: self._db, path)

    def count_snapshots(self) -> int:
        return self._snapshots.count()

    def newest_snapshot(self) -> Snapshot | None:
        return self._snapshots.newest()

    def mark_snapshot(self, name: bytes, flags: int) -> Snapshot:
        """Raises NoSuchSnapshot."""
        return self._snapshots.mark(name, flags)

    def drop_snapshot(self, name: bytes) -> Snapshot:
        """Forgets the name; ``clear_forgotten`` removes what it alone has shown.  Raises NoSuchSnapshot."""
        return self._snapshots.drop(name)

    def plan_restore(self, snapshot: Snapshot, root: Ino, path: bytes) -> Plan:
        """What to restore for a path below ``root``.  Raises NotFound."""
        return self._restores.plan(snapshot, root, path)

    def restore(self, plan: Plan, now_ns: int) -> Restored:
        """The present becomes what the moment was; atomic.  Raises InvalidArgument."""
        return self._restores.restore(plan, now_ns)

    def clone(self, origin: Origin, parent: Ino, name: bytes, now_ns: int) -> Cloned:
        """A file or a tree once more, with the same chunk versions; see ``Clones.clone``."""
        return self._clones.clone(origin, parent, name, now_ns)

    def shared_versions(self) -> list[ChunkId]:
        """Dirty versions that others than their own file name too, oldest first: not to be written."""
        return self._chunks.shared()

    def clear_forgotten(self, limit: int) -> bool:
        """Removes at most about ``limit`` rows that no snapshot shows; True when none is left."""
        return self._snapshots.clear(limit)

    # --- looking at it -----------------------------------------------------------------

    def check(self) -> list[str]:
        """What is wrong in the table, a line each; empty is well.  Reads everything."""
        return check(self._db.connection) + check_counts(self._db)

    def repairs(self, now_ns: int, key_id: int) -> Repairs:
        """What mends it; ``key_id`` is that of the volume's current key."""
        return Repairs(self._db, now_ns, key_id)

    def statistics(self) -> MetaStatistics:
        def number(sql: str) -> int:
            row = self._db.one(sql)
            return 0 if row is None else int(row[0])

        return MetaStatistics(
            inodes=self._db.inodes,
            content_bytes=self._db.bytes,
            dirty_chunks=number("SELECT count(*) FROM chunk WHERE state = 0"),
            segments=number("SELECT count(*) FROM segment"),
            segments_missing_shards=number("SELECT count(*) FROM segment WHERE missing IS NOT NULL"),
            orphans=number("SELECT count(*) FROM orphan"),
            freed_chunks=number("SELECT count(*) FROM local_freed"),
            snapshots=number("SELECT count(*) FROM snapshot"),
            generation=self._db.generation,
            pages=number("PRAGMA page_count"),
            free_pages=number("PRAGMA freelist_count"),
            log_bytes=self.log.size,
            log_pending=self.log.pending,
        )


def new_root(uid: int, gid: int, now_ns: int, mode: int = 0o755) -> NewInode:
    """A root directory for ``MetaDatabase.make``."""
    return NewInode(stat.S_IFDIR | mode, uid, gid, now_ns)
