"""One generation of the inode table as a comparison needs it: rows of what changed, and paths.

Owns the way from an inode to its names and from a name to its path, as they were.  No index leads from a file
to its names, so those of files are looked for in one pass over all; a directory says which one it lies in,
and that one is listed.  Knows nothing of the other side.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from objfs.errors import Corrupt
from objfs.meta.changes import DIRECTORY, TYPE, at
from objfs.model import ROOT, Ino

_INODE = "t.ino, t.mode, t.uid, t.gid, t.rdev, t.size, t.mtime_s, t.mtime_ns, t.target, t.parent, t.nlink"
_LISTED = "t.ino IN (SELECT value FROM json_each(:list))"
_MAPPED = at("t.idx, t.chunk", "map", "t.ino = {ino}", "{when}")
_XATTRS = at("t.name, t.value", "xattr", "t.ino = :ino", ":when")
_MANY = 10_000


class InodeRow(NamedTuple):
    """What can differ of an inode."""

    ino: Ino
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_s: int
    mtime_ns: int
    target: bytes | None
    parent: Ino
    nlink: int

    @property
    def type(self) -> int:
        return self.mode & TYPE

    @property
    def mtime(self) -> tuple[int, int]:
        return self.mtime_s, self.mtime_ns

    @property
    def is_dir(self) -> bool:
        return self.type == DIRECTORY


class Key(NamedTuple):
    """One entry of a directory."""

    parent: Ino
    name: bytes


class Paths:
    """Where directories lay as of generation ``when``."""

    def __init__(self, connection: sqlite3.Connection, when: int) -> None:
        self.connection = connection
        self.when = when

    def paths(self, keys: Sequence[Key], root: Ino) -> dict[Key, bytes]:
        """From directory ``root``; those that do not lie below it are absent."""
        directories = self._directories({key.parent for key in keys} | {root})
        top = directories[root] + b"/"
        found = {key: directories[key.parent] + b"/" + key.name for key in keys}
        return {key: path[len(top) - 1 :] for key, path in found.items() if path.startswith(top)}

    def _directories(self, wanted: set[Ino]) -> dict[Ino, bytes]:
        above = self._climb(wanted)
        names = dict(self.called(above))
        found: dict[Ino, bytes] = {ROOT: b""}

        def path(ino: Ino) -> bytes:
            climbed = []
            while ino not in found:
                climbed.append(ino)
                ino = above[ino]
            for below in reversed(climbed):
                found[below] = found[above[below]] + b"/" + names[below]
            return found[climbed[0]] if climbed else found[ino]

        return {ino: path(ino) for ino in wanted}

    def _climb(self, wanted: set[Ino]) -> dict[Ino, Ino]:
        """Directory -> the one that it lies in, for these and all above."""
        above: dict[Ino, Ino] = {}
        pending = wanted - {ROOT}
        sql = at("t.ino, t.parent", "inode", _LISTED, ":when")
        while pending:
            values = {"list": json.dumps(list(pending)), "when": self.when}
            found = dict(self.connection.execute(sql, values))
            if not found:
                raise Corrupt("directories of the inode table lead nowhere; run objfs fsck")
            above |= found
            pending = {Ino(parent) for parent in found.values()} - above.keys() - {ROOT}
        return above

    def called(self, above: dict[Ino, Ino]) -> Iterator[tuple[Ino, bytes]]:
        """The name of each directory: each of those above is listed once."""
        parents = {"list": json.dumps(list(set(above.values()))), "when": self.when}
        match = "t.parent IN (SELECT value FROM json_each(:list))"
        for ino, parent, name in self.connection.execute(
            at("t.ino, t.parent, t.name", "entry", match, ":when"), parents
        ):
            if above.get(ino) == parent:
                yield ino, name


class Moment(Paths):
    """The table as of generation ``when``, after ``changes.gather`` on the same connection."""

    def __init__(self, connection: sqlite3.Connection, when: int) -> None:
        super().__init__(connection, when)
        self.rows: dict[Ino, InodeRow] = {}
        """Of changed inodes that had a name."""
        sql = at(_INODE, "inode", "t.ino IN changed_inode", ":when")
        for row in connection.execute(sql, {"when": when}):
            made = InodeRow(*row)
            if made.nlink > 0:
                self.rows[made.ino] = made

    def xattrs(self, ino: Ino) -> dict[bytes, bytes]:
        return dict(self.connection.execute(_XATTRS, {"ino": ino, "when": self.when}))

    def mapped(self, ino: Ino) -> str:
        """The select of a file's versions."""
        return _MAPPED.format(ino=int(ino), when=self.when)

    def names_of(self, inodes: Iterable[Ino]) -> Iterator[tuple[Ino, Key]]:
        """One pass over all names."""
        wanted = list(inodes)
        for begin in range(0, len(wanted), _MANY):
            values = {"list": json.dumps(wanted[begin : begin + _MANY]), "when": self.when}
            for ino, parent, name in self.connection.execute(
                at("t.ino, t.parent, t.name", "entry", _LISTED, ":when"), values
            ):
                yield ino, Key(parent, name)
