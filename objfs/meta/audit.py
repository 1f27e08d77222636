"""What must hold in every inode table, one invariant a function.

Owns the list. Each check is a query for what breaks its rule; a finding is one line for a person.
Promises to change nothing and to stop listing after ``LIMIT`` findings of a kind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from objfs.meta.database import Database
from objfs.meta.held import LENGTH
from objfs.meta.schema import VERSIONED
from objfs.model import ROOT

LIMIT = 20
Check = Callable[[sqlite3.Connection], list[str]]
_DIRECTORY = "(mode & 61440) = 16384"
"""S_IFMT and S_IFDIR."""
_NAMED = "WITH named AS (SELECT ino, count(*) AS n, max(parent) AS parent FROM entry GROUP BY ino)"


def _found(connection: sqlite3.Connection, message: str, sql: str) -> list[str]:
    """``message`` filled with each row of ``sql``."""
    return [message.format(*row) for row in connection.execute(f"{sql} LIMIT {LIMIT}")]


def pages(connection: sqlite3.Connection) -> list[str]:
    """The file is a sound database."""
    lines = [row[0] for row in connection.execute(f"PRAGMA integrity_check({LIMIT})")]
    return [] if lines == ["ok"] else [f"database: {line}" for line in lines]


def root(connection: sqlite3.Connection) -> list[str]:
    """There is a root directory, its own parent."""
    row = connection.execute(
        f"SELECT 1 FROM inode WHERE ino = {ROOT} AND parent = {ROOT} AND {_DIRECTORY}"
    ).fetchone()
    return [] if row else [f"inode {ROOT} is not a root directory"]


def entries(connection: sqlite3.Connection) -> list[str]:
    """An entry lies in a living directory and leads to an inode."""
    return _found(
        connection,
        "directory {0}: entry {1!r} leads to inode {2}, which does not exist",
        "SELECT parent, name, ino FROM entry e WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = e.ino)",
    ) + _found(
        connection,
        "entry {1!r} lies in inode {0}, which is no living directory",
        "SELECT parent, name FROM entry e WHERE NOT EXISTS "
        f"(SELECT 1 FROM inode i WHERE i.ino = e.parent AND i.nlink > 0 AND {_DIRECTORY})",
    )


def links(connection: sqlite3.Connection) -> list[str]:
    """nlink of what is no directory is the number of its names."""
    return _found(
        connection,
        "inode {0}: nlink {1}, but {2} names",
        f"{_NAMED} SELECT i.ino, i.nlink, coalesce(n, 0) FROM inode i LEFT JOIN named ON named.ino = i.ino "
        f"WHERE NOT {_DIRECTORY} AND i.nlink <> coalesce(n, 0)",
    )


def directory_links(connection: sqlite3.Connection) -> list[str]:
    """nlink of a living directory is 2 and one for each directory in it."""
    return _found(
        connection,
        "directory {0}: nlink {1}, but {2} directories in it",
        "SELECT ino, nlink, children FROM (SELECT d.ino, d.nlink, "
        "(SELECT count(*) FROM entry e JOIN inode i ON i.ino = e.ino "
        "WHERE e.parent = d.ino AND (i.mode & 61440) = 16384) "
        f"AS children FROM inode d WHERE {_DIRECTORY} AND d.nlink > 0) WHERE nlink <> 2 + children",
    )


def parents(connection: sqlite3.Connection) -> list[str]:
    """A living directory but the root has exactly one name, in the directory that it says."""
    return _found(
        connection,
        "directory {0}: says that it lies in {1}, has {2} names, one of them in {3}",
        f"{_NAMED} SELECT d.ino, d.parent, coalesce(n, 0), named.parent FROM inode d "
        f"LEFT JOIN named ON named.ino = d.ino WHERE {_DIRECTORY} AND nlink > 0 AND d.ino <> {ROOT} "
        "AND (n IS NOT 1 OR named.parent IS NOT d.parent)",
    )


def loops(connection: sqlite3.Connection) -> list[str]:
    """Every living directory is below the root."""
    return _found(
        connection,
        "directory {0} is not below the root",
        f"WITH RECURSIVE below(ino) AS (SELECT {ROOT} UNION SELECT e.ino FROM below b "
        "JOIN entry e ON e.parent = b.ino JOIN inode i ON i.ino = e.ino WHERE (i.mode & 61440) = 16384) "
        f"SELECT ino FROM inode WHERE {_DIRECTORY} AND nlink > 0 AND ino NOT IN (SELECT ino FROM below)",
    )


def cookies(connection: sqlite3.Connection) -> list[str]:
    """Entry offsets are at least 3 and below the directory's next one."""
    return _found(
        connection,
        "directory {0}: entry {1!r} has cookie {2}, the next one is {3}",
        "SELECT e.parent, e.name, e.cookie, i.next_cookie FROM entry e JOIN inode i ON i.ino = e.parent "
        "WHERE e.cookie < 3 OR e.cookie >= i.next_cookie",
    )


def orphans(connection: sqlite3.Connection) -> list[str]:
    """An inode without a name is on the list of orphans, and only such is listed to be purged whole."""
    return _found(
        connection,
        "inode {0} has no name and is no orphan",
        "SELECT ino FROM inode i WHERE nlink <= 0 AND NOT EXISTS "
        "(SELECT 1 FROM orphan o WHERE o.ino = i.ino AND o.keep_from = -1)",
    ) + _found(
        connection,
        "orphan {0} has a name or does not exist",
        "SELECT o.ino FROM orphan o LEFT JOIN inode i ON i.ino = o.ino WHERE i.ino IS NULL OR "
        "(o.keep_from = -1 AND i.nlink > 0)",
    )


