"""Rows of inodes: attributes, access times, orphans.

Owns ``inode`` (but for what the namespace changes in directories), ``atime`` and ``orphan``.  Promises that
an inode without a name stays, with its chunks, until it is purged, and that purging and truncating go on
after a crash where they stopped.  Knows no names.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

from objfs.errors import FileTooBig, InvalidArgument, StaleHandle
from objfs.meta import held
from objfs.meta.database import Database, Row
from objfs.meta.recent import Recent
from objfs.meta.schema import WHOLE
from objfs.model import FILE_SIZE_MAX, NS, ROOT, Attr, AttrChange, Ino, NewInode

FIRST_COOKIE = 3
"""Offsets 1 and 2 are those of '.' and '..'."""

ATTR_COLUMNS = (
    "i.ino, i.mode, i.nlink, i.uid, i.gid, i.rdev, i.size, "
    "coalesce(a.s, i.btime_s), coalesce(a.ns, i.btime_ns), "
    "i.mtime_s, i.mtime_ns, i.ctime_s, i.ctime_ns, i.btime_s, i.btime_ns, i.target, i.parent, i.held"
)
GET = f"SELECT {ATTR_COLUMNS}, i.next_cookie FROM inode i LEFT JOIN atime a ON a.ino = i.ino WHERE i.ino = ?"
"""A row of ``ATTR_COLUMNS`` and the offset of the next entry."""
_INSERT = (
    "INSERT INTO inode (ino, born, mode, uid, gid, nlink, rdev, size, mtime_s, mtime_ns, ctime_s, ctime_ns, "
    "btime_s, btime_ns, parent, next_cookie, target) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SET = (
    "UPDATE inode SET mode = (mode & 61440) | (coalesce(?, mode) & 4095), uid = coalesce(?, uid), "
    "gid = coalesce(?, gid), mtime_s = coalesce(?, mtime_s), mtime_ns = coalesce(?, mtime_ns), "
    "ctime_s = coalesce(?, ctime_s), ctime_ns = coalesce(?, ctime_ns) WHERE ino = ?"
)
_SET_ATIME = (
    "INSERT INTO atime (ino, s, ns) VALUES (?, ?, ?) "
    "ON CONFLICT DO UPDATE SET s = excluded.s, ns = excluded.ns"
)
_SET_ATIME_IF_THERE = (
    "INSERT INTO atime (ino, s, ns) SELECT ino, ?2, ?3 FROM inode WHERE ino = ?1 "
    "ON CONFLICT DO UPDATE SET s = excluded.s, ns = excluded.ns"
)
_CTIME = "UPDATE inode SET ctime_s = ?, ctime_ns = ? WHERE ino = ?"
_LINKS = "UPDATE inode SET nlink = ?, ctime_s = ?, ctime_ns = ? WHERE ino = ?"
_ORPHANS = "SELECT DISTINCT ino FROM orphan ORDER BY ino LIMIT ?"
_TRUNCATES = (
    "SELECT DISTINCT o.ino FROM orphan o JOIN inode i ON i.ino = o.ino "
    "WHERE o.keep_from >= 0 AND i.nlink > 0 ORDER BY o.ino LIMIT ?"
)
_ADD_ORPHAN = "INSERT OR REPLACE INTO orphan (ino, keep_from, below) VALUES (?, ?, ?)"
_NEXT_WORK = "SELECT keep_from, below FROM orphan WHERE ino = ? ORDER BY keep_from LIMIT 1"
_UNMAP = (
    "DELETE FROM map WHERE ino = ?1 AND idx IN "
    "(SELECT idx FROM map WHERE ino = ?1 AND idx >= ?2 AND chunk < ?3 ORDER BY idx LIMIT ?4)"
)
_ANY_MAPPED = "SELECT 1 FROM map WHERE ino = ? AND idx >= ? AND chunk < ? LIMIT 1"
_FOREVER = 2**63 - 1


def to_attr(row: Row) -> Attr:
    """A row of ``ATTR_COLUMNS``."""
    ino, mode, nlink, uid, gid, rdev, size, a_s, a_ns, m_s, m_ns, c_s, c_ns, b_s, b_ns, *others = row
    return Attr(
        ino,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        size,
        a_s * NS + a_ns,
        m_s * NS + m_ns,
        c_s * NS + c_ns,
        b_s * NS + b_ns,
        *others,
    )


class Inodes:
    """Attributes and the end of inodes."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._recent: Recent[Ino, tuple[Attr, int]] = Recent(database)

    def get(self, ino: Ino) -> Attr:
        """Raises StaleHandle."""
        return self.get_with_cookie(ino)[0]

    def get_with_cookie(self, ino: Ino) -> tuple[Attr, int]:
        """The attributes and, of a directory, the offset of its next entry.  Raises StaleHandle."""
        known = self._recent.get(ino)
        if known is not None:
            return known
        row = self._db.one(GET, (ino,))
        if row is None:
            raise StaleHandle(f"inode {ino} is gone")
        return self._recent.keep(ino, (to_attr(row[:-1]), row[-1]))

    def insert(self, new: NewInode, parent: Ino, ino: Ino | None = None) -> Attr:
        """A row for a new inode with its first name (a directory: and its own '.') counted."""
        directory = stat.S_ISDIR(new.mode)
        number = self._db.new_ino() if ino is None else ino
        size, now = len(new.target or b""), new.now_ns
        nlink, above, cookie = (2, parent, FIRST_COOKIE) if directory else (1, Ino(0), 0)
        when = divmod(now, NS)
        fixed = (number, self._db.generation, new.mode, new.uid, new.gid, nlink, new.rdev, size)
        self._db.run(_INSERT, (*fixed, *when, *when, *when, above, cookie, new.target))
        self._db.inodes += 1
        return Attr(
            number, new.mode, nlink, new.uid, new.gid, new.rdev, size, now, now, now, now, new.target, above
        )

    def insert_root(self, new: NewInode) -> Attr:
        """The root directory; its parent is itself."""
        with self._db:
            return self.insert(new, ROOT, ROOT)

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr:
        """Raises StaleHandle."""
        with self._db:
            mtime = _when(change.mtime_ns)
            ctime = _when(change.ctime_ns)
            row = (change.mode, change.uid, change.gid, *mtime, *ctime)
            if any(value is not None for value in row):
                self._db.run(_SET, (*row, ino))
            attr = self.get(ino)
            if change.atime_ns is None:
                return attr
            self._db.run(_SET_ATIME, (ino, *divmod(change.atime_ns, NS)))
            return self.get(ino)

    def set_atimes(self, times: Sequence[tuple[Ino, int]]) -> None:
        """Inodes that are gone are left out."""
        with self._db:
            for ino, atime_ns in times:
                self._db.run(_SET_ATIME_IF_THERE, (ino, *divmod(atime_ns, NS)))

    def set_links(self, ino: Ino, nlink: int, now_ns: int) -> None:
        """``nlink`` 0 makes an orphan."""
        self._db.run(_LINKS, (nlink, *divmod(now_ns, NS), ino))
        if nlink == 0:
            self._db.run(_ADD_ORPHAN, (ino, WHOLE, _FOREVER))

    def touch(self, ino: Ino, now_ns: int) -> None:
        """Sets ctime.  Raises StaleHandle."""
        if not self._db.run(_CTIME, (*divmod(now_ns, NS), ino)):
            raise StaleHandle(f"inode {ino} is gone")

    def count(self) -> tuple[int, int]:
        """(inodes, bytes), orphans included."""
        return self._db.inodes, self._db.bytes

    # --- work that does not fit into one transaction -----------------------------------

    def orphans(self, limit: int) -> list[Ino]:
        """Lowest first."""
        return [Ino(row[0]) for row in self._db.all(_ORPHANS, (limit,))]

    def truncates(self, limit: int) -> list[Ino]:
        """Files with a name of which a truncate goes on, lowest first."""
        return [Ino(row[0]) for row in self._db.all(_TRUNCATES, (limit,))]

    def purge(self, ino: Ino, limit: int) -> bool:
        """Goes on with what ``orphan`` says of an inode; True when there is nothing left of that."""
        with self._db:
            row = self._db.one(_NEXT_WORK, (ino,))
            if row is None:
                return True
            keep_from, below = row
            if keep_from == WHOLE:
                return self._purge_whole(ino, limit)
            if not self._shorten(ino, keep_from, below, limit):
                return False
            self._db.run("DELETE FROM orphan WHERE ino = ? AND keep_from = ?", (ino, keep_from))
            return self._db.one(_NEXT_WORK, (ino,)) is None

    def _purge_whole(self, ino: Ino, limit: int) -> bool:
        if not self._unmap(ino, 0, _FOREVER, limit):
            return False
        self._remove(ino)
        return True

    def _shorten(self, ino: Ino, keep_from: int, below: int, limit: int) -> bool:
        """``_unmap`` of an inode that stays."""
        held.without_beyond(self._db, ino, keep_from, below, limit)
        return self._unmap(ino, keep_from, below, limit)

    def _unmap(self, ino: Ino, keep_from: int, below: int, limit: int) -> bool:
        """Removes up to ``limit`` chunks from ``keep_from`` on with numbers under ``below``; True when
        none is left."""
        removed = self._db.run(_UNMAP, (ino, keep_from, below, limit))
        return removed < limit or self._db.one(_ANY_MAPPED, (ino, keep_from, below)) is None

    def _remove(self, ino: Ino) -> None:
        row = self._db.one("SELECT held FROM inode WHERE ino = ?", (ino,))
        for statement in (
            "DELETE FROM xattr WHERE ino = ?",
            "DELETE FROM atime WHERE ino = ?",
            "DELETE FROM orphan WHERE ino = ?",
            "DELETE FROM inode WHERE ino = ?",
        ):
            self._db.run(statement, (ino,))
        if row is not None:
            self._db.inodes -= 1
            self._db.bytes -= row[0]

    # --- sizes -------------------------------------------------------------------------

    def truncate(self, ino: Ino, size: int, now_ns: int, limit: int) -> bool:
        """See the port.  Chunks that are left for later are invisible at once."""
        with self._db:
            self.set_size(ino, size)
            when = divmod(now_ns, NS)
            self._db.run(
                "UPDATE inode SET mtime_s = ?, mtime_ns = ?, ctime_s = ?, ctime_ns = ? WHERE ino = ?",
                (*when, *when, ino),
            )
            return self.cut_off(ino, size, limit)

    def set_size(self, ino: Ino, size: int) -> None:
        """Raises StaleHandle, FileTooBig, InvalidArgument."""
        if not 0 <= size <= FILE_SIZE_MAX:
            raise (InvalidArgument if size < 0 else FileTooBig)(f"inode {ino}: a size of {size} bytes")
        if not self._db.run("UPDATE inode SET size = ? WHERE ino = ?", (size, ino)):
            raise StaleHandle(f"inode {ino} is gone")

    def cut_off(self, ino: Ino, size: int, limit: int) -> bool:
        """Removes chunks wholly beyond ``size``, at most ``limit``; notes what is left; True when none is."""
        keep_from = -(-size // self._db.chunk_size)
        if not self._shorten(ino, keep_from, _FOREVER, limit):
            self._db.run(_ADD_ORPHAN, (ino, keep_from, self._db.next_chunk))
            return False
        self._db.run("DELETE FROM orphan WHERE ino = ? AND keep_from >= ?", (ino, keep_from))
        return True


def _when(ns: int | None) -> tuple[int | None, int | None]:
    return (None, None) if ns is None else divmod(ns, NS)
