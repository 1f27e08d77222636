"""A history's operations on a file system without a mount, and its tree read back."""

from __future__ import annotations

import os
import stat

from objfs.fs import Caller, FileSystem
from objfs.model import ROOT, Attr, AttrChange, Ino
from tests.system.history import Operation, Thing, Tree, kind_of

ROOT_USER = Caller(0, 0)
MOST_ENTRIES = 1000


class Hands:
    """Whoever works with the tree.  A file that was removed is kept open until the next one is, as programs
    do with temporary files."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._kept: int | None = None

    async def perform(self, op: Operation) -> None:
        """One operation; returns when it would return to a program."""
        match op.verb:
            case "write":
                await self._write(op)
            case "truncate":
                await self._fs.setattr(self.ino(op.name), AttrChange(), op.length, ROOT_USER)
            case "fsync":
                await self.fsync(op.name)
            case _:
                await self._change_names(op)

    async def _write(self, op: Operation) -> None:
        flags = os.O_WRONLY | (os.O_SYNC if op.synchronous else 0)
        handle = await self._fs.open(self.ino(op.name), flags, ROOT_USER)
        try:
            await self._fs.write(handle.fh, op.offset, op.data)
        finally:
            self._fs.release(handle.fh)

    async def fsync(self, name: bytes) -> None:
        handle = await self._fs.open(self.ino(name), os.O_WRONLY, ROOT_USER)
        try:
            await self._fs.fsync(handle.fh)
        finally:
            self._fs.release(handle.fh)

    async def _change_names(self, op: Operation) -> None:
        fs, parent, name = self._fs, *self._place(op.name)
        match op.verb:
            case "create":
                handle, _ = fs.create(parent, name, stat.S_IFREG | 0o644, os.O_WRONLY, ROOT_USER)
                fs.release(handle.fh)
            case "mkdir":
                fs.mkdir(parent, name, 0o755, ROOT_USER)
            case "symlink":
                fs.symlink(parent, name, b"to %d" % op.fill, ROOT_USER)
            case "rename":
                fs.rename(parent, name, *self._place(op.other))
            case "link":
                fs.link(self.ino(op.name), *self._place(op.other))
            case "unlink":
                await self._unlink(op.name)
            case "rmdir":
                fs.rmdir(parent, name)
            case "chmod":
                await fs.setattr(self.ino(op.name), AttrChange(mode=0o600 + op.fill % 0o100), None, ROOT_USER)
            case "attribute":
                fs.set_xattr(self.ino(op.name), b"user.a", b"%d" % op.fill)

    async def _unlink(self, path: bytes) -> None:
        ino = self.ino(path)
        regular = self._fs.getattr(ino).is_regular
        held = (await self._fs.open(ino, os.O_RDONLY, ROOT_USER)).fh if regular else None
        self._fs.unlink(*self._place(path))
        self.let_go()
        self._kept = held

    def let_go(self) -> None:
        """Closes what is still held open."""
        if self._kept is not None:
            self._fs.release(self._kept)
        self._kept = None

    # --- names -------------------------------------------------------------------------

    def ino(self, path: bytes) -> Ino:
        found = ROOT
        for name in path.split(b"/"):
            found = self._fs.lookup(found, name).ino
        return found

    def _place(self, path: bytes) -> tuple[Ino, bytes]:
        above, _, name = path.rpartition(b"/")
        return (self.ino(above) if above else ROOT), name

    # --- reading back ------------------------------------------------------------------

    async def tree(self) -> Tree:
        """All there is."""
        found: dict[bytes, Thing] = {}
        await self._walk(ROOT, b"", found)
        return found

    def names(self, directory: Ino = ROOT, above: bytes = b"") -> list[bytes]:
        """All paths; no content is asked for."""
        found = []
        for entry in self._fs.readdir(directory, 0, MOST_ENTRIES):
            found.append(above + entry.name)
            if entry.attr.is_dir:
                found += self.names(entry.attr.ino, above + entry.name + b"/")
        return found

    async def _walk(self, directory: Ino, above: bytes, found: dict[bytes, Thing]) -> None:
        for entry in self._fs.readdir(directory, 0, MOST_ENTRIES):
            path = above + entry.name
            found[path] = await self._thing(entry.attr)
            if entry.attr.is_dir:
                await self._walk(entry.attr.ino, path + b"/", found)

    async def _thing(self, attr: Attr) -> Thing:
        content = attr.target or b""
        if attr.is_regular:
            handle = await self._fs.open(attr.ino, os.O_RDONLY, ROOT_USER)
            content = await self._fs.read(handle.fh, 0, attr.size)
            self._fs.release(handle.fh)
            assert len(content) == attr.size
        names = sorted(self._fs.list_xattr(attr.ino))
        attributes = tuple((name, self._fs.get_xattr(attr.ino, name)) for name in names)
        return Thing(attr.ino, kind_of(attr.mode), stat.S_IMODE(attr.mode), content, attributes)
