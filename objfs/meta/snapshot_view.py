"""The tree of a named moment, as tables that can only be read.

Owns the queries over the rows of a generation and those that were copied aside since (see ``schema``).
Promises:

- what is shown is the tree as it stood: names and their offsets, attributes, hard links, extended attributes,
  which version was where; inodes that had no name then cannot be reached by a name;
- every lookup by key is a search by an index, however many moments and changes there are;
- when the moment is forgotten every reading method raises StaleHandle, and never shows half of it.

Two things are not of that moment.  Access times are not versioned: shown is the time of the last change of
content, which stays the same however often it is read.  Where the bytes of a version lie is asked of the
present table: they may still be in the local cache, and be moved between segments.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn, Protocol

from objfs.errors import NameTooLong, NoAttribute, NotDirectory, NotFound, ReadOnly, StaleHandle
from objfs.meta.chunks import OF_MAP, to_chunk
from objfs.meta.database import Database, Row
from objfs.meta.inodes import to_attr
from objfs.model import (
    NAME_MAX,
    Attr,
    Chunk,
    ChunkId,
    DirEntry,
    DirtyRange,
    Ino,
    Segment,
    SegmentNo,
    Snapshot,
)
from objfs.ports import ChunkTable

# Rows of one key follow each other without overlap, so of the copies only the last one born by then can be
# it: one search, however many there are.
_ATTR = (
    "i.ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, i.size, i.mtime_s, i.mtime_ns, "
    "i.mtime_s, i.mtime_ns, i.ctime_s, i.ctime_ns, i.btime_s, i.btime_ns, i.target, i.parent, i.held"
)
GET = (
    f"SELECT {_ATTR}, i.next_cookie FROM inode i WHERE i.ino = ?1 AND i.born <= ?2 UNION ALL "
    f"SELECT {_ATTR}, i.next_cookie FROM inode_old i WHERE i.ino = ?1 AND i.died > ?2 AND i.born = "
    "(SELECT max(born) FROM inode_old WHERE ino = ?1 AND born <= ?2)"
)
# The inode beside its name where its row has not changed since, which is the usual case.
_FOUND = f"SELECT {_ATTR}, e.ino FROM"
_WITH_INODE = "LEFT JOIN inode i ON i.ino = e.ino AND i.born <= ?3"
LOOKUP = (
    f"{_FOUND} entry e {_WITH_INODE} WHERE e.parent = ?1 AND e.name = ?2 AND e.born <= ?3 UNION ALL "
    f"{_FOUND} entry_old e {_WITH_INODE} WHERE e.parent = ?1 AND e.name = ?2 AND e.died > ?3 AND e.born = "
    "(SELECT max(born) FROM entry_old WHERE parent = ?1 AND name = ?2 AND born <= ?3)"
)
# Offsets that were handed out later are not looked at: nothing that has one existed.
_LISTED = f"SELECT {_ATTR}, e.ino, e.name, e.cookie FROM"
_BETWEEN_COOKIES = "parent = ?1 AND cookie > ?2 AND cookie < ?4 AND born <= ?3"
READDIR = (
    f"{_LISTED} (SELECT name, ino, cookie FROM entry INDEXED BY entry_cookie WHERE {_BETWEEN_COOKIES} "
    f"ORDER BY cookie LIMIT ?5) e {_WITH_INODE}"
)
READDIR_OLD = (
    f"{_LISTED} (SELECT parent, name, born FROM entry_old INDEXED BY entry_old_cookie "
    f"WHERE {_BETWEEN_COOKIES} AND died > ?3 ORDER BY cookie LIMIT ?5) k CROSS JOIN entry_old e "
    f"ON e.parent = k.parent AND e.name = k.name AND e.born = k.born {_WITH_INODE}"
)
GET_XATTR = (
    "SELECT value FROM xattr WHERE ino = ?1 AND name = ?2 AND born <= ?3 UNION ALL "
    "SELECT value FROM xattr_old WHERE ino = ?1 AND name = ?2 AND died > ?3 AND born = "
    "(SELECT max(born) FROM xattr_old WHERE ino = ?1 AND name = ?2 AND born <= ?3)"
)
LIST_XATTR = (
    "SELECT name FROM xattr WHERE ino = ?1 AND born <= ?2 UNION ALL "
    "SELECT name FROM xattr_old WHERE ino = ?1 AND born <= ?2 AND died > ?2 ORDER BY name"
)
CHUNK_AT = (
    f"SELECT {OF_MAP} FROM map m JOIN chunk c ON c.chunk = m.chunk "
    "WHERE m.ino = ?1 AND m.idx = ?2 AND m.born <= ?3 UNION ALL "
    f"SELECT {OF_MAP} FROM map_old m JOIN chunk c ON c.chunk = m.chunk "
    "WHERE m.ino = ?1 AND m.idx = ?2 AND m.died > ?3 AND m.born = "
    "(SELECT max(born) FROM map_old WHERE ino = ?1 AND idx = ?2 AND born <= ?3)"
)
BETWEEN = (
    f"SELECT {OF_MAP}, m.idx FROM map m CROSS JOIN chunk c ON c.chunk = m.chunk "
    "WHERE m.ino = ?1 AND m.idx BETWEEN ?2 AND ?3 AND m.born <= ?4 ORDER BY m.idx LIMIT ?5"
)
# From place to place: a chunk that was rewritten after each of many moments has as many copies.
_NEXT = "SELECT min(idx) FROM map_old WHERE ino = ?1 AND idx"
BETWEEN_OLD = (
    f"WITH RECURSIVE place (idx) AS (SELECT ({_NEXT} >= ?2) UNION ALL "
    f"SELECT ({_NEXT} > place.idx) FROM place WHERE place.idx < ?3) "
    f"SELECT {OF_MAP}, m.idx FROM place CROSS JOIN map_old m ON m.ino = ?1 AND m.idx = place.idx "
    "AND m.born = (SELECT max(born) FROM map_old WHERE ino = ?1 AND idx = place.idx AND born <= ?4) "
    "CROSS JOIN chunk c ON c.chunk = m.chunk WHERE m.died > ?4 AND m.idx <= ?3 LIMIT ?5"
)
KEPT = "SELECT 1 FROM snapshot WHERE name = ? AND generation = ?"
QUERIES = (*(GET, LOOKUP, READDIR, READDIR_OLD, GET_XATTR, LIST_XATTR, CHUNK_AT, BETWEEN, BETWEEN_OLD, KEPT),)


class Live(ChunkTable, Protocol):
    """The present table."""

    def get(self, ino: Ino) -> Attr: ...

    def count(self) -> tuple[int, int]: ...


class Unchangeable:
    """Every method of ``ports.InodeTable`` and ``ports.ChunkTable`` that changes something, refused."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise ReadOnly("a snapshot cannot be changed")

    create = link = unlink = rmdir = rename = set_attr = set_atimes = set_xattr = remove_xattr = _refuse
    purge = begin_chunk = record_write = truncate = clip_chunk = _refuse
    commit_inline = mark_synced = place = forget_freed = _refuse


