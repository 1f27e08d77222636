"""What differs between two inode tables, as far as somebody remembers the older one.

Owns the comparison that a mount needs when it goes on from one moment to the next: of the inodes that the
kernel knows, those whose attributes differ, and the names in them that came, went or lead elsewhere.
Promises to change neither table, to work in SQLite and in bounded memory, and to look at what is known and
not at the whole.  Knows no kernel.

Rows tell: every change of a directory's entries changes the directory's own row, and every write changes its
file's, so the rest is looked at for these alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from objfs.errors import ObjfsError
from objfs.meta.schema import INODE
from objfs.model import Ino

_BATCH = 1024
_TABLES = """
CREATE TABLE known (ino INTEGER PRIMARY KEY);
CREATE TABLE fresh (ino INTEGER PRIMARY KEY);
CREATE TABLE differs (ino INTEGER PRIMARY KEY, quiet INTEGER NOT NULL);
"""
"""known: compared already.  fresh: being compared.  quiet: a file of the same size and mtime in both."""


def _row(side: str) -> str:
    columns = [f"{side}.{name}" for name, _ in INODE.columns]
    return f"({', '.join([*columns, f'{side}_time.s', f'{side}_time.ns'])})"


_NOTE = "INSERT OR IGNORE INTO fresh SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM known WHERE ino = ?1)"
_QUIET = "a.size IS b.size AND a.mtime_s IS b.mtime_s AND a.mtime_ns IS b.mtime_ns"
_COMPARE = (
    f"INSERT INTO differs SELECT k.ino, {_QUIET} FROM fresh k "
    "LEFT JOIN after.inode a ON a.ino = k.ino LEFT JOIN before.inode b ON b.ino = k.ino "
    "LEFT JOIN after.atime a_time ON a_time.ino = k.ino LEFT JOIN before.atime b_time ON b_time.ino = k.ino "
    f"WHERE {_row('a')} IS NOT {_row('b')}"
)


def _on_one_side(select: str) -> str:
    """Rows that only one of the two tables has."""
    after, before = select.format(side="after"), select.format(side="before")
    return f"SELECT * FROM ({after} EXCEPT {before}) UNION SELECT * FROM ({before} EXCEPT {after})"


_INODES = "SELECT ino FROM differs ORDER BY ino"
_REWRITTEN = "SELECT DISTINCT ino FROM ({})".format(
    _on_one_side("SELECT m.ino, idx, chunk FROM {side}.map m JOIN differs d ON d.ino = m.ino WHERE quiet")
)
_NAMES = "SELECT DISTINCT parent, name FROM ({})".format(
    _on_one_side("SELECT parent, name, e.ino FROM {side}.entry e JOIN differs d ON d.ino = e.parent")
)


class Name(NamedTuple):
    """One entry of a directory."""

    parent: Ino
    name: bytes


class Comparison:
    """Two tables side by side.  One thread at a time; blocks while it works."""

    def __init__(self, before: Path, after: Path) -> None:
        """Raises ObjfsError."""
        # The unnamed database is SQLite's own temporary file.
        self._connection = sqlite3.connect("", uri=True, isolation_level=None, check_same_thread=False)
        try:
            with _told_as_ours():
                self._connection.execute("ATTACH ? AS before", (_read_only(before),))
                self._connection.execute("ATTACH ? AS after", (_read_only(after),))
                self._connection.executescript(_TABLES)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Doing it twice is harmless."""
        self._connection.close()

    def note(self, known: Iterable[Ino]) -> None:
        """Compares these inodes, but for those of an earlier call.  Raises ObjfsError."""
        with _told_as_ours(), self._connection:
            run = self._connection.execute
            run("BEGIN")
            self._connection.executemany(_NOTE, ((ino,) for ino in known))
            run(_COMPARE)
            run("INSERT INTO known SELECT ino FROM fresh")
            run("DELETE FROM fresh")

    def inodes(self) -> Iterator[Ino]:
        """Those that differ, or that only one of the tables has."""
        return (Ino(ino) for (ino,) in self._rows(_INODES))

    def rewritten(self) -> Iterator[Ino]:
        """Files with other content though size and mtime are the same: nothing else tells a kernel."""
        return (Ino(ino) for (ino,) in self._rows(_REWRITTEN))

    def names(self) -> Iterator[Name]:
        """Names in these directories that came, went, or lead to another inode."""
        return (Name(Ino(parent), bytes(name)) for parent, name in self._rows(_NAMES))

    def _rows(self, sql: str) -> Iterator[tuple[Any, ...]]:
        with _told_as_ours():
            cursor = self._connection.execute(sql)
            while rows := cursor.fetchmany(_BATCH):
                yield from rows


@contextmanager
def _told_as_ours() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise ObjfsError(f"two inode tables cannot be compared: {error}") from error


def _read_only(path: Path) -> str:
    return f"{path.absolute().as_uri()}?mode=ro"
