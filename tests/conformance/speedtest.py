"""A database put through the statements that SQLite's own speed test is made of.

    python -m tests.conformance.speedtest FILE JOURNAL_MODE

Owns the statements.  Promises that the content after them depends on nothing but them, so that it can be
compared with that of a database in memory, and that two processes have waited for each other's locks.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import sqlite3
import sys
from pathlib import Path

ROWS = 5_000
WRITERS = 2
TURNS = 50
BUSY_S = 60.0


def fill(database: sqlite3.Connection) -> None:
    """Inserts in one transaction and each by itself, with and without an index."""
    draw = random.Random(1)
    rows = [(number, draw.randrange(1_000_000), f"{draw.getrandbits(400):x}") for number in range(ROWS)]
    for table in ("plain", "indexed"):
        database.execute(f"CREATE TABLE {table} (number INTEGER, value INTEGER, text TEXT)")
    database.execute("CREATE INDEX by_value ON indexed (value)")
    database.execute("CREATE INDEX by_text ON indexed (text)")
    for table in ("plain", "indexed"):
        with database:
            database.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)
    for number in range(50):
        with database:
            database.execute("INSERT INTO plain VALUES (?, ?, 'alone')", (ROWS + number, number))


def change(database: sqlite3.Connection) -> None:
    """Updates, deletes, copies, a transaction that is taken back, and a vacuum."""
    for low in range(0, ROWS, 250):
        with database:
            database.execute(
                "UPDATE indexed SET value = value * 2 WHERE number BETWEEN ? AND ?", (low, low + 9)
            )
            database.execute("DELETE FROM plain WHERE number BETWEEN ? AND ?", (low + 50, low + 60))
    with database:
        database.execute("INSERT INTO plain SELECT number, value, text FROM indexed WHERE number % 3 = 0")
    database.execute("BEGIN")
    database.execute("DELETE FROM indexed")
    database.execute("ROLLBACK")
    database.execute("VACUUM")


def content(database: sqlite3.Connection) -> str:
    """One digest of all rows in order."""
    digest = hashlib.blake2b()
    for table in ("plain", "indexed"):
        for row in database.execute(f"SELECT number, value, text FROM {table} ORDER BY 1, 2, 3"):
            digest.update(repr(row).encode())
    return digest.hexdigest()


def count_up(file: str) -> None:
    """One of several writers: each turn reads and writes under the database's lock."""
    database = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
    for _ in range(TURNS):
        database.execute("BEGIN IMMEDIATE")
        (value,) = database.execute("SELECT value FROM counter").fetchone()
        database.execute("UPDATE counter SET value = ?", (value + 1,))
        database.execute("COMMIT")
    database.close()


def compete(file: Path, database: sqlite3.Connection) -> int:
    """What the counter shows when all writers are done."""
    with database:
        database.execute("CREATE TABLE counter (value INTEGER)")
        database.execute("INSERT INTO counter VALUES (0)")
    writers = [multiprocessing.Process(target=count_up, args=(str(file),)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    (value,) = database.execute("SELECT value FROM counter").fetchone()
    return int(value)


def expected() -> str:
    with sqlite3.connect(":memory:") as database:
        fill(database)
        change(database)
        return content(database)


def problems(file: Path, mode: str) -> list[str]:
    """What is wrong with a new database after all of it; empty when nothing is."""
    database = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None)
    (got,) = database.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    fill(database)
    change(database)
    counted = compete(file, database)
    database.close()
    found = [] if got == mode else [f"journal mode {got}, asked for {mode}"]
    found += [] if counted == WRITERS * TURNS else [f"{WRITERS * TURNS - counted} updates were lost"]
    return found + unsound(file)


def unsound(file: Path) -> list[str]:
    """What is wrong with a database that was made here before."""
    database = sqlite3.connect(file, timeout=BUSY_S)
    (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
    same = content(database) == expected()
    database.close()
    found = [] if verdict == "ok" else [f"integrity_check: {verdict}"]
    return found if same else [*found, "other rows than the same statements leave in memory"]


if __name__ == "__main__":
    complaints = problems(Path(sys.argv[1]), sys.argv[2])
    sys.stdout.write("".join(f"{line}\n" for line in complaints))
    sys.exit(1 if complaints else 0)
