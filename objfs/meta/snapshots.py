"""Named moments: one row each, the end of a generation, and what becomes of rows that none shows any more.

Owns the tables ``snapshot`` and ``forgotten``.  Promises that a moment, once named, keeps its generation,
that two names never share one, and that rows which only moments that are gone have shown are removed piece by
piece, however often the process ends meanwhile: what is left to do is what ``forgotten`` lists.  Which rows a
moment shows is the business of the schema's triggers; which bytes it needs, and when, is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Collection

from objfs.errors import NoSuchSnapshot, SnapshotExists
from objfs.meta.database import Database, Row
from objfs.meta.schema import VERSIONED, Versioned
from objfs.model import NS, ChunkId, Snapshot, SnapshotFlag

COLUMNS = "name, generation, created_s, created_ns, comment, flags, inodes, bytes"
IS_TRASH = f"flags & {SnapshotFlag.TRASH:d}"
"""Of rows of ``snapshot``."""
FOREVER = 2**62
"""Above every generation."""
_BEFORE = "SELECT max(generation) FROM snapshot WHERE generation < ?"
_AFTER = (
    "SELECT min(generation) FROM (SELECT min(generation) AS generation FROM snapshot WHERE generation > ?1 "
    "UNION ALL SELECT min(generation) FROM forgotten WHERE generation > ?1)"
)


_SHOWING = (
    "WITH RECURSIVE over(chunk) AS (SELECT value FROM json_each(?1) UNION "
    "SELECT c.chunk FROM over JOIN chunk c ON c.base = over.chunk WHERE c.state = 0), "
    f"place AS (SELECT chunk, born, {FOREVER} AS died FROM map "
    "UNION ALL SELECT chunk, born, died FROM map_old) "
    "SELECT DISTINCT s.name FROM place p JOIN snapshot s ON p.born <= s.generation AND s.generation < p.died "
    "WHERE p.chunk IN (SELECT chunk FROM over) ORDER BY s.generation"
)
"""Snapshots that show one of some versions, or one that lies over one."""


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
            counts = self._db.inodes, self._db.bytes
            self._db.run(
                f"INSERT INTO snapshot ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (name, generation, *divmod(now_ns, NS), comment, flags, *counts),
            )
            return Snapshot(name, generation, now_ns, comment, flags, *counts)

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

    def count(self) -> int:
        row = self._db.one("SELECT count(*) FROM snapshot")
        return 0 if row is None else int(row[0])

    def newest(self) -> Snapshot | None:
        row = self._db.one(f"SELECT {COLUMNS} FROM snapshot ORDER BY generation DESC LIMIT 1")
        return None if row is None else to_snapshot(row)

    def mark(self, name: bytes, flags: int) -> Snapshot:
        """Raises NoSuchSnapshot."""
        with self._db:
            self._db.run("UPDATE snapshot SET flags = ? WHERE name = ?", (flags, name))
            return self.get(name)

    def drop(self, name: bytes) -> Snapshot:
        """Forgets the name; what only this moment kept stays until ``clear`` comes to it.  Raises
        NoSuchSnapshot."""
        with self._db:
            dropped = self.get(name)
            self._db.run("DELETE FROM snapshot WHERE name = ?", (name,))
            self._db.run("INSERT INTO forgotten (generation) VALUES (?)", (dropped.generation,))
            return dropped

    def drop_showing(self, chunks: Collection[ChunkId]) -> list[Snapshot]:
        """Drops those that show any of these versions; looks at the whole map."""
        if self._db.one("SELECT 1 FROM snapshot LIMIT 1") is None:
            return []
        with self._db:
            return [self.drop(row[0]) for row in self._db.all(_SHOWING, (json.dumps(list(chunks)),))]

    def _row(self, name: bytes) -> Row | None:
        return self._db.one(f"SELECT {COLUMNS} FROM snapshot WHERE name = ?", (name,))

    # --- what no moment shows ----------------------------------------------------------

    def clear(self, limit: int) -> bool:
        """Removes at most about ``limit`` rows that no snapshot shows; True when nothing is left to do.

        A generation at a time, the oldest first: what it was the last to show died before the next one
        ended, and was born after the one before.
        """
        with self._db:
            row = self._db.one("SELECT min(generation) FROM forgotten")
            if row is None or row[0] is None:
                return True
            if self._clear_generation(row[0], limit):
                self._db.run("DELETE FROM forgotten WHERE generation = ?", (row[0],))
                return self._db.one("SELECT 1 FROM forgotten LIMIT 1") is None
            return False

    def _clear_generation(self, generation: int, limit: int) -> bool:
        before, after = self._number(_BEFORE, generation, 0), self._number(_AFTER, generation, FOREVER)
        for table in VERSIONED:
            died = generation
            while (died := self._next_death(table, died)) <= after:
                removed = self._remove(table, died, before, limit)
                limit -= removed
                if limit <= 0:
                    return False
        return True

    def _number(self, sql: str, generation: int, without: int) -> int:
        row = self._db.one(sql, (generation,))
        return without if row is None or row[0] is None else int(row[0])

    def _next_death(self, table: Versioned, after: int) -> int:
        """The next generation in which rows died; beyond all where there is none."""
        return self._number(f"SELECT min(died) FROM {table.name}_old WHERE died > ?", after, FOREVER + 1)

    def _remove(self, table: Versioned, died: int, born_after: int, limit: int) -> int:
        keys = ", ".join(name for name, _ in table.key) + ", born"
        twin = f"{table.name}_old"
        return self._db.run(
            f"DELETE FROM {twin} WHERE ({keys}) IN "
            f"(SELECT {keys} FROM {twin} WHERE died = ? AND born > ? LIMIT ?)",
            (died, born_after, limit),
        )


def to_snapshot(row: Row) -> Snapshot:
    """A row of ``COLUMNS``."""
    name, generation, created_s, created_ns, comment, flags, inodes, held = row
    return Snapshot(name, generation, created_s * NS + created_ns, comment, flags, inodes, held)
