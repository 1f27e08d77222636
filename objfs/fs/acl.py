"""POSIX access control lists: what acl(5) says about them, without any inode.

Owns the form that they have in an extended attribute (``linux/posix_acl_xattr.h``: a version of 32
bits, then for each entry a tag and permissions of 16 bits and an id of 32, all little-endian), their
validity, and what becomes of them when a mode changes or an inode is made.  Promises:

- ``parse`` accepts exactly what ``encode`` can give; an ``Acl`` that was parsed is valid.
- The group class of a mode (its middle bits) is the mask where there is one, else the owning group.

Pure: bytes, modes and ids in, the same out.  Knows no table and no caller's process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from objfs.errors import AttributeTooBig, InvalidArgument

ACCESS = b"system.posix_acl_access"
DEFAULT = b"system.posix_acl_default"
NAMES = frozenset((ACCESS, DEFAULT))
SIZE_MAX = 4096
"""Bytes of an attribute that the kernel reads or hands over for a list: one page."""

PERMISSIONS = 0o7
MODE = 0o777
_VERSION = 2
_HEADER = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_NO_ID = 0xFFFFFFFF

Named = tuple[tuple[int, int], ...]
"""(id, permissions) of the users or groups that a list names, in its order."""


class Tag(IntEnum):
    """Whom an entry speaks of.  A list has its entries in this order."""

    USER_OBJ = 0x01
    USER = 0x02
    GROUP_OBJ = 0x04
    GROUP = 0x08
    MASK = 0x10
    OTHER = 0x20


_NAMED = frozenset((Tag.USER, Tag.GROUP))
_UNNAMED = frozenset((Tag.USER_OBJ, Tag.GROUP_OBJ, Tag.OTHER))


@dataclass(frozen=True, slots=True)
class Acl:
    """One list.  Permissions are three bits, as in a mode; ``mask`` limits all but owner and others."""

    owner: int
    group: int
    other: int
    mask: int | None = None
    users: Named = ()
    groups: Named = ()

    @property
    def minimal(self) -> bool:
        """It says no more than a mode does."""
        return self.mask is None

    @property
    def mode(self) -> int:
        """The nine permission bits that belong to it."""
        return self.owner << 6 | self._group_class << 3 | self.other

    @property
    def _group_class(self) -> int:
        return self.group if self.mask is None else self.mask

    def with_mode(self, mode: int) -> Acl:
        """After chmod(2): owner, others and the group class are the mode's; who is named stays."""
        mine = replace(self, owner=mode >> 6 & PERMISSIONS, other=mode & PERMISSIONS)
        return mine._with_group_class(mode >> 3 & PERMISSIONS)

    def inherited(self, mode: int) -> Acl:
        """This default list as the access list of a new inode that was asked for with ``mode``: neither
        may grant what the other does not.  The mode of the inode is the list's then."""
        return self.with_mode(self.mode & mode)

    def _with_group_class(self, permissions: int) -> Acl:
        if self.mask is None:
            return replace(self, group=permissions)
        return replace(self, mask=permissions)

    def permits(self, wanted: int, uid: int, groups: frozenset[int], owner: int, group: int) -> bool:
        """The check of acl(5) for a process with these ids, on an inode of ``owner`` and ``group``."""
        if uid == owner:
            return not wanted & ~self.owner
        limit = PERMISSIONS if self.mask is None else self.mask
        for named, permissions in self.users:
            if named == uid:
                return not wanted & ~(permissions & limit)
        matching = [bits for named, bits in ((group, self.group), *self.groups) if named in groups]
        if matching:
            return any(not wanted & ~(bits & limit) for bits in matching)
        return not wanted & ~self.other


def of_mode(mode: int) -> Acl:
    """The minimal list that says what the mode's permission bits say."""
    return Acl(mode >> 6 & PERMISSIONS, mode >> 3 & PERMISSIONS, mode & PERMISSIONS)


def encode(acl: Acl) -> bytes:
    """The value of an attribute."""
    entries = (_ENTRY.pack(tag, permissions, name) for tag, permissions, name in _entries(acl))
    return _HEADER.pack(_VERSION) + b"".join(entries)


def parse(value: bytes) -> Acl | None:
    """A list from the value of an attribute; None for one without entries, which stands for no list.

    Raises InvalidArgument, AttributeTooBig.
    """
    if len(value) > SIZE_MAX:
        raise AttributeTooBig(f"an access control list of {len(value)} bytes; at most {SIZE_MAX}")
    body = value[_HEADER.size :]
    if len(value) < _HEADER.size or len(body) % _ENTRY.size:
        raise InvalidArgument(f"{len(value)} bytes are not an access control list")
    if _HEADER.unpack_from(value) != (_VERSION,):
        raise InvalidArgument(f"an access control list of version {_HEADER.unpack_from(value)[0]}")
    return _assemble(list(_ENTRY.iter_unpack(body))) if body else None


def _entries(acl: Acl) -> Iterator[tuple[Tag, int, int]]:
    yield Tag.USER_OBJ, acl.owner, _NO_ID
    yield from ((Tag.USER, permissions, uid) for uid, permissions in acl.users)
    yield Tag.GROUP_OBJ, acl.group, _NO_ID
    yield from ((Tag.GROUP, permissions, gid) for gid, permissions in acl.groups)
    if acl.mask is not None:
        yield Tag.MASK, acl.mask, _NO_ID
    yield Tag.OTHER, acl.other, _NO_ID


def _assemble(entries: list[tuple[int, int, int]]) -> Acl:
    if any(later < earlier for (earlier, *_), (later, *_) in pairwise(entries)):
        raise InvalidArgument("the entries of an access control list are out of order")
    single = _unique((tag, permissions) for tag, permissions, _ in entries if tag not in _NAMED)
    users = _unique((uid, permissions) for tag, permissions, uid in entries if tag == Tag.USER)
    groups = _unique((gid, permissions) for tag, permissions, gid in entries if tag == Tag.GROUP)
    needed = _UNNAMED | ({Tag.MASK} if users or groups else frozenset())
    if not needed <= single.keys() <= _UNNAMED | {Tag.MASK}:
        raise InvalidArgument("an access control list lacks an entry or has one of no known kind")
    return Acl(
        single[Tag.USER_OBJ],
        single[Tag.GROUP_OBJ],
        single[Tag.OTHER],
        single.get(Tag.MASK),
        tuple(users.items()),
        tuple(groups.items()),
    )


def _unique(entries: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Permissions by whom they are for, in the order given."""
    found: dict[int, int] = {}
    for key, permissions in entries:
        if key in found or key == _NO_ID or permissions & ~PERMISSIONS:
            raise InvalidArgument(f"an access control list cannot give {key} the permissions {permissions:o}")
        found[key] = permissions
    return found
