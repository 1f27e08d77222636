"""What the cache knows of one chunk version, and the states it goes through.

Owns the state machine and the range bookkeeping of a version.  Does no input or output, knows no
clock, no table and no store.

    DIRTY --freeze--> FROZEN --place--> CLEAN
      |                 |                 |
      +------drop-------+------drop-------+----> (forgotten)

DIRTY may be written and clipped.  FROZEN is never written again: it is being uploaded, waits for
that, or belongs to a cut; a failed upload leaves it FROZEN.  CLEAN holds bytes that the store has too.
"""

from __future__ import annotations

from enum import Enum

from objfs.cache.ranges import RangeSet
from objfs.errors import ObjfsError
from objfs.model import Chunk, ChunkId, Ino

BLOCK = 4096
"""Disk blocks in which the cache counts what a file allocates."""


class State(Enum):
    """Where a version stands between being written and being evictable."""

    DIRTY = "dirty"
    FROZEN = "frozen"
    CLEAN = "clean"


class Step(Enum):
    """What may happen to a version."""

    WRITE = "write"
    FREEZE = "freeze"
    PLACE = "place"


_NEXT: dict[tuple[State, Step], State] = {
    (State.DIRTY, Step.WRITE): State.DIRTY,
    (State.DIRTY, Step.FREEZE): State.FROZEN,
    (State.FROZEN, Step.FREEZE): State.FROZEN,
    (State.FROZEN, Step.PLACE): State.CLEAN,
}


def advance(state: State, step: Step) -> State:
    """The state after ``step``.  Raises ObjfsError where the step is not allowed."""
    try:
        return _NEXT[state, step]
    except KeyError:
        raise ObjfsError(f"cannot {step.value} a chunk version that is {state.value}") from None


class Entry:
    """One version in memory.

    ``present`` are the bytes that its file holds (all of them dirty until CLEAN), ``unsynced`` those
    of them that a power cut may take, ``touched`` the disk blocks ever written, ``watchers`` the
    records of what is written while a sync of the file is under way, ``unverified`` what a
    former mount left and no read has checked yet.
    """

    __slots__ = (
        "chunk",
        "cuts",
        "failures",
        "first_dirty",
        "freed",
        "inline",
        "ino",
        "last_dirty",
        "new_file",
        "pins",
        "present",
        "retry_at",
        "row",
        "slack",
        "state",
        "touched",
        "unsynced",
        "unverified",
        "uploading",
        "watchers",
    )

    def __init__(self, chunk: ChunkId, ino: Ino, row: Chunk | None, now: float) -> None:
        self.chunk = chunk
        self.ino = ino
        self.row = row
        """The table's record while unplaced; None for CLEAN."""
        self.state = State.CLEAN if row is None else State.DIRTY
        self.present = RangeSet()
        self.unsynced = RangeSet()
        self.touched = RangeSet()
        self.slack = 0
        """Disk bytes beyond ``touched`` that a former mount left in the file."""
        self.unverified: RangeSet | None = None
        self.watchers: tuple[RangeSet, ...] = ()
        self.inline = 0
        """Bytes that ride in the log."""
        self.new_file = True
        """Its directory has not been synced since the file was made."""
        self.first_dirty = now
        self.last_dirty = now
        self.pins = 0
        """Readers that rely on the file."""
        self.cuts = 0
        """Cuts that wait for it."""
        self.uploading = False
        self.freed = False
        """Its row is gone: it is dropped as soon as nobody needs it."""
        self.failures = 0
        self.retry_at = 0.0

    @property
    def allocated(self) -> int:
        """An upper bound of the disk space of its file."""
        return self.touched.total + self.slack

    @property
    def needed(self) -> bool:
        """Whether a freed version must stay for now."""
        return self.pins > 0 or self.cuts > 0 or self.uploading

    def wrote(self, start: int, end: int, now: float) -> int:
        """Notes a write of ``[start, end)``; returns the disk bytes that it newly takes."""
        self.state = advance(self.state, Step.WRITE)
        self.unsynced.add(start, end)
        for watcher in self.watchers:
            watcher.add(start, end)
        self.last_dirty = now
        return self.holds(start, end)

    def holds(self, start: int, end: int) -> int:
        """Notes that ``[start, end)`` is in the file; returns the disk bytes that it newly takes."""
        self.present.add(start, end)
        low, high = start // BLOCK * BLOCK, -(-end // BLOCK) * BLOCK
        if self.touched.covers(low, high):
            return 0
        new = sum(stop - begin for begin, stop in self.touched.gaps(low, high))
        self.touched.add(low, high)
        return new

    def clip(self, length: int) -> None:
        """Bytes from ``length`` on are no longer there."""
        self.state = advance(self.state, Step.WRITE)
        for ranges in (self.present, self.unsynced, *self.watchers):
            ranges.clip(length)

    def freeze(self) -> None:
        self.state = advance(self.state, Step.FREEZE)

    def place(self) -> None:
        """The store has it: nothing about it is dirty any more."""
        self.state = advance(self.state, Step.PLACE)
        self.unsynced.clear()
        self.uploading = False
        self.row = None


def visible_length(row: Chunk, entry: Entry | None) -> int:
    """How many bytes of a version are defined; all beyond are zeros."""
    if row.location is not None:
        return row.location.size
    return max(row.base_size, entry.present.end if entry is not None else 0)
