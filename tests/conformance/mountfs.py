"""A directory of the kernel's, spoken to as the tests of ``fs`` speak to the file system below it.

Owns the translation into system calls: an inode is a descriptor opened with O_PATH, a name is looked up
beside it, an OSError becomes the class of ``objfs.errors`` with its errno.  Promises no more than the tests
ask for.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

from objfs.errors import PosixError
from objfs.fs import Caller, Handle
from objfs.model import ROOT, Attr, AttrChange, DirEntry, Ino, RenameFlag

SET_IDS = stat.S_ISUID | stat.S_ISGID
_CLASSES = {each.errno: each for each in PosixError.__subclasses__()}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


@contextlib.contextmanager
def posix() -> Iterator[None]:
    """Raises the class of our tree instead of an OSError."""
    try:
        yield
    except OSError as error:
        _fail(error)


def _fail(error: OSError) -> NoReturn:
    raise _CLASSES.get(error.errno or 0, PosixError)(str(error)) from None


class MountFs:
    """The tree below ``base``; ``base`` itself is the root."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.orphans = SimpleNamespace(waiting=0)
        self._nodes: dict[Ino, int] = {}
        self._handles: set[int] = set()
        self._root = base.stat().st_ino
        self._learn(os.open(base, os.O_PATH))

    def close(self) -> None:
        """Nothing of the mount is in use any more."""
        for descriptor in (*self._nodes.values(), *self._handles):
            os.close(descriptor)
        self._nodes.clear()
        self._handles.clear()

    def learn_all(self) -> None:
        """The inodes of the whole tree, after it was mounted again."""
        self._learn_below(ROOT)

    def _learn_below(self, directory: Ino) -> None:
        for entry in self.readdir(directory, 2, 0):
            if self.lookup(directory, entry.name).is_dir:
                self._learn_below(entry.attr.ino)

    # --- names -------------------------------------------------------------------------

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        with posix():
            return self._learn(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._nodes[parent]))

    def getattr(self, ino: Ino) -> Attr:
        return self._attr(self._nodes[ino])

    def create(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Attr]:
        with posix():
            made = os.open(name, flags | os.O_CREAT | os.O_EXCL, mode, dir_fd=self._nodes[parent])
        self._handles.add(made)
        return Handle(made, Ino(0), flags), self._given(parent, name, caller)

    def mkdir(self, parent: Ino, name: bytes, mode: int, caller: Caller) -> Attr:
        with posix():
            os.mkdir(name, mode, dir_fd=self._nodes[parent])
        # mkdir(2) knows no set-ID bits on Linux; the model's caller is the kernel, which may give them.
        return self._given(parent, name, caller, set_ids=mode & SET_IDS)

    def mknod(self, parent: Ino, name: bytes, mode: int, rdev: int, caller: Caller) -> Attr:
        with posix():
            os.mknod(name, mode, rdev, dir_fd=self._nodes[parent])
        return self._given(parent, name, caller)

    def symlink(self, parent: Ino, name: bytes, target: bytes, caller: Caller) -> Attr:
        with posix():
            os.symlink(target, name, dir_fd=self._nodes[parent])
        return self.lookup(parent, name)

    def link(self, ino: Ino, parent: Ino, name: bytes) -> None:
        with posix():
            os.link(self._path(ino), name, dst_dir_fd=self._nodes[parent])

    def unlink(self, parent: Ino, name: bytes) -> None:
        with posix():
            os.unlink(name, dir_fd=self._nodes[parent])

    def rmdir(self, parent: Ino, name: bytes) -> None:
        with posix():
            os.rmdir(name, dir_fd=self._nodes[parent])

    def rename(
        self, parent: Ino, name: bytes, to: Ino, new_name: bytes, flag: RenameFlag = RenameFlag.REPLACE
    ) -> None:
        if _libc.renameat2(self._nodes[parent], name, self._nodes[to], new_name, int(flag)):
            code = ctypes.get_errno()
            _fail(OSError(code, os.strerror(code)))

    def readdir(self, ino: Ino, after: int, limit: int) -> list[DirEntry]:
        """All at once, whatever ``limit`` is."""
        if after > 2:
            return []
        with posix(), self._opened(ino) as descriptor:
            names = [os.fsencode(name) for name in os.listdir(descriptor)]
        return [DirEntry(name, 3 + at, self.lookup(ino, name)) for at, name in enumerate(names)]

    # --- attributes --------------------------------------------------------------------

    async def setattr(self, ino: Ino, change: AttrChange, size: int | None, caller: Caller) -> None:
        with posix():
            if size is not None:
                os.truncate(self._path(ino), size)
            if change.uid is not None or change.gid is not None:
                os.chown(self._path(ino), _or_minus_one(change.uid), _or_minus_one(change.gid))
            if change.mode is not None:
                os.chmod(self._path(ino), stat.S_IMODE(change.mode))

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        with posix():
            return os.getxattr(self._path(ino), name)

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int = 0) -> None:
        with posix():
            os.setxattr(self._path(ino), name, value, flags)

    def list_xattr(self, ino: Ino) -> list[bytes]:
        with posix():
            return [os.fsencode(name) for name in os.listxattr(self._path(ino))]

    def remove_xattr(self, ino: Ino, name: bytes) -> None:
        with posix():
            os.removexattr(self._path(ino), name)

    # --- bytes -------------------------------------------------------------------------

    async def open(self, ino: Ino, flags: int, caller: Caller) -> Handle:
        with posix():
            opened = os.open(self._path(ino), flags)
        self._handles.add(opened)
        return Handle(opened, ino, flags)

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        with posix():
            return os.pread(fh, length, offset)

    async def write(self, fh: int, offset: int, data: bytes) -> int:
        with posix():
            return os.pwrite(fh, data, offset)

    def release(self, fh: int) -> None:
        self._handles.discard(fh)
        os.close(fh)

    async def recover(self) -> None:
        """The mount did so itself."""

    async def aclose(self) -> None:
        """The mount goes on."""

    # --- inside ------------------------------------------------------------------------

    def _given(self, parent: Ino, name: bytes, caller: Caller, set_ids: int = 0) -> Attr:
        """Root made it; now it belongs to ``caller``, but for a group that comes from the directory, and has
        the ``set_ids`` bits of its mode besides."""
        attr = self.lookup(parent, name)
        if caller.uid or caller.gid:
            inherited = self.getattr(parent).mode & stat.S_ISGID
            os.chown(self._path(attr.ino), caller.uid, -1 if inherited else caller.gid)
            os.chmod(self._path(attr.ino), stat.S_IMODE(attr.mode) | set_ids)  # chown drops set-ID bits
        return self.getattr(attr.ino)

    def _learn(self, descriptor: int) -> Attr:
        attr = self._attr(descriptor)
        if attr.ino in self._nodes:
            os.close(descriptor)
        else:
            self._nodes[attr.ino] = descriptor
        return attr

    def _attr(self, descriptor: int) -> Attr:
        found = os.fstat(descriptor)
        ino = ROOT if found.st_ino == self._root else Ino(found.st_ino)
        target = os.readlink(b"", dir_fd=descriptor) if stat.S_ISLNK(found.st_mode) else None
        times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns, found.st_ctime_ns)
        rest = (found.st_nlink, found.st_uid, found.st_gid, found.st_rdev, found.st_size)
        return Attr(ino, found.st_mode, *rest, *times, target)

    def _path(self, ino: Ino) -> str:
        return f"/proc/self/fd/{self._nodes[ino]}"

    @contextlib.contextmanager
    def _opened(self, ino: Ino) -> Iterator[int]:
        descriptor = os.open(self._path(ino), os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _or_minus_one(value: int | None) -> int:
    return -1 if value is None else value
