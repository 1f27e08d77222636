"""The one writing connection to the inode table.

Owns the connection, its pragmas, transactions and the allocation of numbers.  Promises that a
transaction is atomic and joins an outer one, that numbers are never used twice (also after a crash), and
that SQLite's errors come out as those of ``objfs.errors``.  Knows no table but ``volume``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from objfs.durable import sync_directory
from objfs.errors import Corrupt, NoSpace, ObjfsError, PosixError, Unclean, VolumeExists
from objfs.meta import schema
from objfs.meta.migrations import migrate
from objfs.model import ChunkId, Ino, SegmentNo

Value = int | bytes | str | None
Values = Sequence[Value] | Mapping[str, Value]
"""By place, or by name."""
Row = tuple[Any, ...]
"""As sqlite3 gives it; typed where it is unpacked."""
BLOCK = 1024
"""How many numbers one write of the high-water mark covers."""
WAL_SOFT_LIMIT = 64 * 1024 * 1024
"""The size in bytes that the log's file is cut back to when it starts over."""
_CACHE_KIB = 16 * 1024
"""See docs/design/decisions/0013-sixteen-mib-of-pages.md."""
_STATEMENTS = 512

_PRAGMAS = (
    f"PRAGMA page_size = {schema.PAGE_SIZE}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",  # the loop never syncs; see wal.PageLog.sync
    "PRAGMA wal_autocheckpoint = 0",  # backfill is explicit: wal.PageLog.backfill
    f"PRAGMA journal_size_limit = {WAL_SOFT_LIMIT}",
    "PRAGMA secure_delete = OFF",  # zeroing would dirty pages that need not be shipped
    "PRAGMA recursive_triggers = ON",  # REPLACE fires delete triggers; deletions cascade down chunk bases
    "PRAGMA foreign_keys = OFF",
    f"PRAGMA cache_size = -{_CACHE_KIB}",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA trusted_schema = OFF",
)


class Numbers:
    """One kind of number: ``next`` is free, ``limit`` is the mark that the volume's row holds."""

    __slots__ = ("_save", "limit", "next")

    def __init__(self, column: str, start: int) -> None:
        self._save = f"UPDATE volume SET {column} = ?"
        self.next = start
        self.limit = start

    def take(self, database: Database, count: int = 1) -> int:
        """The first of ``count`` numbers in a row.  Inside a transaction only."""
        number = self.next
        if number + count > self.limit:
            self.limit = number + count - 1 + BLOCK
            database.run(self._save, (self.limit,))
        self.next = number + count
        return number

    def skip_to(self, database: Database, number: int) -> None:
        """Nothing below ``number`` is handed out any more.  Inside a transaction only."""
        if number > self.next:
            database.run(self._save, (number,))
            self.next = self.limit = number


