"""The present becomes what a moment was: the whole tree, or what is below one path, in one transaction.

Owns the difference between the two as rows, and the change from one to the other.  Promises:

- inodes come back under their numbers, with the chunk versions that they had: rows are copied, no bytes;
- names that are there keep their offsets, names that come back get new ones, and the next offset of a
  directory never goes back, so a listing that goes on meets everything once;
- inodes that only the present has lose their names and are orphans, to be purged as any other;
- it costs what differs, and with a path also a walk over what is below it, now and then.

A path: a directory that was moved out of it is moved back.  A file that has, or got, a name elsewhere is one
file with it: that name shows what was restored too.  Access times are not versioned and stay.  Whose bytes
may still change, and who holds what was replaced, is the caller's care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from objfs.errors import InvalidArgument, NotFound
from objfs.meta.changes import DIRECTORY, TYPE, at, gather
from objfs.meta.database import Database, Value
from objfs.meta.schema import INODE, MAP, WHOLE, XATTR, Versioned
from objfs.model import NS, Ino, Snapshot

_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS inside_then (ino INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS inside_now (ino INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS edit
    (parent INTEGER NOT NULL, name BLOB NOT NULL, now INTEGER, "then" INTEGER, cookie INTEGER,
    PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS link (ino INTEGER PRIMARY KEY, gained INTEGER NOT NULL);
CREATE TEMP TABLE IF NOT EXISTS back (ino INTEGER PRIMARY KEY);
CREATE TEMP TABLE IF NOT EXISTS lost (ino INTEGER PRIMARY KEY)
"""
"""inside_*: what is below the path, and now in directories that were moved out of it.  edit: a name, what it
leads to and what it is to lead to.  link: names that an inode gains by that.  back: inodes whose rows are to
be those of then.  lost: those without a name."""

