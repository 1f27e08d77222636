"""The two files beside the database, as far as we read them: the log (-wal) and its index (-shm).

Source: https://www.sqlite.org/fileformat2.html section 4 (the log) and
https://www.sqlite.org/walformat.html section 2.1 (the index's header). Owns both forms. Only reads.

The index's header says how many frames are committed, at no cost and without checking the log's chain
of checksums. Its descriptor is kept until SQLite has closed the database: closing any descriptor of a
file drops the process's POSIX locks on it, and SQLite's locks are on the index. The log has no locks on
it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from objfs.errors import Corrupt

HEADER = 32
FRAME_HEADER = 24
_STATE = struct.Struct("=16xII8x8s")
_INDEX_COPY = 48
_READ_FRAMES = 256


class LogState(NamedTuple):
    """What the index says: the salts name the present run of the log, which begins anew with other salts."""

    salt: int
    frames: int
    """Committed frames."""
    page_count: int
    """Pages of the database after the last of them."""


class LogFiles:
    """Read access to the log of one open database."""

    def __init__(self, database: Path, page_size: int) -> None:
        self._path = Path(f"{database}-wal")
        self._page_size = page_size
        self._step = FRAME_HEADER + page_size
        self._frame = struct.Struct(f">I4x8s8x{page_size}x")
        self._log = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        self._index = os.open(f"{database}-shm", os.O_RDONLY | os.O_CLOEXEC)
        self._descriptors = [self._log, self._index]

    def close(self) -> None:
        """Only after SQLite has closed the database; doing it twice is harmless."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def state(self) -> LogState:
        """From any thread: two equal copies of the header make it whole."""
        while True:
            data = os.pread(self._index, 2 * _INDEX_COPY, 0)
            if data[:_INDEX_COPY] == data[_INDEX_COPY:]:
                frames, pages, salt = _STATE.unpack_from(data)
                return LogState(int.from_bytes(salt, "big"), frames, pages)

    def numbers(self, salt: int, first: int, last: int) -> Iterator[int]:
        """The page numbers of frames ``first`` to ``last`` (from 1, inclusive), which must be committed."""
        want = salt.to_bytes(8, "big")
        while first <= last:
            count = min(_READ_FRAMES, last - first + 1)
            data = os.pread(self._log, count * self._step, HEADER + (first - 1) * self._step)
            if len(data) != count * self._step:
                raise Corrupt(f"{self._path}: ends before frame {last}, which is committed")
            for number, found in self._frame.iter_unpack(data):
                if found != want:
                    raise Corrupt(f"{self._path}: a committed frame after {first} belongs to another run")
                yield number
            first += count

    def image(self, frame: int) -> bytes:
        """The page of a frame."""
        data = os.pread(self._log, self._page_size, HEADER + (frame - 1) * self._step + FRAME_HEADER)
        if len(data) != self._page_size:
            raise Corrupt(f"{self._path}: ends within frame {frame}, which is committed")
        return data

    def sync(self) -> None:
        """Blocking: the log's content is on the disk.  Raises OSError."""
        os.fdatasync(self._log)

    @property
    def size(self) -> int:
        """Of the log's file, in bytes."""
        return os.fstat(self._log).st_size
