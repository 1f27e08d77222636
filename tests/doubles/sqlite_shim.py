"""SQLite's own files, as it opens, writes, syncs and removes them: a shim over its VFS, by ctypes.

Owns the two C structures and the functions put into them.  Promises that a listener hears of each change
after it was made and of each sync around it, whatever connection makes it and in whichever thread.  Knows
no journal.

SQLite reaches the system through a table of functions, its VFS (https://www.sqlite.org/vfs.html).  The shim
registers a copy of the default one with ``xOpen`` and ``xDelete`` of its own, and gives each file that is
opened a copy of its methods with four of them replaced.  The index of the log (-shm) is mapped memory and
passes by: SQLite makes it anew after a crash.
"""

from __future__ import annotations

import _sqlite3
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Protocol

_OPEN_CREATE = 0x4
_OPEN_JOURNALS = 0x800 | 0x4000 | 0x80000
"""Main journal, super-journal and log: their directory is synced with their own first sync."""
_OK = 0

_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_Delete = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", _Open),
        ("xDelete", _Delete),
        ("rest", c_void_p * 14),
    )


class _Methods(Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("xClose", _Close),
        ("xRead", c_void_p),
        ("xWrite", _Write),
        ("xTruncate", _Truncate),
        ("xSync", _Sync),
        ("rest", c_void_p * 13),
    )


class _File(Structure):
    _fields_ = (("pMethods", c_void_p),)


class Listener(Protocol):
    """Who hears of it; paths are absolute.  ``opened`` gives a number for the file, ``syncing`` one for the
    sync, which ``synced`` is told when it ended."""

    def opened(self, path: str, *, new: bool) -> int: ...
    def wrote(self, file: int, offset: int, data: bytes) -> None: ...
    def cut(self, file: int, length: int) -> None: ...
    def syncing(self, file: int) -> int: ...
    def syncing_directory(self, path: str) -> int: ...
    def synced(self, sync: int) -> None: ...
    def removed(self, path: str) -> None: ...


@dataclass(slots=True)
class _Opened:
    """A file that SQLite has open: ``methods`` are its real ones."""

    file: int
    methods: _Methods
    new_in: str
    """The directory that is to be synced with it."""


class SqliteShim:
    """Installed while its ``with`` lasts; connections made meanwhile go on being heard of afterwards."""

    def __init__(self, listener: Listener, listens: Callable[[str], bool]) -> None:
        self._listener = listener
        self._listens = listens
        self._library = ctypes.CDLL(_sqlite3.__file__)
        self._library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._library.sqlite3_vfs_find.argtypes = (c_char_p,)
        self._real = self._library.sqlite3_vfs_find(None)
        self._open: dict[int, _Opened] = {}
        self._methods: dict[int, _Methods] = {}
        self._vfs = _Vfs.from_buffer_copy(self._real.contents)
        self._vfs.zName = b"recorded"
        self._vfs.xOpen = _Open(self._on_open)
        self._vfs.xDelete = _Delete(self._on_delete)
        self._replaced = (
            ("xClose", _Close(self._on_close)),
            ("xWrite", _Write(self._on_write)),
            ("xTruncate", _Truncate(self._on_truncate)),
            ("xSync", _Sync(self._on_sync)),
        )

    @contextmanager
    def installed(self) -> Iterator[None]:
        """It is the default VFS of this process meanwhile."""
        assert self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == _OK
        try:
            yield
        finally:
            self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))
            self._library.sqlite3_vfs_register(self._real, 1)

    # --- of the VFS --------------------------------------------------------------------

    def _on_open(self, _vfs: int, name: int | None, file: int, flags: int, out_flags: int | None) -> int:
        path = os.fsdecode(ctypes.string_at(name)) if name else ""
        heard = bool(path) and self._listens(path)
        new = heard and bool(flags & _OPEN_CREATE) and not os.path.lexists(path)
        code: int = self._real.contents.xOpen(ctypes.cast(self._real, c_void_p), name, file, flags, out_flags)
        if code == _OK and heard:
            number = self._listener.opened(path, new=new)
            self._take(number, file, os.path.dirname(path) if new and flags & _OPEN_JOURNALS else "")
        return code

    def _take(self, number: int, file: int, new_in: str) -> None:
        handle = _File.from_address(file)
        address: int = handle.pMethods
        real = _Methods.from_address(address)
        if address not in self._methods:
            ours = _Methods.from_buffer_copy(real)
            for field, function in self._replaced:
                setattr(ours, field, function)
            self._methods[address] = ours
        self._open[file] = _Opened(number, real, new_in)
        handle.pMethods = ctypes.addressof(self._methods[address])

    def _on_delete(self, _vfs: int, name: bytes, sync_directory: int) -> int:
        path = os.fsdecode(name)
        there = os.path.lexists(path)
        code: int = self._real.contents.xDelete(ctypes.cast(self._real, c_void_p), name, sync_directory)
        if code == _OK and there and self._listens(path):
            self._listener.removed(path)
            if sync_directory:
                self._sync_directory(os.path.dirname(path))
        return code

    def _sync_directory(self, path: str) -> None:
        self._listener.synced(self._listener.syncing_directory(path))

    # --- of a file ---------------------------------------------------------------------

    def _on_close(self, file: int) -> int:
        opened = self._open.pop(file)
        code: int = opened.methods.xClose(file)
        return code

    def _on_write(self, file: int, data: int, length: int, offset: int) -> int:
        opened = self._open[file]
        code: int = opened.methods.xWrite(file, data, length, offset)
        if code == _OK:
            self._listener.wrote(opened.file, offset, ctypes.string_at(data, length))
        return code

    def _on_truncate(self, file: int, length: int) -> int:
        opened = self._open[file]
        code: int = opened.methods.xTruncate(file, length)
        if code == _OK:
            self._listener.cut(opened.file, length)
        return code

    def _on_sync(self, file: int, flags: int) -> int:
        opened = self._open[file]
        sync = self._listener.syncing(opened.file)
        code: int = opened.methods.xSync(file, flags)
        if code == _OK:
            self._listener.synced(sync)
            if opened.new_in:
                self._sync_directory(opened.new_in)
                opened.new_in = ""
        return code
