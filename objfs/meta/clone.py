"""A file or a tree once more, under another name: its rows are copied, its chunk versions are shared.

Owns the copying of rows, of the present or of what a snapshot shows.  Promises:

- it is one transaction: the new name and all that is below it are there, or nothing is;
- the copy names the versions that the source names, no byte is copied, and the triggers count them;
- modes, owners, sizes, modification and access times, extended attributes, holes, symlinks and the order of
  directories are those of the source; names of one file within the tree are names of one file in the copy;
- it costs the rows of the tree.

Inodes are new, with new numbers and the present as their time of birth and of their last change.  Access
times of a snapshot are not known: those are the modification times, as reading a snapshot shows them.  Whose
bytes may still change is the caller's care.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from objfs.errors import InvalidArgument, NotFound, TooManyLinks
from objfs.meta.database import Database
from objfs.meta.entries import Entries, check_name
from objfs.meta.schema import ENTRY, INODE, MAP, XATTR, Versioned
from objfs.model import LINK_MAX, NS, ChunkId, Ino, Snapshot

_TABLES = """
CREATE TEMP TABLE IF NOT EXISTS twin
    (place INTEGER PRIMARY KEY, source INTEGER NOT NULL UNIQUE, copy INTEGER);
CREATE TEMP TABLE IF NOT EXISTS named (ino INTEGER PRIMARY KEY, links INTEGER NOT NULL)
"""
"""twin: each inode of the tree and that which copies it, in the order of the walk: a directory before what is
in it.  named: how many names an inode of the copy has there."""

_SHOWN = "o.born <= :then"
_ASIDE = "o.born <= :then AND o.died > :then"
_WALK = (
    "INSERT INTO twin (source) WITH RECURSIVE below (ino) AS (SELECT :top UNION "
    f"SELECT o.ino FROM below b CROSS JOIN entry o ON o.parent = b.ino WHERE {_SHOWN} UNION "
    f"SELECT o.ino FROM below b CROSS JOIN entry_old o ON o.parent = b.ino WHERE {_ASIDE}) "
    "SELECT ino FROM below"
)
_DIRECTORY = "(o.mode & 61440) = 16384"
_PARENT = (
    f"CASE WHEN NOT {_DIRECTORY} THEN 0 WHEN o.ino = :top THEN :parent "
    "ELSE (SELECT above.copy FROM twin above WHERE above.source = o.parent) END"
)
_ATIMES_NOW = (
    "INSERT INTO atime (ino, s, ns) SELECT t.copy, coalesce(a.s, i.btime_s), coalesce(a.ns, i.btime_ns) "
    "FROM twin t CROSS JOIN inode i ON i.ino = t.source LEFT JOIN atime a ON a.ino = i.ino"
)
_ATIMES_THEN = (
    "INSERT INTO atime (ino, s, ns) SELECT i.ino, i.mtime_s, i.mtime_ns "
    "FROM twin t CROSS JOIN inode i ON i.ino = t.copy"
)
_NAMED = (
    "INSERT INTO named SELECT e.ino, count(*) FROM twin t CROSS JOIN entry e ON e.parent = t.copy "
    "GROUP BY e.ino"
)
# A file may have names outside of the tree; a directory's links are those of the directories in it.
_LINKS = (
    "UPDATE inode AS o SET nlink = coalesce((SELECT n.links FROM named n WHERE n.ino = o.ino), 1) "
    f"WHERE o.ino BETWEEN :first AND :last AND o.nlink > 1 AND NOT {_DIRECTORY}"
)
_DIRTY = (
    "SELECT DISTINCT m.chunk FROM twin t CROSS JOIN map m ON m.ino = t.copy "
    "CROSS JOIN chunk c ON c.chunk = m.chunk AND c.state = 0"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What is cloned: ``ino`` as it is now, or as ``snapshot`` shows it."""

    ino: Ino
    snapshot: Snapshot | None = None


@dataclass(frozen=True, slots=True)
class Cloned:
    """What a clone made: its first inode, how many there are, the bytes that they hold; and the versions,
    shared now, that no bucket has yet."""

    ino: Ino
    inodes: int
    held: int
    dirty: tuple[ChunkId, ...]


