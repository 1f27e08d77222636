"""Which rows changed from one generation to a later one: found from what changed, not by looking at all.

Owns two temporary tables on the connection that asks, ``changed_inode`` and ``changed_entry``: the numbers of
all inodes and the keys of all names that may differ (a few of them may be the same on both sides again).

How they are found.  The first change of an older row copied it aside, so the copies that died in between name
every row that was changed or removed.  A row that only came has left no copy; but a name that came into a
directory changed the directory's row, whose copy says which offset was the next one, and names that came have
that offset or a higher one.  A directory that came is new as a whole.  Attributes and chunks that came
changed the row of their inode.  So no index over generations is needed in the tables that every change
writes: docs/design/decisions/0011-differences-without-an-index.md.
"""

from __future__ import annotations

import sqlite3

DIRECTORY = 0o040000
TYPE = 0o170000

_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS changed_inode (ino INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS changed_entry
    (parent INTEGER NOT NULL, name BLOB NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS fresh_inode (ino INTEGER PRIMARY KEY);
"""


def at(columns: str, table: str, match: str, when: str) -> str:
    """Rows of a versioned table (called ``t``) as of a generation."""
    return (
        f"SELECT {columns} FROM {table} t WHERE {match} AND t.born <= {when} UNION ALL "
        f"SELECT {columns} FROM {table}_old t WHERE {match} AND t.born <= {when} AND t.died > {when}"
    )


def _copies(table: str, columns: str) -> str:
    return f"SELECT {columns} FROM {table}_old WHERE died > :a AND died <= :b AND born <= :a"


_CHANGED_INODES = " UNION ALL ".join(_copies(table, "ino") for table in ("inode", "xattr", "map"))
_CHANGED_ENTRIES = _copies("entry", "parent, name")
# CROSS JOIN: from the few to the many, whatever the planner believes.
_CAME = (
    "SELECT e.parent, e.name FROM changed_inode c CROSS JOIN inode_old d ON d.ino = c.ino AND d.born <= :a "
    f"AND d.died > :a AND (d.mode & {TYPE}) = {DIRECTORY} CROSS JOIN {{table}} e "
    "ON e.parent = d.ino AND e.cookie >= d.next_cookie WHERE e.born > :a AND e.born <= :b{alive}"
)
_ALIVE = " AND e.died > :b"
_NAMED = "SELECT e.ino FROM changed_entry c CROSS JOIN {table} e ON e.parent = c.parent AND e.name = c.name"


def _absent(ino: str) -> str:
    return f"NOT EXISTS ({at('1', 'inode', f't.ino = {ino}', ':a')})"


_FRESH = (
    "WITH RECURSIVE "
    f"named (ino) AS ({_NAMED.format(table='entry')} WHERE e.born <= :b UNION ALL "
    f"{_NAMED.format(table='entry_old')} WHERE e.born <= :b{_ALIVE}), "
    f"fresh (ino) AS (SELECT ino FROM named WHERE {_absent('named.ino')} "
    "UNION SELECT e.ino FROM fresh f CROSS JOIN entry e ON e.parent = f.ino "
    f"WHERE e.born <= :b AND {_absent('e.ino')} "
    "UNION SELECT e.ino FROM fresh f CROSS JOIN entry_old e ON e.parent = f.ino "
    f"WHERE e.born <= :b{_ALIVE} AND {_absent('e.ino')}) "
    "SELECT ino FROM fresh"
)
_IN_FRESH = (
    "SELECT e.parent, e.name FROM fresh_inode f CROSS JOIN {table} e ON e.parent = f.ino WHERE e.born <= :b"
)
_BEHIND = " UNION ALL ".join(
    f"{_NAMED.format(table=table)} WHERE e.born <= {when}{alive}"
    for when in (":a", ":b")
    for table, alive in (("entry", ""), ("entry_old", f" AND e.died > {when}"))
)


def gather(connection: sqlite3.Connection, since: int, until: int) -> None:
    """Fills the two tables with what may differ between generation ``since`` and the later ``until``; the
    present one stands for the present.  Inside a transaction of the caller's.  Raises sqlite3.Error."""
    for statement in _TABLES.split(";"):
        connection.execute(statement)
    for table in ("changed_inode", "changed_entry", "fresh_inode"):
        connection.execute(f"DELETE FROM {table}")
    span = {"a": since, "b": until}
    for table, select in (
        ("changed_inode", _CHANGED_INODES),
        ("changed_entry", _CHANGED_ENTRIES),
        ("changed_entry", _CAME.format(table="entry", alive="")),
        ("changed_entry", _CAME.format(table="entry_old", alive=_ALIVE)),
        ("fresh_inode", _FRESH),
        ("changed_entry", _IN_FRESH.format(table="entry")),
        ("changed_entry", _IN_FRESH.format(table="entry_old") + _ALIVE),
        ("changed_inode", _BEHIND),
    ):
        connection.execute(f"INSERT OR IGNORE INTO {table} {select}", span)
