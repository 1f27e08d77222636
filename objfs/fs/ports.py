"""What ``fs`` needs of the world, and the small records it is spoken to with.

Owns the ports through which the layers below and beside are reached (the inode table, the chunk
cache, the barrier that knows the buckets) and the records of a caller, of the settings and of the
room that is left.  Knows no implementation of any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple, Protocol

from objfs.model import ROOT, Chunk, DirtyRange, Ino
from objfs.ports import ChunkTable, InodeTable


class AtimeRule(StrEnum):
    """When reading sets an access time, by the name of the mount option (see ``atime``)."""

    RELATIME = "relatime"
    STRICTATIME = "strictatime"
    NOATIME = "noatime"


class Tables(InodeTable, ChunkTable, Protocol):
    """Namespace and block map over one transaction."""


class ChunkCachePort(Protocol):
    """The local cache, as ``fs`` uses it."""

    async def admit(self, nbytes: int) -> None:
        """Returns when ``nbytes`` more dirty bytes fit; raises NoSpace when they never will."""
        ...

    def writable(self, chunk: Chunk) -> bool:
        """Whether a version may be written in place: dirty and not frozen."""
        ...

    def write(self, chunk: Chunk, offset: int, data: bytes) -> DirtyRange:
        """Puts bytes into a writable version; the caller commits the row that is returned."""
        ...

    def read_nowait(self, chunk: Chunk, offset: int, length: int) -> bytes | None:
        """Exactly ``length`` bytes, or None when not all of them are here."""
        ...

    async def read(self, chunk: Chunk, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes, with zeros where nothing was written."""
        ...

    def clip(self, chunk: Chunk, length: int) -> None:
        """A writable version keeps only its first ``length`` bytes; the caller commits the row."""
        ...

    def visible_length(self, chunk: Chunk) -> int:
        """Where the bytes of a version end, those of its base included."""
        ...

    async def fsync(self, ino: Ino) -> None:
        """Returns when the data and rows of one inode survive a power cut."""
        ...

    async def sync(self) -> None:
        """The same for everything."""
        ...


class Barrier(Protocol):
    """What makes the present moment recoverable from the buckets."""

    async def flush(self) -> None:
        """Returns when a recoverable moment contains everything that was committed before."""
        ...


class Caller(NamedTuple):
    """Who asks: the ids of the calling process, and the umask of one that makes an inode."""

    uid: int
    gid: int
    umask: int = 0


SUPERUSER = Caller(0, 0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """The room of a volume in bytes, and how many more inodes it can hold.  All are finite."""

    total: int
    free: int
    available: int
    inodes_free: int


@dataclass(frozen=True, slots=True)
class FileSystemStats:
    """What statfs(2) answers: ``Capacity`` and what is used of it."""

    capacity: Capacity
    inodes_used: int


@dataclass(frozen=True, slots=True)
class FsSettings:
    """How one view of a volume behaves.

    ``chunk_size`` is in bytes and fixed for a volume; ``fsync`` says where an fsync must have
    arrived before it returns; ``atime`` is the rule for access times, without ``diratime`` for files
    alone; ``root`` is the directory that the view shows as its root.
    """

    chunk_size: int
    read_only: bool = False
    fsync: Literal["local", "bucket"] = "local"
    atime: AtimeRule = AtimeRule.RELATIME
    diratime: bool = True
    root: Ino = ROOT


CapacitySource = Callable[[], Capacity]
Removing = Callable[[Ino, bytes], None]
"""Hears of each name of a directory that is about to go, or to lead elsewhere, in the step in which it does.
What it raises keeps that from happening."""
