"""What lies in the trash: names that lead nowhere now, as the snapshots of the trash still show them.

Owns the meaning of "deleted".  A name counts once it went, while a snapshot of the trash showed it, and the
inode had lost all its names by the end of that generation and has none now.  So what was renamed does not
count, nor what was brought back.  Told is the uppermost of what went together: a directory stands for all
that went with it.

Over a connection of its own, for a worker; reads the copies of all names that changed since the oldest such
snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from objfs.errors import NotFound
from objfs.meta.changes import DIRECTORY, TYPE, at
from objfs.meta.diff import TYPES
from objfs.meta.moment import Key, Paths
from objfs.meta.restore import names_of, shown_path
from objfs.meta.snapshots import COLUMNS, IS_TRASH, to_snapshot
from objfs.meta.undelete import LINKED
from objfs.meta.view import TableView
from objfs.model import ROOT, Ino, Snapshot

_LISTED = f"SELECT {COLUMNS} FROM snapshot WHERE {IS_TRASH} ORDER BY generation DESC"
_BIN = "CREATE TEMP TABLE bin (generation INTEGER PRIMARY KEY)"
_NAMELESS = "NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = {ino} AND i.nlink > 0)"
_GONE = (
    "WITH gone AS (SELECT (SELECT max(generation) FROM bin WHERE generation < o.died) AS moment, "
    f"o.parent, o.name, o.ino, o.born FROM entry_old o WHERE o.died > ? AND {_NAMELESS.format(ino='o.ino')} "
    "AND NOT EXISTS (SELECT 1 FROM inode_old i WHERE i.ino = o.ino AND i.born <= o.died AND i.died > o.died "
    "AND i.nlink > 0)) "
    "SELECT g.moment, g.parent, g.name, g.ino, i.mode, i.size FROM gone g CROSS JOIN inode_old i "
    "ON i.ino = g.ino AND i.born <= g.moment AND i.died > g.moment WHERE g.moment >= g.born"
)
_LOOKUP = at("t.ino", "entry", "t.parent = :parent AND t.name = :name", ":then")
_DIRECTORY = at("1", "inode", "t.ino = :ino", ":then")


class Deleted(NamedTuple):
    """One thing in the trash.  ``size`` is in bytes, of all that went with it; ``names`` counts those.
    ``snapshot`` shows it last.  ``taken``: something has its path now."""

    path: bytes
    type: str
    size: int
    names: int
    snapshot: Snapshot
    taken: bool


@dataclass(slots=True)
class _Gone:
    """A name that went."""

    key: Key
    ino: Ino
    mode: int
    size: int
    names: int = 1

    @property
    def is_dir(self) -> bool:
        return (self.mode & TYPE) == DIRECTORY


class TrashView(TableView):
    """One table.  Blocking."""

    def deleted(self, below: bytes = b"/", root: Ino = ROOT) -> list[Deleted]:
        """All that was deleted at or below a path, by path, and the newest first where several had it."""
        self._all("BEGIN")
        try:
            found = [one for one in self._deleted(root) if _inside(one.path, below.rstrip(b"/"))]
        finally:
            self._all("ROLLBACK")
        return sorted(found, key=lambda one: (one.path, -one.snapshot.generation))

    def moment_of(self, path: bytes, root: Ino = ROOT) -> Snapshot:
        """The newest snapshot that shows at a path what has no name now; without one, a file that had other
        names, and has one of them.  Raises NotFound."""
        link: Snapshot | None = None
        now = self._now(path, root)
        for moment in self._moments():
            ino = self._then(path, root, moment.generation)
            if ino is None or ino == now:
                continue
            if self._all(f"SELECT {_NAMELESS.format(ino='?')}", (ino,))[0][0]:
                return moment
            if link is None and self._linked(ino, moment.generation):
                link = moment
        if link is None:
            raise NotFound(f"{shown_path(names_of(path))} is not in the trash")
        return link

    # --- inside ------------------------------------------------------------------------

    def _moments(self) -> list[Snapshot]:
        """Newest first."""
        return [to_snapshot(row) for row in self._all(_LISTED)]

    def _deleted(self, root: Ino) -> Iterator[Deleted]:
        moments = {one.generation: one for one in self._moments()}
        if not moments:
            return
        self._all(_BIN)
        self._connection.executemany("INSERT INTO bin VALUES (?)", [(number,) for number in moments])
        by_moment: dict[int, list[_Gone]] = defaultdict(list)
        for moment, parent, name, ino, mode, size in self._all(_GONE, (min(moments),)):
            by_moment[moment].append(_Gone(Key(Ino(parent), name), Ino(ino), mode, size))
        for moment, gone in by_moment.items():
            tops = _uppermost(gone)
            for path, one in self._called(tops, moment, root):
                kind = TYPES.get(one.mode & TYPE, "unknown")
                yield Deleted(
                    path, kind, one.size, one.names, moments[moment], self._now(path, root) is not None
                )

    def _called(self, tops: list[_Gone], moment: int, root: Ino) -> Iterator[tuple[bytes, _Gone]]:
        """Those that lay below ``root``, with their paths."""
        if not self._values(_DIRECTORY, ino=root, then=moment):
            return
        paths = Paths(self._connection, moment).paths([one.key for one in tops], root)
        for one in tops:
            if one.key in paths:
                yield paths[one.key], one

    def _now(self, path: bytes, root: Ino) -> Ino | None:
        ino = root
        for name in names_of(path):
            found = self._all("SELECT ino FROM entry WHERE parent = ? AND name = ?", (ino, name))
            if not found:
                return None
            ino = Ino(found[0][0])
        return ino

    def _then(self, path: bytes, root: Ino, generation: int) -> Ino | None:
        ino = root
        for name in names_of(path):
            found = self._values(_LOOKUP, parent=ino, name=name, then=generation)
            if not found:
                return None
            ino = Ino(found[0])
        return ino

    def _linked(self, ino: Ino, generation: int) -> bool:
        return bool(self._values(f"SELECT {LINKED.format(ino=':ino')}", ino=ino, then=generation)[0])

    def _values(self, sql: str, **values: int | bytes) -> list[int]:
        """The first column."""
        return [row[0] for row in self._connection.execute(sql, values)]


def _uppermost(gone: list[_Gone]) -> list[_Gone]:
    """What went in no directory that went too; each with the sizes and the number of what it held."""
    directories = {one.ino: one for one in gone if one.is_dir}
    tops = [one for one in gone if one.key.parent not in directories]
    for one in gone:
        top = _top(one, directories)
        if top is not one:
            top.size += one.size
            top.names += 1
    return tops


def _top(one: _Gone, directories: Mapping[Ino, _Gone]) -> _Gone:
    while one.key.parent in directories:
        one = directories[one.key.parent]
    return one


def _inside(path: bytes, below: bytes) -> bool:
    return path == below or path.startswith(below + b"/")
