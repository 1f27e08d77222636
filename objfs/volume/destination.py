"""The directory that a tree is restored into.

Owns every change below it.  Promises never to follow a symlink there and never to leave it: each name is
reached from its directory, each directory from the one above.  A file, symlink or special file is made in
the draft directory (``DRAFTS`` in the top, mode 0700) and renamed when it is complete, so that whatever has
its name, size and time is whole after a kill.  What is in the way of a name is replaced, but for a directory.
Directories are made for the owner alone and get what is theirs when everything else is done.  Methods block,
and any thread may call them.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from objfs.errors import HeldElsewhere, UsageError
from objfs.model import Attr
from objfs.volume.attributes import Kept, forget_lists, put_on_name, put_on_open

DRAFTS = b".objfs-restore"
OPEN_MOST = 256
"""Directories that are kept open."""
ZEROS = bytes(4096)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Parts = Sequence[tuple[int, bytes]]
"""Bytes of a file, each with the offset where they begin."""


class Destination:
    """One directory, locked while it is open; ``close`` leaves the drafts for a restore that goes on,
    ``complete`` removes them first.

    ``taken`` are names of the top that are going to be restored, ``mode`` is that of new directories.  Raises
    UsageError (not empty, and not ``resume``), HeldElsewhere (another restore writes there), OSError.
    """

    def __init__(
        self, directory: Path, *, resume: bool, taken: Sequence[bytes] = (), mode: int = 0o700
    ) -> None:
        self.path = directory
        self._mode = mode
        directory.mkdir(parents=True, exist_ok=True)
        self._drafts_name = _free(taken)
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, int] = OrderedDict()
        self._top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._drafts = -1
        try:
            self._refuse_full(resume)
            self._drafts = self._enter_drafts()
        except BaseException:
            self._close_all()
            raise

    def _refuse_full(self, resume: bool) -> None:
        if not resume and os.listdir(self._top):
            raise UsageError(
                f"{self.path} is not empty: give a directory that is, or a new one, or --resume to go on "
                "with a restore that was interrupted"
            )

    def _enter_drafts(self) -> int:
        with suppress(FileExistsError):
            os.mkdir(self._drafts_name, 0o700, dir_fd=self._top)
        descriptor = os.open(self._drafts_name, _DIRECTORY, dir_fd=self._top)
        forget_lists(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise HeldElsewhere(f"another objfs restore writes into {self.path}") from None
        return descriptor

    def complete(self) -> None:
        """Nothing is going to be restored any more: drafts that are left are worth nothing."""
        for name in os.listdir(self._drafts):
            os.unlink(name, dir_fd=self._drafts)
        os.rmdir(self._drafts_name, dir_fd=self._top)

    def close(self) -> None:
        self._close_all()

    def _close_all(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
        for descriptor in (self._drafts, self._top):
            if descriptor >= 0:
                os.close(descriptor)

    def sync(self) -> None:
        """Waits until everything on the file system of the directory is on its disk.  Raises OSError."""
        if ctypes.CDLL(None, use_errno=True).syncfs(self._top):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(self.path))

    # --- files -------------------------------------------------------------------------

    def write(self, draft: bytes, size: int, parts: Parts, *, sparse: bool) -> None:
        """Puts bytes into a draft, which is ``size`` bytes long; ``sparse``: blocks of zeros stay holes."""
        descriptor = os.open(draft, _DRAFT, 0o600, dir_fd=self._drafts)
        try:
            if os.fstat(descriptor).st_size != size:
                os.truncate(descriptor, size)
            for offset, data in parts:
                _put(descriptor, offset, data, sparse=sparse)
        finally:
            os.close(descriptor)

    def finish(self, draft: bytes, path: bytes, what: Kept) -> list[str]:
        """The draft becomes the file at ``path``.  Returns what could not be kept."""
        descriptor = os.open(draft, _DRAFT, 0o600, dir_fd=self._drafts)
        try:
            remarks = put_on_open(descriptor, what)
        finally:
            os.close(descriptor)
        self._move(draft, path)
        return remarks

    def has_draft(self, draft: bytes) -> bool:
        """Whether a restore before this one was interrupted while it wrote that file."""
        try:
            os.stat(draft, dir_fd=self._drafts, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def open_draft(self, draft: bytes) -> int:
        """To read it, as it is on the disk."""
        descriptor = os.open(draft, _DRAFT, 0o600, dir_fd=self._drafts)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return descriptor

    def open_file(self, path: bytes) -> int:
        """To read it.  Raises OSError where it is not there, not a file, or a symlink."""
        with self._lock:
            above, name = self._above(path)
            return os.open(name, _LOOK, dir_fd=above)

    # --- the other kinds ---------------------------------------------------------------

    def make_other(self, path: bytes, what: Kept) -> list[str]:
        """A symlink, FIFO, socket or device.  Returns what could not be kept; raises OSError."""
        attr, name = what.attr, b"other"
        self._discard(name)
        if stat.S_ISLNK(attr.mode):
            os.symlink(attr.target or b"", name, dir_fd=self._drafts)
        else:
            os.mknod(name, stat.S_IFMT(attr.mode) | 0o600, attr.rdev, dir_fd=self._drafts)
        remarks = put_on_name(self._drafts, name, what)
        self._move(name, path)
        return remarks

    def link(self, first: bytes, path: bytes) -> None:
        """A further name of the file at ``first``; nothing where it is that already."""
        with self._lock:
            source, source_name = self._above(first)
            wanted = os.stat(source_name, dir_fd=source, follow_symlinks=False)
        present = self.look(path)
        if present is not None and os.path.samestat(present, wanted):
            return
        with self._lock:
            source, source_name = self._above(first)
            self._discard(b"link")
            os.link(source_name, b"link", src_dir_fd=source, dst_dir_fd=self._drafts, follow_symlinks=False)
        self._move(b"link", path)

    # --- directories -------------------------------------------------------------------

    def make_directory(self, path: bytes) -> None:
        """With all above it; nothing where it is there."""
        with self._lock:
            self._directory(path, make=True)

    def finish_directory(self, path: bytes, what: Kept) -> list[str]:
        """Gives a directory what is its own, where it was made.  Returns what could not be kept."""
        with self._lock:
            try:
                descriptor = self._directory(path, make=False)
            except FileNotFoundError:
                return []
            return put_on_open(descriptor, what)

    def look(self, path: bytes) -> os.stat_result | None:
        """What is at a path; None where nothing is."""
        with self._lock:
            try:
                above, name = self._above(path, make=False)
                return os.stat(name, dir_fd=above, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def is_whole(self, path: bytes, attr: Attr, mode: int) -> bool:
        """Whether what is at a path looks like the inode, without a look at its bytes."""
        found = self.look(path)
        if found is None or stat.S_IFMT(found.st_mode) != stat.S_IFMT(attr.mode):
            return False
        if os.geteuid() == 0 and (found.st_uid, found.st_gid) != (attr.uid, attr.gid):
            return False
        if stat.S_ISLNK(attr.mode):
            return found.st_mtime_ns == attr.mtime_ns and self._target(path) == attr.target
        same_kind = found.st_size == attr.size if attr.is_regular else found.st_rdev == attr.rdev
        return same_kind and found.st_mtime_ns == attr.mtime_ns and stat.S_IMODE(found.st_mode) == mode

    def _target(self, path: bytes) -> bytes:
        with self._lock:
            above, name = self._above(path)
            return os.readlink(name, dir_fd=above)

    # --- inside, with the lock held ----------------------------------------------------

    def _discard(self, draft: bytes) -> None:
        """A name in use by one caller at a time."""
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=self._drafts)

    def _move(self, draft: bytes, path: bytes) -> None:
        with self._lock:
            above, name = self._above(path)
            os.rename(draft, name, src_dir_fd=self._drafts, dst_dir_fd=above)

    def _above(self, path: bytes, *, make: bool = True) -> tuple[int, bytes]:
        """The directory of a path, open, and the last name."""
        above, _, name = path.rpartition(b"/")
        return self._directory(above, make=make), name

    def _directory(self, path: bytes, *, make: bool) -> int:
        """A directory, open until the next call."""
        if not path:
            return self._top
        missing = [path]
        while path not in self._open and (path := path.rpartition(b"/")[0]):
            missing.append(path)
        descriptor = self._top
        for step in reversed(missing):
            if step in self._open:
                self._open.move_to_end(step)
                descriptor = self._open[step]
            else:
                descriptor = self._enter(descriptor, step, make=make)
        return descriptor

    def _enter(self, above: int, path: bytes, *, make: bool) -> int:
        name = path.rpartition(b"/")[2]
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, self._mode, dir_fd=above)
        descriptor = os.open(name, _DIRECTORY, dir_fd=above)
        self._open[path] = descriptor
        if len(self._open) > OPEN_MOST:
            os.close(self._open.popitem(last=False)[1])
        return descriptor


def _free(taken: Sequence[bytes]) -> bytes:
    """A name for the drafts that is none of these."""
    name, number = DRAFTS, 0
    while name in taken:
        number += 1
        name = b"%s.%d" % (DRAFTS, number)
    return name


def _put(descriptor: int, offset: int, data: bytes, *, sparse: bool) -> None:
    if not sparse:
        _write(descriptor, offset, memoryview(data))
        return
    step = len(ZEROS)
    start = None
    for at in range(0, len(data), step):
        if data[at : at + step] == ZEROS[: len(data) - at]:
            if start is not None:
                _write(descriptor, offset + start, memoryview(data)[start:at])
            start = None
        elif start is None:
            start = at
    if start is not None:
        _write(descriptor, offset + start, memoryview(data)[start:])


def _write(descriptor: int, offset: int, data: memoryview) -> None:
    while data:
        done = os.pwrite(descriptor, data, offset)
        data, offset = data[done:], offset + done
