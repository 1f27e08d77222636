"""A read-only look at an inode table: beside the mount that writes it, or at one that was set aside.

Owns a connection of its own that can change nothing, for worker threads, one at a time.  Each answer is of
one moment, and two answers need not be of the same: who compares them asks again before believing a
difference.  Long walks come in batches, so that the log of a running mount is not held up.  Raises
Corrupt where the table cannot be read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

from objfs.errors import Corrupt, Unclean
from objfs.meta import schema
from objfs.meta.audit import LIMIT, Breach, breaches
from objfs.meta.chunks import COLUMNS, to_chunk
from objfs.meta.database import Row, Value
from objfs.meta.dirty import RANGES, to_range
from objfs.meta.inodes import GET, to_attr
from objfs.meta.rule import MALFORMED_SEGMENT, UNSOUND_LOCATION
from objfs.meta.segments import SEGMENT_COLUMNS, to_segment
from objfs.model import (
    ROOT,
    Attr,
    Chunk,
    ChunkId,
    Code,
    DirtyRange,
    Ino,
    Segment,
    SegmentNo,
    Slot,
)

DEEPEST = 4096
"""How many directories a path is followed up: more are a loop."""

_INCOMPLETE = (
    "SELECT chunk FROM map UNION SELECT chunk FROM map_old UNION "
    "SELECT base FROM chunk WHERE base IS NOT NULL EXCEPT SELECT chunk FROM chunk"
)
"""Versions that something names and that have no row."""
_MISLAID = (
    f"SELECT c.chunk FROM chunk c LEFT JOIN segment s ON s.segment = c.segment WHERE c.state = 1 AND "
    f"({UNSOUND_LOCATION} OR s.segment IS NULL OR {MALFORMED_SEGMENT})"
)
"""Stored versions of which the table does not say where they are."""


_SEGMENT_ROW = f"segment, s.state, NOT {MALFORMED_SEGMENT}, {SEGMENT_COLUMNS}"


class SegmentRow(NamedTuple):
    """A row of the table; ``segment`` is None where the row is of no possible form."""

    number: SegmentNo
    uuid: bytes
    condemned: bool
    segment: Segment | None


class Hint(NamedTuple):
    """What the row of a version says of its segment and its bytes, sound or not."""

    segment: SegmentNo | None
    identity: bytes | None


class Place(NamedTuple):
    """Where a chunk version is used; ``live`` False: by a snapshot alone."""

    chunk: ChunkId
    ino: Ino
    idx: int
    live: bool


class TableView:
    """One table; ``close`` when done.  Raises Unclean (none there), Corrupt, NewerFormat."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise Unclean(f"{path}: the inode table is missing")
        self.path = path
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        except schema.UNREADABLE as error:
            raise Corrupt(f"{path}: {error}") from error
        try:
            schema.check_version(self._connection)
        except schema.UNREADABLE as error:
            self.close()
            raise Corrupt(f"{path}: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Doing it twice is harmless."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the whole ---------------------------------------------------------------------

    def breaches(self, limit: int = LIMIT) -> list[Breach]:
        """What is wrong in the table itself.  Reads everything."""
        return breaches(self._connection, limit)

    @property
    def uuid(self) -> bytes:
        """The volume's; empty where its row is gone."""
        rows = self._all("SELECT uuid FROM volume")
        return bytes(rows[0][0]) if rows else b""

    @property
    def chunk_size(self) -> int:
        """In bytes; 0 where the row of the volume is gone."""
        rows = self._all("SELECT chunk_size FROM volume")
        return rows[0][0] if rows else 0

    def incomplete(self) -> list[ChunkId]:
        """Versions that are named and have no row, or are stored the table does not know where."""
        rows = self._all(f"{_INCOMPLETE} UNION {_MISLAID} ORDER BY 1")
        return [ChunkId(row[0]) for row in rows]

    # --- segments ----------------------------------------------------------------------

    def segments(self, after: int, limit: int) -> list[SegmentRow]:
        """Rows with numbers above ``after``, ascending."""
        sql = f"SELECT {_SEGMENT_ROW} FROM segment s WHERE segment > ? ORDER BY segment LIMIT ?"
        return [_segment_row(row) for row in self._all(sql, (after, limit))]

    def placements(self) -> list[tuple[Code, tuple[Slot, ...]]]:
        """The different placements of segments that something lies in, each once.  Looks at every row."""
        sql = (
            f"SELECT DISTINCT k, m, placement FROM segment s WHERE state = 0 AND NOT {MALFORMED_SEGMENT} "
            "AND (missing IS NULL OR length(missing) < k + m) "
            "AND EXISTS (SELECT 1 FROM chunk c WHERE c.segment = s.segment)"
        )
        return [(Code(k, m), tuple(Slot(slot) for slot in slots)) for k, m, slots in self._all(sql)]

    def segment_row(self, number: SegmentNo) -> SegmentRow | None:
        """The row as it is now."""
        found = self.segments(number - 1, 1)
        return found[0] if found and found[0].number == number else None

    def segment(self, number: SegmentNo) -> Segment:
        """Raises Corrupt where there is no sound row."""
        row = self.segment_row(number)
        if row is None or row.segment is None:
            raise Corrupt(f"segment {number} has no sound row in the inode table")
        return row.segment

    def find_segment(self, uuid: bytes) -> SegmentRow | None:
        """The row with a uuid.  Looks at every row."""
        sql = f"SELECT {_SEGMENT_ROW} FROM segment s WHERE uuid = ? LIMIT 1"
        rows = self._all(sql, (uuid,))
        return _segment_row(rows[0]) if rows else None

    def chunks_in(self, number: SegmentNo) -> list[Chunk]:
        """Versions that lie in a segment and say where, in order of position."""
        sql = (
            f"SELECT {COLUMNS} FROM chunk c WHERE c.segment = ? AND c.state = 1 AND NOT {UNSOUND_LOCATION} "
            "ORDER BY c.position, c.chunk"
        )
        return [to_chunk(row) for row in self._all(sql, (number,))]

    # --- versions ----------------------------------------------------------------------

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        """None where it has no row, or the row says of no place where the bytes are."""
        sql = (
            f"SELECT {COLUMNS} FROM chunk c WHERE c.chunk = ? "
            f"AND (c.state = 0 OR (c.state = 1 AND NOT {UNSOUND_LOCATION}))"
        )
        rows = self._all(sql, (chunk,))
        return to_chunk(rows[0]) if rows else None

    def accounted(self, chunks: Sequence[ChunkId]) -> set[ChunkId]:
        """Those of them that have a row, or are listed as freed."""
        sql = (
            "SELECT value FROM json_each(?) WHERE value IN (SELECT chunk FROM chunk) "
            "OR value IN (SELECT chunk FROM local_freed)"
        )
        return {ChunkId(row[0]) for row in self._all(sql, (json.dumps(list(chunks)),))}

    def hints(self, chunks: Collection[ChunkId]) -> dict[ChunkId, Hint]:
        """What the rows of versions still say of where they lie; those without a row are absent."""
        sql = "SELECT chunk, segment, identity FROM chunk WHERE chunk IN (SELECT value FROM json_each(?))"
        rows = self._all(sql, (json.dumps(list(chunks)),))
        return {ChunkId(row[0]): Hint(row[1], row[2]) for row in rows}

    def all_in(self, number: SegmentNo) -> list[ChunkId]:
        """Versions that name a segment, also those that do not say where in it."""
        return [ChunkId(row[0]) for row in self._all("SELECT chunk FROM chunk WHERE segment = ?", (number,))]

    def dirty(self, after: int, limit: int) -> list[Chunk]:
        """Versions that are not stored, with numbers above ``after``, ascending."""
        sql = f"SELECT {COLUMNS} FROM chunk c WHERE c.state = 0 AND c.chunk > ? ORDER BY c.chunk LIMIT ?"
        return [to_chunk(row) for row in self._all(sql, (after, limit))]

    def ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        """Of a version that is not stored, in the order they were written."""
        return [to_range(row) for row in self._all(RANGES, (chunk,))]

    def map_of(self, ino: Ino) -> list[tuple[int, ChunkId]]:
        """Index and version of each chunk of a file, ascending; what a truncation has taken is absent."""
        sql = (
            "SELECT m.idx, m.chunk FROM map m WHERE m.ino = ? AND NOT EXISTS (SELECT 1 FROM orphan o "
            "WHERE o.ino = m.ino AND o.keep_from >= 0 AND o.keep_from <= m.idx AND o.below > m.chunk) "
            "ORDER BY m.idx"
        )
        return [(row[0], ChunkId(row[1])) for row in self._all(sql, (ino,))]

    def places(self, chunks: Collection[ChunkId]) -> list[Place]:
        """Who uses these versions, by inode and index."""
        sql = (
            "SELECT chunk, ino, idx, live FROM (SELECT chunk, ino, idx, 1 AS live FROM map UNION ALL "
            "SELECT chunk, ino, idx, 0 FROM map_old) WHERE chunk IN (SELECT value FROM json_each(?)) "
            "ORDER BY ino, idx, chunk"
        )
        rows = self._all(sql, (json.dumps(list(chunks)),))
        return [Place(ChunkId(row[0]), Ino(row[1]), row[2], bool(row[3])) for row in rows]

    # --- inodes ------------------------------------------------------------------------

    def attr(self, ino: Ino) -> Attr | None:
        rows = self._all(GET, (ino,))
        return to_attr(rows[0][:-1]) if rows else None

    def paths(self, inodes: Collection[Ino]) -> dict[Ino, bytes]:
        """One path from the root for each inode that has a name; others are absent.  Reads all entries."""
        sql = (
            "SELECT ino, parent, name FROM entry WHERE ino IN (SELECT value FROM json_each(?)) "
            "ORDER BY parent DESC, cookie DESC"
        )
        named = {row[0]: (row[1], row[2]) for row in self._all(sql, (json.dumps(list(inodes)),))}
        above: dict[Ino, bytes | None] = {ROOT: b""}
        found = {}
        for ino, (parent, name) in named.items():
            directory = self._path_of_directory(Ino(parent), above)
            if directory is not None:
                found[Ino(ino)] = directory + b"/" + name
        return found | ({ROOT: b"/"} if ROOT in inodes else {})

    def names(self, ino: Ino) -> list[tuple[Ino, bytes]]:
        """Directory and name of each entry that leads to an inode.  Reads all entries."""
        rows = self._all("SELECT parent, name FROM entry WHERE ino = ? ORDER BY parent, cookie", (ino,))
        return [(Ino(row[0]), row[1]) for row in rows]

    def unstored(self) -> list[Ino]:
        """Files that show a version which is not stored, ascending."""
        sql = "SELECT DISTINCT m.ino FROM map m JOIN chunk c ON c.chunk = m.chunk WHERE c.state = 0"
        return [Ino(row[0]) for row in self._all(f"{sql} ORDER BY m.ino")]

    def changed_since(self, image: Path) -> dict[Ino, bool]:
        """Inodes with a name that are not the same in an older image of the table (a file without a log), and
        whether they are new, ascending.  Raises Corrupt where the image is no table."""
        columns = ["mode", "uid", "gid", "nlink", "rdev", "size", "target"]
        columns += [f"{time}_{part}" for time in ("mtime", "ctime", "btime") for part in ("s", "ns")]
        differs = " OR ".join(f"i.{column} IS NOT p.{column}" for column in columns)
        self._all("ATTACH DATABASE ? AS published", (f"file:{quote(str(image))}?mode=ro&immutable=1",))
        try:
            rows = self._all(
                "SELECT i.ino, p.ino IS NULL FROM main.inode i LEFT JOIN published.inode p ON p.ino = i.ino "
                f"WHERE i.nlink > 0 AND (p.ino IS NULL OR {differs}) ORDER BY i.ino"
            )
            return {Ino(row[0]): bool(row[1]) for row in rows}
        finally:
            self._all("DETACH DATABASE published")

    def _path_of_directory(self, ino: Ino, known: dict[Ino, bytes | None]) -> bytes | None:
        """Follows what directories say of their parents; None where that does not end at the root."""
        climbed: list[tuple[Ino, bytes]] = []
        while ino not in known and len(climbed) < DEEPEST:
            sql = (
                "SELECT e.parent, e.name FROM inode i JOIN entry e ON e.parent = i.parent AND e.ino = i.ino "
                "WHERE i.ino = ?"
            )
            rows = self._all(sql, (ino,))
            if not rows:
                known[ino] = None
                break
            climbed.append((ino, rows[0][1]))
            ino = Ino(rows[0][0])
        path = known.get(ino)
        for below, name in reversed(climbed):
            path = None if path is None else path + b"/" + name
            known[below] = path
        return path

    # --- parts -------------------------------------------------------------------------

    def _all(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except schema.UNREADABLE as error:
            raise Corrupt(f"{self.path}: {error}") from error


def _segment_row(row: Row) -> SegmentRow:
    number, state, sound, uuid = row[:4]
    return SegmentRow(number, bytes(uuid), state == 1, to_segment(row[3:]) if sound else None)
