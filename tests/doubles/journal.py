"""What was done to a directory tree, and to buckets beside it, in the order in which it took effect.

Owns the records, and the namespace as it stands while they are written.  A record names files and
directories by numbers that are never used again, so that a journal says the same of every copy of
the tree.  ``tests.doubles.disk`` reads it: what a disk may hold after any number of records.

A sync is two records.  It covers what was recorded before its begin, and counts from its end on: whatever is
written meanwhile may or may not have been caught.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

Number: TypeAlias = int
"""A file or directory."""

TOP: Number = 0
"""The directory at the top of the tree."""


@dataclass(frozen=True, slots=True)
class Made:
    """A name that was free is that of a new, empty file or directory."""

    directory: Number
    name: str
    number: Number
    is_directory: bool = False


@dataclass(frozen=True, slots=True)
class Linked:
    """A name that was free is one more name of a file."""

    directory: Number
    name: str
    number: Number


@dataclass(frozen=True, slots=True)
class Removed:
    """A name is free again."""

    directory: Number
    name: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """What had one name has another, in place of what had that before."""

    directory: Number
    name: str
    to_directory: Number
    to_name: str
    number: Number


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes of a file."""

    number: Number
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cut:
    """A file's length was set."""

    number: Number
    length: int


@dataclass(frozen=True, slots=True)
class SyncBegan:
    """Of one file or directory; ``number`` None: of everything."""

    sync: int
    number: Number | None


@dataclass(frozen=True, slots=True)
class SyncEnded:
    """The sync of that number said that it is done."""

    sync: int


@dataclass(frozen=True, slots=True)
class Put:
    """An object is in a bucket."""

    bucket: str
    key: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Deleted:
    """An object is in a bucket no more."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Marked:
    """Something that a test wants to find again; ``at`` is a time in seconds."""

    what: object
    at: float


OnDisk: TypeAlias = Made | Linked | Removed | Renamed | Written | Cut | SyncBegan | SyncEnded
Record: TypeAlias = OnDisk | Put | Deleted | Marked


class Place(NamedTuple):
    """A name in a directory."""

    directory: Number
    name: str


class Journal:
    """Records in order.  Methods may be called from any thread.

    ``on_record`` hears of each record as it is written, with its name; whoever kills the process there kills
    it after that effect and before the next.  Without ``keep`` nothing is remembered but the namespace.
    """

    def __init__(self, records: Iterable[Record] = (), *, keep: bool = True) -> None:
        self.records: list[Record] = []
        self.on_record: Callable[[Record, Journal], None] | None = None
        self._keep = keep
        self._lock = threading.RLock()
        self._names: dict[Number, dict[str, Number]] = {TOP: {}}
        self._paths: dict[Number, Place] = {}
        self._next = TOP + 1
        self._syncs: dict[int, Number | None] = {}
        for record in records:
            self._add(record)

    # --- what happened -----------------------------------------------------------------

    def make(self, path: str, *, is_directory: bool = False) -> Number:
        """A new file or directory; what has that name already keeps it, and its number is returned."""
        with self._lock:
            known = self.find(path)
            if known is not None:
                return known
            place = self._place(path)
            self._add(Made(*place, self._next, is_directory))
            return self._next - 1

    def link(self, path: str, new: str) -> None:
        with self._lock:
            number = self.find(path)
            assert number is not None, path
            self._add(Linked(*self._place(new), number))

    def remove(self, path: str) -> None:
        """A name that is unknown is that of something nobody records."""
        with self._lock:
            if self.find(path) is not None:
                self._add(Removed(*self._place(path)))

    def rename(self, old: str, new: str) -> None:
        with self._lock:
            number = self.find(old)
            assert number is not None, old
            self._add(Renamed(*self._place(old), *self._place(new), number))

    def write(self, number: Number, offset: int, data: bytes) -> None:
        if data:
            with self._lock:
                self._add(Written(number, offset, data))

    def cut(self, number: Number, length: int) -> None:
        with self._lock:
            self._add(Cut(number, length))

    def begin_sync(self, number: Number | None) -> int:
        """Call it before the sync; returns what ``end_sync`` is to be told after it."""
        with self._lock:
            sync = len(self._syncs) + 1
            self._add(SyncBegan(sync, number))
            return sync

    def end_sync(self, sync: int) -> None:
        with self._lock:
            self._add(SyncEnded(sync))

    def put(self, bucket: str, key: str, data: bytes) -> None:
        with self._lock:
            self._add(Put(bucket, key, data))

    def delete(self, bucket: str, key: str) -> None:
        with self._lock:
            self._add(Deleted(bucket, key))

    def mark(self, what: object, at: float) -> None:
        with self._lock:
            self._add(Marked(what, at))

    # --- names -------------------------------------------------------------------------

    def find(self, path: str) -> Number | None:
        """What has that path (relative to the top) now."""
        with self._lock:
            number: Number | None = TOP
            for name in filter(None, path.split("/")):
                number = self._names.get(number, {}).get(name) if number is not None else None
            return number

    def path_of(self, number: Number) -> str:
        """The path that a file has, or had last; the top's is empty."""
        with self._lock:
            parts = []
            while number != TOP:
                number, name = self._paths[number]
                parts.append(name)
            return "/".join(reversed(parts))

    def synced_by(self, sync: int) -> Number | None:
        """What a sync was of; None: everything."""
        return self._syncs[sync]

    def _place(self, path: str) -> Place:
        above, _, name = path.rpartition("/")
        directory = self.find(above)
        assert directory is not None, path
        return Place(directory, name)

    def _add(self, record: Record) -> None:
        self.follow(record)
        if self._keep:
            self.records.append(record)
        if self.on_record is not None:
            self.on_record(record, self)

    def follow(self, record: Record) -> None:
        """Learns names from a record that is not its own."""
        match record:
            case Made(directory, name, number, is_directory):
                self._next = max(self._next, number + 1)
                if is_directory:
                    self._names[number] = {}
                self._named(Place(directory, name), number)
            case Linked(directory, name, number):
                self._named(Place(directory, name), number)
            case Removed(directory, name):
                del self._names[directory][name]
            case Renamed(directory, name, to_directory, to_name, number):
                del self._names[directory][name]
                self._named(Place(to_directory, to_name), number)
            case SyncBegan(sync, number):
                self._syncs[sync] = number

    def _named(self, place: Place, number: Number) -> None:
        self._names[place.directory][place.name] = number
        self._paths[number] = place