_FOREVER = 2**63 - 1
_THEN = ":then"
_KEY = "t.parent = c.parent AND t.name = c.name"
_EDITS = (
    "INSERT INTO edit SELECT * FROM (SELECT c.parent, c.name, "
    "(SELECT ino FROM entry t WHERE t.parent = c.parent AND t.name = c.name) AS now, "
    f"({at('t.ino', 'entry', _KEY, _THEN)}) AS was, ({at('t.cookie', 'entry', _KEY, _THEN)}) "
    "FROM changed_entry c WHERE {where}) WHERE now IS NOT was"
)
# What was made since in a directory that was moved out goes with all that is in it.
_WALK_NOW = (
    "INSERT INTO inside_now WITH RECURSIVE below (ino) AS (SELECT :top WHERE :top IS NOT NULL UNION "
    "SELECT d.ino FROM inside_then d CROSS JOIN inode i ON i.ino = d.ino AND i.nlink > 0 "
    f"AND (i.mode & {TYPE}) = {DIRECTORY} UNION "
    "SELECT e.ino FROM below b CROSS JOIN entry e ON e.parent = b.ino) SELECT ino FROM below"
)
_CAME_BELOW = (
    "WITH RECURSIVE up (ino) AS (SELECT :parent UNION SELECT i.parent FROM up CROSS JOIN inode i "
    "ON i.ino = up.ino) SELECT 1 FROM up WHERE ino IN inside_then LIMIT 1"
)
_WALK_THEN = (
    "INSERT INTO inside_then WITH RECURSIVE below (ino) AS (SELECT :top UNION "
    "SELECT e.ino FROM below b CROSS JOIN entry e ON e.parent = b.ino WHERE e.born <= :then UNION "
    "SELECT e.ino FROM below b CROSS JOIN entry_old e ON e.parent = b.ino "
    "WHERE e.born <= :then AND e.died > :then) SELECT ino FROM below"
)
# All that is in directories which are there now and were not below the path.
_EMPTIED = (
    "INSERT OR IGNORE INTO edit SELECT e.parent, e.name, e.ino, NULL, NULL FROM inside_now d "
    "CROSS JOIN entry e ON e.parent = d.ino WHERE d.ino NOT IN inside_then"
)
# Directories of the path that lie elsewhere now: they have one name only.
_MOVED_OUT = (
    "INSERT OR IGNORE INTO edit SELECT e.parent, e.name, e.ino, NULL, NULL FROM inside_then d "
    f"CROSS JOIN inode i ON i.ino = d.ino AND i.nlink > 0 AND (i.mode & {TYPE}) = {DIRECTORY} "
    "CROSS JOIN entry e ON e.parent = i.parent AND e.ino = i.ino "
    "WHERE i.parent NOT IN inside_then AND i.parent NOT IN inside_now AND d.ino IS NOT :now"
)
GAINS = (
    "INSERT INTO link SELECT ino, sum(n) FROM (SELECT now AS ino, -1 AS n FROM edit WHERE now IS NOT NULL "
    'UNION ALL SELECT "then", 1 FROM edit WHERE "then" IS NOT NULL) GROUP BY ino'
)
COPY = "o.born <= :then AND o.died > :then"
_BACK = (
    f"INSERT INTO back SELECT c.ino FROM changed_inode c CROSS JOIN inode_old o ON o.ino = c.ino AND {COPY} "
    "WHERE o.nlink > 0{where}"
)
# A directory has one name, whatever its links.
_LOST = (
    "INSERT INTO lost SELECT l.ino FROM link l CROSS JOIN inode i ON i.ino = l.ino WHERE i.nlink > 0 AND "
    f"CASE (i.mode & {TYPE}) WHEN {DIRECTORY} THEN 1 ELSE i.nlink END + l.gained <= 0"
)
_SUBDIRECTORIES = (
    f"SELECT parent, sum(n) FROM (SELECT e.parent, -1 AS n FROM edit e CROSS JOIN inode i ON i.ino = e.now "
    f"AND (i.mode & {TYPE}) = {DIRECTORY} UNION ALL "
    'SELECT e.parent, 1 FROM edit e CROSS JOIN inode i ON i.ino = e."then" '
    f"AND (i.mode & {TYPE}) = {DIRECTORY}) GROUP BY parent HAVING sum(n) <> 0"
)
_LOOKUP = at("t.ino", "entry", "t.parent = :parent AND t.name = :name", _THEN)
_DIRECTORY = (
    "SELECT e.ino FROM entry e JOIN inode i ON i.ino = e.ino WHERE e.parent = ? AND e.name = ? "
    f"AND (i.mode & {TYPE}) = {DIRECTORY}"
)
_KEYS = "SELECT d.parent, d.name FROM edit d"
_INSERT = (
    'INSERT INTO entry (parent, name, ino, cookie, born) SELECT d.parent, d.name, d."then", '
    "i.next_cookie - 1 + row_number() OVER (PARTITION BY d.parent ORDER BY d.cookie), ? FROM edit d "
    'CROSS JOIN inode i ON i.ino = d.parent WHERE d.now IS NULL AND d."then" IS NOT NULL'
)
_INSERTED = 'SELECT parent, count(*) FROM edit WHERE now IS NULL AND "then" IS NOT NULL GROUP BY parent'
_MOVED = (
    'SELECT d.parent, i.ino FROM edit d CROSS JOIN inode i ON i.ino = d."then" '
    f"AND (i.mode & {TYPE}) = {DIRECTORY} AND i.parent <> d.parent"
)


