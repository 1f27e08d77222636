"""What must hold in every inode table, one invariant a function.

Owns the list, and the rules of the table as a whole; those of inodes and names are in ``audit_tree``, those
of chunks in ``audit_map``. Each check is a query for what breaks its rule, which bears the function's name; a
finding is one line for a person. Promises to change nothing, to stop listing after so many findings of
a kind as the caller wants, and that a table which cannot be read is a finding and no error.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from objfs.meta import audit_map, audit_tree
from objfs.meta.database import Database
from objfs.meta.rule import Check, found
from objfs.meta.schema import UNREADABLE, VERSIONED

LIMIT = 20


class Breach(NamedTuple):
    """The rule that is broken (the name of its check) and how, in a line for a person."""

    rule: str
    text: str


def pages(connection: sqlite3.Connection, limit: int) -> list[str]:
    """The file is a sound database."""
    lines = [row[0] for row in connection.execute(f"PRAGMA integrity_check({limit:d})")]
    return [] if lines == ["ok"] else [f"database: {line}" for line in lines]


def volume(connection: sqlite3.Connection, limit: int) -> list[str]:
    """The table says which volume it is of, once."""
    row = connection.execute(
        "SELECT 1 FROM volume WHERE length(uuid) = 16 AND chunk_size > 0 "
        "AND chunk_size & (chunk_size - 1) = 0"
    ).fetchone()
    return [] if row else ["the row of the volume is gone or means nothing"]


def generations(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Nothing is born after the present generation, and what was kept died after it was born."""
    listed = found(
        connection,
        limit,
        "snapshot {0!r} is of generation {1}, which is not over",
        "SELECT name, generation FROM snapshot WHERE generation >= (SELECT generation FROM volume)",
    )
    for table in VERSIONED:
        listed += found(
            connection,
            limit,
            f"{table.name}: a row was born in generation {{0}}, which is to come",
            f"SELECT born FROM {table.name} WHERE born > (SELECT generation FROM volume)",
        )
        listed += found(
            connection,
            limit,
            f"{table.name}_old: a row lived from generation {{0}} to {{1}}",
            f"SELECT born, died FROM {table.name}_old "
            "WHERE born >= died OR died > (SELECT generation FROM volume)",
        )
    return listed


def numbers(connection: sqlite3.Connection, limit: int) -> list[str]:
    """No number that is in use would be handed out again."""
    listed = []
    for column, key, tables in (
        ("next_ino", "ino", ("inode", "inode_old")),
        ("next_chunk", "chunk", ("chunk", "local_freed")),
        ("next_segment", "segment", ("segment",)),
    ):
        for table in tables:
            listed += found(
                connection,
                limit,
                f"{table} has number {{0}}, volume.{column} is {{1}}",
                f"SELECT t.{key}, v.{column} FROM {table} t, volume v WHERE t.{key} >= v.{column}",
            )
    return listed


CHECKS: tuple[Check, ...] = (volume, *audit_tree.CHECKS, *audit_map.CHECKS, generations, numbers)


def breaches(connection: sqlite3.Connection, limit: int = LIMIT) -> list[Breach]:
    """All findings, at most ``limit`` of each query; empty is well.  Reads every table several times."""
    try:
        if damaged := pages(connection, limit):
            return [Breach("pages", line) for line in damaged]  # nothing that a query says can be trusted
        return [Breach(each.__name__, line) for each in CHECKS for line in each(connection, limit)]
    except UNREADABLE as error:
        return [Breach("pages", f"database: {error}")]


def check(connection: sqlite3.Connection) -> list[str]:
    """The findings as lines; empty is well."""
    return [breach.text for breach in breaches(connection)]


def check_counts(database: Database) -> list[str]:
    """What ``count`` answers is what the table holds."""
    counted = database.connection.execute("SELECT count(*), coalesce(sum(held), 0) FROM inode").fetchone()
    kept = (database.inodes, database.bytes)
    return [] if counted == kept else [f"counted (inodes, bytes) {counted}, but kept {kept}"]
