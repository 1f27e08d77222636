"""SQLite and git at work, and whether they are whole after a power cut.

Owns what each does and what it may then rely on.  Every one works in a directory of its own, says after each
thing that was acknowledged how many have been, and can judge a copy of the directory by that number alone.
"""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Say = Callable[[int], None]
"""Told how many have been acknowledged."""


class Program(Protocol):
    @property
    def name(self) -> str: ...

    def prepare(self, root: Path) -> None:
        """In an empty directory, before anything is promised."""
        ...

    def work(self, root: Path, say: Say) -> None: ...

    def complaint(self, root: Path, acknowledged: int) -> str:
        """What is wrong with a directory; it is changed by looking."""
        ...


# --- SQLite --------------------------------------------------------------------------------

KEPT = 12
"""Rows that stay; older ones are deleted, so that pages become free and are used again."""


@dataclass(frozen=True)
class Database:
    """Transactions in one journal mode.  ``synchronous`` is what SQLite needs in that mode for a commit to
    be durable when it returns: a rollback journal that is deleted needs EXTRA."""

    mode: str
    synchronous: str
    transactions: int = 60

    @property
    def name(self) -> str:
        return f"sqlite {self.mode}"

    def prepare(self, root: Path) -> None:
        with closing(self._open(root)) as connection:
            connection.execute("CREATE TABLE item (n INTEGER PRIMARY KEY, data BLOB, twin BLOB)")
            connection.execute("CREATE INDEX by_data ON item (data)")

    def work(self, root: Path, say: Say) -> None:
        with closing(self._open(root)) as connection:
            for number in range(1, self.transactions + 1):
                connection.execute("BEGIN IMMEDIATE")
                data = self._data(number)
                connection.execute("INSERT INTO item VALUES (?, ?, ?)", (number, data, data))
                connection.execute("DELETE FROM item WHERE n <= ?", (number - KEPT,))
                connection.execute("COMMIT")
                say(number)

    def complaint(self, root: Path, acknowledged: int) -> str:
        try:
            with closing(sqlite3.connect(root / "database", isolation_level=None)) as connection:
                checked = connection.execute("PRAGMA integrity_check").fetchall()
                rows = connection.execute("SELECT n, data, twin FROM item ORDER BY n").fetchall()
        except sqlite3.DatabaseError as error:
            return f"{self.name}: {error}"
        if checked != [("ok",)]:
            return f"{self.name}: integrity_check says {checked[:3]}"
        last = rows[-1][0] if rows else 0
        if last < acknowledged:
            return f"{self.name}: {acknowledged} transactions were committed, {last} are there"
        wanted = [(n, self._data(n), self._data(n)) for n in range(max(1, last - KEPT + 1), last + 1)]
        return "" if rows == wanted else f"{self.name}: not the rows of {last} transactions"

    def _open(self, root: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(root / "database", isolation_level=None)
        connection.execute(f"PRAGMA journal_mode = {self.mode}")
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 20")
        connection.execute("PRAGMA cache_size = 10")  # pages spill before the commit
        return connection

    def _data(self, number: int) -> bytes:
        generator = random.Random(f"{self.mode} {number}")
        return generator.randbytes(generator.choice((10, 500, 5000, 40_000)))


# --- git -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Repository:
    """Commits, and after every so many of them ``tidy``.  git does not sync the directory in which a branch
    gets its new value, so that is done after each."""

    commits: int = 10
    every: int = 5
    tidy: tuple[str, ...] = ("repack", "-a", "-d", "--quiet")

    @property
    def name(self) -> str:
        return "git"

    def prepare(self, root: Path) -> None:
        _git(root, "init", "--quiet", "--initial-branch=main")
        settings = {"core.fsync": "all", "core.fsyncMethod": "fsync", "gc.auto": "0"}
        settings |= {"user.name": "nobody", "user.email": "nobody@localhost"}
        for name, value in settings.items():
            _git(root, "config", name, value)

    def work(self, root: Path, say: Say) -> None:
        for number in range(1, self.commits + 1):
            (root / f"file{number % 4}").write_bytes(random.Random(f"git {number}").randbytes(3000))
            (root / "count").write_text(f"{number}\n")
            _git(root, "add", "--all")
            _git(root, "commit", "--quiet", "--message", f"{number}")
            _sync_directory(root / ".git" / "refs" / "heads")
            say(number)
            if number % self.every == 0:
                _git(root, *self.tidy)

    def complaint(self, root: Path, acknowledged: int) -> str:
        checked = subprocess.run(
            ["git", "fsck", "--full", "--strict"], cwd=root, capture_output=True, text=True
        )
        if checked.returncode:
            return f"git: fsck ended with {checked.returncode}: {checked.stdout}{checked.stderr}"
        if not acknowledged:
            return ""
        try:
            there = int(_git(root, "rev-list", "--count", "HEAD"))
            count = _git(root, "show", "HEAD:count")
        except subprocess.CalledProcessError as error:
            return f"git: {error} {error.stderr}"
        if there < acknowledged:
            return f"git: {acknowledged} commits were made, {there} are there"
        return "" if int(count) == there else f"git: {there} commits, and the last one is {count}"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


PROGRAMS: tuple[Program, ...] = (
    Database("wal", "FULL"),
    Database("delete", "EXTRA"),
    Database("truncate", "FULL"),
    Database("persist", "FULL"),
    Repository(),
)
