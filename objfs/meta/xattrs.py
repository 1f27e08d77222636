"""Extended attributes.

Owns ``xattr``.  Knows no namespaces of names (user., security.): those are ``fs``'s.
"""

from __future__ import annotations

from objfs.errors import AttributeTooBig, Exists, InvalidArgument, NameTooLong, NoAttribute, StaleHandle
from objfs.meta.database import Database
from objfs.meta.inodes import Inodes
from objfs.meta.recent import Recent
from objfs.model import XATTR_NAME_MAX, XATTR_SIZE_MAX, Ino

CREATE = 1
REPLACE = 2
_SMALL = 256
"""Values of at most so many bytes are remembered."""
# One statement also where there is none: the kernel asks for security.capability before each write.
_GET = "SELECT (SELECT value FROM xattr WHERE ino = ?1 AND name = ?2) FROM inode WHERE ino = ?1"
_SET = (
    "INSERT INTO xattr (ino, name, value, born) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (ino, name) DO UPDATE SET value = excluded.value"
)


class Xattrs:
    """Names and values of one inode."""

    def __init__(self, database: Database, inodes: Inodes) -> None:
        self._db = database
        self._inodes = inodes
        self._recent: Recent[tuple[Ino, bytes], tuple[bytes | None]] = Recent(database)
        self._recent.outliving_writes()

    def get(self, ino: Ino, name: bytes) -> bytes:
        """Raises NoAttribute, StaleHandle."""
        value = self._find(ino, name)
        if value is None:
            raise NoAttribute(f"inode {ino} has no attribute {name!r}")
        return value

    def _find(self, ino: Ino, name: bytes) -> bytes | None:
        known = self._recent.get((ino, name))
        if known is not None:
            return known[0]
        row = self._db.one(_GET, (ino, name))
        if row is None:
            raise StaleHandle(f"inode {ino} is gone")
        if row[0] is None or len(row[0]) <= _SMALL:
            self._recent.keep((ino, name), row)
        return row[0]  # type: ignore[no-any-return]

    def set(self, ino: Ino, name: bytes, value: bytes, flags: int, now_ns: int) -> None:
        """Raises Exists, NoAttribute, AttributeTooBig, NameTooLong, InvalidArgument, StaleHandle."""
        if not name or flags not in (0, CREATE, REPLACE):
            raise InvalidArgument(f"attribute {name!r}, flags {flags}")
        if len(name) > XATTR_NAME_MAX:
            raise NameTooLong(f"an attribute name of {len(name)} bytes; at most {XATTR_NAME_MAX}")
        if len(value) > XATTR_SIZE_MAX:
            raise AttributeTooBig(f"an attribute of {len(value)} bytes; at most {XATTR_SIZE_MAX}")
        with self._db:
            present = self._find(ino, name) is not None
            if present and flags == CREATE:
                raise Exists(f"inode {ino} has attribute {name!r}")
            if not present and flags == REPLACE:
                raise NoAttribute(f"inode {ino} has no attribute {name!r}")
            self._db.run(_SET, (ino, name, value, self._db.generation))
            self._inodes.touch(ino, now_ns)

    def names(self, ino: Ino) -> list[bytes]:
        """Sorted.  Raises StaleHandle."""
        rows = self._db.all("SELECT name FROM xattr WHERE ino = ? ORDER BY name", (ino,))
        if not rows:
            self._inodes.get(ino)
        return [row[0] for row in rows]

    def remove(self, ino: Ino, name: bytes, now_ns: int) -> None:
        """Raises NoAttribute, StaleHandle."""
        with self._db:
            if not self._db.run("DELETE FROM xattr WHERE ino = ? AND name = ?", (ino, name)):
                self._inodes.get(ino)
                raise NoAttribute(f"inode {ino} has no attribute {name!r}")
            self._inodes.touch(ino, now_ns)