class Database:
    """A connection in autocommit mode with explicit transactions; it is its own transaction's context.

    Used by the thread that made it only, unless it is movable: then by one thread at a time.  ``inodes`` and
    ``bytes`` count what the table holds.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection
        self._execute = connection.execute
        self._depth = 0
        self._doomed = False
        self._rollbacks = 0
        self.outlive_writes: list[Callable[[int], None]] = []
        row = connection.execute(
            "SELECT generation, uuid, chunk_size, next_ino, next_chunk, next_segment FROM volume"
        ).fetchone()
        if row is None:
            raise Corrupt(f"{path}: the row of the volume is gone; run objfs fsck --repair")
        self.generation, self.uuid, self.chunk_size = int(row[0]), bytes(row[1]), int(row[2])
        self._ino = Numbers("next_ino", row[3])
        self._chunk = Numbers("next_chunk", row[4])
        self._segment = Numbers("next_segment", row[5])
        self.on_damage: Callable[[str], None] = lambda _reason: None
        """Hears of damage that SQLite meets."""
        self.inodes, self.bytes = 0, 0
        self._before = (0, 0)
        self.recount()

    # --- opening -----------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, uuid: bytes, chunk_size: int, now_ns: int) -> Database:
        """A new, empty table.  Raises VolumeExists when there is a file at ``path``."""
        if path.exists():
            raise VolumeExists(f"{path}: an inode table is there already")
        connection = _connect(path)
        schema.create(connection)
        connection.execute(
            "INSERT INTO volume (one, generation, uuid, chunk_size, created_s, created_ns, "
            "next_ino, next_chunk, next_segment) VALUES (1, 1, ?, ?, ?, ?, 2, 1, 1)",
            (uuid, chunk_size, *divmod(now_ns, 1_000_000_000)),
        )
        return cls(path, connection)

    @classmethod
    def open(cls, path: Path, *, movable: bool = False) -> Database:
        """An existing table, migrated.  Raises Unclean (none there), Corrupt, NewerFormat."""
        if not path.exists():
            raise Unclean(f"{path}: the inode table is missing; recover the volume from its buckets")
        try:
            connection = _connect(path, movable=movable)
            try:
                schema.check_version(connection)
                migrate(connection)
                return cls(path, connection)
            except BaseException:
                connection.close()
                raise
        except schema.UNREADABLE as error:
            raise Corrupt(f"{path}: the inode table is damaged ({error}); run objfs fsck --repair") from error

    def close(self) -> None:
        """Rolls an open transaction back.  SQLite moves its log into the file and removes it."""
        self.connection.close()

    def recount(self) -> None:
        """Counts inodes and bytes anew: one pass over all inodes."""
        row = self.one("SELECT count(*), coalesce(sum(held), 0) FROM inode")
        assert row is not None
        self.inodes, self.bytes = row

    def limit_log(self, nbytes: int) -> None:
        """The log's file is cut back to ``nbytes`` when it starts over."""
        self.connection.execute(f"PRAGMA journal_size_limit = {nbytes:d}")

    # --- statements --------------------------------------------------------------------

    def one(self, sql: str, values: Values = ()) -> Row | None:
        """The first row."""
        try:
            return self._execute(sql, values).fetchone()  # type: ignore[no-any-return]
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def all(self, sql: str, values: Values = ()) -> list[Row]:
        """Every row; the caller's statement bounds them."""
        try:
            return self._execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def run(self, sql: str, values: Values = ()) -> int:
        """Changes rows; returns how many, those of triggers not counted."""
        try:
            return self._execute(sql, values).rowcount
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """The same change for each of ``rows``."""
        try:
            self.connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _fault(self, error: sqlite3.Error) -> ObjfsError:
        """What happened, in our words; whatever the transaction did so far must not be kept."""
        self._doomed = self._depth > 0
        name = getattr(error, "sqlite_errorname", "") or ""
        if name == "SQLITE_FULL":
            return NoSpace(f"{self.path}: no room on the disk of the inode table")
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            reason = (
                f"{self.path}: the inode table is damaged ({error}); unmount, and run objfs fsck --repair"
            )
            self.on_damage(reason)
            return Corrupt(reason)
        return ObjfsError(f"{self.path}: {name} {error}")

    # --- transactions ------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """A number that is another one after every change of a row, by triggers too, and after a rollback."""
        return self.connection.total_changes + self._rollbacks

    def bytes_written(self, before: int) -> None:
        """Since ``changes`` was ``before``, rows changed only as a write of bytes changes them."""
        for outlive in self.outlive_writes:
            outlive(before)

    @property
    def in_transaction(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> None:
        if self._depth == 0:
            try:
                self._execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise self._fault(error) from error
            self._before = (self.inodes, self.bytes)
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth:
            # A PosixError has changed nothing; after anything else the outer one must not commit.
            self._doomed |= kind is not None and not issubclass(kind, PosixError)
        elif kind is None and not self._doomed:
            self._commit()
        else:
            self._roll_back()
            if kind is None:
                raise ObjfsError(f"{self.path}: a part of this transaction had failed; it is rolled back")

    def _commit(self) -> None:
        try:
            self._execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._fault(error) from error

    def _roll_back(self) -> None:
        self._doomed = False
        self._rollbacks += 1
        if self.connection.in_transaction:  # SQLite may have rolled back by itself
            self.connection.rollback()
        self.inodes, self.bytes = self._before
        # The marks may have been rolled back too; numbers already handed out are not used again.
        for numbers in (self._ino, self._chunk, self._segment):
            numbers.limit = numbers.next
        row = self._execute("SELECT generation FROM volume").fetchone()
        self.generation = row[0]

    # --- numbers -----------------------------------------------------------------------

    def new_ino(self) -> Ino:
        return Ino(self._ino.take(self))

    def new_inos(self, count: int) -> Ino:
        """The first of so many numbers in a row."""
        return Ino(self._ino.take(self, count))

    def new_chunk(self) -> ChunkId:
        return ChunkId(self._chunk.take(self))

    def new_segment(self) -> SegmentNo:
        return SegmentNo(self._segment.take(self))

    @property
    def next_chunk(self) -> int:
        """Every version so far has a lower number."""
        return self._chunk.next

    def skip_past(self, *, ino: int = 0, chunk: int = 0, segment: int = 0) -> None:
        """No inode, version or segment gets a number up to these."""
        with self:
            self._ino.skip_to(self, ino + 1)
            self._chunk.skip_to(self, chunk + 1)
            self._segment.skip_to(self, segment + 1)

    def set_generation(self, generation: int) -> None:
        """After damage: the present one is at least the last that a row speaks of."""
        with self:
            self.run("UPDATE volume SET generation = ?", (generation,))
            self.generation = generation

    def skip_numbers(self, gap: int) -> None:
        """Leaves a gap in all numbers: after a recovery the lost part of the history may have used them."""
        with self:
            for numbers in (self._ino, self._chunk, self._segment):
                numbers.skip_to(self, numbers.next + gap)

    def new_generation(self) -> int:
        """Ends the present generation; returns the number of the one that ended."""
        with self:
            self.run("UPDATE volume SET generation = generation + 1")
            self.generation += 1
        return self.generation - 1


def _connect(path: Path, *, movable: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, cached_statements=_STATEMENTS, check_same_thread=not movable
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(pragma)
        # Reading makes sure that the log and its index exist from now on.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        sync_directory(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def settle(path: Path) -> None:
    """After a crash: brings the log into the file and closes both, so that the file alone is the table.

    Reads all of it, so that pages which are none any more are not taken for changes.  Raises Unclean (none
    there), Corrupt, NewerFormat.
    """
    database = Database.open(path)
    try:
        found = database.one("PRAGMA quick_check(1)")
    finally:
        database.close()
    if found != ("ok",):
        what = "" if found is None else f" ({found[0]})"
        raise Corrupt(f"{path}: the inode table is damaged{what}; run objfs fsck --repair")
