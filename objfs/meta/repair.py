"""Mending an inode table, rule by rule, until nothing is left that can be mended.

Owns the order, the rules of the table as a whole, and the way in which what others know (a segment's own
index, a shard's header, the volume's header) comes back into rows.  Promises that all of it is one
transaction, and that nothing that holds bytes or names is thrown away: what has no place is put into
``lost+found`` (``lostfound`` says under which name).  What is gone is said to be lost, and reads as an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from objfs.errors import Corrupt
from objfs.meta import audit, repair_map, repair_tree, schema
from objfs.meta.chunks import LOCATION_COLUMNS, from_location
from objfs.meta.database import Database
from objfs.meta.entries import Entries
from objfs.meta.inodes import Inodes
from objfs.meta.lostfound import LostFound, Mender, Repaired
from objfs.meta.segments import SEGMENT_COLUMNS, from_segment
from objfs.model import NS, ChunkId, Ino, Location, Segment, SegmentNo

ROUNDS = 4
"""What one rule's mender puts right may show another rule more to do, never for long."""
_LARGEST = "SELECT coalesce(max({key}), 0) FROM {table}"


class Repairs:
    """The repairs of one open table.  Used by the thread that opened it."""

    def __init__(self, database: Database, now_ns: int, key_id: int) -> None:
        self._db = database
        inodes = Inodes(database)
        self._aside = LostFound(database, inodes, Entries(database, inodes), now_ns, key_id)

    # --- what others know --------------------------------------------------------------

    def restore_segment(self, number: SegmentNo | None, segment: Segment) -> SegmentNo:
        """The row of a segment as its shards describe it, under its old number or a new one."""
        with self._db:
            if number is None:
                number = self._db.new_segment()
            self._db.skip_past(segment=number)
            self._db.run(
                f"INSERT INTO segment (segment, {SEGMENT_COLUMNS}, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (segment) "
                f"DO UPDATE SET {_excluded(SEGMENT_COLUMNS)}, state = 0, condemned_seq = NULL",
                (number, *from_segment(segment)),
            )
            return number

    def restore_version(self, chunk: ChunkId, ino: Ino, index: int, location: Location) -> None:
        """The row of a stored version as the index of its segment has it."""
        with self._db:
            self._db.skip_past(chunk=chunk)
            self._db.run(
                f"INSERT INTO chunk (chunk, ino, idx, state, refs, {LOCATION_COLUMNS}) "
                "VALUES (?, ?, ?, 1, 1, ?, ?, ?, ?, ?, ?, ?) "
                f"ON CONFLICT (chunk) DO UPDATE SET state = 1, {_excluded(LOCATION_COLUMNS)}",
                (chunk, ino, index, *from_location(location, location.segment)),
            )

    def restore_place(self, ino: Ino, index: int, chunk: ChunkId) -> None:
        """A version is at a place of a file again, where nothing is."""
        with self._db:
            self._db.skip_past(ino=ino)
            self._db.run(
                "INSERT INTO map (ino, idx, chunk, born) VALUES (?, ?, ?, ?)",
                (ino, index, chunk, self._db.generation),
            )

    def keep_beneath(self, chunk: ChunkId) -> list[Repaired]:
        """Before ``split``, where what lies below can be read: see ``repair_map.keep_beneath``."""
        with self._db:
            return list(repair_map.keep_beneath(self._aside, "cache", chunk))

    def split(self, chunk: ChunkId, end: int) -> list[Repaired]:
        """Bytes of a version that was never uploaded are gone, here or below it; ``end`` is how many its file
        has.  See ``repair_map.split``."""
        with self._db:
            rows = "FROM local_dirty WHERE chunk = ?1 AND data IS NULL"
            self._db.run(f"DELETE {rows} AND offset >= ?2", (chunk, end))
            self._db.run(
                "UPDATE local_dirty SET length = ?2 - offset, checksum = NULL "
                "WHERE chunk = ?1 AND data IS NULL AND offset + length > ?2",
                (chunk, end),
            )
            return list(repair_map.split(self._aside, "cache", chunk))

    # --- the rules ---------------------------------------------------------------------

    def mend(self) -> list[Repaired]:
        """Mends what breaks a rule, as far as it can be without losing anything."""
        return self._rounds((*repair_tree.MENDERS, *repair_map.MENDERS))

    def give_up(self) -> list[Repaired]:
        """What is still not known to lie anywhere is lost: for when everybody was asked."""
        return self._rounds((*repair_map.LOSERS, *repair_tree.MENDERS, *repair_map.MENDERS))

    def _rounds(self, menders: Sequence[Mender]) -> list[Repaired]:
        done: list[Repaired] = []
        with self._db:
            for _ in range(ROUNDS):
                if not audit.breaches(self._db.connection, 1):
                    break
                mended = self._numbers() + self._generations()
                mended += [said for mender in menders for said in mender(self._aside)]
                if not mended:
                    break
                done += mended
            self._db.recount()
        return done

    def _numbers(self) -> list[Repaired]:
        ino = self._largest("ino", "inode", "inode_old", "map", "xattr")
        chunk = self._largest("chunk", "chunk", "local_freed", "map", "local_dirty")
        segment = max(self._largest("segment", "segment"), self._largest("segment", "chunk"))
        broken = audit.numbers(self._db.connection, 1)
        self._db.skip_past(ino=ino, chunk=chunk, segment=segment)
        return [Repaired("numbers", "the next numbers are above all that are in use")] if broken else []

    def _largest(self, key: str, *tables: str) -> int:
        rows = [self._db.one(_LARGEST.format(key=key, table=table)) for table in tables]
        return max(int(row[0]) for row in rows if row is not None)

    def _generations(self) -> list[Repaired]:
        """The present one is raised; what was kept died when its successor was born."""
        if not audit.generations(self._db.connection, 1):
            return []
        living = max(self._largest("born", table.name) for table in schema.VERSIONED)
        kept = max(self._largest("born", f"{table.name}_old") for table in schema.VERSIONED)
        snapshot = self._largest("generation", "snapshot")
        self._db.set_generation(max(self._db.generation, living, kept + 1, snapshot + 1))
        for table in schema.VERSIONED:
            self._db.run(_died_anew(table))
        return [Repaired("generations", f"the present generation is {self._db.generation}")]


