"""Who still needs an inode: open handles and the kernel's lookup counts.

Owns the file handles of one view and the number of times the kernel has learned of each inode;
promises that ``on_unused`` hears of an inode each time the last of both is gone.  Knows nothing of
names, tables or bytes: whether an unused inode is also without a name is the listener's question.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from dataclasses import dataclass

from objfs.errors import BadHandle, StaleHandle
from objfs.model import Ino


@dataclass(slots=True, eq=False)
class Handle:
    """One open file or directory.  ``page`` is how many entries its last reader could take; ``marked``:
    opening it set the access time, and no read has told the kernel so; ``replaced``: what it was opened on is
    not there any more, though the inode may be."""

    fh: int
    ino: Ino
    flags: int
    page: int = 32
    marked: bool = False
    replaced: bool = False

    @property
    def lists(self) -> bool:
        """It is a directory's."""
        return bool(self.flags & os.O_DIRECTORY)

    @property
    def writes(self) -> bool:
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def marks_reads(self) -> bool:
        """Its owner may read, and lets the access time follow."""
        return not self.flags & (os.O_WRONLY | os.O_NOATIME)

    @property
    def synchronous(self) -> bool:
        """Opened with O_SYNC or O_DSYNC (the former contains the latter's bit)."""
        return bool(self.flags & os.O_DSYNC)


@dataclass(frozen=True, slots=True)
class HandleStatistics:
    """How many handles are open, and how many inodes the kernel knows."""

    open: int
    known: int


class Handles:
    """The open handles and lookup counts of one view."""

    def __init__(self, on_unused: Callable[[Ino], None]) -> None:
        self._on_unused = on_unused
        self._handles: dict[int, Handle] = {}
        self._opens: dict[Ino, int] = {}
        self._lookups: dict[Ino, int] = {}
        self._next = 1

    def open(self, ino: Ino, flags: int) -> Handle:
        """A new handle; its number is never given twice."""
        handle = Handle(self._next, ino, flags)
        self._next += 1
        self._handles[handle.fh] = handle
        self._opens[ino] = self._opens.get(ino, 0) + 1
        return handle

    def get(self, fh: int) -> Handle:
        """Raises BadHandle for a number that is not open, StaleHandle where its file was replaced."""
        handle = self._find(fh)
        if handle.replaced:
            raise StaleHandle(f"inode {handle.ino} was replaced by a restore: open it again")
        return handle

    def replace(self, inodes: Container[Ino]) -> None:
        """Handles of these files answer StaleHandle from now on; those of directories go on."""
        for handle in self._handles.values():
            handle.replaced |= not handle.lists and handle.ino in inodes

    def _find(self, fh: int) -> Handle:
        try:
            return self._handles[fh]
        except KeyError:
            raise BadHandle(f"file handle {fh} is not open") from None

    def close(self, fh: int) -> Handle:
        """Raises BadHandle; tells ``on_unused`` when this was the inode's last user."""
        handle = self._find(fh)
        del self._handles[fh]
        self._drop(self._opens, handle.ino, 1)
        return handle

    def looked_up(self, ino: Ino) -> None:
        """The kernel was told of the inode once more."""
        self._lookups[ino] = self._lookups.get(ino, 0) + 1

    def forget(self, ino: Ino, count: int) -> bool:
        """The kernel takes back ``count`` lookups, more than there were counting as all; returns
        whether it knows the inode no more."""
        if ino in self._lookups:
            self._drop(self._lookups, ino, count)
        return ino not in self._lookups

    def known(self) -> list[Ino]:
        """The inodes that the kernel knows."""
        return list(self._lookups)

    def knows(self, ino: Ino) -> bool:
        return ino in self._lookups

    def in_use(self, ino: Ino) -> bool:
        return ino in self._opens or self.knows(ino)

    def statistics(self) -> HandleStatistics:
        return HandleStatistics(len(self._handles), len(self._lookups))

    def _drop(self, counts: dict[Ino, int], ino: Ino, count: int) -> None:
        left = counts[ino] - count
        if left > 0:
            counts[ino] = left
            return
        del counts[ino]
        if not self.in_use(ino):
            self._on_unused(ino)
