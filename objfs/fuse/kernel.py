"""mount(2), called by ourselves.

Owns one system call and its opposite.  libfuse makes the same call, but has no option for one flag:
with MS_POSIXACL the kernel leaves the mode of a new inode as the program asked for it, and hands the umask
over beside it.  Only so can a directory's default access control list take the place of the umask.  Whoever
may not call mount(2) mounts through libfuse and its helper, and there the umask has been applied already.

Promises that a call that failed leaves nothing open and nothing mounted.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

_FLAGS = {
    "ro": 1 << 0,
    "nosuid": 1 << 1,
    "nodev": 1 << 2,
    "noexec": 1 << 3,
    "sync": 1 << 4,
    "dirsync": 1 << 7,
    "noatime": 1 << 10,
}
_POSIXACL = 1 << 16
_MNT_DETACH = 2
_DATA = frozenset(("default_permissions", "allow_other"))


def mount(directory: Path, options: Collection[str]) -> int:
    """Mounts with the options of ``session.fuse_options``; returns the connection, an open /dev/fuse.

    Raises PermissionError where this process may not, OSError.
    """
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        named = dict(option.split("=", 1) for option in options if "=" in option)
        source = re.sub(r"\\(.)", r"\1", named["fsname"]).encode("ascii")
        data = ",".join(_data(device, directory, options)).encode("ascii")
        kind = f"fuse.{named['subtype']}".encode("ascii")
        _call("mount", source, os.fsencode(directory), kind, ctypes.c_ulong(_flags(options)), data)
    except BaseException:
        os.close(device)
        raise
    return device


def is_connected(device: int) -> bool:
    """Whether the other end is still mounted somewhere, and the kernel has not cut the connection."""
    poll = select.poll()
    poll.register(device, 0)
    return not poll.poll(0)


def unmount(directory: Path) -> None:
    """Frees the directory at once, also where programs use it.  Raises OSError."""
    _call("umount2", os.fsencode(directory), _MNT_DETACH)


def _flags(options: Collection[str]) -> int:
    flags = _POSIXACL | sum(bit for name, bit in _FLAGS.items() if name in options)
    for name in ("nosuid", "nodev"):  # as libfuse does, unless told otherwise
        if name[2:] not in options:
            flags |= _FLAGS[name]
    return flags


def _data(device: int, directory: Path, options: Collection[str]) -> Iterator[str]:
    yield f"fd={device}"
    yield f"rootmode={stat.S_IFMT(directory.stat().st_mode):o}"
    yield f"user_id={os.getuid()}"
    yield f"group_id={os.getgid()}"
    yield from sorted(_DATA & set(options))


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