def _excluded(columns: str) -> str:
    """Takes over the columns of a row that was to be inserted."""
    return ", ".join(f"{column} = excluded.{column}" for column in columns.split(", "))


def _died_anew(table: schema.Versioned) -> str:
    """The statement that takes the death of impossible rows from the birth of the next of the same key."""
    name = table.name
    same = " AND ".join(f"n.{key} = {name}_old.{key}" for key, _ in table.key)
    later = f"SELECT min(n.born) AS born FROM {{}} n WHERE {same} AND n.born > {name}_old.born"
    return (
        f"UPDATE {name}_old SET died = coalesce((SELECT min(born) FROM ({later.format(name)} UNION ALL "
        f"{later.format(name + '_old')}) WHERE born IS NOT NULL), (SELECT generation FROM volume)) "
        "WHERE born >= died OR died > (SELECT generation FROM volume)"
    )


def restore_volume_row(path: Path, uuid: bytes, chunk_size: int, now_ns: int) -> None:
    """Makes the row of the volume anew, for a table that nobody has open.  Raises Corrupt.

    Generation and next numbers are what the other rows ask for.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            schema.check_version(connection)
            largest = [
                connection.execute(_LARGEST.format(key=key, table=table)).fetchone()[0]
                for key, table in (("born", "inode"), ("ino", "inode"), ("chunk", "chunk"), ("segment",) * 2)
            ]
            generation, *used = largest
            when = divmod(now_ns, NS)
            connection.execute(
                "INSERT INTO volume (one, uuid, chunk_size, created_s, created_ns, "
                "generation, next_ino, next_chunk, next_segment) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (one) DO UPDATE SET uuid = excluded.uuid, chunk_size = excluded.chunk_size",
                (uuid, chunk_size, *when, max(generation, 1), *(number + 1 for number in used)),
            )
        finally:
            connection.close()
    except schema.UNREADABLE as error:
        raise Corrupt(f"{path}: {error}") from error


def reindex(path: Path) -> bool:
    """Makes the indexes anew of a table that nobody has open; whether it is a sound database then."""
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("REINDEX")
            return not audit.pages(connection, 1)
        finally:
            connection.close()
    except schema.UNREADABLE:
        return False
