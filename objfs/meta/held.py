"""How many bytes the chunks of each file hold: what stat(2) shows as blocks.

Owns ``inode.held``, the sum of the lengths of the versions in the file's map, holes before them in their
chunk included.  Promises that a change costs no look at chunks that stay: whoever writes says by how much a
chunk grew, whoever clips or removes subtracts what goes.  Counts anew only after a power cut.  A version of
no bytes leaves the map: stored, it would be one byte, which nobody has added and a truncate would subtract.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from objfs.meta.database import Database
from objfs.model import ChunkId, Ino

LENGTH = (
    "coalesce(c.size, max(c.base_size, coalesce("
    "(SELECT max(d.offset + d.length) FROM local_dirty d WHERE d.chunk = c.chunk), 0)))"
)
"""Where the bytes of version ``c`` end."""
_ADD = "UPDATE inode SET held = held + ? WHERE ino = ?"
_BEYOND = (
    f"SELECT coalesce(sum(length), 0) FROM (SELECT {LENGTH} AS length FROM map m "
    "JOIN chunk c ON c.chunk = m.chunk WHERE m.ino = ? AND m.idx >= ? AND m.chunk < ? ORDER BY m.idx LIMIT ?)"
)
_AT = f"SELECT {LENGTH} FROM map m JOIN chunk c ON c.chunk = m.chunk WHERE m.ino = ? AND m.idx = ?"
_OF = f"SELECT c.ino, {LENGTH} FROM chunk c WHERE c.chunk = ?"
_MISSED = (
    f"SELECT coalesce(sum({LENGTH}), 0) - i.held FROM inode i LEFT JOIN map m ON m.ino = i.ino "
    "LEFT JOIN chunk c ON c.chunk = m.chunk WHERE i.ino = ?"
)
_EMPTY = (
    "DELETE FROM map WHERE ino = ?1 AND chunk IN (SELECT c.chunk FROM map m "
    f"JOIN chunk c ON c.chunk = m.chunk WHERE m.ino = ?1 AND c.state = 0 AND {LENGTH} = 0)"
)
_EMPTIED = f"DELETE FROM map WHERE chunk IN (SELECT c.chunk FROM chunk c WHERE c.chunk = ? AND {LENGTH} = 0)"


def add(database: Database, ino: Ino, nbytes: int) -> None:
    """The file's chunks hold so many bytes more, or fewer."""
    if nbytes:
        database.run(_ADD, (nbytes, ino))
        database.bytes += nbytes


def without_beyond(database: Database, ino: Ino, index: int, below: int, limit: int) -> None:
    """The first ``limit`` versions under ``below`` from chunk ``index`` on are about to go."""
    row = database.one(_BEYOND, (ino, index, below, limit))
    assert row is not None
    add(database, ino, -row[0])


def without(database: Database, ino: Ino, index: int) -> None:
    """The version at one place is about to be replaced by one that shows nothing of it."""
    row = database.one(_AT, (ino, index))
    add(database, ino, 0 if row is None else -row[0])


@contextmanager
def clipping(database: Database, chunk: ChunkId) -> Iterator[None]:
    """What a live version loses inside, its file no longer holds; one that shows nothing then is a hole."""
    before = database.one(_OF, (chunk,))
    yield
    after = database.one(_OF, (chunk,))
    if before is not None and after is not None:
        add(database, before[0], after[1] - before[1])
        if not after[1]:
            database.run(_EMPTIED, (chunk,))


def count_anew(database: Database, ino: Ino) -> None:
    """From the rows themselves: after some of them were lost."""
    database.run(_EMPTY, (ino,))
    row = database.one(_MISSED, (ino,))
    add(database, ino, 0 if row is None else row[0])
