"""What the contract asks of a subject, and the subject that is a directory of this machine.

A subject is one tree: paths are bytes below a directory of the test's own, errors are OSError with the errno
that a program would see.  ``Kernel`` is a real directory (plain or on a mount) through ``os``;
``tests.posix.inprocess`` is the file system without a kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

PATH_MAX = 4096
"""With the zero at its end."""
AT_FDCWD = -100
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
libc = ctypes.CDLL(None, use_errno=True)


class Stat(NamedTuple):
    """What stat(2) tells of an inode; ``blocks`` of 512 bytes."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


class Stream(Protocol):
    """An open directory: readdir(3), telldir(3), seekdir(3)."""

    def read(self) -> bytes | None:
        """The next name, '.' and '..' included; None at the end."""
        ...

    def tell(self) -> int: ...

    def seek(self, position: int) -> None: ...

    def close(self) -> None: ...


class Posix(Protocol):
    """The operations; ``largest`` is a file size in bytes that the subject surely bears, ``chunk`` where the
    borders of its chunks may lie."""

    name: str
    largest: int
    chunk: int

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> int: ...
    def close(self, fd: int) -> None: ...
    def pread(self, fd: int, length: int, offset: int) -> bytes: ...
    def pwrite(self, fd: int, data: bytes, offset: int) -> int: ...
    def ftruncate(self, fd: int, size: int) -> None: ...
    def truncate(self, path: bytes, size: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def fstat(self, fd: int) -> Stat: ...
    def stat(self, path: bytes) -> Stat: ...
    def lstat(self, path: bytes) -> Stat: ...
    def mkdir(self, path: bytes, mode: int = 0o755) -> None: ...
    def rmdir(self, path: bytes) -> None: ...
    def mknod(self, path: bytes, mode: int, device: int = 0) -> None: ...
    def symlink(self, target: bytes, path: bytes) -> None: ...
    def readlink(self, path: bytes) -> bytes: ...
    def link(self, path: bytes, new: bytes) -> None: ...
    def unlink(self, path: bytes) -> None: ...
    def rename(self, path: bytes, new: bytes, flags: int = 0) -> None: ...
    def chmod(self, path: bytes, mode: int) -> None: ...
    def chown(self, path: bytes, uid: int, gid: int) -> None: ...
    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> None: ...
    def opendir(self, path: bytes) -> Stream: ...


class Kernel:
    """A directory of this machine, through the kernel."""

    def __init__(self, name: str, directory: bytes, largest: int, chunk: int) -> None:
        self.name = name
        self.directory = directory
        self.largest = largest
        self.chunk = chunk
        self.ftruncate = os.ftruncate
        self.pread = os.pread
        self.pwrite = os.pwrite
        self.fsync = os.fsync
        self.close = os.close

    def at(self, path: bytes) -> bytes:
        return os.path.join(self.directory, path)

    def open(self, path: bytes, flags: int, mode: int = 0o644) -> int:
        return os.open(self.at(path), flags, mode)

    def truncate(self, path: bytes, size: int) -> None:
        os.truncate(self.at(path), size)

    def fstat(self, fd: int) -> Stat:
        return stat_of(os.fstat(fd))

    def stat(self, path: bytes) -> Stat:
        return stat_of(os.stat(self.at(path)))

    def lstat(self, path: bytes) -> Stat:
        return stat_of(os.lstat(self.at(path)))

    def mkdir(self, path: bytes, mode: int = 0o755) -> None:
        os.mkdir(self.at(path), mode)

    def rmdir(self, path: bytes) -> None:
        os.rmdir(self.at(path))

    def mknod(self, path: bytes, mode: int, device: int = 0) -> None:
        os.mknod(self.at(path), mode, device)

    def symlink(self, target: bytes, path: bytes) -> None:
        os.symlink(target, self.at(path))

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self.at(path))

    def link(self, path: bytes, new: bytes) -> None:
        os.link(self.at(path), self.at(new), follow_symlinks=False)

    def unlink(self, path: bytes) -> None:
        os.unlink(self.at(path))

    def rename(self, path: bytes, new: bytes, flags: int = 0) -> None:
        call("renameat2", AT_FDCWD, self.at(path), AT_FDCWD, self.at(new), flags)

    def chmod(self, path: bytes, mode: int) -> None:
        os.chmod(self.at(path), mode)

    def chown(self, path: bytes, uid: int, gid: int) -> None:
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def utime(self, path: bytes, atime_ns: int, mtime_ns: int) -> None:
        os.utime(self.at(path), ns=(atime_ns, mtime_ns))

    def opendir(self, path: bytes) -> Stream:
        return LibcStream(self.at(path))


