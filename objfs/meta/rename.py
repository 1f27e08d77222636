"""rename(2) with all its cases.

Owns the rules of POSIX and of renameat2(2) for moving, replacing and exchanging names.  Promises that all
is checked before anything changes.
"""

from __future__ import annotations

from objfs.errors import Exists, InvalidArgument, IsDirectory, NotDirectory, NotEmpty, NotFound, TooManyLinks
from objfs.meta.database import Database
from objfs.meta.entries import Directory, Entries, Found, check_name
from objfs.meta.inodes import Inodes
from objfs.model import LINK_MAX, ROOT, Ino, Renamed, RenameFlag

_REPLACE = "UPDATE entry SET ino = ? WHERE parent = ? AND name = ?"
_PARENT = "SELECT parent FROM inode WHERE ino = ?"
_SET_PARENT = "UPDATE inode SET parent = ? WHERE ino = ?"


class Renames:
    """Moves names."""

    def __init__(self, database: Database, inodes: Inodes, entries: Entries) -> None:
        self._db = database
        self._inodes = inodes
        self._entries = entries

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flag: RenameFlag, now_ns: int
    ) -> Renamed:
        """Raises NotFound, Exists, NotDirectory, IsDirectory, NotEmpty, InvalidArgument, NameTooLong,
        TooManyLinks."""
        with self._db:
            source = self._entries.must_find(parent, name)
            check_name(new_name)
            directory = self._entries.living_directory(new_parent)
            target = self._entries.find(new_parent, new_name)
            if flag is RenameFlag.NOREPLACE and target is not None:
                raise Exists(f"{new_name!r} in directory {new_parent}")
            if flag is RenameFlag.EXCHANGE:
                if target is None:
                    raise NotFound(f"{new_name!r} in directory {new_parent}")
                return self._exchange((parent, name, source), (new_parent, new_name, target), now_ns)
            if target is not None and target.ino == source.ino:
                return Renamed(source.ino, None)
            self._check(parent, source, new_parent, directory, target)
            return self._move((parent, name, source), (new_parent, new_name, target), directory, now_ns)

    # --- checks ------------------------------------------------------------------------

    def _check(
        self, parent: Ino, source: Found, new_parent: Ino, directory: Directory, target: Found | None
    ) -> None:
        if source.is_dir:
            self._check_subtree(source.ino, parent, new_parent)
        if target is not None:
            self._check_replaceable(source, target)
        if source.is_dir and parent != new_parent and target is None and directory.nlink >= LINK_MAX:
            raise TooManyLinks(f"directory {new_parent} has {directory.nlink} links")

    def _check_subtree(self, moved: Ino, parent: Ino, new_parent: Ino) -> None:
        """Raises InvalidArgument when ``new_parent`` lies in ``moved`` or is it."""
        at = new_parent
        while parent != new_parent and at != ROOT:
            if at == moved:
                raise InvalidArgument(f"directory {moved} cannot be moved into itself")
            row = self._db.one(_PARENT, (at,))
            if row is None or row[0] == at:
                return
            at = row[0]

    def _check_replaceable(self, source: Found, target: Found) -> None:
        if source.is_dir and not target.is_dir:
            raise NotDirectory(f"inode {target.ino} is not a directory: a directory cannot replace it")
        if target.is_dir and not source.is_dir:
            raise IsDirectory(f"inode {target.ino} is a directory")
        if target.is_dir and not self._entries.is_empty(target.ino):
            raise NotEmpty(f"directory {target.ino} has entries")

    # --- changes -----------------------------------------------------------------------

    def _move(
        self,
        old: tuple[Ino, bytes, Found],
        new: tuple[Ino, bytes, Found | None],
        directory: Directory,
        now_ns: int,
    ) -> Renamed:
        (parent, name, source), (new_parent, new_name, target) = old, new
        moved_dir = 1 if source.is_dir else 0
        self._entries.remove(parent, name)
        if target is None:
            self._entries.add(new_parent, new_name, source.ino, directory.next_cookie)
        else:
            # The name was there before and after: it keeps its cookie, so that no listing misses it.
            self._db.run(_REPLACE, (source.ino, new_parent, new_name))
            left = 0 if target.is_dir else target.nlink - 1
            self._inodes.set_links(target.ino, left, now_ns)
        gained = moved_dir - (1 if target is not None and target.is_dir else 0)
        cookies = 1 if target is None else 0
        if parent == new_parent:
            self._entries.changed(parent, now_ns, links=gained - moved_dir, cookies=cookies)
        else:
            self._entries.changed(parent, now_ns, links=-moved_dir)
            self._entries.changed(new_parent, now_ns, links=gained, cookies=cookies)
        self._settle(source, parent, new_parent, now_ns)
        return Renamed(source.ino, None if target is None else self._inodes.get(target.ino))

    def _exchange(
        self, one: tuple[Ino, bytes, Found], other: tuple[Ino, bytes, Found], now_ns: int
    ) -> Renamed:
        (parent, name, first), (new_parent, new_name, second) = one, other
        if first.ino == second.ino:
            return Renamed(first.ino, None)
        for found, here, there in ((first, parent, new_parent), (second, new_parent, parent)):
            if found.is_dir:
                self._check_subtree(found.ino, here, there)
        moved = (1 if first.is_dir else 0) - (1 if second.is_dir else 0)
        self._db.run(_REPLACE, (second.ino, parent, name))
        self._db.run(_REPLACE, (first.ino, new_parent, new_name))
        if parent == new_parent:
            self._entries.changed(parent, now_ns)
        else:
            self._entries.changed(parent, now_ns, links=-moved)
            self._entries.changed(new_parent, now_ns, links=moved)
        self._settle(first, parent, new_parent, now_ns)
        self._settle(second, new_parent, parent, now_ns)
        return Renamed(first.ino, None)

    def _settle(self, moved: Found, parent: Ino, new_parent: Ino, now_ns: int) -> None:
        self._inodes.touch(moved.ino, now_ns)
        if moved.is_dir and parent != new_parent:
            self._db.run(_SET_PARENT, (new_parent, moved.ino))
