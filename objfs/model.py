"""Typed records and ports shared by all layers.

Owns the vocabulary: what an inode, a directory entry, a chunk, a segment and a cut are, and the
ports through which layers that may not import each other meet.  Knows no library beyond the
standard one and does no input or output.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import NamedTuple, NewType, Protocol

from objfs.errors import ReadOnly

# --- names for numbers ---------------------------------------------------------------------

Ino = NewType("Ino", int)
"""An inode number: 48 bits, never reused within a volume."""

ChunkId = NewType("ChunkId", int)
"""A chunk version: one immutable-once-frozen state of one chunk of one file; never reused."""

SegmentNo = NewType("SegmentNo", int)
"""A segment's row number in the inode table; its name in buckets is the random ``uuid``."""

Slot = NewType("Slot", int)
"""A bucket's place in the volume's bucket table: 0 to 255, never reused."""

ROOT: Ino = Ino(1)
NAME_MAX = 255
SYMLINK_MAX = 4095
XATTR_NAME_MAX = 255
XATTR_SIZE_MAX = 65536
LINK_MAX = 2**31 - 1
FILE_SIZE_MAX = 2**62
FRAME_SIZE = 128 * 1024
NS = 1_000_000_000


# --- the namespace -------------------------------------------------------------------------


class Attr(NamedTuple):
    """One inode as it stands; times are nanoseconds since 1970 and may be negative.

    ``size`` is in bytes, ``rdev`` is the kernel's encoding, ``target`` is a symlink's content.
    """

    ino: Ino
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    target: bytes | None = None
    parent: Ino = Ino(0)
    """For a directory the one directory that holds it (itself for the root), else 0."""
    held: int = 0
    """How many bytes the file's chunks hold: holes between chunks count as none."""

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)


@dataclass(frozen=True, slots=True)
class NewInode:
    """What a new inode starts with; ``mode`` carries the file type."""

    mode: int
    uid: int
    gid: int
    now_ns: int
    rdev: int = 0
    target: bytes | None = None


@dataclass(frozen=True, slots=True)
class AttrChange:
    """The attributes to set; ``None`` leaves one as it is.  Size changes go through truncate."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class DirEntry(NamedTuple):
    """One name in a directory; ``cookie`` is its stable, monotone 63-bit offset (at least 3)."""

    name: bytes
    cookie: int
    attr: Attr


class RenameFlag(IntEnum):
    """The flags of renameat2(2)."""

    REPLACE = 0
    NOREPLACE = 1
    EXCHANGE = 2


class SnapshotFlag(IntFlag):
    """What a snapshot is marked with."""

    HELD = 1
    """It is pruned never, and deleted only by force."""
    SCHEDULED = 2
    """A timer took it, and may prune it."""


class Snapshot(NamedTuple):
    """A named moment: the tree as it stood at the end of ``generation``.

    ``created_ns`` is nanoseconds since 1970 and for people; the order is that of generations.  ``inodes`` and
    ``content_bytes`` are what the volume had then, files without a name included.
    """

    name: bytes
    generation: int
    created_ns: int
    comment: str = ""
    flags: int = 0
    inodes: int = 0
    content_bytes: int = 0

    @property
    def held(self) -> bool:
        """Whether it is kept from being pruned and deleted."""
        return bool(self.flags & SnapshotFlag.HELD)


@dataclass(frozen=True, slots=True)
class Renamed:
    """What a rename did: the inode that moved and the one whose last name it took, if any."""

    moved: Ino
    displaced: Attr | None
    """The inode that lost the target name, as it stands after (nlink 0: it is an orphan now)."""


# --- chunks --------------------------------------------------------------------------------


class ChunkState(IntEnum):
    """Where a chunk version's bytes are."""

    DIRTY = 0
    """In the local cache only (and, where ``base`` is set, partly in the base version)."""
    STORED = 1
    """In a segment; ``location`` says where."""


class Location(NamedTuple):
    """Where a stored chunk lies inside its segment.

    ``position`` is the byte offset of its first sealed frame in the segment's payload,
    ``first_frame`` the number of that frame in the segment (the nonce), ``frames`` the sealed
    length of each frame, ``size`` the plain length of the chunk in bytes.
    """

    segment: SegmentNo
    position: int
    first_frame: int
    frames: tuple[int, ...]
    size: int
    identity: bytes
    """Keyed BLAKE3 of the plain bytes, 32 bytes."""

    @property
    def length(self) -> int:
        """Stored length in bytes."""
        return sum(self.frames)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk version as the inode table knows it.

    A dirty version may lie over a ``base`` version: bytes it does not hold itself are those of
    the base up to ``base_size``, and zeros beyond.  Bytes beyond what any version holds are zeros.
    """

    chunk: ChunkId
    ino: Ino
    index: int
    state: ChunkState
    location: Location | None = None
    base: ChunkId | None = None
    base_size: int = 0


class DirtyRange(NamedTuple):
    """A range of a dirty chunk that a write put into the local cache.

    ``checksum`` is xxh3-64 of the bytes as written; it decides after a power cut whether they
    arrived.  ``data`` is set where the bytes themselves ride in the row (a small fsync).
    ``synced`` is true when the bytes are known to be on the disk.  ``boot`` is the boot id of the
    machine (kernel's ``boot_id``) under which the table recorded it; None: the present one.  ``grown``
    says, of a write that is to be recorded, by how many bytes it moved the end of the version.
    ``size_before`` is said by the table: the file's size before the write, where that made it grow.
    """

    chunk: ChunkId
    offset: int
    length: int
    checksum: int | None
    synced: bool = False
    data: bytes | None = None
    boot: bytes | None = None
    grown: int = 0
    size_before: int | None = None


# --- segments ------------------------------------------------------------------------------


class SegmentKind(IntEnum):
    """What a segment's payload is."""

    DATA = 1
    """Chunks of files."""
    PAGES = 2
    """Pages of the inode table: a base or a delta."""
    PATCH = 3
    """Locations of the chunks that were frozen at a cut."""


@dataclass(frozen=True, slots=True)
class Code:
    """k data shards and m parity shards; any k of the k+m rebuild all.  k=1 means m+1 copies."""

    k: int
    m: int

    @property
    def n(self) -> int:
        return self.k + self.m

    def __str__(self) -> str:
        return f"{self.k}+{self.m}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment as placed in buckets: enough to read it without asking anybody.

    ``uuid`` (16 random bytes) names it, ``length`` is the payload in bytes, ``cuts`` the k+1
    payload offsets between which data shard i lies, ``placement`` the bucket slot of each of the
    k+m shards, ``missing`` the shards that could not be placed and wait for repair.
    """

    uuid: bytes
    kind: SegmentKind
    key_id: int
    code: Code
    length: int
    cuts: tuple[int, ...]
    placement: tuple[Slot, ...]
    missing: frozenset[int] = frozenset()
    generation: int = 0

    @property
    def nowhere(self) -> bool:
        """Whether no bucket has, or ever had, any shard: what lies in it is lost."""
        return len(self.missing) == self.code.n


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk version that reached its segment: what turns DIRTY into STORED."""

    chunk: ChunkId
    location: Location


@dataclass(frozen=True, slots=True)
class WalMark:
    """A position in the inode table's log: everything committed up to here is included."""

    salt: int
    frame: int


# --- ports ---------------------------------------------------------------------------------


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
        """A dirty version keeps only its first ``length`` bytes: its ranges and base_size follow."""
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
