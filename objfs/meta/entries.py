"""Names: directory entries and the link counts that follow from them.

Owns ``entry``, and of ``inode`` what a directory's entries imply: nlink, times, parent, next_cookie.
Promises that every method checks first and changes afterwards, so that a PosixError has changed
nothing, and that an entry keeps its cookie while it keeps its name. Knows no permissions: those are
``fs``'s and the kernel's.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from objfs.errors import (
    Exists,
    InvalidArgument,
    IsDirectory,
    NameTooLong,
    NotDirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    TooManyLinks,
)
from objfs.meta.database import Database
from objfs.meta.inodes import ATTR_COLUMNS, Inodes, to_attr
from objfs.model import LINK_MAX, NAME_MAX, NS, SYMLINK_MAX, Attr, DirEntry, Ino, NewInode

_LOOKUP = (
    f"SELECT {ATTR_COLUMNS} FROM entry e JOIN inode i ON i.ino = e.ino LEFT JOIN atime a ON a.ino = i.ino "
    "WHERE e.parent = ? AND e.name = ?"
)
_READDIR = (
    f"SELECT {ATTR_COLUMNS}, e.name, e.cookie FROM entry e INDEXED BY entry_cookie "
    "JOIN inode i ON i.ino = e.ino "
    "LEFT JOIN atime a ON a.ino = i.ino WHERE e.parent = ? AND e.cookie > ? ORDER BY e.cookie LIMIT ?"
)
_FIND = (
    "SELECT e.ino, e.cookie, i.mode, i.nlink FROM entry e JOIN inode i ON i.ino = e.ino "
    "WHERE e.parent = ? AND e.name = ?"
)
_ADD = (
    "INSERT INTO entry (parent, name, ino, cookie, born) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (parent, name) DO NOTHING"
)
_REMOVE = "DELETE FROM entry WHERE parent = ? AND name = ?"
_ANY = "SELECT 1 FROM entry WHERE parent = ? LIMIT 1"
_CHANGED = (
    "UPDATE inode SET mtime_s = ?, mtime_ns = ?, ctime_s = ?, ctime_ns = ?, nlink = nlink + ?, "
    "next_cookie = next_cookie + ? WHERE ino = ?"
)


class Directory(NamedTuple):
    """What adding to a directory needs to know of it."""

    nlink: int
    next_cookie: int


class Found(NamedTuple):
    """What a name leads to."""

    ino: Ino
    cookie: int
    mode: int
    nlink: int

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)


def check_name(name: bytes) -> None:
    """Raises NameTooLong, NotFound for an empty name, InvalidArgument for one that no entry can have."""
    if len(name) > NAME_MAX:
        raise NameTooLong(f"a name of {len(name)} bytes; at most {NAME_MAX}")
    if not name:
        raise NotFound("an empty name")
    if name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidArgument(f"{name!r} cannot be the name of an entry")


class Entries:
    """The namespace but for rename."""

    def __init__(self, database: Database, inodes: Inodes) -> None:
        self._db = database
        self._inodes = inodes

    # --- reading -----------------------------------------------------------------------

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        """Raises NotFound, NotDirectory, NameTooLong, StaleHandle."""
        row = self._db.one(_LOOKUP, (parent, name))
        if row is not None:
            return to_attr(row)
        self.directory(parent)
        if len(name) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes; at most {NAME_MAX}")
        raise NotFound(f"{name!r} in directory {parent}")

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        """Raises NotDirectory, StaleHandle."""
        rows = self._db.all(_READDIR, (parent, after_cookie, limit))
        if not rows:
            self.directory(parent)
        return [DirEntry(row[-2], row[-1], to_attr(row[:-2])) for row in rows]

    def directory(self, ino: Ino) -> Directory:
        """Raises StaleHandle, NotDirectory."""
        attr, next_cookie = self._inodes.get_with_cookie(ino)
        if not attr.is_dir:
            raise NotDirectory(f"inode {ino} is not a directory")
        return Directory(attr.nlink, next_cookie)

    def living_directory(self, ino: Ino) -> Directory:
        """One that may get entries.  Raises NotFound when it was removed."""
        found = self.directory(ino)
        if found.nlink == 0:
            raise NotFound(f"directory {ino} was removed")
        return found

    def find(self, parent: Ino, name: bytes) -> Found | None:
        row = self._db.one(_FIND, (parent, name))
        return None if row is None else Found(*row)

    def must_find(self, parent: Ino, name: bytes) -> Found:
        """Raises NotFound, NotDirectory, NameTooLong, InvalidArgument, StaleHandle."""
        check_name(name)
        found = self.find(parent, name)
        if found is None:
            self.directory(parent)
            raise NotFound(f"{name!r} in directory {parent}")
        return found

    def is_empty(self, ino: Ino) -> bool:
        return self._db.one(_ANY, (ino,)) is None

    # --- changing ----------------------------------------------------------------------

    def create(self, parent: Ino, name: bytes, new: NewInode) -> Attr:
        """Raises Exists, NotFound, NotDirectory, NameTooLong, TooManyLinks."""
        check_name(name)
        if new.target is not None and not 0 < len(new.target) <= SYMLINK_MAX:
            raise (NameTooLong if new.target else NotFound)(f"a symlink target of {len(new.target)} bytes")
        links = 1 if stat.S_ISDIR(new.mode) else 0
        with self._db:
            directory = self.living_directory(parent)
            if directory.nlink + links > LINK_MAX:
                raise TooManyLinks(f"directory {parent} has {directory.nlink} links")
            ino = self._db.new_ino()
            self.add(parent, name, ino, directory.next_cookie)
            attr = self._inodes.insert(new, parent, ino)
            self.changed(parent, new.now_ns, links=links, cookies=1)
            return attr

    def link(self, ino: Ino, parent: Ino, name: bytes, now_ns: int) -> Attr:
        """Raises NotPermitted, TooManyLinks, Exists, NotFound, NotDirectory, NameTooLong."""
        check_name(name)
        with self._db:
            attr = self._inodes.get(ino)
            if attr.is_dir:
                raise NotPermitted(f"inode {ino} is a directory: it has one name")
            if attr.nlink == 0:
                raise NotFound(f"inode {ino} has lost its last name")
            if attr.nlink >= LINK_MAX:
                raise TooManyLinks(f"inode {ino} has {attr.nlink} links")
            directory = self.living_directory(parent)
            self.add(parent, name, ino, directory.next_cookie)
            self._inodes.set_links(ino, attr.nlink + 1, now_ns)
            self.changed(parent, now_ns, cookies=1)
            return attr._replace(nlink=attr.nlink + 1, ctime_ns=now_ns)

    def unlink(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        """Raises NotFound, IsDirectory."""
        check_name(name)
        with self._db:
            attr = self.lookup(parent, name)
            if attr.is_dir:
                raise IsDirectory(f"{name!r} in directory {parent} is a directory")
            self.remove(parent, name)
            self._inodes.set_links(attr.ino, attr.nlink - 1, now_ns)
            self.changed(parent, now_ns)
            return attr._replace(nlink=attr.nlink - 1, ctime_ns=now_ns)

    def rmdir(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        """Raises NotFound, NotDirectory, NotEmpty."""
        with self._db:
            found = self.must_find(parent, name)
            if not found.is_dir:
                raise NotDirectory(f"{name!r} in directory {parent} is not a directory")
            if not self.is_empty(found.ino):
                raise NotEmpty(f"directory {name!r} in directory {parent} has entries")
            self.remove(parent, name)
            self._inodes.set_links(found.ino, 0, now_ns)
            self.changed(parent, now_ns, links=-1)
            return self._inodes.get(found.ino)

    # --- parts, for here and for rename ------------------------------------------------

    def add(self, parent: Ino, name: bytes, ino: Ino, cookie: int) -> None:
        """Raises Exists."""
        if not self._db.run(_ADD, (parent, name, ino, cookie, self._db.generation)):
            raise Exists(f"{name!r} in directory {parent}")

    def remove(self, parent: Ino, name: bytes) -> None:
        self._db.run(_REMOVE, (parent, name))

    def changed(self, parent: Ino, now_ns: int, *, links: int = 0, cookies: int = 0) -> None:
        """A directory's entries changed: its times, its links by ``links``, ``cookies`` handed out."""
        when = divmod(now_ns, NS)
        self._db.run(_CHANGED, (*when, *when, links, cookies, parent))
