"""How an inode table of a former schema becomes one of the present.

Owns the steps, one for each number, and their transactions.  Promises that a table is of one number or of the
next, and that what it holds stays.  Knows no queries but its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import sqlite_utils

from objfs.meta.schema import (
    INODE,
    OLD_COOKIES,
    VERSIONED,
    Versioned,
    died_index,
    table_statements,
    trigger_statements,
)

Migration = Callable[[sqlite_utils.Database], None]


def _name_moments(database: sqlite_utils.Database) -> None:
    """1 to 2: snapshots are listed in order, and can go.  Only what one shows is copied, and what none shows
    is found."""
    run = database.conn.execute
    run(OLD_COOKIES)
    for column in ("inodes", "bytes"):
        run(f"ALTER TABLE snapshot ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    run("CREATE INDEX snapshot_generation ON snapshot (generation)")
    run("CREATE TABLE forgotten (generation INTEGER PRIMARY KEY)")
    for table in VERSIONED:
        run(died_index(table))
        _drop_triggers(database, table)
        for statement in trigger_statements(table):
            run(statement)


def _order_copies_by_time(database: sqlite_utils.Database) -> None:
    """2 to 3: inodes that are copied aside lie in the order of their copying, and an index finds them.  Those
    that are there stay in the order of their numbers: to sort them would take memory."""
    run = database.conn.execute
    _drop_triggers(database, INODE)  # a table that they name cannot be renamed without changing them
    run("ALTER TABLE inode_old RENAME TO inode_by_key")
    _, twin, index = table_statements(INODE)
    run(twin)
    run("INSERT INTO inode_old SELECT * FROM inode_by_key")
    run("DROP TABLE inode_by_key")  # and its index, whose name is needed
    for statement in (index, *trigger_statements(INODE)):
        run(statement)


def _drop_triggers(database: sqlite_utils.Database, table: Versioned) -> None:
    run = database.conn.execute
    named = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN (?, ?)"
    for (name,) in run(named, (table.name, f"{table.name}_old")).fetchall():
        run(f"DROP TRIGGER {name}")


MIGRATIONS: Sequence[Migration] = (_name_moments, _order_copies_by_time)
"""What turns schema n into n+1 stands at n-1; each runs in one transaction with the new number."""


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Brings the schema to the present number, one transaction per step; returns how many steps."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    database = sqlite_utils.Database(connection)
    for number, step in enumerate(migrations[version - 1 :], version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            step(database)
            connection.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return max(0, len(migrations) - version + 1)
