"""What a path was in each of the named moments.

Owns the listing of its versions: one for each run of moments in which the path led to the same inode with the
same content, the newest first.  Each moment costs a few lookups for each directory on the way.  Changes
nothing; blocks while it works.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from objfs.errors import Corrupt
from objfs.meta import schema
from objfs.meta.changes import at
from objfs.model import NS, Ino

_LOOKUP = at("t.ino", "entry", "t.parent = :parent AND t.name = :name", ":when")
_INODE = at("t.ino, t.size, t.mtime_s, t.mtime_ns", "inode", "t.ino = :ino", ":when")
_MAPPED = at("t.idx, t.chunk", "map", "t.ino = {ino}", "{when}")
_MOMENTS = (
    "SELECT name, generation, created_s, created_ns FROM snapshot UNION ALL "
    "SELECT NULL, generation, 0, 0 FROM volume ORDER BY 2 DESC"
)


class FileVersion(NamedTuple):
    """``snapshot`` is the newest of so many ``moments`` in a row that show it, taken at ``taken_ns``; None is
    the present.  ``size`` in bytes."""

    snapshot: bytes | None
    taken_ns: int
    ino: Ino
    size: int
    mtime_ns: int
    moments: int


class _Seen(NamedTuple):
    ino: Ino
    size: int
    mtime_ns: int


class VersionsView:
    """A read-only look at a table; paths begin at directory ``root``."""

    def __init__(self, path: Path, root: Ino) -> None:
        self._path = path
        self._root = root
        self._connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    def close(self) -> None:
        """Doing it twice is harmless."""
        self._connection.close()

    def __enter__(self) -> VersionsView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def versions(self, path: bytes) -> list[FileVersion]:
        """Newest first; the present is among them where the path leads to something now.  Raises Corrupt."""
        try:
            self._connection.execute("BEGIN")
            try:
                return list(self._versions([name for name in path.split(b"/") if name]))
            finally:
                self._connection.execute("ROLLBACK")
        except schema.UNREADABLE as error:
            raise Corrupt(f"{self._path}: {error}") from error

    def _versions(self, names: list[bytes]) -> Iterator[FileVersion]:
        shown: tuple[FileVersion, _Seen, int] | None = None
        for name, when, seconds, nanoseconds in self._connection.execute(_MOMENTS).fetchall():
            seen = self._at(names, when)
            if shown is not None and seen is not None and self._same(shown[1], shown[2], seen, when):
                shown = shown[0]._replace(moments=shown[0].moments + 1), seen, when
                continue
            if shown is not None:
                yield shown[0]
            taken_ns = seconds * NS + nanoseconds
            shown = None if seen is None else (FileVersion(name, taken_ns, *seen, moments=1), seen, when)
        if shown is not None:
            yield shown[0]

    def _at(self, names: list[bytes], when: int) -> _Seen | None:
        ino = self._root
        for name in names:
            values = {"parent": ino, "name": name, "when": when}
            row = self._connection.execute(_LOOKUP, values).fetchone()
            if row is None:
                return None
            ino = Ino(row[0])
        row = self._connection.execute(_INODE, {"ino": ino, "when": when}).fetchone()
        return None if row is None else _Seen(Ino(row[0]), row[1], row[2] * NS + row[3])

    def _same(self, one: _Seen, one_when: int, other: _Seen, other_when: int) -> bool:
        if one != other:
            return False
        newer, older = (_MAPPED.format(ino=int(one.ino), when=when) for when in (one_when, other_when))
        return not any(
            self._connection.execute(
                f"SELECT 1 FROM (SELECT * FROM ({first}) EXCEPT SELECT * FROM ({second})) LIMIT 1"
            ).fetchone()
            for first, second in ((newer, older), (older, newer))
        )
