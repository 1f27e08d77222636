"""Between the file system's words and pyfuse3's: attributes, inode numbers, settings, errors.

Owns the form of an answer to the kernel and the one place where an error becomes an errno.  Promises
that no handler under ``guarded`` raises anything but FUSEError (an exception that leaves a handler ends
the whole mount); cancellation passes.

Inode numbers: a mount has one device number, so the inodes of a browsed snapshot must differ from the
live ones: st_ino is the view's slot (16 bits) and the inode (48 bits); slot 0 is the live view, ``browse``
says what the others are.  The protocol calls the root of a mount 1, whichever directory of the volume that
is.
"""

from __future__ import annotations

import errno
import functools
import itertools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3

from objfs.errors import InvalidArgument, ObjfsError, PosixError
from objfs.fs import FileSystemStats
from objfs.model import NAME_MAX, ROOT, Attr, AttrChange, Ino, RenameFlag
from objfs.ports import DOING

log = logging.getLogger(__name__)

SLOT_SHIFT = 48
HANDLE_MASK = INO_MASK = (1 << SLOT_SHIFT) - 1
_BLOCK = 4096
_RENAME = {
    0: RenameFlag.REPLACE,
    pyfuse3.RENAME_NOREPLACE: RenameFlag.NOREPLACE,
    pyfuse3.RENAME_EXCHANGE: RenameFlag.EXCHANGE,
}
_TELLING = frozenset((errno.EIO, errno.ENOSPC, errno.EROFS, errno.ETIMEDOUT, errno.EHOSTUNREACH))
"""What a program may hear of a failure below POSIX.  The others mean something else to a program: an
object that is missing from a bucket is not a file that is missing from a directory."""

_requests = itertools.count(1)


@dataclass(frozen=True, slots=True)
class FuseSettings:
    """What the kernel may remember, in seconds, and how the adapter behaves.

    The timeouts are long because a volume has one writer, and all it does passes through this kernel;
    whoever changes the tree from elsewhere (another moment, a restore) says so with ``Session.forget``.
    ``negative_timeout`` is for names that do not exist.  ``block_size`` is what programs take as the
    best size for their buffers.  ``keep_cache`` lets the page cache outlive the last close of a file;
    files opened with O_DIRECT for writing are excepted (see ``operations``).
    """

    entry_timeout: float = 86400.0
    attr_timeout: float = 86400.0
    negative_timeout: float = 86400.0
    block_size: int = 65536
    keep_cache: bool = True
    xattrs: bool = True


class Views:
    """The inode numbers of one mount."""

    def __init__(self, root: Ino = ROOT) -> None:
        self._root = root

    def encode(self, slot: int, ino: Ino) -> int:
        """The number that the kernel gets."""
        if slot == 0 and ino == self._root:
            return pyfuse3.ROOT_INODE
        return slot << SLOT_SHIFT | ino

    def decode(self, number: int) -> tuple[int, Ino]:
        """The view's slot and the inode behind a number of the kernel."""
        if number == pyfuse3.ROOT_INODE:
            return 0, self._root
        return number >> SLOT_SHIFT, Ino(number & INO_MASK)


class Translator:
    """Builds pyfuse3's records for one view; ``generation`` tells its inodes from those of a view that had
    the same slot before, for who keeps numbers longer than the kernel."""

    def __init__(self, views: Views, slot: int, settings: FuseSettings, generation: int = 0) -> None:
        self._views = views
        self._slot = slot
        self._settings = settings
        self._generation = generation

    def entry(self, attr: Attr) -> pyfuse3.EntryAttributes:
        """``st_blocks`` counts 512-byte blocks of what the file's chunks hold: less than the size where
        there are holes, and never less for a file without."""
        settings = self._settings
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = self._views.encode(self._slot, attr.ino)
        entry.generation = self._generation
        entry.entry_timeout = settings.entry_timeout
        entry.attr_timeout = settings.attr_timeout
        entry.st_mode = attr.mode
        entry.st_nlink = attr.nlink
        entry.st_uid = attr.uid
        entry.st_gid = attr.gid
        entry.st_rdev = attr.rdev
        entry.st_size = attr.size
        entry.st_blksize = settings.block_size
        entry.st_blocks = (attr.held + 511) >> 9
        entry.st_atime_ns = attr.atime_ns
        entry.st_mtime_ns = attr.mtime_ns
        entry.st_ctime_ns = attr.ctime_ns
        return entry

    def absent(self) -> pyfuse3.EntryAttributes:
        """A name that does not exist, to be remembered as such."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = self._settings.negative_timeout
        return entry


def change_of(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> AttrChange:
    """What a setattr request asks for besides the size."""
    return AttrChange(
        mode=attr.st_mode if fields.update_mode else None,
        uid=attr.st_uid if fields.update_uid else None,
        gid=attr.st_gid if fields.update_gid else None,
        atime_ns=attr.st_atime_ns if fields.update_atime else None,
        mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
    )


def rename_flag(flags: int) -> RenameFlag:
    """Raises InvalidArgument for flags that are not known, RENAME_WHITEOUT among them."""
    try:
        return _RENAME[flags]
    except KeyError:
        raise InvalidArgument(f"rename flags {flags:#x} are not supported") from None


def statvfs_of(stats: FileSystemStats) -> pyfuse3.StatvfsData:
    room = stats.capacity
    answer = pyfuse3.StatvfsData()
    answer.f_bsize = answer.f_frsize = _BLOCK
    answer.f_blocks = room.total // _BLOCK
    answer.f_bfree = room.free // _BLOCK
    answer.f_bavail = room.available // _BLOCK
    answer.f_files = stats.inodes_used + room.inodes_free
    answer.f_ffree = answer.f_favail = room.inodes_free
    answer.f_namemax = NAME_MAX
    return answer


def errno_of(error: Exception, operation: str) -> int:
    """The one place where an exception becomes what a program sees; logs what is not POSIX's."""
    if isinstance(error, PosixError):
        return error.errno
    request = next(_requests)
    if not isinstance(error, ObjfsError):
        log.error("internal error request=%d operation=%s", request, operation, exc_info=error)
        return errno.EIO
    code = error.errno if error.errno in _TELLING else errno.EIO
    name = type(error).__name__
    log.error("failed request=%d operation=%s error=%s errno=%d: %s", request, operation, name, code, error)
    return code


P = ParamSpec("P")
R = TypeVar("R")
Self = TypeVar("Self")


def guarded(
    handler: Callable[Concatenate[Self, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Self, P], Coroutine[Any, Any, R]]:
    """Names the running operation, and lets nothing but FUSEError out of a handler."""
    name = handler.__name__

    @functools.wraps(handler)
    async def run(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        DOING.operation = name
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise pyfuse3.FUSEError(errno_of(error, name)) from None

    return run
