"""How a rule of the inode table is asked: a query for what breaks it.

Owns the shape of a check and the pieces of SQL that several rules share.  A check is a function of a
connection and of how many findings are wanted of each query; its name is the rule's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

Check = Callable[[sqlite3.Connection, int], list[str]]

DIRECTORY = "(mode & 61440) = 16384"
"""S_IFMT and S_IFDIR."""
TYPES = "(4096, 8192, 16384, 24576, 32768, 40960, 49152)"
"""What ``mode & S_IFMT`` may be."""
NAMED = "WITH named AS (SELECT ino, count(*) AS n, max(parent) AS parent FROM entry GROUP BY ino)"
BEYOND = (
    "m.idx * (SELECT chunk_size FROM volume) >= i.size AND NOT EXISTS (SELECT 1 FROM orphan o "
    "WHERE o.ino = m.ino AND (o.keep_from = -1 OR (o.keep_from <= m.idx AND o.below > m.chunk)))"
)
"""Row ``m`` of map lies beyond the end of its file ``i``, and no work that goes on will remove it."""
UNSOUND_LOCATION = (
    "(c.segment IS NULL OR c.position IS NULL OR c.first_frame IS NULL OR c.size IS NULL "
    "OR c.identity IS NULL OR (c.frames IS NULL) = (c.length IS NULL))"
)
"""Version ``c`` does not say all of where it lies."""
MALFORMED_SEGMENT = (
    "(length(s.uuid) <> 16 OR s.kind NOT IN (1, 2, 3) OR s.k NOT BETWEEN 1 AND 32 "
    "OR s.m NOT BETWEEN 0 AND 16 OR length(s.cuts) <> 8 * (s.k + 1) "
    "OR length(s.placement) <> s.k + s.m OR s.length < 1)"
)
"""Row ``s`` of segment is of no possible form."""


def found(connection: sqlite3.Connection, limit: int, message: str, sql: str) -> list[str]:
    """``message`` filled with each row of ``sql``."""
    return [message.format(*row) for row in connection.execute(f"{sql} LIMIT {limit:d}")]
