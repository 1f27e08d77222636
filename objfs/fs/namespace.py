"""Names and attributes: what POSIX says about directories, links, modes and times.

Owns the rules that are neither the kernel's (with ``default_permissions`` it checks permissions,
applies the umask and decides about the set-group-ID bit of a caller who is not in the group) nor
the table's (which keeps entries, link counts and times consistent):

- a new inode in a set-group-ID directory takes the directory's group, a directory the bit too;
- set-ID bits of files are cleared by chown, as Linux does, for root too;
- ctime is the time of each change; atime changes only by request, plus its value at creation: a
  mount behaves as ``noatime``, so that reading never writes;
- extended attributes are plain values in ``user.``, ``trusted.``, ``security.`` and under the two
  names of POSIX ACLs; their rules of access are the kernel's.

Every method is synchronous: nothing awaits between reading and committing rows.  Knows no bytes of
files, no handles and no protocol.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace

from objfs.errors import (
    AttributeTooBig,
    InvalidArgument,
    NameTooLong,
    NoSpace,
    NotDirectory,
    NotFound,
    NotPermitted,
    NotSupported,
)
from objfs.fs.ports import Caller, CapacitySource, FileSystemStats, Tables
from objfs.model import (
    NAME_MAX,
    SYMLINK_MAX,
    XATTR_NAME_MAX,
    XATTR_SIZE_MAX,
    Attr,
    AttrChange,
    Clock,
    DirEntry,
    Ino,
    NewInode,
    RenameFlag,
)

_SPACES = (b"user.", b"trusted.", b"security.")
_ACLS = frozenset((b"system.posix_acl_access", b"system.posix_acl_default"))
_SPECIAL = frozenset((stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK))
_DEVICES = frozenset((stat.S_IFCHR, stat.S_IFBLK))
_READ_WRITE_SEARCH = 0o7

XATTR_LIST_MAX = 65536


class Namespace:
    """The tree of one view.  ``writable`` is called before each change and raises ReadOnly;
    ``unlinked`` hears of each inode that lost its last name."""

    def __init__(
        self,
        table: Tables,
        root: Ino,
        clock: Clock,
        capacity: CapacitySource,
        *,
        writable: Callable[[], None],
        unlinked: Callable[[Ino], None],
    ) -> None:
        self._table = table
        self._root = root
        self._clock = clock
        self._capacity = capacity
        self._writable = writable
        self._unlinked = unlinked

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
        """The classic check of mode bits (``os.R_OK``, ``W_OK``, ``X_OK``), without ACLs."""
        attr = self._table.get(ino)
        if caller.uid == 0:
            return not mask & os.X_OK or attr.is_dir or bool(attr.mode & 0o111)
        shift = 0
        if caller.uid == attr.uid:
            shift = 6
        elif caller.gid == attr.gid or attr.gid in groups:
            shift = 3
        granted = attr.mode >> shift & _READ_WRITE_SEARCH
        return mask & ~granted & _READ_WRITE_SEARCH == 0

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
        return self._gone(self._table.unlink(parent, name, self._clock.now_ns()))

    def rmdir(self, parent: Ino, name: bytes) -> Attr:
        """Raises NotEmpty, NotDirectory, NotFound."""
        self._writable()
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
        now = self._clock.now_ns()
        done = self._table.rename(parent, name, new_parent, new_name, flag, now)
        if done.displaced is not None:
            self._gone(done.displaced)

    # --- attributes --------------------------------------------------------------------

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr:
        """Sets what is given, and ctime.  An owner's change drops the set-ID bits of a file."""
        self._writable()
        with self._table.transaction():
            change = replace(change, ctime_ns=self._clock.now_ns())
            if change.mode is not None or change.uid is not None or change.gid is not None:
                change = replace(change, mode=_new_mode(self._table.get(ino), change))
            return self._table.set_attr(ino, change)

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        """Raises NoAttribute; NotSupported outside the name spaces that are kept."""
        _check_xattr_name(name)
        return self._table.get_xattr(ino, name)

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int = 0) -> None:
        """``flags``: ``os.XATTR_CREATE`` or ``os.XATTR_REPLACE``.  Raises Exists, NoAttribute,
        AttributeTooBig, NameTooLong, NotSupported; NotPermitted for ``user.`` on special files."""
        self._writable()
        _check_xattr_name(name)
        if len(value) > XATTR_SIZE_MAX:
            raise AttributeTooBig(f"an attribute value of {len(value)} bytes; at most {XATTR_SIZE_MAX}")
        with self._table.transaction():
            self._check_user_space(ino, name)
            self._check_listing(ino, name)
            self._table.set_xattr(ino, name, value, flags, self._clock.now_ns())

    def list_xattr(self, ino: Ino) -> list[bytes]:
        return self._table.list_xattr(ino)

    def remove_xattr(self, ino: Ino, name: bytes) -> None:
        """Raises NoAttribute."""
        self._writable()
        _check_xattr_name(name)
        self._table.remove_xattr(ino, name, self._clock.now_ns())

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
            new = NewInode(mode, caller.uid, gid, self._clock.now_ns(), rdev, target)
            return self._table.create(parent, name, new)

    def _gone(self, attr: Attr) -> Attr:
        if attr.nlink == 0:
            self._unlinked(attr.ino)
        return attr

    def _directory(self, ino: Ino) -> Attr:
        attr = self._table.get(ino)
        if not attr.is_dir:
            raise NotDirectory(f"inode {ino} is not a directory")
        return attr

    def _check_user_space(self, ino: Ino, name: bytes) -> None:
        if name.startswith(b"user."):
            attr = self._table.get(ino)
            if not (attr.is_dir or attr.is_regular):
                raise NotPermitted(f"inode {ino} is neither file nor directory: no user attributes")

    def _check_listing(self, ino: Ino, name: bytes) -> None:
        # The kernel hands out at most 64 KiB of names: one more would make all of them unreadable.
        names = {name, *self._table.list_xattr(ino)}
        if sum(len(each) + 1 for each in names) > XATTR_LIST_MAX:
            raise NoSpace(f"inode {ino} has no room for another attribute name")

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


def _check_xattr_name(name: bytes) -> None:
    if not name.startswith(_SPACES) and name not in _ACLS:
        raise NotSupported(f"extended attributes named {name!r} are not kept")
    if len(name) > XATTR_NAME_MAX:
        raise NameTooLong(f"an attribute name of {len(name)} bytes; at most {XATTR_NAME_MAX}")
    if name in _SPACES:
        raise InvalidArgument(f"{name!r} names no attribute")
