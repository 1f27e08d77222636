"""The ports through which layers meet that may not import each other, and what all of them share.

Owns the interfaces of the inode table, the store, the log and the clock, the gate that stands before every
change, and the name of what the loop is busy with.  Knows the records of ``model``; does no input or output.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from objfs.errors import ReadOnly
from objfs.model import (
    Attr,
    AttrChange,
    Chunk,
    ChunkId,
    DirEntry,
    DirtyRange,
    Ino,
    Location,
    NewInode,
    Placed,
    Renamed,
    RenameFlag,
    Segment,
    SegmentNo,
)


class Clock(Protocol):
    """Time, so that tests can hold it still."""

    def now_ns(self) -> int:
        """Wall time in nanoseconds since 1970: for display and file times, never for order."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...


class InodeTable(Protocol):
    """The namespace, as ``fs`` uses it.  Synchronous: a method is one transaction, or part of
    the caller's ``transaction()``; it raises PosixError and then has changed nothing.

    Times are given by the caller (``now_ns``) and set where POSIX says: ``ctime`` of what
    changed, ``mtime`` and ``ctime`` of each directory whose entries changed.
    """

    def transaction(self) -> AbstractContextManager[None]:
        """Makes all calls inside one atomic change; nests (inner ones join the outer)."""
        ...

    def get(self, ino: Ino) -> Attr:
        """Raises StaleHandle when there is no such inode."""
        ...

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        """Raises NotFound, NotDirectory, NameTooLong."""
        ...

    def create(self, parent: Ino, name: bytes, new: NewInode) -> Attr:
        """A new file, directory, symlink or special file.  Directories count as links of their parent."""
        ...

    def link(self, ino: Ino, parent: Ino, name: bytes, now_ns: int) -> Attr:
        """Raises NotPermitted for a directory, TooManyLinks, Exists; NotFound where nlink is 0."""
        ...

    def unlink(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        """Removes a name of a non-directory; at nlink 0 the inode is an orphan until purged."""
        ...

    def rmdir(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        """Raises NotEmpty, NotDirectory."""
        ...

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flag: RenameFlag, now_ns: int
    ) -> Renamed:
        """Atomic.  Two names of one inode: nothing happens.  Into its own subtree: InvalidArgument."""
        ...

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        """Entries with a cookie above ``after_cookie``, ascending; neither '.' nor '..'."""
        ...

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr: ...

    def set_atimes(self, times: Sequence[tuple[Ino, int]]) -> None:
        """Access times in nanoseconds, and nothing else, all at once; inodes that are gone are left out."""
        ...

    def get_xattr(self, ino: Ino, name: bytes) -> bytes: ...

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int, now_ns: int) -> None:
        """``flags``: 0, 1 XATTR_CREATE (Exists), 2 XATTR_REPLACE (NoAttribute)."""
        ...

    def list_xattr(self, ino: Ino) -> list[bytes]: ...

    def remove_xattr(self, ino: Ino, name: bytes, now_ns: int) -> None: ...

    def orphans(self, limit: int) -> list[Ino]:
        """Inodes without a name that wait to be purged (or truncated further), lowest first."""
        ...

    def purge(self, ino: Ino, limit: int) -> bool:
        """Removes up to ``limit`` chunks of an orphan, then the inode; True when it is gone."""
        ...

    def count(self) -> tuple[int, int]:
        """(inodes, bytes that the chunks of all files hold)."""
        ...


