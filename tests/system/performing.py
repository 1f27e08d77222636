"""A history's operations on a directory, as system calls, and the tree of a directory read back."""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.history import History, Operation, Thing, Tree, kind_of


class Program:
    """Whoever works in a directory.  A file that was removed is kept open until the next one is, as programs
    do with temporary files."""

    def __init__(self, root: Path) -> None:
        self._root = os.fsencode(root)
        self._kept: int | None = None

    def perform(self, op: Operation) -> None:
        """One operation.  Raises OSError."""
        path, other = self._path(op.name), self._path(op.other)
        match op.verb:
            case "create":
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            case "mkdir":
                os.mkdir(path, 0o755)
            case "symlink":
                os.symlink(b"to %d" % op.fill, path)
            case "rename":
                os.rename(path, other)
            case "link":
                os.link(path, other)
            case "rmdir":
                os.rmdir(path)
            case "unlink":
                self._unlink(path)
            case _:
                self._change_file(path, op)

    def _change_file(self, path: bytes, op: Operation) -> None:
        match op.verb:
            case "write":
                self._write(path, op)
            case "truncate":
                os.truncate(path, op.length)
            case "fsync":
                self._fsync(path)
            case "chmod":
                os.chmod(path, 0o600 + op.fill % 0o100)
            case "attribute":
                os.setxattr(path, "user.a", b"%d" % op.fill)

    def _path(self, name: bytes) -> bytes:
        return self._root + b"/" + name

    def _write(self, path: bytes, op: Operation) -> None:
        """One pwrite of the whole data."""
        descriptor = os.open(path, os.O_WRONLY | (os.O_SYNC if op.synchronous else 0))
        try:
            data, written = op.data, 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], op.offset + written)
        finally:
            os.close(descriptor)

    def _fsync(self, path: bytes) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _unlink(self, path: bytes) -> None:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
        held = os.open(path, os.O_RDONLY) if regular else None
        os.unlink(path)
        self.let_go()
        self._kept = held

    def let_go(self) -> None:
        """Closes what is still held open."""
        if self._kept is not None:
            os.close(self._kept)
        self._kept = None


@dataclass
class Writer(threading.Thread):
    """Performs a history until the mount is gone; ``done`` holds the time at which each operation ended."""

    root: Path
    history: History
    done: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        program = Program(self.root)
        try:
            while True:
                program.perform(self.history.next())
                self.done.append(time.monotonic())
        except OSError:
            return  # the daemon is dead
        finally:
            program.let_go()


def tree_of(root: Path) -> Tree:
    """All there is below a directory.  Raises OSError where anything cannot be read."""
    base = os.fsencode(root)
    found: dict[bytes, Thing] = {}
    for folder, directories, files in os.walk(base, onerror=_refuse):
        for name in (*directories, *files):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, base)] = _thing(path)
    return found


def _refuse(error: OSError) -> None:
    raise error


def _thing(path: bytes) -> Thing:
    state = os.lstat(path)
    kind = kind_of(state.st_mode)
    content = b""
    if kind == "l":
        content = os.readlink(path)
    elif kind == "f":
        with open(path, "rb") as stream:  # noqa: PTH123 - names are bytes
            content = stream.read()
    names = os.listxattr(path, follow_symlinks=False) if kind == "f" else []
    attributes = tuple((name.encode(), os.getxattr(path, name)) for name in sorted(names))
    return Thing(state.st_ino, kind, stat.S_IMODE(state.st_mode), content, attributes)
