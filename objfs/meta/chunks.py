"""The block map: which version of which chunk is at which place of a file.

Owns ``map`` and the life of rows of ``chunk`` up to the moment they are placed. Promises that a version
exists as long as something names it (the triggers of ``schema`` count), and that chunks beyond the end
of a truncate that still goes on are holes for every reader. Knows no bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from objfs.errors import ObjfsError
from objfs.meta import held
from objfs.meta.database import Database, Row
from objfs.meta.recent import Recent
from objfs.model import Chunk, ChunkId, ChunkState, Ino, Location, SegmentNo

COLUMNS = (
    "c.chunk, c.ino, c.idx, c.state, c.base, c.base_size, "
    "c.segment, c.position, c.first_frame, c.size, c.frames, c.length, c.identity"
)
OF_MAP = COLUMNS.replace("c.ino", "m.ino")
"""Of a version found at a place of a file: several files may name it, and this is the one that is meant."""
LOCATION_COLUMNS = "segment, position, first_frame, size, frames, length, identity"
# A row of map is dead when a truncate that still goes on has taken it.
_LIVE = (
    "NOT EXISTS (SELECT 1 FROM orphan o WHERE o.ino = m.ino AND o.keep_from >= 0 "
    "AND o.keep_from <= m.idx AND o.below > m.chunk)"
)
_AT = (
    f"SELECT {OF_MAP} FROM map m JOIN chunk c ON c.chunk = m.chunk WHERE m.ino = ? AND m.idx = ? AND {_LIVE}"
)
_BETWEEN = (
    f"SELECT {OF_MAP} FROM map m JOIN chunk c ON c.chunk = m.chunk "
    f"WHERE m.ino = ? AND m.idx BETWEEN ? AND ? AND {_LIVE} ORDER BY m.idx LIMIT ?"
)
_GET = f"SELECT {COLUMNS} FROM chunk c WHERE c.chunk = ?"
_DIRTY = f"SELECT {COLUMNS} FROM chunk c WHERE c.state = 0 ORDER BY c.chunk"
_DIRTY_IDS = "SELECT chunk FROM chunk WHERE state = 0 ORDER BY chunk"
_SHARED = (
    "SELECT c.chunk FROM chunk c WHERE c.state = 0 AND (c.refs > 1 OR NOT EXISTS "
    "(SELECT 1 FROM map m WHERE m.ino = c.ino AND m.idx = c.idx AND m.chunk = c.chunk)) ORDER BY c.chunk"
)
_BEGIN = "INSERT INTO chunk (chunk, ino, idx, state, base, base_size) VALUES (?, ?, ?, 0, ?, ?)"
_MAP = "INSERT INTO map (ino, idx, chunk, born) VALUES (?, ?, ?, ?) ON CONFLICT (ino, idx) "
_FILL = _MAP + "DO NOTHING"
_REPLACE = _MAP + "DO UPDATE SET chunk = excluded.chunk"


def to_chunk(row: Row) -> Chunk:
    """A row of ``COLUMNS``."""
    chunk, ino, idx, state, base, base_size, segment, position, first, size, frames, length, identity = row
    location = None
    if segment is not None:
        lengths = (length,) if frames is None else struct.unpack(f">{len(frames) // 4}I", frames)
        location = Location(segment, position, first, lengths, size, identity)
    return Chunk(chunk, ino, idx, _STATES[state], location, base, base_size)


_STATES = {int(state): state for state in ChunkState}


def from_location(location: Location, segment: SegmentNo) -> tuple[int | bytes | None, ...]:
    """The values of ``LOCATION_COLUMNS``."""
    lengths = location.frames
    frames = struct.pack(f">{len(lengths)}I", *lengths) if len(lengths) != 1 else None
    length = lengths[0] if frames is None else None
    return (
        segment,
        location.position,
        location.first_frame,
        location.size,
        frames,
        length,
        location.identity,
    )


class Chunks:
    """Versions and their places."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._recent: Recent[tuple[Ino, int], Chunk] = Recent(database)
        self._recent.outliving_writes()

    def at(self, ino: Ino, index: int) -> Chunk | None:
        """The live version; None is a hole."""
        known = self._recent.get((ino, index))
        if known is not None:
            return known
        row = self._db.one(_AT, (ino, index))
        return None if row is None else self._recent.keep((ino, index), to_chunk(row))

    def between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        """Live versions, ascending."""
        return [to_chunk(row) for row in self._db.all(_BETWEEN, (ino, first, last, limit))]

    def get(self, chunk: ChunkId) -> Chunk | None:
        """None when it was freed."""
        row = self._db.one(_GET, (chunk,))
        return None if row is None else to_chunk(row)

    def dirty(self) -> list[Chunk]:
        """Oldest first."""
        return [to_chunk(row) for row in self._db.all(_DIRTY)]

    def dirty_ids(self) -> list[ChunkId]:
        """Oldest first."""
        return [ChunkId(row[0]) for row in self._db.all(_DIRTY_IDS)]

    def shared(self) -> list[ChunkId]:
        """Dirty versions that not only their own place in their own file names, oldest first."""
        return [ChunkId(row[0]) for row in self._db.all(_SHARED)]

    def begin(self, ino: Ino, index: int, base: ChunkId | None, base_size: int) -> Chunk:
        """Raises ObjfsError when the base is gone."""
        with self._db:
            if base is not None and self._db.one("SELECT 1 FROM chunk WHERE chunk = ?", (base,)) is None:
                raise ObjfsError(f"chunk {base}, base of a new version of inode {ino}, is gone")
            chunk = self._db.new_chunk()
            self._db.run(_BEGIN, (chunk, ino, index, base, base_size))
            place = (ino, index, chunk, self._db.generation)
            if base is not None:
                self._db.run(_REPLACE, place)
            elif not self._db.run(_FILL, place):  # no hole: what a truncate has left for later is there
                held.without(self._db, ino, index)
                self._db.run(_REPLACE, place)
            return Chunk(chunk, ino, index, ChunkState.DIRTY, None, base, base_size)

    # --- freed versions ----------------------------------------------------------------

    def freed(self, limit: int) -> list[ChunkId]:
        """Lowest first."""
        rows = self._db.all("SELECT chunk FROM local_freed ORDER BY chunk LIMIT ?", (limit,))
        return [ChunkId(row[0]) for row in rows]

    def forget_freed(self, chunks: Sequence[ChunkId]) -> None:
        with self._db:
            self._db.many("DELETE FROM local_freed WHERE chunk = ?", [(chunk,) for chunk in chunks])