class ChunkTable(Protocol):
    """The block map, as ``fs`` and ``cache`` use it.  Synchronous, like InodeTable, and joined
    by the same ``transaction()``."""

    def transaction(self) -> AbstractContextManager[None]: ...

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        """The live version of one chunk of a file; None is a hole."""
        ...

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        """Live versions with first <= index <= last, ascending: holes are absent."""
        ...

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        """A version by its number, live or not; None when it was freed."""
        ...

    def begin_chunk(self, ino: Ino, index: int, base: ChunkId | None, base_size: int) -> Chunk:
        """A new dirty version becomes the live one; with ``base``, the live one until now, of which
        ``base_size`` bytes are all that it shows, the old stays as long as needed."""
        ...

    def record_write(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], *, clear_suid: bool = False
    ) -> None:
        """Rows of one write: the ranges, size = max(size, ``size``), mtime and ctime = ``now_ns``."""
        ...

    def truncate(self, ino: Ino, size: int, now_ns: int, limit: int) -> bool:
        """Sets size, mtime, ctime; removes chunks wholly beyond, at most ``limit`` a call, and
        says True when none is left (call again until then; unfinished work survives a crash).
        The chunk that straddles ``size`` is the caller's (``clip_chunk``, of a new version where
        the old one is frozen)."""
        ...

    def clip_chunk(self, chunk: ChunkId, length: int) -> None:
        """A dirty version keeps only its first ``length`` bytes: its ranges and base_size follow.  One that
        keeps none leaves the map."""
        ...

    def commit_inline(self, chunk: ChunkId, ranges: Sequence[tuple[int, bytes]]) -> None:
        """Small dirty ranges ride in the log itself: durable with the next sync of the log."""
        ...

    def mark_synced(self, chunk: ChunkId, ranges: Sequence[tuple[int, int]]) -> None:
        """Replaces all dirty rows of a chunk by synced (offset, end) ranges."""
        ...

    def dirty_ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        """In the order they were written."""
        ...

    def dirty_chunks(self) -> list[Chunk]:
        """All versions in state DIRTY, oldest first."""
        ...

    def dirty_ids(self) -> list[ChunkId]:
        """Their numbers alone: a tenth of the time."""
        ...

    def place(self, segment: Segment | None, placed: Iterable[Placed]) -> SegmentNo | None:
        """Adds the segment and turns each still existing version to STORED, its dirty rows and
        base dropped.  Locations naming segment 0 mean the new one; others (deduplicated) stand."""
        ...

    def freed(self, limit: int) -> list[ChunkId]:
        """Versions freed since ``forget_freed``: the cache may drop their bytes."""
        ...

    def forget_freed(self, chunks: Sequence[ChunkId]) -> None: ...

    def segment(self, number: SegmentNo) -> Segment: ...

    def chunks_in_segment(self, number: SegmentNo) -> list[Chunk]:
        """Stored versions of a segment in order of position."""
        ...


class LogSync(Protocol):
    """Makes the inode table's log durable; all who wait share one sync."""

    async def sync(self) -> None:
        """Returns when everything committed before the call is on the disk."""
        ...

    @property
    def behind(self) -> bool:
        """Whether something may have been committed since the last sync began."""
        ...


@dataclass(frozen=True, slots=True)
class Sealable:
    """One chunk on its way into a segment: who it is and its whole plain bytes."""

    chunk: ChunkId
    ino: Ino
    index: int
    data: bytes = field(repr=False)


class SegmentPort(Protocol):
    """The store, as ``cache`` uses it."""

    async def write_segment(self, chunks: Sequence[Sealable]) -> tuple[Segment, list[Placed]]:
        """Seals, codes and uploads; returns when the segment counts as stored.  The locations
        name segment 0.  Retries inside; raises BucketError or NotEnoughShards when it gives up."""
        ...

    async def read_chunks(self, wanted: Sequence[tuple[Segment, Location, int, int]]) -> list[bytes]:
        """For each (segment, location, first_frame_index, last_frame_index) of a chunk the plain
        bytes of these frames (indices within the chunk, inclusive).  Neighbouring ranges of one
        shard are fetched with one request.  Raises NotEnoughShards, BucketError."""
        ...

    def nowhere(self, size: int) -> tuple[Segment, Location]:
        """A place without any shard, for a chunk of ``size`` bytes that is lost: reading there raises
        NotEnoughShards.  The location names segment 0."""
        ...

    def identify(self, data: bytes) -> bytes:
        """The keyed identity of a chunk's plain bytes."""
        ...


class WriteGate:
    """Whether this mount may still change the volume: open until somebody closes it for good.

    One object is shared by everything that mutates, uploads, publishes or deletes; closing it
    (a lost lease, damage to the local table) turns the mount read-only with one reason.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    @property
    def open(self) -> bool:
        return self.reason is None

    def close(self, reason: str) -> None:
        """Closes the gate; the first reason stands."""
        if self.reason is None:
            self.reason = reason

    def check(self) -> None:
        """Raises ReadOnly when the gate is closed."""
        if self.reason is not None:
            raise ReadOnly(self.reason)


class Doing:
    """What the event loop is busy with: the operation that began last, by name.

    Written at the start of each, and read by whoever notices that the loop was held, to name the culprit.
    """

    __slots__ = ("operation",)

    def __init__(self) -> None:
        self.operation = ""


DOING = Doing()
"""One, because a process has one event loop."""