class Clones:
    """Clones in one table."""

    def __init__(self, database: Database, entries: Entries) -> None:
        self._db = database
        self._entries = entries

    def clone(self, origin: Origin, parent: Ino, name: bytes, now_ns: int) -> Cloned:
        """``name`` in directory ``parent`` is a clone.  Atomic.  Raises NotFound where either is gone,
        Exists, InvalidArgument for a place within what is cloned, NotDirectory, NameTooLong, TooManyLinks."""
        check_name(name)
        with self._db:
            self._walk(origin, parent)
            count = self._count()
            first = self._db.new_inos(count)
            self._db.run("UPDATE twin SET copy = place + ?", (first - 1,))
            self._enter(first, origin, parent, name, now_ns)
            self._copy(origin, parent, now_ns)
            self._links(first, count)
            held = self._held(first, count)
            self._db.inodes += count
            self._db.bytes += held
            return Cloned(first, count, held, tuple(ChunkId(row[0]) for row in self._db.all(_DIRTY)))

    # --- the tree ----------------------------------------------------------------------

    def _walk(self, origin: Origin, parent: Ino) -> None:
        for statement in _TABLES.split(";"):
            self._db.run(statement)
        for table in ("twin", "named"):
            self._db.run(f"DELETE FROM {table}")
        self._require(origin)
        self._db.run(_WALK, {"top": origin.ino, "then": self._then(origin)})
        inside = self._db.one("SELECT 1 FROM twin WHERE source = ?", (parent,)) is not None
        if origin.snapshot is None and inside:
            raise InvalidArgument("a directory cannot be cloned into itself: choose a place outside of it")

    def _require(self, origin: Origin) -> None:
        """Raises NotFound."""
        values = {"ino": origin.ino, "then": self._then(origin)}
        for source, where in _sources(INODE):
            sql = f"SELECT 1 FROM {source} o WHERE o.ino = :ino AND o.nlink > 0 AND {where}"
            if self._db.one(sql, values) is not None:
                return
        raise NotFound(f"inode {origin.ino} has no name any more")

    def _then(self, origin: Origin) -> int:
        """The present is its own moment: nothing that was copied aside is shown in it."""
        return self._db.generation if origin.snapshot is None else origin.snapshot.generation

    def _count(self) -> int:
        row = self._db.one("SELECT count(*) FROM twin")
        assert row is not None
        return int(row[0])

    # --- rows --------------------------------------------------------------------------

    def _copy(self, origin: Origin, parent: Ino, now_ns: int) -> None:
        second, rest = divmod(now_ns, NS)
        now = {"ctime_s": second, "ctime_ns": rest, "btime_s": second, "btime_ns": rest}
        fresh: dict[str, str] = {name: str(value) for name, value in now.items()}
        values = {"then": self._then(origin), "born": self._db.generation}
        top = {"top": origin.ino, "parent": parent}
        self._insert(INODE, "t.copy", "ino", fresh | {"parent": _PARENT}, values | top)
        self._insert(XATTR, "t.copy", "ino", {}, values)
        self._insert(MAP, "t.copy", "ino", {}, values)
        child = {"ino": "(SELECT below.copy FROM twin below WHERE below.source = o.ino)"}
        self._insert(ENTRY, "t.copy", "parent", child, values)
        self._db.run(_ATIMES_NOW if origin.snapshot is None else _ATIMES_THEN)

    def _insert(
        self, table: Versioned, key: str, owner: str, other: dict[str, str], values: dict[str, int]
    ) -> None:
        """The rows of all inodes of the tree again; ``owner`` is the column that names the inode."""
        names = [name for name, _ in (*table.key, *table.columns)]
        picked = [key if name == owner else other.get(name, f"o.{name}") for name in names]
        for source, where in _sources(table):
            self._db.run(
                f"INSERT INTO {table.name} ({', '.join(names)}, born) SELECT {', '.join(picked)}, :born "
                f"FROM twin t CROSS JOIN {source} o ON o.{owner} = t.source WHERE {where} ORDER BY t.place",
                values,
            )

    def _enter(self, ino: Ino, origin: Origin, parent: Ino, name: bytes, now_ns: int) -> None:
        """The one name that leads to the copy."""
        directory = self._entries.living_directory(parent)
        links = 1 if self._is_directory(origin) else 0
        if directory.nlink + links > LINK_MAX:
            raise TooManyLinks(f"directory {parent} has {directory.nlink} links")
        self._entries.add(parent, name, ino, directory.next_cookie)
        self._entries.changed(parent, now_ns, links=links, cookies=1)

    def _is_directory(self, origin: Origin) -> bool:
        values = {"ino": origin.ino, "then": self._then(origin)}
        return any(
            self._db.one(f"SELECT 1 FROM {source} o WHERE o.ino = :ino AND {_DIRECTORY} AND {where}", values)
            for source, where in _sources(INODE)
        )

    def _links(self, first: Ino, count: int) -> None:
        self._db.run(_NAMED)
        self._db.run(_LINKS, {"first": first, "last": first + count - 1})

    def _held(self, first: Ino, count: int) -> int:
        row = self._db.one(
            "SELECT coalesce(sum(held), 0) FROM inode WHERE ino BETWEEN ? AND ?", (first, first + count - 1)
        )
        assert row is not None
        return int(row[0])


def _sources(table: Versioned) -> Iterator[tuple[str, str]]:
    """Where the rows of a moment lie, and which they are."""
    yield table.name, _SHOWN
    yield f"{table.name}_old", _ASIDE
