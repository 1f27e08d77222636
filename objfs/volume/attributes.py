"""What an inode carries besides its bytes, put onto a file of this machine.

Owns the order (owner, mode, attributes, times: each can change what was set before) and what a process
that is not root leaves out.  Promises that a set-user-ID bit is never set for another owner than the one it
was meant for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from objfs.errors import NoAttribute
from objfs.fs import Tables, acl
from objfs.model import Attr

Attributes = Sequence[tuple[bytes, bytes]]
"""Extended attributes as (name, value)."""
OWNERS = "owners are not kept: only root may give files away"
_OF_OWNER = stat.S_ISUID | stat.S_ISGID


class Kept(NamedTuple):
    """An inode with its extended attributes."""

    attr: Attr
    xattrs: Attributes


def kept(table: Tables, attr: Attr) -> Kept:
    """An inode as the table has it."""
    found = []
    for name in table.list_xattr(attr.ino):
        try:
            found.append((name, table.get_xattr(attr.ino, name)))
        except NoAttribute:
            continue
    return Kept(attr, found)


def mode_of(attr: Attr, uid: int) -> int:
    """The permission bits that a process of ``uid`` sets."""
    mode = stat.S_IMODE(attr.mode)
    return mode if uid in (0, attr.uid) else mode & ~_OF_OWNER


def put_on_open(descriptor: int, what: Kept) -> list[str]:
    """On an open file or directory.  Returns what could not be kept, and why; raises OSError for the rest."""
    attr, remarks, uid = what.attr, list[str](), os.geteuid()
    if attr.is_dir:
        forget_lists(descriptor)
    if uid == 0:
        os.fchown(descriptor, attr.uid, attr.gid)
    elif attr.uid != uid:
        remarks.append(OWNERS)
    os.fchmod(descriptor, mode_of(attr, uid))
    for name, value in what.xattrs:
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            remarks.append(_not_kept(name, error))
    os.utime(descriptor, ns=(attr.atime_ns, attr.mtime_ns))
    return remarks


def forget_lists(directory: int) -> None:
    """A directory loses the access control lists that it inherited, and hands none on."""
    for name in acl.NAMES:
        with suppress(OSError):  # it has none, or its file system knows of none
            os.removexattr(directory, name)


def put_on_name(directory: int, name: bytes, what: Kept) -> list[str]:
    """On a symlink, FIFO, socket or device in a directory that nobody else writes to.  As above."""
    attr, remarks, uid = what.attr, list[str](), os.geteuid()
    if uid == 0:
        os.chown(name, attr.uid, attr.gid, dir_fd=directory, follow_symlinks=False)
    elif attr.uid != uid:
        remarks.append(OWNERS)
    if not stat.S_ISLNK(attr.mode):
        os.chmod(name, mode_of(attr, uid), dir_fd=directory)
    for key, value in what.xattrs:
        try:
            os.setxattr(b"/proc/self/fd/%d/%s" % (directory, name), key, value, follow_symlinks=False)
        except OSError as error:
            remarks.append(_not_kept(key, error))
    os.utime(name, ns=(attr.atime_ns, attr.mtime_ns), dir_fd=directory, follow_symlinks=False)
    return remarks


def _not_kept(name: bytes, error: OSError) -> str:
    space = name.partition(b".")[0].decode("utf-8", "backslashreplace")
    if name in acl.NAMES:
        return f"access control lists are not kept: {error.strerror}"
    return f"attributes of {space}. are not kept: {error.strerror}"
