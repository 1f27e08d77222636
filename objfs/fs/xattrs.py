"""Extended attributes of one view, and the access control lists among them.

Owns the rules that the kernel leaves to a file system:

- ``user.``, ``trusted.``, ``security.`` and the two names of POSIX ACLs are kept.  Who may read and write
  them is the kernel's to decide, but it hides no name: ``trusted.`` is listed for root alone.
- An access list and the mode of its inode say the same: setting one changes the other.  A list that says
  no more than a mode becomes one and is not kept.
- Only directories have default lists.  They are what a new inode in them begins with, and while there is
  one, the creator's umask counts for nothing.

Promises that a change of a list and of the mode is one transaction.  Knows no names of files; what a list
means is ``acl``'s.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import NamedTuple

from objfs.errors import (
    AccessDenied,
    AttributeTooBig,
    InvalidArgument,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotPermitted,
    NotSupported,
)
from objfs.fs import acl
from objfs.fs.acl import Acl
from objfs.fs.ports import SUPERUSER, Caller, Tables
from objfs.model import XATTR_NAME_MAX, XATTR_SIZE_MAX, Attr, AttrChange, Ino
from objfs.ports import Clock

_TRUSTED = b"trusted."
_SPACES = (b"user.", _TRUSTED, b"security.")

XATTR_LIST_MAX = 65536


class Heritage(NamedTuple):
    """What a new inode gets of its directory: its mode, and attributes as (name, value)."""

    mode: int
    attributes: tuple[tuple[bytes, bytes], ...] = ()


class Xattrs:
    """The attributes of one view.  ``writable`` is called before each change and raises ReadOnly."""

    def __init__(self, table: Tables, clock: Clock, *, writable: Callable[[], None]) -> None:
        self._table = table
        self._clock = clock
        self._writable = writable

    # --- by name -----------------------------------------------------------------------

    def get(self, ino: Ino, name: bytes) -> bytes:
        """Raises NoAttribute; NotSupported outside the name spaces that are kept."""
        _check_name(name)
        return self._table.get_xattr(ino, name)

    def set(
        self,
        ino: Ino,
        name: bytes,
        value: bytes,
        flags: int = 0,
        caller: Caller = SUPERUSER,
        groups: frozenset[int] = frozenset(),
    ) -> None:
        """``flags``: ``os.XATTR_CREATE`` or ``os.XATTR_REPLACE``; they mean nothing for a list.
        ``groups`` are the caller's others, asked for by the access list only.

        Raises Exists, NoAttribute, AttributeTooBig, NameTooLong, NotSupported; NotPermitted for ``user.``
        on special files; for a list InvalidArgument, and AccessDenied where it cannot be a default.
        """
        self._writable()
        _check_name(name)
        if len(value) > XATTR_SIZE_MAX:
            raise AttributeTooBig(f"an attribute value of {len(value)} bytes; at most {XATTR_SIZE_MAX}")
        with self._table.transaction():
            attr = self._table.get(ino)
            _check_kind(attr, name)
            self._check_listing(ino, name)
            if name in acl.NAMES:
                self._set_list(attr, name, acl.parse(value), caller, groups)
            else:
                self._table.set_xattr(ino, name, value, flags, self._clock.now_ns())

    def names(self, ino: Ino, caller: Caller = SUPERUSER) -> list[bytes]:
        """Those that the caller may know of.  Raises StaleHandle."""
        found = self._table.list_xattr(ino)
        if caller.uid != 0:
            found = [name for name in found if not name.startswith(_TRUSTED)]
        return found

    def remove(self, ino: Ino, name: bytes) -> None:
        """Raises NoAttribute; a list may be absent.  Without its access list an inode keeps its mode."""
        self._writable()
        _check_name(name)
        with suppress(NoAttribute) if name in acl.NAMES else nullcontext():
            self._table.remove_xattr(ino, name, self._clock.now_ns())

    # --- lists and modes ---------------------------------------------------------------

    def access_list(self, attr: Attr) -> Acl:
        """What decides about access: the list that is kept, else what the mode says."""
        return self._find(attr.ino, acl.ACCESS) or acl.of_mode(attr.mode)

    def follow_mode(self, ino: Ino, mode: int, now_ns: int) -> None:
        """To be called in the transaction that gives the inode this mode."""
        kept = self._find(ino, acl.ACCESS)
        if kept is not None and kept.mode != mode & acl.MODE:
            self._table.set_xattr(ino, acl.ACCESS, acl.encode(kept.with_mode(mode)), 0, now_ns)

    def heritage(self, parent: Ino, mode: int, umask: int) -> Heritage:
        """What an inode that is asked for with ``mode`` will be.  A umask that was applied already does
        no harm; nothing here applies to symbolic links."""
        if stat.S_ISLNK(mode):
            return Heritage(mode)
        default = self._find(parent, acl.DEFAULT)
        if default is None:
            return Heritage(mode & ~(umask & acl.MODE))
        access = default.inherited(mode)
        lists = () if access.minimal else ((acl.ACCESS, acl.encode(access)),)
        if stat.S_ISDIR(mode):
            lists = (*lists, (acl.DEFAULT, acl.encode(default)))
        return Heritage(mode & ~acl.MODE | access.mode, lists)

    # --- inside ------------------------------------------------------------------------

    def _find(self, ino: Ino, name: bytes) -> Acl | None:
        try:
            return acl.parse(self._table.get_xattr(ino, name))
        except NoAttribute:
            return None

    def _set_list(
        self, attr: Attr, name: bytes, new: Acl | None, caller: Caller, groups: frozenset[int]
    ) -> None:
        now = self._clock.now_ns()
        if name == acl.ACCESS and new is not None:
            mode = _mode_with(attr, new, caller, groups)
            self._table.set_attr(attr.ino, AttrChange(mode=mode, ctime_ns=now))
            new = None if new.minimal else new
        if new is not None:
            self._table.set_xattr(attr.ino, name, acl.encode(new), 0, now)
        else:
            with suppress(NoAttribute):  # it may be absent
                self._table.remove_xattr(attr.ino, name, now)

    def _check_listing(self, ino: Ino, name: bytes) -> None:
        # The kernel hands out at most 64 KiB of names: one more would make all of them unreadable.
        names = {name, *self._table.list_xattr(ino)}
        if sum(len(each) + 1 for each in names) > XATTR_LIST_MAX:
            raise NoSpace(f"inode {ino} has no room for another attribute name")


def _mode_with(attr: Attr, new: Acl, caller: Caller, groups: frozenset[int]) -> int:
    """The mode of an inode that gets an access list.  Who is not in its group cannot leave it
    set-group-ID, as with chmod(2)."""
    mode = attr.mode & ~acl.MODE | new.mode
    if caller.uid != 0 and attr.gid != caller.gid and attr.gid not in groups:
        mode &= ~stat.S_ISGID
    return mode


def _check_name(name: bytes) -> None:
    if not name.startswith(_SPACES) and name not in acl.NAMES:
        raise NotSupported(f"extended attributes named {name!r} are not kept")
    if len(name) > XATTR_NAME_MAX:
        raise NameTooLong(f"an attribute name of {len(name)} bytes; at most {XATTR_NAME_MAX}")
    if name in _SPACES:
        raise InvalidArgument(f"{name!r} names no attribute")


def _check_kind(attr: Attr, name: bytes) -> None:
    if name.startswith(b"user.") and not (attr.is_dir or attr.is_regular):
        raise NotPermitted(f"inode {attr.ino} is neither file nor directory: no user attributes")
    if name in acl.NAMES and stat.S_ISLNK(attr.mode):
        raise NotSupported(f"inode {attr.ino} is a symbolic link: no access control list")
    if name == acl.DEFAULT and not attr.is_dir:
        raise AccessDenied(f"inode {attr.ino} is not a directory: no default access control list")
