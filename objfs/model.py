"""Typed records shared by all layers.

Owns the vocabulary: what an inode, a directory entry, a chunk, a segment and a cut are.  Knows no library
beyond the standard one and does no input or output.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple, NewType

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
    TRASH = 4
    """It was taken before something was removed, to bring that back; the mount deletes it when it is old."""


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

    @property
    def trash(self) -> bool:
        """Whether it is one of the trash."""
        return bool(self.flags & SnapshotFlag.TRASH)


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


class Stray(NamedTuple):
    """A copy of a shard that no row names any more, because the shard was moved; ``since_ns`` is wall
    time."""

    uuid: bytes
    shard: int
    slot: Slot
    since_ns: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk version that reached its segment: what turns DIRTY into STORED."""

    chunk: ChunkId
    location: Location


class Move(NamedTuple):
    """A stored chunk version that gets another place, where it still lies at the ``old`` one."""

    chunk: ChunkId
    old: Location
    new: Location


@dataclass(frozen=True, slots=True)
class WalMark:
    """A position in the inode table's log: everything committed up to here is included."""

    salt: int
    frame: int