def references(connection: sqlite3.Connection) -> list[str]:
    """A chunk version counts exactly what names it."""
    return _found(
        connection,
        "chunk {0}: refs {1}, but {2} rows name it",
        "WITH named AS (SELECT chunk FROM map UNION ALL SELECT chunk FROM map_old UNION ALL "
        "SELECT base FROM chunk WHERE base IS NOT NULL), "
        "counted AS (SELECT chunk, count(*) AS n FROM named GROUP BY chunk) "
        "SELECT c.chunk, c.refs, coalesce(n, 0) FROM chunk c LEFT JOIN counted ON counted.chunk = c.chunk "
        "WHERE c.refs <> coalesce(n, 0)",
    )


def mapped(connection: sqlite3.Connection) -> list[str]:
    """The map leads from regular files to versions that exist."""
    return _found(
        connection,
        "inode {0}: chunk {1} is version {2}, which does not exist",
        "SELECT ino, idx, chunk FROM map m WHERE NOT EXISTS (SELECT 1 FROM chunk c WHERE c.chunk = m.chunk)",
    ) + _found(
        connection,
        "chunk {1} of inode {0}: that is no regular file",
        "SELECT m.ino, m.idx FROM map m LEFT JOIN inode i ON i.ino = m.ino "
        "WHERE coalesce(i.mode & 61440, 0) <> 32768",
    )


def held(connection: sqlite3.Connection) -> list[str]:
    """A file that has a name holds what the versions in its map hold.  One of no bytes is stored as one."""
    return _found(
        connection,
        "inode {0}: holds {1} bytes, but {2} in {3} chunks",
        f"SELECT i.ino, i.held, coalesce(sum({LENGTH}), 0) AS total, count(c.chunk) AS chunks FROM inode i "
        "LEFT JOIN map m ON m.ino = i.ino LEFT JOIN chunk c ON c.chunk = m.chunk WHERE i.nlink > 0 "
        "GROUP BY i.ino HAVING i.held NOT BETWEEN total - chunks AND total",
    )


def bases(connection: sqlite3.Connection) -> list[str]:
    """Only dirty versions have a base, and it exists."""
    return _found(
        connection,
        "chunk {0}: base {1} does not exist, or the version is stored",
        "SELECT c.chunk, c.base FROM chunk c WHERE c.base IS NOT NULL AND "
        "(c.state <> 0 OR NOT EXISTS (SELECT 1 FROM chunk b WHERE b.chunk = c.base))",
    )


def stored(connection: sqlite3.Connection) -> list[str]:
    """A stored version lies whole in a segment that is not condemned; a dirty one in none."""
    return _found(
        connection,
        "chunk {0}: state {1} does not fit its location (segment {2})",
        "SELECT chunk, state, segment FROM chunk WHERE (state = 1) <> (segment IS NOT NULL) "
        "OR (state = 1 AND (position IS NULL OR first_frame IS NULL OR size IS NULL OR identity IS NULL "
        "OR (frames IS NULL) = (length IS NULL)))",
    ) + _found(
        connection,
        "chunk {0}: segment {1} is not there or condemned",
        "SELECT c.chunk, c.segment FROM chunk c LEFT JOIN segment s ON s.segment = c.segment "
        "WHERE c.segment IS NOT NULL AND coalesce(s.state, 1) <> 0",
    )


def dirty(connection: sqlite3.Connection) -> list[str]:
    """Dirty ranges belong to dirty versions."""
    return _found(
        connection,
        "chunk {0} has dirty ranges and is not dirty",
        "SELECT DISTINCT d.chunk FROM local_dirty d LEFT JOIN chunk c ON c.chunk = d.chunk "
        "WHERE coalesce(c.state, 1) <> 0",
    )


def generations(connection: sqlite3.Connection) -> list[str]:
    """Nothing is born after the present generation, and what was kept died after it was born."""
    found = []
    for table in VERSIONED:
        found += _found(
            connection,
            f"{table.name}: a row was born in generation {{0}}, which is to come",
            f"SELECT born FROM {table.name} WHERE born > (SELECT generation FROM volume)",
        )
        found += _found(
            connection,
            f"{table.name}_old: a row lived from generation {{0}} to {{1}}",
            f"SELECT born, died FROM {table.name}_old "
            "WHERE born >= died OR died > (SELECT generation FROM volume)",
        )
    return found


def numbers(connection: sqlite3.Connection) -> list[str]:
    """No number that is in use would be handed out again."""
    found = []
    for column, key, tables in (
        ("next_ino", "ino", ("inode", "inode_old")),
        ("next_chunk", "chunk", ("chunk", "local_freed")),
        ("next_segment", "segment", ("segment",)),
    ):
        for table in tables:
            found += _found(
                connection,
                f"{table} has number {{0}}, volume.{column} is {{1}}",
                f"SELECT t.{key}, v.{column} FROM {table} t, volume v WHERE t.{key} >= v.{column}",
            )
    return found


CHECKS: tuple[Check, ...] = (
    pages,
    root,
    entries,
    links,
    directory_links,
    parents,
    loops,
    cookies,
    orphans,
    references,
    mapped,
    held,
    bases,
    stored,
    dirty,
    generations,
    numbers,
)


def check(connection: sqlite3.Connection) -> list[str]:
    """All findings; empty is well.  Reads every table several times."""
    if found := pages(connection):
        return found  # nothing that a query says can be trusted
    return [line for each in CHECKS[1:] for line in each(connection)]


def check_counts(database: Database) -> list[str]:
    """What ``count`` answers is what the table holds."""
    counted = database.connection.execute("SELECT count(*), coalesce(sum(held), 0) FROM inode").fetchone()
    kept = (database.inodes, database.bytes)
    return [] if counted == kept else [f"counted (inodes, bytes) {counted}, but kept {kept}"]
