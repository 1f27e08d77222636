"""What must hold of chunk versions, their places and segments, one invariant a function.

Each is mended by the function of the same name in ``repair_map``.
"""

from __future__ import annotations

import sqlite3

from objfs.meta.held import LENGTH
from objfs.meta.rule import BEYOND, MALFORMED_SEGMENT, UNSOUND_LOCATION, Check, found


def references(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A chunk version counts exactly what names it."""
    return found(
        connection,
        limit,
        "chunk {0}: refs {1}, but {2} rows name it",
        "WITH named AS (SELECT chunk FROM map UNION ALL SELECT chunk FROM map_old UNION ALL "
        "SELECT base FROM chunk WHERE base IS NOT NULL), "
        "counted AS (SELECT chunk, count(*) AS n FROM named GROUP BY chunk) "
        "SELECT c.chunk, c.refs, coalesce(n, 0) FROM chunk c LEFT JOIN counted ON counted.chunk = c.chunk "
        "WHERE c.refs <> coalesce(n, 0)",
    )


def mapped(connection: sqlite3.Connection, limit: int) -> list[str]:
    """The map leads from regular files to versions that exist."""
    return found(
        connection,
        limit,
        "inode {0}: chunk {1} is version {2}, which does not exist",
        "SELECT ino, idx, chunk FROM (SELECT ino, idx, chunk FROM map "
        "UNION ALL SELECT ino, idx, chunk FROM map_old) m "
        "WHERE NOT EXISTS (SELECT 1 FROM chunk c WHERE c.chunk = m.chunk)",
    ) + found(
        connection,
        limit,
        "chunk {1} of inode {0}: that is no regular file",
        "SELECT m.ino, m.idx FROM map m LEFT JOIN inode i ON i.ino = m.ino "
        "WHERE coalesce(i.mode & 61440, 0) <> 32768",
    )


def beyond(connection: sqlite3.Connection, limit: int) -> list[str]:
    """No chunk lies beyond the end of its file, unless a truncation that goes on has taken it."""
    return found(
        connection,
        limit,
        "inode {0}: chunk {1} lies beyond its size of {2} bytes",
        f"SELECT m.ino, m.idx, i.size FROM map m JOIN inode i ON i.ino = m.ino WHERE {BEYOND}",
    )


def held(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A file that has a name holds what the versions in its map hold.  One of no bytes is stored as one."""
    return found(
        connection,
        limit,
        "inode {0}: holds {1} bytes, but {2} in {3} chunks",
        f"SELECT i.ino, i.held, coalesce(sum({LENGTH}), 0) AS total, count(c.chunk) AS chunks FROM inode i "
        "LEFT JOIN map m ON m.ino = i.ino LEFT JOIN chunk c ON c.chunk = m.chunk WHERE i.nlink > 0 "
        "GROUP BY i.ino HAVING i.held NOT BETWEEN total - chunks AND total",
    )


def bases(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Only dirty versions have a base, and it exists."""
    return found(
        connection,
        limit,
        "chunk {0}: base {1} does not exist, or the version is stored",
        "SELECT c.chunk, c.base FROM chunk c WHERE c.base IS NOT NULL AND "
        "(c.state <> 0 OR NOT EXISTS (SELECT 1 FROM chunk b WHERE b.chunk = c.base))",
    )


def stored(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A stored version lies whole in a segment that is not condemned; a dirty one in none."""
    return found(
        connection,
        limit,
        "chunk {0}: state {1} does not fit its location (segment {2})",
        "SELECT chunk, state, segment FROM chunk c WHERE state NOT IN (0, 1) "
        f"OR (state = 0 AND segment IS NOT NULL) OR (state = 1 AND {UNSOUND_LOCATION})",
    ) + found(
        connection,
        limit,
        "chunk {0}: segment {1} is not there or condemned",
        "SELECT c.chunk, c.segment FROM chunk c LEFT JOIN segment s ON s.segment = c.segment "
        "WHERE c.segment IS NOT NULL AND coalesce(s.state, 1) <> 0",
    )


def segments(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A segment's row is of a possible form; whether it is true is asked of the buckets."""
    return found(
        connection,
        limit,
        "segment {0}: its row means nothing",
        f"SELECT segment FROM segment s WHERE {MALFORMED_SEGMENT} OR s.state NOT IN (0, 1)",
    )


def dirty(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Dirty ranges belong to dirty versions."""
    return found(
        connection,
        limit,
        "chunk {0} has dirty ranges and is not dirty",
        "SELECT DISTINCT d.chunk FROM local_dirty d LEFT JOIN chunk c ON c.chunk = d.chunk "
        "WHERE coalesce(c.state, 1) <> 0",
    )


def freed(connection: sqlite3.Connection, limit: int) -> list[str]:
    """What the cache may drop is in use by nobody."""
    return found(
        connection,
        limit,
        "chunk {0} is in use and listed as freed",
        "SELECT chunk FROM local_freed WHERE chunk IN (SELECT chunk FROM chunk)",
    )


CHECKS: tuple[Check, ...] = (references, mapped, beyond, held, bases, stored, segments, dirty, freed)
