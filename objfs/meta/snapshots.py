"""Named moments: one row each, and the end of a generation.

Owns the table ``snapshot``.  Promises that a moment, once named, keeps its generation, and that two names
never share one.  What a generation keeps is the business of the schema's triggers; which bytes the moment
needs, and when, is the caller's.
"""

from __future__ import annotations

from objfs.errors import NoSuchSnapshot, SnapshotExists
from objfs.meta.database import Database, Row
from objfs.model import NS, Snapshot

COLUMNS = "name, generation, created_s, created_ns, comment, flags"


class Snapshots:
    """Rows of named moments."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, name: bytes, now_ns: int, comment: str, flags: int) -> Snapshot:
        """Names the present moment and ends its generation.  Raises SnapshotExists."""
        with self._db:
            if self._row(name) is not None:
                raise SnapshotExists(f"there is a snapshot {name.decode(errors='replace')} already")
            generation = self._db.new_generation()
            self._db.run(
                f"INSERT INTO snapshot ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                (name, generation, *divmod(now_ns, NS), comment, flags),
            )
            return Snapshot(name, generation, now_ns, comment, flags)

    def get(self, name: bytes) -> Snapshot:
        """Raises NoSuchSnapshot."""
        row = self._row(name)
        if row is None:
            raise NoSuchSnapshot(f"there is no snapshot {name.decode(errors='replace')}")
        return to_snapshot(row)

    def listed(self) -> list[Snapshot]:
        """All, oldest first."""
        return [
            to_snapshot(row) for row in self._db.all(f"SELECT {COLUMNS} FROM snapshot ORDER BY generation")
        ]

    def drop(self, name: bytes) -> Snapshot:
        """Forgets the name; what only this moment kept stays until it is removed.  Raises NoSuchSnapshot."""
        with self._db:
            dropped = self.get(name)
            self._db.run("DELETE FROM snapshot WHERE name = ?", (name,))
            return dropped

    def _row(self, name: bytes) -> Row | None:
        return self._db.one(f"SELECT {COLUMNS} FROM snapshot WHERE name = ?", (name,))


def to_snapshot(row: Row) -> Snapshot:
    """A row of the table's columns, in their order."""
    name, generation, created_s, created_ns, comment, flags = row
    return Snapshot(name, generation, created_s * NS + created_ns, comment, flags)