def stat_of(found: os.stat_result) -> Stat:
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)
    owners = (found.st_nlink, found.st_uid, found.st_gid, found.st_rdev)
    return Stat(found.st_ino, found.st_mode, *owners, found.st_size, found.st_blocks, *times)


def call(name: str, *arguments: object) -> int:
    """A function of the C library that Python has no name for.  Raises OSError."""
    ctypes.set_errno(0)
    result: int = getattr(libc, name)(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


class _Dirent(ctypes.Structure):
    """``struct dirent`` of 64-bit Linux."""

    _fields_ = (
        ("ino", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(_Dirent)
libc.telldir.restype = ctypes.c_long
for _name in ("readdir", "telldir", "closedir"):
    getattr(libc, _name).argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class LibcStream:
    """A directory as the C library reads it, with its buffer."""

    def __init__(self, path: bytes) -> None:
        self._stream = libc.opendir(path)
        if not self._stream:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def read(self) -> bytes | None:
        found = libc.readdir(self._stream)
        return bytes(found.contents.name) if found else None

    def tell(self) -> int:
        position: int = libc.telldir(self._stream)
        return position

    def seek(self, position: int) -> None:
        libc.seekdir(self._stream, position)

    def close(self) -> None:
        libc.closedir(self._stream)


# --- what every test says ------------------------------------------------------------------


def code_of(function: Callable[..., object], *arguments: object) -> str:
    """The name of the errno that a call fails with."""
    try:
        function(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    raise AssertionError("it did not fail")


def wait_for_tick(posix: Posix) -> None:
    """File systems keep time in ticks: returns when a change would get a later one than any before."""
    write(posix, b"tick")
    begin = posix.stat(b"tick").mtime_ns
    while posix.stat(b"tick").mtime_ns == begin:
        write(posix, b"tick")
    posix.unlink(b"tick")


@contextmanager
def opened(
    posix: Posix, path: bytes, flags: int = os.O_RDWR | os.O_CREAT, mode: int = 0o644
) -> Iterator[int]:
    """An open file, closed at the end."""
    fd = posix.open(path, flags, mode)
    try:
        yield fd
    finally:
        posix.close(fd)


@contextmanager
def listing(posix: Posix, path: bytes = b"") -> Iterator[Stream]:
    """An open directory, closed at the end."""
    stream = posix.opendir(path)
    try:
        yield stream
    finally:
        stream.close()


def rest(stream: Stream) -> list[bytes]:
    """All names that are still to come."""
    return list(iter(stream.read, None))


def names(posix: Posix, path: bytes = b"") -> list[bytes]:
    """Sorted, without '.' and '..'."""
    with listing(posix, path) as stream:
        return sorted(name for name in rest(stream) if name not in (b".", b".."))


def write(posix: Posix, path: bytes, data: bytes = b"") -> None:
    """A file with this content, made or emptied first."""
    with opened(posix, path, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as fd:
        assert posix.pwrite(fd, data, 0) == len(data)


def read(posix: Posix, path: bytes) -> bytes:
    with opened(posix, path, os.O_RDONLY) as fd:
        return posix.pread(fd, posix.fstat(fd).size + 1, 0)
