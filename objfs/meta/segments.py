"""Segments, and the step that turns dirty versions into stored ones.

Owns ``segment`` and the location columns of ``chunk``.  Promises that a location names a segment that is
there and not condemned, and that a segment with chunks is neither condemned nor dropped.  Knows no
buckets.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from objfs.errors import Corrupt, StoreError
from objfs.meta.chunks import COLUMNS, from_location, to_chunk
from objfs.meta.database import Database, Row, Value
from objfs.model import (
    Chunk,
    ChunkId,
    Code,
    Move,
    Placed,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
)

PLACED = 0
CONDEMNED = 1

SEGMENT_COLUMNS = "uuid, kind, key_id, k, m, length, cuts, placement, missing, generation"
_INSERT = (
    f"INSERT INTO segment (segment, {SEGMENT_COLUMNS}, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
)
_GET = f"SELECT {SEGMENT_COLUMNS} FROM segment WHERE segment = ?"
_UPDATE = "UPDATE segment SET placement = ?, missing = ?, generation = ? WHERE segment = ?"
_IN_USE = "SELECT 1 FROM segment WHERE segment = ? AND state = 0"
_STORE = (
    "UPDATE chunk SET state = 1, base = NULL, base_size = 0, "
    "segment = ?, position = ?, first_frame = ?, size = ?, "
    "frames = ?, length = ?, identity = ? WHERE chunk = ?"
)
_MOVE = (
    "UPDATE chunk SET segment = ?, position = ?, first_frame = ?, size = ?, "
    "frames = ?, length = ?, identity = ? WHERE chunk = ? AND state = 1 AND segment = ? AND position = ?"
)
_UNUSED = "NOT EXISTS (SELECT 1 FROM chunk c WHERE c.segment = segment.segment)"
_WITHOUT_CHUNKS = (
    f"SELECT segment, {SEGMENT_COLUMNS} FROM segment WHERE state = 0 AND {_UNUSED} ORDER BY segment LIMIT ?"
)
_IDENTITIES = (
    "SELECT c.identity, c.chunk FROM chunk c JOIN segment s ON s.segment = c.segment AND s.state = 0 "
    "WHERE c.state = 1 ORDER BY c.chunk DESC LIMIT ?"
)


_LOST = (
    f"SELECT {COLUMNS} FROM segment s JOIN chunk c ON c.segment = s.segment "
    "WHERE s.missing IS NOT NULL AND length(s.missing) = s.k + s.m AND EXISTS "
    "(SELECT 1 FROM map m WHERE m.ino = c.ino AND m.idx = c.idx AND m.chunk = c.chunk) "
    "ORDER BY c.ino, c.idx, c.chunk LIMIT ?"
)


_SHORT = "missing IS NOT NULL AND state = 0 AND length(missing) < k + m"


Rank = tuple[int, int]
"""How many further losses a segment bears, below 0 where it is not readable, and its number."""
FIRST: Rank = (-256, 0)


def rank(number: SegmentNo, segment: Segment) -> Rank:
    """Where a segment stands among those at risk: lower is worse."""
    return segment.code.m - len(segment.missing), number


class AtRisk(NamedTuple):
    """Segments that wait for shards: how many, the most shards that one of them lacks, their payload in
    bytes, and the number of the oldest."""

    segments: int = 0
    shards: int = 0
    nbytes: int = 0
    oldest: SegmentNo | None = None


class Segments:
    """Rows of segments."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # --- placing -----------------------------------------------------------------------

    def place(self, segment: Segment | None, placed: Iterable[Placed]) -> SegmentNo | None:
        """See the port.  Versions that were freed meanwhile are passed over.

        Raises StoreError, and has changed nothing, when a location names a segment that is gone or condemned.
        """
        with self._db:
            number = None if segment is None else self._insert(self._db.new_segment(), segment)
            self._store(placed, number)
            return number

    def move(self, moves: Iterable[Move]) -> int:
        """Versions get another place, those that still lie where the move says; returns how many did.

        Raises StoreError, and has changed nothing, when a new place is in a segment that is gone or
        condemned.
        """
        moved = 0
        with self._db:
            for move in moves:
                number = move.new.segment
                if self._db.one(_IN_USE, (number,)) is None:
                    raise StoreError(f"chunk {move.chunk}: segment {number} is gone or condemned")
                where = (move.chunk, move.old.segment, move.old.position)
                moved += self._db.run(_MOVE, (*from_location(move.new, number), *where))
        return moved

    def apply_patch(self, segments: Mapping[SegmentNo, Segment], placed: Sequence[Placed]) -> None:
        """Brings in what a manifest says of the chunks frozen at its cut.

        Raises Corrupt when a segment's number belongs to another one here.
        """
        with self._db:
            for number, segment in segments.items():
                known = self._db.one("SELECT uuid FROM segment WHERE segment = ?", (number,))
                if known is None:
                    self._insert(number, segment)
                elif known[0] != segment.uuid:
                    raise Corrupt(
                        f"the manifest's patch calls segment {segment.uuid.hex()} number {number}, which is "
                        f"{known[0].hex()} in the table; recover from an older manifest"
                    )
            self._db.skip_past(segment=max(segments, default=0))
            self._store(placed, None)

    def _store(self, placed: Iterable[Placed], new: SegmentNo | None) -> None:
        known = set() if new is None else {new}
        for item in placed:
            number = item.location.segment or new
            if number not in known:
                if number is None or self._db.one(_IN_USE, (number,)) is None:
                    raise StoreError(
                        f"chunk {item.chunk}: segment {number} is gone or condemned; upload it again"
                    )
                known.add(number)
            if self._db.run(_STORE, (*from_location(item.location, number), item.chunk)):
                self._db.run("DELETE FROM local_dirty WHERE chunk = ?", (item.chunk,))

    def _insert(self, number: SegmentNo, segment: Segment) -> SegmentNo:
        self._db.run(_INSERT, (number, *from_segment(segment)))
        return number

    # --- reading -----------------------------------------------------------------------

    def get(self, number: SegmentNo) -> Segment:
        """Raises StoreError."""
        row = self._db.one(_GET, (number,))
        if row is None:
            raise StoreError(f"segment {number} is not in the inode table")
        return to_segment(row)

    def chunks_in(self, number: SegmentNo) -> list[Chunk]:
        """In order of position."""
        sql = f"SELECT {COLUMNS} FROM chunk c WHERE c.segment = ? ORDER BY c.position, c.chunk"
        return [to_chunk(row) for row in self._db.all(sql, (number,))]

    def recent_identities(self, limit: int) -> list[tuple[bytes, ChunkId]]:
        """Of stored versions, newest first: what deduplication starts with."""
        return [(row[0], ChunkId(row[1])) for row in self._db.all(_IDENTITIES, (limit,))]

    def lost_chunks(self, limit: int) -> list[Chunk]:
        """Live versions that lie nowhere (``Segment.nowhere``), by inode and index."""
        return [to_chunk(row) for row in self._db.all(_LOST, (limit,))]

    def at_risk(self) -> AtRisk:
        """What is stored with fewer shards than its code has; not what is lost, which waits for nothing."""
        row = self._db.one(
            "SELECT count(*), coalesce(max(length(missing)), 0), coalesce(sum(length), 0), min(segment) "
            f"FROM segment WHERE {_SHORT}"
        )
        return AtRisk() if row is None else AtRisk(*row)

    def endangered(self, after: Rank, limit: int) -> list[tuple[SegmentNo, Segment]]:
        """Segments at risk, those that bear the fewest losses first.  ``after``: the rank of the last one
        seen, or ``FIRST``."""
        return self._listed(
            f"SELECT segment, {SEGMENT_COLUMNS} FROM segment WHERE {_SHORT} "
            "AND (m - length(missing), segment) > (?, ?) ORDER BY m - length(missing), segment LIMIT ?",
            (*after, limit),
        )

    # --- changing ----------------------------------------------------------------------

    def update(self, number: SegmentNo, segment: Segment) -> None:
        """New placement, missing shards and generation of a segment (repair).  Raises StoreError."""
        missing = bytes(sorted(segment.missing)) or None
        if not self._db.run(_UPDATE, (bytes(segment.placement), missing, segment.generation, number)):
            raise StoreError(f"segment {number} is not in the inode table")

    def without_chunks(self, limit: int) -> list[tuple[SegmentNo, Segment]]:
        """Placed segments that no version lies in, lowest first."""
        return self._listed(_WITHOUT_CHUNKS, (limit,))

    def condemn(self, numbers: Sequence[SegmentNo], sequence: int) -> list[SegmentNo]:
        """Condemns those without chunks; returns which."""
        sql = f"UPDATE segment SET state = 1, condemned_seq = ? WHERE segment = ? AND state = 0 AND {_UNUSED}"
        with self._db:
            return [number for number in numbers if self._db.run(sql, (sequence, number))]

    def condemned(self) -> list[tuple[SegmentNo, Segment, int]]:
        """With the sequence number of the manifest that condemned each."""
        rows = self._db.all(
            f"SELECT segment, condemned_seq, {SEGMENT_COLUMNS} FROM segment WHERE state = 1 ORDER BY segment"
        )
        return [(row[0], to_segment(row[2:]), row[1]) for row in rows]

    def drop(self, numbers: Sequence[SegmentNo]) -> list[Segment]:
        """Removes the rows of those without chunks; returns what they said."""
        dropped = []
        with self._db:
            for number in numbers:
                row = self._db.one(f"{_GET} AND {_UNUSED}", (number,))
                if row is not None:
                    self._db.run("DELETE FROM segment WHERE segment = ?", (number,))
                    dropped.append(to_segment(row))
        return dropped

    def _listed(self, sql: str, values: Sequence[Value] = ()) -> list[tuple[SegmentNo, Segment]]:
        return [(SegmentNo(row[0]), to_segment(row[1:])) for row in self._db.all(sql, values)]


def from_segment(segment: Segment) -> tuple[Value, ...]:
    """The values of ``SEGMENT_COLUMNS``."""
    code = segment.code
    return (
        segment.uuid,
        int(segment.kind),
        segment.key_id,
        code.k,
        code.m,
        segment.length,
        struct.pack(f">{len(segment.cuts)}Q", *segment.cuts),
        bytes(segment.placement),
        bytes(sorted(segment.missing)) or None,
        segment.generation,
    )


def to_segment(row: Row) -> Segment:
    """A row of ``SEGMENT_COLUMNS``."""
    uuid, kind, key_id, k, m, length, cuts, placement, missing, generation = row
    return Segment(
        uuid,
        SegmentKind(kind),
        key_id,
        Code(k, m),
        length,
        struct.unpack(f">{len(cuts) // 8}Q", cuts),
        tuple(Slot(slot) for slot in placement),
        frozenset(missing or b""),
        generation,
    )