class Plan(NamedTuple):
    """What is restored: all (no ``name``), or what ``name`` in directory ``parent`` led to in the moment."""

    generation: int
    parent: Ino = Ino(0)
    name: bytes = b""
    then: Ino = Ino(0)
    """What the name led to in the moment."""

    @property
    def whole(self) -> bool:
        return not self.name


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.  ``rewritten`` inodes have the rows that they had, ``lost`` ones have no name any
    more, ``touched`` ones are directories whose entries changed; ``names`` are (directory, name) of all
    that came, went or lead elsewhere."""

    rewritten: tuple[Ino, ...]
    lost: tuple[Ino, ...]
    touched: tuple[Ino, ...]
    names: tuple[tuple[Ino, bytes], ...]


class Restores:
    """Restores in one table."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def plan(self, snapshot: Snapshot, root: Ino, path: bytes) -> Plan:
        """What to restore for a path below directory ``root``; a path without names is all of the volume.
        Raises NotFound where the moment does not have the path, or the present not the directory that it
        lies in."""
        names = names_of(path)
        if not names:
            return Plan(snapshot.generation)
        then = self._then(snapshot, root, names)
        parent = self._directory_now(root, names[:-1], "restore it, or make it first")
        return Plan(snapshot.generation, parent, names[-1], then)

    def _then(self, snapshot: Snapshot, root: Ino, names: Sequence[bytes]) -> Ino:
        """What a path led to.  Raises NotFound."""
        then = root
        for name in names:
            row = self._db.one(_LOOKUP, {"parent": then, "name": name, "then": snapshot.generation})
            if row is None:
                raise NotFound(f"{shown_path(names)} is not in snapshot {_text(snapshot.name)}")
            then = Ino(row[0])
        return then

    def _directory_now(self, root: Ino, names: Sequence[bytes], remedy: str) -> Ino:
        """The directory that a path leads to now.  Raises NotFound."""
        parent = root
        for depth, name in enumerate(names, 1):
            row = self._db.one(_DIRECTORY, (parent, name))
            if row is None:
                raise NotFound(f"{shown_path(names[:depth])} is no directory now: {remedy}")
            parent = Ino(row[0])
        return parent

    def restore(self, plan: Plan, now_ns: int) -> Restored:
        """The generation of the plan is over.  Atomic.  Raises InvalidArgument."""
        with self._db:
            self._prepare(plan)
            done = self._summary()
            before = self._measure()
            self._inodes(plan.generation)
            self._attached(plan.generation)
            self._entries(plan, now_ns)
            self._links(now_ns)
            self._count(before)
            return done

    # --- what differs ------------------------------------------------------------------

    def _begin(self) -> None:
        for statement in _TABLES.split(";"):
            self._db.run(statement)
        for table in ("inside_then", "inside_now", "edit", "link", "back", "lost"):
            self._db.run(f"DELETE FROM {table}")

    def _prepare(self, plan: Plan) -> None:
        self._begin()
        gather(self._db.connection, plan.generation, self._db.generation)
        if plan.whole:
            self._run(_EDITS.format(where="true"), plan)
            self._run(_BACK.format(where=""), plan)
        else:
            self._prepare_path(plan)
        self._db.run(GAINS)
        self._db.run(_LOST)

    def _prepare_path(self, plan: Plan) -> None:
        row = self._db.one("SELECT ino FROM entry WHERE parent = ? AND name = ?", (plan.parent, plan.name))
        now = None if row is None else row[0]
        self._run(_WALK_THEN, plan, top=plan.then)
        if self._db.one(_CAME_BELOW, {"parent": plan.parent}) is not None:
            raise InvalidArgument(
                "the directory of this path lay below it in the snapshot; restore the whole volume, "
                "or another path"
            )
        self._run(_WALK_NOW, plan, top=now)
        if now != plan.then:
            edit = (plan.parent, plan.name, now, plan.then)
            self._db.run("INSERT INTO edit VALUES (?, ?, ?, ?, NULL)", edit)
        self._run(_EDITS.format(where="c.parent IN inside_then"), plan)
        self._run(_EMPTIED, plan)
        self._run(_MOVED_OUT, plan, now=now)
        self._run(_BACK.format(where=" AND c.ino IN inside_then"), plan)

    def _run(self, sql: str, plan: Plan, **values: Value) -> None:
        self._db.run(sql, {"then": plan.generation, **values})

    def _summary(self) -> Restored:
        def inodes(sql: str) -> tuple[Ino, ...]:
            return tuple(Ino(row[0]) for row in self._db.all(sql))

        return Restored(
            rewritten=inodes("SELECT ino FROM back ORDER BY ino"),
            lost=inodes("SELECT ino FROM lost ORDER BY ino"),
            touched=inodes("SELECT DISTINCT parent FROM edit ORDER BY parent"),
            names=tuple(
                (Ino(row[0]), bytes(row[1])) for row in self._db.all("SELECT parent, name FROM edit")
            ),
        )

    # --- rows --------------------------------------------------------------------------

    def _inodes(self, then: int) -> None:
        """The rows of then; links are counted later, from what is there now."""
        self._db.run("DELETE FROM orphan WHERE ino IN back")
        columns = [name for name, _ in INODE.columns]
        kept = {"nlink": "inode.nlink", "next_cookie": "max(inode.next_cookie, excluded.next_cookie)"}
        highest = "(SELECT max(c.next_cookie) FROM inode_old c WHERE c.ino = o.ino)"
        first = {
            "nlink": f"CASE (o.mode & {TYPE}) WHEN {DIRECTORY} THEN 2 ELSE 0 END",
            "next_cookie": highest,
        }
        self._copy(
            INODE,
            then,
            [first.get(name, f"o.{name}") for name in columns],
            [f"{name} = {kept.get(name, f'excluded.{name}')}" for name in columns],
        )
        # What had lost its last name begins as one that never had any.
        self._db.run(
            f"UPDATE inode SET nlink = 2 WHERE ino IN back AND nlink = 0 AND (mode & {TYPE}) = {DIRECTORY}"
        )

    def _attached(self, then: int) -> None:
        """Attributes and chunks of inodes that come back: all of then, and no others."""
        for table in (XATTR, MAP):
            columns = [name for name, _ in table.columns]
            same = " AND ".join(f"o.{name} = t.{name}" for name, _ in table.key)
            self._db.run(
                f"DELETE FROM {table.name} AS t WHERE t.ino IN back AND t.born > :then AND NOT EXISTS "
                f"(SELECT 1 FROM {table.name}_old o WHERE {same} AND {COPY})",
                {"then": then},
            )
            updates = [f"{name} = excluded.{name}" for name in columns]
            self._copy(table, then, [f"o.{name}" for name in columns], updates)

    def _copy(self, table: Versioned, then: int, values: Sequence[str], updates: Sequence[str]) -> None:
        """Rows that were copied aside become rows of the present generation."""
        keys = [name for name, _ in table.key]
        names = ", ".join([*keys, *(name for name, _ in table.columns), "born"])
        picked = ", ".join([*(f"o.{key}" for key in keys), *values, ":born"])
        self._db.run(
            f"INSERT INTO {table.name} ({names}) SELECT {picked} FROM {table.name}_old o "
            f"WHERE o.ino IN back AND {COPY} "
            f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join(updates)}",
            {"then": then, "born": self._db.generation},
        )

    # --- names -------------------------------------------------------------------------

    def _entries(self, plan: Plan, now_ns: int) -> None:
        run = self._db.run
        run(f'DELETE FROM entry WHERE (parent, name) IN ({_KEYS} WHERE d."then" IS NULL)')
        run(
            'UPDATE entry SET ino = (SELECT d."then" FROM edit d WHERE d.parent = entry.parent '
            f"AND d.name = entry.name) WHERE (parent, name) IN ({_KEYS} WHERE d.now IS NOT NULL)"
        )
        run(_INSERT, (self._db.generation,))
        for parent, count in self._db.all(_INSERTED):
            run("UPDATE inode SET next_cookie = next_cookie + ? WHERE ino = ?", (count, parent))
        for parent, ino in self._db.all(_MOVED):
            run("UPDATE inode SET parent = ? WHERE ino = ?", (parent, ino))
        if not plan.whole:
            self._touch(now_ns)

    def _touch(self, now_ns: int) -> None:
        """Directories outside that got or lost a name."""
        when = divmod(now_ns, NS)
        self._db.run(
            "UPDATE inode SET mtime_s = ?, mtime_ns = ?, ctime_s = ?, ctime_ns = ? WHERE ino IN "
            "(SELECT parent FROM edit WHERE parent NOT IN back)",
            (*when, *when),
        )

    def _links(self, now_ns: int) -> None:
        run = self._db.run
        for ino, gained in self._db.all(_SUBDIRECTORIES):
            run("UPDATE inode SET nlink = nlink + ? WHERE ino = ?", (gained, ino))
        run(
            "UPDATE inode SET nlink = nlink + (SELECT l.gained FROM link l WHERE l.ino = inode.ino) "
            "WHERE ino IN (SELECT l.ino FROM link l WHERE l.gained <> 0) "
            f"AND (mode & {TYPE}) <> {DIRECTORY}"
        )
        run("UPDATE inode SET nlink = 0, ctime_s = ?, ctime_ns = ? WHERE ino IN lost", divmod(now_ns, NS))
        run(
            f"INSERT OR REPLACE INTO orphan (ino, keep_from, below) SELECT ino, {WHOLE}, {_FOREVER} FROM lost"
        )

    # --- counts ------------------------------------------------------------------------

    def _measure(self) -> tuple[int, int]:
        row = self._db.one("SELECT count(*), coalesce(sum(held), 0) FROM inode WHERE ino IN back")
        assert row is not None
        return row[0], row[1]

    def _count(self, before: tuple[int, int]) -> None:
        after = self._measure()
        self._db.inodes += after[0] - before[0]
        self._db.bytes += after[1] - before[1]


def names_of(path: bytes) -> list[bytes]:
    """The names that a path is made of."""
    return [name for name in path.split(b"/") if name]


def shown_path(names: Sequence[bytes]) -> str:
    """A path for people."""
    return _text(b"/" + b"/".join(names))


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
