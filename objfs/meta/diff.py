"""What differs between two moments of the tree: by path, and by what about it.

Owns the meaning of a difference.  Names are told first: a name is added or removed, or an inode that lost one
and got another is renamed.  Another inode of the same type under the same name counts as a change of what is
there, because that is how editors save.  Then what is the same inode on both sides: changed in content, or in
attributes alone.

Promises to change nothing, and to cost what the changes cost, with two exceptions: the directories on the way
to a change are listed once, and where files were changed in place one pass over all names finds what they
are called, because no index leads from a file to its names.  Blocks while it works; for a worker.

Not told, because they follow from the rest: link counts, change times, and the times of directories.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from objfs.errors import Corrupt
from objfs.meta import schema
from objfs.meta.changes import at, gather
from objfs.meta.moment import InodeRow, Key, Moment
from objfs.model import ROOT, Ino

_KEY = "t.parent = c.parent AND t.name = c.name"
_NAMES = (
    f"SELECT * FROM (SELECT c.parent, c.name, ({at('t.ino', 'entry', _KEY, ':a')}) AS x, "
    f"({at('t.ino', 'entry', _KEY, ':b')}) AS y FROM changed_entry c) WHERE x IS NOT y"
)
TYPES: Mapping[int, str] = {
    0o100000: "file",
    0o040000: "directory",
    0o120000: "symlink",
    0o010000: "fifo",
    0o140000: "socket",
    0o020000: "character device",
    0o060000: "block device",
}


class ChangeKind(StrEnum):
    """What happened to a name, or to what is under it."""

    ADDED = "added"
    REMOVED = "removed"
    RENAMED = "renamed"
    MODIFIED = "modified"
    """Its content."""
    METADATA = "metadata"
    """Its attributes alone."""


class Change(NamedTuple):
    """One difference.  ``path`` is that of the later moment, of the earlier one for what is removed; both
    begin with a slash.  ``old_path`` is set where the path was another.  ``size`` is the size in bytes where
    the thing is on that side.  ``fields`` says what else differs: content, mode, owner, mtime, xattrs."""

    kind: ChangeKind
    path: bytes
    old_path: bytes | None
    type: str
    ino: Ino
    old_size: int | None
    size: int | None
    fields: tuple[str, ...] = ()


_Found = tuple[ChangeKind, Key | None, Key | None, tuple[str, ...]]
"""The kind, the key on the earlier and on the later side, the fields."""


class Difference:
    """Two moments of the table at ``path``, by generation.  ``until`` None is the present as it is when
    ``changes`` is called."""

    def __init__(self, path: Path, since: int, until: int | None, root: Ino = ROOT) -> None:
        """Of what lies below directory ``root``; paths begin there."""
        self._path = path
        self._root = root
        self._since = since
        self._until = until
        self.connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    def close(self) -> None:
        """Doing it twice is harmless."""
        self.connection.close()

    def __enter__(self) -> Difference:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def changes(self, below: bytes = b"/") -> list[Change]:
        """All of them at or below a path, in the order of paths.  Raises Corrupt."""
        try:
            self.connection.execute("BEGIN")
            try:
                return sorted(self._found(below.rstrip(b"/")), key=lambda change: (change.path, change.kind))
            finally:
                self.connection.execute("ROLLBACK")
        except schema.UNREADABLE as error:
            raise Corrupt(f"{self._path}: {error}") from error

    def _found(self, below: bytes) -> Iterator[Change]:
        until = self._until
        if until is None:
            until = int(self.connection.execute("SELECT generation FROM volume").fetchone()[0])
        gather(self.connection, self._since, until)
        before, after = Moment(self.connection, self._since), Moment(self.connection, until)
        comparison = _Names(self.connection, before, after)
        found = list(comparison.found())
        old_paths = before.paths([old for _, old, _, _ in found if old is not None], self._root)
        new_paths = after.paths([new for _, _, new, _ in found if new is not None], self._root)
        for kind, old, new, fields in found:
            was = None if old is None else old_paths.get(old)
            now = None if new is None else new_paths.get(new)
            if any(path is not None and _inside(path, below) for path in (was, now)):
                yield comparison.describe(kind, (old, was), (new, now), fields)


class _Names:
    """Which names came, went and moved, and what changed behind those that stayed."""

    def __init__(self, connection: sqlite3.Connection, before: Moment, after: Moment) -> None:
        self.connection = connection
        self._before = before
        self._after = after
        self._inodes: dict[tuple[Key, int], Ino] = {}
        """(key, side) -> what it led to."""

    def found(self) -> Iterator[_Found]:
        went, came = self._moves()
        told: dict[Ino, int] = defaultdict(int)
        removed: dict[Key, Ino] = {}
        added: dict[Key, Ino] = {}
        for ino in went.keys() | came.keys():
            old, new = sorted(went[ino]), sorted(came[ino])
            pairs = min(len(old), len(new)) if self._stays(ino) else 0
            for key, target in zip(old[:pairs], new[:pairs], strict=True):
                yield ChangeKind.RENAMED, key, target, self._differs(ino, ino)
            removed |= dict.fromkeys(old[pairs:], ino)
            added |= dict.fromkeys(new[pairs:], ino)
            told[ino] = len(new)
        yield from self._one_sided(removed, added)
        yield from self._in_place(told)

    def _moves(self) -> tuple[dict[Ino, list[Key]], dict[Ino, list[Key]]]:
        """Keys that an inode lost, and that it got."""
        went: dict[Ino, list[Key]] = defaultdict(list)
        came: dict[Ino, list[Key]] = defaultdict(list)
        span = {"a": self._before.when, "b": self._after.when}
        for parent, name, old, new in self.connection.execute(_NAMES, span):
            for ino, keys, side in ((old, went, 0), (new, came, 1)):
                if ino is not None:
                    keys[ino].append(Key(parent, name))
                    self._inodes[Key(parent, name), side] = ino
        return went, came

    def _stays(self, ino: Ino) -> bool:
        return ino in self._before.rows and ino in self._after.rows

    def _one_sided(self, removed: dict[Key, Ino], added: dict[Key, Ino]) -> Iterator[_Found]:
        for key, ino in removed.items():
            other = added.get(key)
            if other is None or self._before.rows[ino].type != self._after.rows[other].type:
                yield ChangeKind.REMOVED, key, None, ()
                continue
            del added[key]
            fields = self._differs(ino, other)
            if fields:
                yield _kind(fields), key, key, fields
        for key in added:
            yield ChangeKind.ADDED, None, key, ()

    def _in_place(self, told: dict[Ino, int]) -> Iterator[_Found]:
        """What is called as it was; ``told`` counts the names that were told already."""
        changed = {}
        for ino, row in self._after.rows.items():
            unchanged = (1 if row.is_dir else row.nlink) - told[ino]
            if unchanged > 0 and ino in self._before.rows and (fields := self._differs(ino, ino)):
                changed[ino] = fields
        for ino, key in self._names(changed):
            if (key, 1) not in self._inodes:
                self._inodes[key, 0] = self._inodes[key, 1] = ino
                yield _kind(changed[ino]), key, key, changed[ino]

    def _names(self, inodes: Iterable[Ino]) -> Iterator[tuple[Ino, Key]]:
        directories, others = {}, []
        for ino in inodes:
            row = self._after.rows[ino]
            if row.is_dir:
                directories[ino] = row.parent
            else:
                others.append(ino)
        if ROOT in directories:
            yield ROOT, Key(ROOT, b"")  # its path is a slash
        for ino, name in self._after.called(directories):
            yield ino, Key(directories[ino], name)
        if others:
            yield from self._after.names_of(others)

    # --- what differs ------------------------------------------------------------------

    def _differs(self, old: Ino, new: Ino) -> tuple[str, ...]:
        one, other = self._before.rows[old], self._after.rows[new]
        differs = {
            "content": one.target != other.target or one.rdev != other.rdev or self._rewritten(one, other),
            "mode": one.mode != other.mode,
            "owner": (one.uid, one.gid) != (other.uid, other.gid),
            "mtime": not one.is_dir and one.mtime != other.mtime,
            "xattrs": self._before.xattrs(old) != self._after.xattrs(new),
        }
        return tuple(field for field, is_so in differs.items() if is_so)

    def _rewritten(self, one: InodeRow, other: InodeRow) -> bool:
        if one.type != 0o100000 or one.size != other.size:
            return one.size != other.size
        old, new = self._before.mapped(one.ino), self._after.mapped(other.ino)
        for first, second in ((old, new), (new, old)):
            sql = f"SELECT 1 FROM (SELECT * FROM ({first}) EXCEPT SELECT * FROM ({second})) LIMIT 1"
            if self.connection.execute(sql).fetchone() is not None:
                return True
        return False

    def describe(
        self,
        kind: ChangeKind,
        earlier: tuple[Key | None, bytes | None],
        later: tuple[Key | None, bytes | None],
        fields: tuple[str, ...],
    ) -> Change:
        """Each side as key and path; a side without a path lies outside."""
        (old, old_path), (new, path) = earlier, later
        was = self._before.rows[self._inodes[old, 0]] if old and old_path else None
        now = self._after.rows[self._inodes[new, 1]] if new and path else None
        if was is None or now is None:
            kind = ChangeKind.ADDED if was is None else ChangeKind.REMOVED
        one, shown = now or was, path or old_path
        assert one is not None
        assert shown is not None
        return Change(
            kind,
            shown,
            old_path if old_path != shown else None,
            TYPES.get(one.type, "unknown"),
            one.ino,
            None if was is None else was.size,
            None if now is None else now.size,
            fields,
        )


def _kind(fields: tuple[str, ...]) -> ChangeKind:
    return ChangeKind.MODIFIED if "content" in fields else ChangeKind.METADATA


def _inside(path: bytes, below: bytes) -> bool:
    return path == below or path.startswith(below + b"/")
