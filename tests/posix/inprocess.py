"""The file system of ``objfs.fs`` as a subject: the real inode table and cache, and no kernel.

Owns what a kernel does before it asks a file system: walking paths, following symlinks, open's flags, numbers
of descriptors.  Everything else is passed on as it is.  The caller is root.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import trio

from objfs.errors import NotFound, PosixError
from objfs.fs import Caller, Handle
from objfs.fuse.translate import rename_flag
from objfs.model import FILE_SIZE_MAX, ROOT, Attr, AttrChange, Ino
from tests.fs.memory import CHUNK
from tests.fs.real import RealWorld
from tests.posix.port import Stat, Stream

SUPER = Caller(0, 0)
LINKS_FOLLOWED = 40
DOT, DOTDOT = 1, 2

T = TypeVar("T")


def told(function: Callable[[], T]) -> T:
    """An error of the file system as a program sees it."""
    try:
        return function()
    except PosixError as error:
        raise OSError(error.errno, os.strerror(error.errno)) from error


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        return await coroutine

    return told(lambda: trio.run(main))


class InProcess:
    """A volume in a temporary directory, and the descriptors that are open in it."""

    name = "fs"
    largest = FILE_SIZE_MAX
    chunk = CHUNK

    def __init__(self, world: RealWorld) -> None:
        self.world = world
        self.fs = world.fs
        self._open: dict[int, Ino] = {}

    # --- paths -------------------------------------------------------------------------

    def _walk(self, path: bytes, *, follow: bool, start: Ino = ROOT, followed: int = 0) -> Attr:
        """Raises OSError: ENOENT, ENOTDIR, ELOOP, ENAMETOOLONG."""
        attr = self.fs.getattr(start)
        parts = [part for part in path.split(b"/") if part]
        for number, part in enumerate(parts):
            above, attr = attr, self._lookup(attr.ino, part)
            if attr.target is not None and (follow or number < len(parts) - 1):
                if followed == LINKS_FOLLOWED:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                followed += 1
                attr = self._walk(attr.target, follow=True, start=above.ino, followed=followed)
        return attr

    def _lookup(self, parent: Ino, name: bytes) -> Attr:
        return told(lambda: self.fs.lookup(parent, name))

    def _place(self, path: bytes) -> tuple[Ino, bytes]:
        """The directory and the name in it."""
        above, _, name = path.rpartition(b"/")
        return self._walk(above, follow=True).ino, name

    # --- descriptors -------------------------------------------------------------------

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> int:
        parent, name = self._place(path)
        try:
            attr = self.fs.lookup(parent, name) if name else self.fs.getattr(parent)
        except NotFound as error:
            if not flags & os.O_CREAT:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            return self._keep(*told(lambda: self.fs.create(parent, name, mode, flags, SUPER)))
        except PosixError as error:
            raise OSError(error.errno, os.strerror(error.errno)) from error
        if flags & os.O_CREAT and flags & os.O_EXCL:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if attr.target is not None:
            if flags & os.O_NOFOLLOW:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            attr = self._walk(path, follow=True)
        if flags & os.O_DIRECTORY:
            return self._keep(told(lambda: self.fs.opendir(attr.ino)), attr)
        return self._keep(wait(self.fs.open(attr.ino, flags, SUPER)), attr)

    def _keep(self, handle: Handle, attr: Attr) -> int:
        self._open[handle.fh] = attr.ino
        return handle.fh

    def close(self, fd: int) -> None:
        del self._open[fd]
        self.fs.release(fd)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return wait(self.fs.read(fd, offset, length))

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        return wait(self.fs.write(fd, offset, data))

    def ftruncate(self, fd: int, size: int) -> None:
        wait(self.fs.setattr(self._open[fd], AttrChange(), size, SUPER))

    def fsync(self, fd: int) -> None:
        wait(self.fs.fsync(fd))

    def fstat(self, fd: int) -> Stat:
        return stat_of(self.fs.getattr(self._open[fd]))

    # --- attributes --------------------------------------------------------------------

    def stat(self, path: bytes) -> Stat:
        return stat_of(self._walk(path, follow=True))

    def lstat(self, path: bytes) -> Stat:
        return stat_of(self._walk(path, follow=False))

    def truncate(self, path: bytes, size: int) -> None:
        wait(self.fs.setattr(self._walk(path, follow=True).ino, AttrChange(), size, SUPER))

    def chmod(self, path: bytes, mode: int) -> None:
        self._set(self._walk(path, follow=True), AttrChange(mode=mode))

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        ids = [None if number == -1 else number for number in (uid, gid)]
        self._set(self._walk(path, follow=False), AttrChange(uid=ids[0], gid=ids[1]))

    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        self._set(self._walk(path, follow=True), AttrChange(atime_ns=atime_ns, mtime_ns=mtime_ns))

    def _set(self, attr: Attr, change: AttrChange) -> None:
        wait(self.fs.setattr(attr.ino, change, None, SUPER))

    # --- names -------------------------------------------------------------------------

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        told(lambda: self.fs.mkdir(*self._place(path), mode, SUPER))

    def rmdir(self, path: bytes) -> None:
        told(lambda: self.fs.rmdir(*self._place(path)))

    def mknod(self, path: bytes, mode: int, device: int = 0) -> None:
        told(lambda: self.fs.mknod(*self._place(path), mode, device, SUPER))

    def symlink(self, target: bytes, path: bytes) -> None:
        told(lambda: self.fs.symlink(*self._place(path), target, SUPER))

    def readlink(self, path: bytes) -> bytes:
        return told(lambda: self.fs.readlink(self._walk(path, follow=False).ino))

    def link(self, path: bytes, new: bytes) -> None:
        told(lambda: self.fs.link(self._walk(path, follow=False).ino, *self._place(new)))

    def unlink(self, path: bytes) -> None:
        told(lambda: self.fs.unlink(*self._place(path)))

    def rename(self, path: bytes, new: bytes, flags: int = 0) -> None:
        told(lambda: self.fs.rename(*self._place(path), *self._place(new), rename_flag(flags)))

    def opendir(self, path: bytes) -> Stream:
        return TableStream(self, self._walk(path, follow=True).ino)


class TableStream:
    """A directory read one entry at a time: nothing is buffered, everything is looked up anew."""

    def __init__(self, subject: InProcess, ino: Ino) -> None:
        self._fs = subject.fs
        self._handle = told(lambda: subject.fs.opendir(ino))
        self._position = 0

    def read(self) -> bytes | None:
        if self._position < DOTDOT:
            self._position += 1
            return b"." if self._position == DOT else b".."
        for entry in self._fs.readdir(self._handle.ino, self._position, 1):
            self._position = entry.cookie
            return entry.name
        return None

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        self._position = position

    def close(self) -> None:
        self._fs.release(self._handle.fh)


def stat_of(attr: Attr) -> Stat:
    owners = (attr.nlink, attr.uid, attr.gid, attr.rdev)
    blocks = -(-attr.held // 512)
    return Stat(attr.ino, attr.mode, *owners, attr.size, blocks, attr.atime_ns, attr.mtime_ns, attr.ctime_ns)
