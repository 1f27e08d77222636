"""Everything that this process does to one directory tree, recorded: Python's files and SQLite's.

Owns the stand-ins for the functions of ``os`` and ``io`` that change files, and the journal's view of what
is open.  Promises that an effect is recorded after it was made and before the caller goes on, and a sync
around it; ``missed`` names what the tree holds and the journal does not: then something writes in a way
that is not recorded here, and nothing that a replay shows can be believed.  Mapped memory is not seen.

Why not below the process: a library that is preloaded would be a program in C, and a file system beneath
the tree is not told of syncfs(2) and would be in the way of mapped memory.  What objfs does to its state
goes through a dozen functions, and ``missed`` says when it is one more.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from objfs.cache import disk as cache_disk
from tests.doubles.disk import differences, kept
from tests.doubles.journal import Journal, Number
from tests.doubles.sqlite_shim import SqliteShim

IGNORED = ("-shm", ".sock", "mount.log")
"""Names that end so are not recorded: mapped memory, sockets, what nobody reads again."""


class Recorder:
    """Of the tree at ``root``, which the journal describes already."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self._root = os.path.realpath(root)
        self.journal = journal
        self._files: dict[int, tuple[tuple[int, int], Number, bool]] = {}
        """Descriptor -> which file it is for the system, for the journal, and whether it appends."""
        self._shim = SqliteShim(_SqliteFiles(self), self._listens)

    @contextmanager
    def installed(self) -> Iterator[Journal]:
        """Records while the block lasts."""
        with ExitStack() as stack:
            for module, name, function in self._stand_ins():
                stack.enter_context(patch.object(module, name, function))
            stack.enter_context(self._shim.installed())
            yield self.journal

    def missed(self) -> list[str]:
        """Paths whose content is not what the journal says, after all of it took effect."""
        return differences(Path(self._root), kept(self.journal.records), IGNORED)

    # --- names -------------------------------------------------------------------------

    def relative(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the root, or None where it is not recorded."""
        if isinstance(path, int):
            return None
        text = os.fsdecode(path)
        if dir_fd is not None and not os.path.isabs(text):
            text = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), text)
        above, name = os.path.split(os.path.abspath(text))
        full = os.path.join(os.path.realpath(above), name)
        if full == self._root:
            return ""
        inside = full.startswith(self._root + "/") and not full.endswith(IGNORED)
        return full[len(self._root) + 1 :] if inside else None

    def _listens(self, path: str) -> bool:
        return self.relative(path) is not None

    def number(self, path: str) -> Number:
        """Of a path that is recorded."""
        found = self.relative(path)
        assert found is not None
        number = self.journal.find(found)
        return self.journal.make(found) if number is None else number

    # --- descriptors -------------------------------------------------------------------

    def watch(self, descriptor: int, path: str, *, new: bool, appends: bool = False) -> None:
        """From now on the descriptor stands for that path's file."""
        number = self.journal.find(path)
        if number is None and (new or os.path.isdir(os.path.join(self._root, path))):
            number = self.journal.make(path, is_directory=not new)
        if number is not None:
            self._files[descriptor] = (_identity(descriptor), number, appends)

    def known(self, descriptor: int) -> Number | None:
        """The file of a descriptor; None also where the number is another's by now."""
        found = self._files.get(descriptor)
        if found is None or found[0] != _identity(descriptor):
            return None
        return found[1]

    def appends(self, descriptor: int) -> bool:
        return self._files[descriptor][2]

    # --- stand-ins ---------------------------------------------------------------------

    def _stand_ins(self) -> Iterator[tuple[Any, str, Any]]:
        for name in ("open", "write", "pwrite", "ftruncate", "fsync", "fdatasync", "mkdir", "link"):
            yield os, name, getattr(self, f"_{name}")(getattr(os, name))
        yield os, "truncate", self._truncate(os.truncate)
        for name in ("unlink", "remove", "rmdir"):
            yield os, name, self._removal(getattr(os, name))
        for name in ("rename", "replace"):
            yield os, name, self._rename(getattr(os, name))
        yield io, "open", self._stream(io.open)
        yield builtins, "open", self._stream(builtins.open)
        yield cache_disk, "_libc", _Libc(cache_disk._libc, self)

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            where = self.relative(path, dir_fd)
            if where is None:
                return real(path, flags, mode, dir_fd=dir_fd)
            new = bool(flags & os.O_CREAT) and not os.path.lexists(os.path.join(self._root, where))
            descriptor = real(path, flags, mode, dir_fd=dir_fd)
            self.watch(descriptor, where, new=new, appends=bool(flags & os.O_APPEND))
            number = self.known(descriptor)
            if flags & os.O_TRUNC and not new and number is not None:
                self.journal.cut(number, 0)
            return descriptor

        return open

    def _write(self, real: Callable[..., int]) -> Callable[..., int]:
        def write(descriptor: int, data: bytes) -> int:
            number = self.known(descriptor)
            if number is None:
                return real(descriptor, data)
            done = real(descriptor, data)
            self.journal.write(number, os.lseek(descriptor, 0, os.SEEK_CUR) - done, bytes(data[:done]))
            return done

        return write

    def _pwrite(self, real: Callable[..., int]) -> Callable[..., int]:
        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            done = real(descriptor, data, offset)
            number = self.known(descriptor)
            if number is not None:
                self.journal.write(number, offset, bytes(data[:done]))
            return done

        return pwrite

    def _ftruncate(self, real: Callable[..., None]) -> Callable[..., None]:
        def ftruncate(descriptor: int, length: int) -> None:
            real(descriptor, length)
            number = self.known(descriptor)
            if number is not None:
                self.journal.cut(number, length)

        return ftruncate

    def _truncate(self, real: Callable[..., None]) -> Callable[..., None]:
        def truncate(path: Any, length: int) -> None:
            real(path, length)
            number = self.known(path) if isinstance(path, int) else None
            where = None if isinstance(path, int) else self.relative(path)
            number = self.journal.find(where) if where is not None else number
            if number is not None:
                self.journal.cut(number, length)

        return truncate

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def fsync(descriptor: int) -> None:
            number = self.known(descriptor)
            if number is None:
                return real(descriptor)
            sync = self.journal.begin_sync(number)
            real(descriptor)
            return self.journal.end_sync(sync)

        return fsync

    _fdatasync = _fsync

    def _mkdir(self, real: Callable[..., None]) -> Callable[..., None]:
        def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            real(path, mode, dir_fd=dir_fd)
            where = self.relative(path, dir_fd)
            if where is not None:
                self.journal.make(where, is_directory=True)

        return mkdir

    def _link(self, real: Callable[..., None]) -> Callable[..., None]:
        def link(old: Any, new: Any, **options: Any) -> None:
            real(old, new, **options)
            before, after = self.relative(old), self.relative(new)
            if before is not None and after is not None:
                self.journal.link(before, after)

        return link

    def _removal(self, real: Callable[..., None]) -> Callable[..., None]:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            where = self.relative(path, dir_fd)
            real(path, dir_fd=dir_fd)
            if where is not None:
                self.journal.remove(where)

        return remove

    def _rename(self, real: Callable[..., None]) -> Callable[..., None]:
        def rename(old: Any, new: Any) -> None:
            before, after = self.relative(old), self.relative(new)
            real(old, new)
            if before is not None and after is not None:
                self.journal.rename(before, after)

        return rename

    def _stream(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def open(file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **options: Any) -> Any:
            number = self.known(file) if isinstance(file, int) else None
            where = self.relative(file)
            if (where is None and number is None) or not set(mode) & set("wax+"):
                return real(file, mode, buffering, *arguments, **options)
            raw = _RecordedFile(self, file, where, mode, options.pop("closefd", True))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *arguments, **options)

        return open


class _RecordedFile(io.FileIO):
    """The file below a stream that writes."""

    def __init__(self, recorder: Recorder, file: Any, where: str | None, mode: str, closefd: bool) -> None:
        new = where is not None and not os.path.lexists(file)
        super().__init__(file, mode.replace("b", "").replace("t", ""), closefd=closefd)
        self._recorder = recorder
        if where is not None:
            recorder.watch(self.fileno(), where, new=new, appends="a" in mode)
        number = recorder.known(self.fileno())
        assert number is not None
        self._number = number
        if "w" in mode and not new:
            recorder.journal.cut(number, 0)

    def write(self, data: Any) -> int:
        done = super().write(data) or 0
        self._recorder.journal.write(self._number, self.tell() - done, bytes(data)[:done])
        return done

    def truncate(self, size: int | None = None) -> int:
        length = super().truncate(size)
        self._recorder.journal.cut(self._number, length)
        return length


class _Libc:
    """What the cache calls by ctypes: syncfs(2) is a sync of everything."""

    def __init__(self, real: Any, recorder: Recorder) -> None:
        self._real = real
        self._recorder = recorder

    def syncfs(self, descriptor: int) -> int:
        if self._recorder.known(descriptor) is None:
            return int(self._real.syncfs(descriptor))
        sync = self._recorder.journal.begin_sync(None)
        code = int(self._real.syncfs(descriptor))
        if code == 0:
            self._recorder.journal.end_sync(sync)
        return code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _SqliteFiles:
    """What SQLite does, into the journal."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._journal = recorder.journal
        self.wrote = self._journal.write
        self.cut = self._journal.cut
        self.syncing = self._journal.begin_sync
        self.synced = self._journal.end_sync

    def opened(self, path: str, *, new: bool) -> Number:
        return self._recorder.number(path)

    def syncing_directory(self, path: str) -> int:
        return self._journal.begin_sync(self._recorder.number(path))

    def removed(self, path: str) -> None:
        where = self._recorder.relative(path)
        assert where is not None
        self._journal.remove(where)


def _identity(descriptor: int) -> tuple[int, int]:
    state = os.fstat(descriptor)
    return state.st_dev, state.st_ino
