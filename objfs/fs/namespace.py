"""Names and attributes: what POSIX says about directories, links, modes and times.

Owns the rules that are neither the kernel's (with ``default_permissions`` it checks permissions, and
decides about the set-group-ID bit of a caller who is not in the group) nor the table's (which keeps
entries, link counts and times consistent):

- a new inode in a set-group-ID directory takes the directory's group, a directory the bit too; its mode is
  what the umask, or the directory's default list, leaves of what was asked for (``xattrs``);
- set-ID bits of files are cleared by chown, as Linux does, for root too;
- ctime is the time of each change; of an access time only the first is set here, and those asked for.

Every method is synchronous: nothing awaits between reading and committing rows.  Knows no bytes of
files, no handles and no protocol.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace

from objfs.errors import (
    InvalidArgument,
    NameTooLong,
    NotDirectory,
    NotFound,
)
from objfs.fs.ports import Caller, CapacitySource, FileSystemStats, Removing, Tables
from objfs.fs.xattrs import Xattrs
from objfs.model import (
    NAME_MAX,
    SYMLINK_MAX,
    Attr,
    AttrChange,
    DirEntry,
    Ino,
    NewInode,
    RenameFlag,
)
from objfs.ports import Clock

_SPECIAL = frozenset((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
_DEVICES = frozenset((stat.S_IFCHR, stat.S_IFBLK))


class Namespace:
    """The tree of one view.  ``writable`` is called before each change and raises ReadOnly;
    ``removing`` hears of each name before it goes, ``unlinked`` of each inode that lost its last one."""

    def __init__(
        self,
        table: Tables,
        root: Ino,
        clock: Clock,
        capacity: CapacitySource,
        xattrs: Xattrs,
        *,
        writable: Callable[[], None],
        unlinked: Callable[[Ino], None],
        removing: Removing | None = None,
    ) -> None:
        self._table = table
        self._root = root
        self._clock = clock
        self._capacity = capacity
        self._xattrs = xattrs
        self._writable = writable
        self._unlinked = unlinked
        self._removing = removing

    # --- reading -----------------------------------------------------------------------

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        """Knows '.' and '..' too, and does not lead out of the view.  Raises NotFound, NotDirectory."""
        if name == b".":
            return self._directory(parent)
        if name == b"..":
            return self.parent_of(parent)
        return self._table.lookup(parent, name)

    def parent_of(self, ino: Ino) -> Attr:
        """The directory above; the root's is the root.  Raises NotDirectory."""
        directory = self._directory(ino)
        return directory if ino == self._root else self._table.get(directory.parent)

    def getattr(self, ino: Ino) -> Attr:
        """Raises StaleHandle."""
        return self._table.get(ino)

    def readlink(self, ino: Ino) -> bytes:
        """Raises InvalidArgument for anything but a symlink."""
        target = self._table.get(ino).target
        if target is None:
            raise InvalidArgument(f"inode {ino} is not a symbolic link")
        return target

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        """At most ``limit`` entries beyond a cookie, without '.' and '..'."""
        return self._table.readdir(parent, after_cookie, limit)

    def access(self, ino: Ino, mask: int, caller: Caller, groups: frozenset[int] = frozenset()) -> bool:
        """Whether the mode, or the access list, grants ``os.R_OK``, ``W_OK`` and ``X_OK`` as asked."""
        attr = self._table.get(ino)
        if caller.uid == 0:
            return not mask & os.X_OK or attr.is_dir or bool(attr.mode & 0o111)
        allowed = self._xattrs.access_list(attr)
        return allowed.permits(mask, caller.uid, groups | {caller.gid}, attr.uid, attr.gid)

    def statfs(self) -> FileSystemStats:
        return FileSystemStats(self._capacity(), self._table.count()[0])

    # --- making ------------------------------------------------------------------------

    def create(self, parent: Ino, name: bytes, mode: int, caller: Caller) -> Attr:
        """A regular file.  Raises Exists, NotFound, NotDirectory, NameTooLong."""
        return self._make(parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller)

    def mkdir(self, parent: Ino, name: bytes, mode: int, caller: Caller) -> Attr:
        return self._make(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), caller)

    def mknod(self, parent: Ino, name: bytes, mode: int, rdev: int, caller: Caller) -> Attr:
        """A regular file (also where ``mode`` names no type), FIFO, socket or device."""
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        if kind not in _SPECIAL:
            raise InvalidArgument(f"mknod cannot make an inode of mode {mode:o}")
        device = rdev if kind in _DEVICES else 0
        return self._make(parent, name, kind | stat.S_IMODE(mode), caller, rdev=device)

    def symlink(self, parent: Ino, name: bytes, target: bytes, caller: Caller) -> Attr:
        if not target:
            raise NotFound("a symbolic link needs a target")
        if len(target) > SYMLINK_MAX:
            raise NameTooLong(f"symlink target of {len(target)} bytes; at most {SYMLINK_MAX}")
        return self._make(parent, name, stat.S_IFLNK | 0o777, caller, target=target)

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Attr:
        """Raises NotPermitted for a directory, Exists, TooManyLinks, NotFound for an orphan."""
        self._writable()
        self._check_name(name)
        return self._table.link(ino, parent, name, self._clock.now_ns())

    # --- removing and moving -----------------------------------------------------------

    def unlink(self, parent: Ino, name: bytes) -> Attr:
        """Raises IsDirectory, NotFound.  Returns the inode as it stands after."""
        self._writable()
        self._announce(parent, name)
        return self._gone(self._table.unlink(parent, name, self._clock.now_ns()))

    def rmdir(self, parent: Ino, name: bytes) -> Attr:
        """Raises NotEmpty, NotDirectory, NotFound."""
        self._writable()
        self._announce(parent, name)
        return self._gone(self._table.rmdir(parent, name, self._clock.now_ns()))

    def rename(
        self,
        parent: Ino,
        name: bytes,
        new_parent: Ino,
        new_name: bytes,
        flag: RenameFlag = RenameFlag.REPLACE,
    ) -> None:
        """Atomic; what it displaces lives on while somebody holds it."""
        self._writable()
        self._check_name(new_name)
        if flag is RenameFlag.REPLACE:
            self._announce(new_parent, new_name)
        now = self._clock.now_ns()
        done = self._table.rename(parent, name, new_parent, new_name, flag, now)
        if done.displaced is not None:
            self._gone(done.displaced)

    # --- attributes --------------------------------------------------------------------

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr:
        """Sets what is given, and ctime.  An owner's change drops the set-ID bits of a file; an access
        list follows the mode."""
        self._writable()
        with self._table.transaction():
            now = self._clock.now_ns()
            change = replace(change, ctime_ns=now)
            if change.mode is not None or change.uid is not None or change.gid is not None:
                mode = _new_mode(self._table.get(ino), change)
                change = replace(change, mode=mode)
                self._xattrs.follow_mode(ino, mode, now)
            return self._table.set_attr(ino, change)

    # --- inside ------------------------------------------------------------------------

    def _make(
        self,
        parent: Ino,
        name: bytes,
        mode: int,
        caller: Caller,
        *,
        rdev: int = 0,
        target: bytes | None = None,
    ) -> Attr:
        self._writable()
        self._check_name(name)
        with self._table.transaction():
            directory = self._table.get(parent)
            gid = caller.gid
            if directory.mode & stat.S_ISGID:
                gid = directory.gid
                mode |= stat.S_ISGID if stat.S_ISDIR(mode) else 0
            now = self._clock.now_ns()
            heritage = self._xattrs.heritage(parent, mode, caller.umask)
            new = NewInode(heritage.mode, caller.uid, gid, now, rdev, target)
            attr = self._table.create(parent, name, new)
            for key, value in heritage.attributes:
                self._table.set_xattr(attr.ino, key, value, 0, now)
            return attr

    def _announce(self, parent: Ino, name: bytes) -> None:
        if self._removing is not None:
            self._removing(parent, name)

    def _gone(self, attr: Attr) -> Attr:
        if attr.nlink == 0:
            self._unlinked(attr.ino)
        return attr

    def _directory(self, ino: Ino) -> Attr:
        attr = self._table.get(ino)
        if not attr.is_dir:
            raise NotDirectory(f"inode {ino} is not a directory")
        return attr

    @staticmethod
    def _check_name(name: bytes) -> None:
        if len(name) > NAME_MAX:
            raise NameTooLong(f"a name of {len(name)} bytes; at most {NAME_MAX}")
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise InvalidArgument(f"{name!r} cannot be the name of an entry")


def without_set_id(mode: int) -> int:
    """The mode after somebody unprivileged changed a file: no set-user-ID, and no set-group-ID
    where the group may execute (without that bit it once meant mandatory locking)."""
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID


def _new_mode(attr: Attr, change: AttrChange) -> int:
    """The full mode after a change of mode or owner; the file type never changes."""
    mode = attr.mode
    if change.mode is not None:
        mode = stat.S_IFMT(attr.mode) | stat.S_IMODE(change.mode)
    elif not attr.is_dir:
        mode = without_set_id(mode)
    return mode
