"""The directory of named moments, as a table that can only be read.

Owns the numbers and attributes of what stands in it: for each snapshot one directory, its *door*, with the
attributes of the directory that the snapshot shows as its root; but modified and changed when the snapshot
was taken.  Promises that a door's number is never another's, that listing and passing by costs nothing that
stays, and that a snapshot which came or went is there or not at the next question.  Those of the trash are
found by name, and not listed.  Knows nothing of what is behind a door: that is ``SnapshotTable``'s.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from objfs.errors import NoAttribute, NotDirectory, NotFound, StaleHandle
from objfs.meta.database import Database, Row
from objfs.meta.snapshot_view import BesideLive, Live, SnapshotTable
from objfs.meta.snapshots import COLUMNS, IS_TRASH, to_snapshot
from objfs.model import ROOT, Attr, Chunk, DirEntry, Ino, Snapshot

_SNAPSHOT = f"SELECT {COLUMNS} FROM snapshot"
_NUMBERED = f"{_SNAPSHOT} WHERE generation = ?"
_NAMED = f"{_SNAPSHOT} WHERE name = ?"
_LISTED = f"{_SNAPSHOT} WHERE generation > ? AND NOT {IS_TRASH} ORDER BY generation LIMIT ?"
_NEWEST = f"{_SNAPSHOT} ORDER BY generation DESC LIMIT 1"
_MODE = stat.S_IFDIR | 0o555
_DOOR = 1
"""The number of a door is that of the generation and so much: 1 is the directory itself."""
_COOKIE = 2
"""The offset of a door is the generation and so much: 1 and 2 are those of '.' and '..'."""


class Moment(NamedTuple):
    """What is behind a door: a tree, and the directory in it that is shown as its root."""

    snapshot: Snapshot
    table: SnapshotTable
    root: Ino


class MomentsTable(BesideLive):
    """``ports.InodeTable`` and ``ports.ChunkTable``; the root is the directory, doors are all that is in it.

    ``path`` leads to the directory of each tree that is shown as its root; a snapshot without it has no door.
    """

    def __init__(self, live: Live, database: Callable[[], Database], path: Sequence[bytes] = ()) -> None:
        super().__init__(live)
        self._database = database
        self._path = tuple(path)

    def moment(self, door: Ino) -> Moment:
        """What is behind a door.  Raises StaleHandle."""
        row = self._database().one(_NUMBERED, (door - _DOOR,))
        found = None if row is None else self._behind(row)
        if found is None:
            raise StaleHandle("the snapshot was deleted")
        return found

    def _behind(self, row: Row) -> Moment | None:
        snapshot = to_snapshot(row)
        table, root = SnapshotTable(self._live, self._database, snapshot), ROOT
        try:
            for name in self._path:
                root = table.lookup(root, name).ino
            return Moment(snapshot, table, root) if table.get(root).is_dir else None
        except (NotFound, NotDirectory):
            return None

    # --- names and attributes ----------------------------------------------------------

    def get(self, ino: Ino) -> Attr:
        return self._directory() if ino == ROOT else _door(self.moment(ino))

    def _directory(self) -> Attr:
        """Owned by whoever owns the volume's root.  Its links are not counted, which 1 tells programs."""
        root = self._live.get(ROOT)
        row = self._database().one(_NEWEST)
        changed = root.btime_ns if row is None else to_snapshot(row).created_ns
        return root._replace(
            mode=_MODE, nlink=1, size=0, parent=ROOT, atime_ns=changed, mtime_ns=changed, ctime_ns=changed
        )

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        row = self._database().one(_NAMED, (name,)) if parent == ROOT else None
        found = None if row is None else self._behind(row)
        if found is None:
            raise NotFound(f"there is no snapshot {name.decode(errors='replace')}")
        return _door(found)

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        found: list[DirEntry] = []
        generation = max(after_cookie - _COOKIE, 0)
        while len(found) < limit:
            rows = self._database().all(_LISTED, (generation, limit))
            moments = [moment for row in rows if (moment := self._behind(row)) is not None]
            found += [
                DirEntry(one.snapshot.name, one.snapshot.generation + _COOKIE, _door(one)) for one in moments
            ]
            if len(rows) < limit:
                break
            generation = to_snapshot(rows[-1]).generation
        return found[:limit]

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        if ino == ROOT:
            raise NoAttribute("the directory of snapshots has no attributes")
        _, table, root = self.moment(ino)
        return table.get_xattr(root, name)

    def list_xattr(self, ino: Ino) -> list[bytes]:
        if ino == ROOT:
            return []
        _, table, root = self.moment(ino)
        return table.list_xattr(root)

    # --- content: directories have none ------------------------------------------------

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        return None

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        return []


def _door(moment: Moment) -> Attr:
    snapshot, table, root = moment
    created = snapshot.created_ns
    return table.get(root)._replace(
        ino=Ino(snapshot.generation + _DOOR), parent=ROOT, mtime_ns=created, ctime_ns=created
    )
