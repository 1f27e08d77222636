"""The named places at which a machine is stopped, as they show in a journal.

Owns the names.  A place is *after* a record: what it says has taken effect, and nothing after it.  So no
line of objfs knows of any of them: whatever it does to its disk or its buckets is a place, and these are
the ones that a test asks for by name.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from objfs.store import layout
from tests.crashes.story import Begun
from tests.doubles.journal import (
    Cut,
    Deleted,
    Journal,
    Made,
    Marked,
    Put,
    Record,
    Removed,
    Renamed,
    SyncBegan,
    SyncEnded,
    Written,
)


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A record of one kind about a path that matches."""

    kind: type[Made] | type[Written] | type[Cut] | type[Removed] | type[Renamed] | type[SyncEnded]
    path: str
    at_start: bool = False
    """Of a write: at offset 0."""


@dataclass(frozen=True, slots=True)
class InBucket:
    """A put or delete of a key that matches; ``nth``: of as many copies of one object, or shards of one
    segment, as there are by then."""

    kind: type[Put] | type[Deleted]
    key: str
    nth: int = 0
    before: bool = False
    """The place is before it."""


POINTS: Mapping[str, OnDisk | InBucket] = {
    # flush: bytes, then rows, then one sync of the log
    "cache file made": OnDisk(Made, r"cache/../\w+"),
    "cache bytes written": OnDisk(Written, r"cache/../\w+"),
    "cache file synced": OnDisk(SyncEnded, r"cache/../\w+"),
    "cache directory synced": OnDisk(SyncEnded, r"cache/.."),
    "cache file removed": OnDisk(Removed, r"cache/../\w+"),
    "row committed": OnDisk(Written, r"meta\.db-wal"),
    "log synced": OnDisk(SyncEnded, r"meta\.db-wal"),
    "log begun again": OnDisk(Written, r"meta\.db-wal", at_start=True),
    "log moved into the table": OnDisk(Written, r"meta\.db"),
    "table synced": OnDisk(SyncEnded, r"meta\.db"),
    # upload of a segment
    "segment sealed": InBucket(Put, r"segment/.*", nth=1, before=True),
    "first shard uploaded": InBucket(Put, r"segment/.*", nth=1),
    "second shard uploaded": InBucket(Put, r"segment/.*", nth=2),
    "last shard uploaded": InBucket(Put, r"segment/.*", nth=3),
    # checkpoint
    "intent written": OnDisk(Renamed, r"checkpoint\.json"),
    "manifest at one bucket": InBucket(Put, r"manifest/.*", nth=1),
    "manifest at two buckets": InBucket(Put, r"manifest/.*", nth=2),
    "manifest at all buckets": InBucket(Put, r"manifest/.*", nth=3),
    "replica suspect": OnDisk(Renamed, r"pages/image\.json"),
    "replica written": OnDisk(Written, r"pages/image"),
    "replica cut": OnDisk(Cut, r"pages/image"),
    "page hashes written": OnDisk(Written, r"pages/sums"),
    "delta pages noted": OnDisk(Renamed, r"deltas\.json"),
    # garbage collection
    "manifest deleted": InBucket(Deleted, r"manifest/.*"),
    "segment deleted": InBucket(Deleted, r"segment/.*"),
    # lease
    "lease remembered": OnDisk(Renamed, r"lease\.json"),
    "lease at one bucket": InBucket(Put, r"lease/.*", nth=1),
    "lease at two buckets": InBucket(Put, r"lease/.*", nth=2),
    "old lease deleted": InBucket(Deleted, r"lease/.*"),
    # mounting and unmounting
    "clean mark taken": OnDisk(Removed, r"clean"),
    "clean mark made": OnDisk(Renamed, r"clean"),
    "cache sums begun again": OnDisk(Removed, r"cache/clean\.log"),
    "cache sums written": OnDisk(Written, r"cache/clean\.log"),
}
BEFORE = tuple(name for name, point in POINTS.items() if isinstance(point, InBucket) and point.before)
BASE_REWRITE = "base rewritten"
"""The last shard of a blob of a new base; which puts these are is told by a later manifest."""
COMMANDS = {
    "snapshot": "snapshot create",
    "drop": "snapshot delete",
    "prune": "snapshot prune",
    "restore": "snapshot restore",
}
"""Verb of a history -> what people call it."""
STAGES = ("half in the log", "in the log", "synced", "at one bucket", "at two buckets")
"""Of each command: its transaction, then the next sync of the log, then the next manifest.  Which records
these are is told by the mark before them, so a mount that dies by itself knows none of them."""
COMMAND_POINTS = tuple(f"{command}: {stage}" for command in COMMANDS.values() for stage in STAGES)
NAMES = (*POINTS, BASE_REWRITE, *COMMAND_POINTS)
HOME = "home/vol/"
FRAME_HEADER = 24
"""Bytes."""


