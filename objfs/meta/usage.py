"""Where the bytes of a volume, or of a tree in it, go: live, kept by snapshots, shared, compressed, unused.

Owns the counting, over a connection of its own that changes nothing, for a worker thread.  All sums are of
one moment.  Content bytes are what chunk versions hold before compression; sealed bytes are those of their
frames; coded bytes count every shard, and neither tags nor headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from objfs.meta.held import LENGTH
from objfs.meta.snapshots import COLUMNS, FOREVER, IS_TRASH, to_snapshot
from objfs.meta.view import TableView
from objfs.model import Ino, Snapshot

_TREE = (
    "CREATE TEMP TABLE inside AS WITH RECURSIVE below(ino) AS (SELECT ?1 UNION "
    "SELECT e.ino FROM below b JOIN entry e ON e.parent = b.ino) SELECT ino FROM below"
)
_USED = "CREATE TEMP TABLE used (chunk INTEGER PRIMARY KEY, live INTEGER NOT NULL, uses INTEGER NOT NULL)"
_KEEP = "INSERT OR IGNORE INTO used SELECT chunk, 0, 1 FROM map_old WHERE {where}"
_USE = (
    "INSERT INTO used SELECT chunk, 1, 1 FROM map WHERE {where} "
    "ON CONFLICT (chunk) DO UPDATE SET uses = uses + live, live = 1"
)
_INSIDE = "ino IN (SELECT ino FROM inside)"
_MOMENT = (
    "CREATE TEMP TABLE moment (trash INTEGER, generation INTEGER, PRIMARY KEY (trash, generation)) "
    "WITHOUT ROWID"
)
_SHOWN = "EXISTS (SELECT 1 FROM moment WHERE trash = {} AND generation >= o.born AND generation < o.died)"
"""Whether a snapshot of the trash (1), or another one (0), shows a copy."""
_MOMENTS = f"INSERT INTO moment SELECT CASE WHEN {IS_TRASH} THEN 1 ELSE 0 END, generation FROM snapshot"
_TRASH_ONLY = (
    "UPDATE used SET live = 2 WHERE live = 0 AND chunk IN (SELECT chunk FROM map_old o "
    f"GROUP BY chunk HAVING max({_SHOWN.format(1)}) AND NOT max({_SHOWN.format(0)}))"
)
_CONTENT = (
    f"SELECT coalesce(sum(length), 0) FROM (SELECT {LENGTH} AS length FROM used u "
    "JOIN chunk c ON c.chunk = u.chunk WHERE u.live = ?)"
)
_PLACES = (
    "CREATE TEMP TABLE place AS SELECT c.segment, c.size, sealed(c.frames, c.length) AS sealed, "
    "sum(u.uses) AS uses FROM used u JOIN chunk c ON c.chunk = u.chunk WHERE c.state = 1 "
    "GROUP BY c.segment, c.position"
)
_STORED = (
    "SELECT count(*), coalesce(sum(p.size), 0), coalesce(sum(p.sealed), 0), "
    "coalesce(sum(p.size * (p.uses - 1)), 0), "
    "coalesce(sum(p.sealed * (s.k + s.m) / s.k), 0) FROM place p JOIN segment s ON s.segment = p.segment"
)
_SEGMENTS = (
    "SELECT coalesce(sum(length), 0), coalesce(sum(length * (k + m) / k), 0) FROM segment "
    "WHERE missing IS NULL OR length(missing) < k + m"
)
_OWN = (
    f"SELECT coalesce(sum({LENGTH}), 0) FROM (SELECT chunk, count(*) AS n FROM map_old "
    "WHERE died > ?1 AND died <= ?2 AND born > ?3 GROUP BY chunk) o "
    "JOIN chunk c ON c.chunk = o.chunk WHERE c.refs = o.n"
)
"""What only rows that one snapshot alone shows name."""


class Usage(NamedTuple):
    """Bytes.  ``live`` and ``snapshot_only`` are content, and so is ``trash_only``, a part of that which no
    other snapshot keeps; ``deduplicated`` is content that lies where equal content was, or that a clone
    shares; ``unique`` the rest of what is stored, ``compressed`` what that is sealed to, ``coded`` what its
    shards take in all buckets.  ``garbage`` is coded bytes that nothing needs, indexes of segments included,
    None for a tree."""

    inodes: int
    live: int
    snapshot_only: int
    trash_only: int
    deduplicated: int
    unique: int
    compressed: int
    coded: int
    garbage: int | None


class UsageView(TableView):
    """One table.  Blocking."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.create_function("sealed", 2, _sealed, deterministic=True)

    def usage(self, top: Ino | None = None) -> Usage:
        """Of everything, or of the tree below an inode.  Reads all rows of either."""
        self._all("BEGIN")
        try:
            return self._usage(top)
        finally:
            self._all("ROLLBACK")

    def _usage(self, top: Ino | None) -> Usage:
        where = "true" if top is None else _INSIDE
        if top is not None:
            self._all(_TREE, (top,))
        self._all(_USED)
        self._all(_KEEP.format(where=where))
        self._all(_USE.format(where=where))
        self._all(_PLACES)
        named = "WHERE nlink > 0" + (" AND ino IN (SELECT ino FROM inside)" if top is not None else "")
        ((inodes, live),) = self._all(f"SELECT count(*), coalesce(sum(held), 0) FROM inode {named}")
        self._all(_MOMENT)
        self._all(_MOMENTS)
        if self._all("SELECT 1 FROM moment WHERE trash = 1 LIMIT 1"):
            self._all(_TRASH_ONLY)
        ((kept,),), ((trash,),) = self._all(_CONTENT, (0,)), self._all(_CONTENT, (2,))
        ((_, unique, sealed, shared, coded),) = self._all(_STORED)
        ((_, all_coded),) = self._all(_SEGMENTS)
        garbage = max(0, all_coded - coded) if top is None else None
        return Usage(inodes, live, kept + trash, trash, shared, unique, sealed, coded, garbage)

    def snapshots(self, shown: Callable[[Snapshot], bool]) -> Iterator[tuple[Snapshot, int]]:
        """Each that is to be shown, oldest first, and the content bytes that it alone keeps."""
        found = [to_snapshot(row) for row in self._all(f"SELECT {COLUMNS} FROM snapshot ORDER BY generation")]
        ends = [0, *(one.generation for one in found), FOREVER]
        for one, before, after in zip(found, ends, ends[2:], strict=False):
            if shown(one):
                ((own,),) = self._all(_OWN, (one.generation, after, before))
                yield one, own


def _sealed(frames: bytes | None, length: int | None) -> int:
    """The sealed length of a chunk, from the columns of its row."""
    if frames is None:
        return length or 0
    return sum(int.from_bytes(frames[at : at + 4]) for at in range(0, len(frames), 4))