class BesideLive(Unchangeable):
    """What has no moments, as the present table ``live`` has it: versions, segments, counts."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def transaction(self) -> AbstractContextManager[None]:
        """Nothing changes, so there is nothing to join."""
        return nullcontext()

    def count(self) -> tuple[int, int]:
        """Those of the volume now: counting a moment would read all of it."""
        return self._live.count()

    def orphans(self, limit: int) -> list[Ino]:
        """None: they are the present table's."""
        return []

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        return self._live.chunk(chunk)

    def dirty_ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        return self._live.dirty_ranges(chunk)

    def dirty_chunks(self) -> list[Chunk]:
        return self._live.dirty_chunks()

    def dirty_ids(self) -> list[ChunkId]:
        return self._live.dirty_ids()

    def freed(self, limit: int) -> list[ChunkId]:
        return self._live.freed(limit)

    def segment(self, number: SegmentNo) -> Segment:
        return self._live.segment(number)

    def chunks_in_segment(self, number: SegmentNo) -> list[Chunk]:
        return self._live.chunks_in_segment(number)


class SnapshotTable(BesideLive):
    """``ports.InodeTable`` and ``ports.ChunkTable`` of one named moment of the table ``live``.

    ``database`` gives the database of ``live``; both belong to the same thread.  All reading methods raise
    StaleHandle when the moment is no longer kept, besides what the ports say.
    """

    def __init__(self, live: Live, database: Callable[[], Database], snapshot: Snapshot) -> None:
        super().__init__(live)
        self.snapshot = snapshot
        self._database = database
        self._generation = snapshot.generation
        self._kept_as_of: tuple[Database, int] | None = None

    @property
    def _db(self) -> Database:
        """The database, where the moment is still kept.  Raises StaleHandle."""
        database = self._database()
        as_of = (database, database.changes)
        if as_of != self._kept_as_of:
            name, generation = self.snapshot[:2]
            if database.one(KEPT, (name, generation)) is None:
                raise StaleHandle(f"snapshot {name.decode(errors='replace')} was deleted")
            self._kept_as_of = as_of
        return database

    # --- names and attributes ----------------------------------------------------------

    def get(self, ino: Ino) -> Attr:
        return to_attr(self._inode(ino)[:-1])

    def _inode(self, ino: Ino) -> Row:
        row = self._db.one(GET, (ino, self._generation))
        if row is None:
            raise StaleHandle(f"inode {ino} is not in snapshot {self.snapshot.name!r}")
        return row

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        row = self._db.one(LOOKUP, (parent, name, self._generation))
        if row is not None:
            return self._named(row)
        self._next_cookie(parent)
        if len(name) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes; at most {NAME_MAX}")
        raise NotFound(f"{name!r} in directory {parent}")

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        values = (parent, after_cookie, self._generation, self._next_cookie(parent), limit)
        rows = [*self._db.all(READDIR, values), *self._db.all(READDIR_OLD, values)]
        rows.sort(key=lambda row: row[-1])
        return [DirEntry(row[-2], row[-1], self._named(row[:-2])) for row in rows[:limit]]

    def _named(self, row: Row) -> Attr:
        """The attributes beside an entry, or those of the copy that its inode left behind."""
        return self.get(row[-1]) if row[0] is None else to_attr(row[:-1])

    def _next_cookie(self, ino: Ino) -> int:
        """Of a directory.  Raises NotDirectory, StaleHandle."""
        row = self._inode(ino)
        if not to_attr(row[:-1]).is_dir:
            raise NotDirectory(f"inode {ino} is not a directory")
        return int(row[-1])

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        row = self._db.one(GET_XATTR, (ino, name, self._generation))
        if row is None:
            self._inode(ino)
            raise NoAttribute(f"inode {ino} has no attribute {name!r}")
        return row[0]  # type: ignore[no-any-return]

    def list_xattr(self, ino: Ino) -> list[bytes]:
        """Sorted."""
        rows = self._db.all(LIST_XATTR, (ino, self._generation))
        if not rows:
            self._inode(ino)
        return [row[0] for row in rows]

    # --- which version was where -------------------------------------------------------

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        row = self._db.one(CHUNK_AT, (ino, index, self._generation))
        return None if row is None else to_chunk(row)

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        values = (ino, first, last, self._generation, limit)
        rows = [*self._db.all(BETWEEN, values), *self._db.all(BETWEEN_OLD, values)]
        rows.sort(key=lambda row: row[-1])
        return [to_chunk(row[:-1]) for row in rows[:limit]]