class Watcher:
    """Says, record after record, at which places each of them is."""

    def __init__(self) -> None:
        self._copies: dict[str, int] = defaultdict(int)

    def names(self, record: Record, journal: Journal) -> list[str]:
        """``journal`` stands just before the record, or just after it."""
        nth = self._count(record) if isinstance(record, Put) else 0
        path = _path(record, journal)
        return [name for name, point in POINTS.items() if _is_at(point, record, path, nth)]

    def _count(self, record: Put) -> int:
        """How many buckets have taken an object, or shards a segment, in this round of puts."""
        shard = layout.parse_shard(record.key)
        name = shard.uuid.hex() if shard is not None else f"{record.key} {hash(record.data)}"
        self._copies[name] += 1
        return self._copies[name]


def places(records: Sequence[Record], start: int, bases: Callable[[Put], set[bytes]]) -> dict[str, list[int]]:
    """Name -> after how many records, for every place from ``start`` on.  ``bases`` gives the uuids of the
    blobs of the base that a manifest names."""
    found: dict[str, list[int]] = defaultdict(list)
    journal, watcher = Journal(keep=False), Watcher()
    rewrites, commands = _Rewrites(bases), _Commands()
    for at, record in enumerate(records):
        for name in watcher.names(record, journal):
            found[name].append(at if name in BEFORE else at + 1)
        for name in commands.names(record, journal):
            found[name].append(at + 1)
        journal.follow(record)
        if isinstance(record, Put):
            found[BASE_REWRITE] += rewrites.ended(record, at + 1)
    later = {name: [after for after in places if after > start] for name, places in found.items()}
    return {name: places for name, places in later.items() if places}


class _Rewrites:
    """After which put each blob of a new base was whole: a manifest tells which those were."""

    def __init__(self, bases: Callable[[Put], set[bytes]]) -> None:
        self._bases = bases
        self._last_shard: dict[bytes, int] = {}
        self._known: set[bytes] = set()

    def ended(self, record: Put, after: int) -> list[int]:
        shard = layout.parse_shard(record.key)
        if shard is not None:
            self._last_shard[shard.uuid] = after
        if not record.key.startswith(layout.MANIFEST_PREFIX):
            return []
        new = self._bases(record) - self._known
        self._known |= new
        return sorted(self._last_shard[uuid] for uuid in new if uuid in self._last_shard)


class _Commands:
    """At which stage of the last command each record is."""

    def __init__(self) -> None:
        self._command = ""
        self._commit_begun = False
        self._left: list[str] = []
        self._sync = 0
        self._manifest = ""

    def names(self, record: Record, journal: Journal) -> list[str]:
        if isinstance(record, Marked):
            self._begin(record.what)
        stage = self._stage(record, journal) if self._left else ""
        return [f"{self._command}: {stage}"] if stage else []

    def _begin(self, what: object) -> None:
        if isinstance(what, Begun) and what.verb in COMMANDS:
            self._command, self._left = COMMANDS[what.verb], list(STAGES)
            self._commit_begun, self._sync, self._manifest = False, 0, ""

    def _stage(self, record: Record, journal: Journal) -> str:
        match record, self._left[0]:
            case Written(), "half in the log" | "in the log" if _is_log(record, journal):
                return self._written(record)
            case SyncBegan(sync), "synced" if not self._sync and _is_log(record, journal):
                self._sync = sync
            case SyncEnded(sync), "synced" if sync == self._sync:
                return self._left.pop(0)
            case Put(key=key), "at one bucket" if key.startswith(layout.MANIFEST_PREFIX):
                self._manifest = key
                return self._left.pop(0)
            case Put(key=key), "at two buckets" if key == self._manifest:
                return self._left.pop(0)
        return ""

    def _written(self, record: Written) -> str:
        """The page after the header of a frame that ends a transaction is the last of it."""
        if self._commit_begun:
            self._left = list(STAGES[2:])
            return "in the log"
        self._commit_begun = _ends_transaction(record)
        return self._left.pop(0) if self._left[0] == "half in the log" else ""


def _ends_transaction(record: Written) -> bool:
    """Whether it is the header of a commit frame: SQLite's file format, section 4.1."""
    return len(record.data) == FRAME_HEADER and record.data[4:8] != bytes(4)


def _is_log(record: Written | SyncBegan, journal: Journal) -> bool:
    return record.number is not None and journal.path_of(record.number).endswith("/meta.db-wal")


def _is_at(point: OnDisk | InBucket, record: Record, path: str | None, nth: int) -> bool:
    if not isinstance(record, point.kind):
        return False
    if isinstance(point, InBucket):
        assert isinstance(record, Put | Deleted)
        return re.fullmatch(point.key, record.key) is not None and point.nth in (0, nth)
    if path is None or re.fullmatch(HOME + point.path, path) is None:
        return False
    return not point.at_start or (isinstance(record, Written) and record.offset == 0)


def _path(record: Record, journal: Journal) -> str | None:
    """What the record is about; of a rename the new name."""
    match record:
        case Made(directory, name) | Removed(directory, name):
            return _joined(journal.path_of(directory), name)
        case Renamed(to_directory=directory, to_name=name):
            return _joined(journal.path_of(directory), name)
        case Written(number) | Cut(number):
            return journal.path_of(number)
        case SyncEnded(sync):
            synced = journal.synced_by(sync)
            return None if synced is None else journal.path_of(synced)
    return None


def _joined(above: str, name: str) -> str:
    return f"{above}/{name}" if above else name
