"""The keyed hash of each page of the replica, as it was given.

Owns the file ``sums``: the hash of page n, 32 bytes big-endian, at (n-1) * 32.  Why it is kept: the digest
changes by the hash of the page that is replaced, and a hash taken from the image would be that of a
page that has rotted on the disk since.  Every later digest would be wrong then, and no machine could recover
them.  Knows no pages; whoever changes the file says when it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from objfs.errors import ObjfsError

SUM_SIZE = 32
_BATCH = 4096


class PageSums:
    """One file; one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Makes the file when it is missing.  Raises OSError."""
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        os.close(self._file)

    def get(self, number: int) -> int:
        """Raises ObjfsError for a page that has no hash."""
        data = os.pread(self._file, SUM_SIZE, (number - 1) * SUM_SIZE)
        if len(data) != SUM_SIZE:
            raise ObjfsError(f"{self._path}: ends before page {number}; remount")
        return int.from_bytes(data, "big")

    def put(self, number: int, value: int) -> None:
        data = value.to_bytes(SUM_SIZE, "big")
        if os.pwrite(self._file, data, (number - 1) * SUM_SIZE) != SUM_SIZE:
            raise ObjfsError(f"{self._path}: a hash could not be written whole; is the disk full?")

    def cut(self, page_count: int) -> None:
        """Forgets the pages beyond."""
        os.ftruncate(self._file, page_count * SUM_SIZE)

    def replace(self, values: Iterable[int]) -> None:
        """The hashes of all pages, from the first."""
        self.cut(0)
        for number, value in enumerate(values, 1):
            self.put(number, value)

    def total(self, page_count: int) -> int | None:
        """The sum over all pages; None when the file has another length."""
        return _total(self._file, page_count)

    def sync(self) -> None:
        os.fdatasync(self._file)


def total_of(path: Path, page_count: int) -> int | None:
    """The same of a file that nobody has open.  Raises OSError."""
    with path.open("rb") as stream:
        return _total(stream.fileno(), page_count)


def _total(descriptor: int, page_count: int) -> int | None:
    if os.fstat(descriptor).st_size != page_count * SUM_SIZE:
        return None
    total = 0
    for start in range(0, page_count, _BATCH):
        data = os.pread(descriptor, _BATCH * SUM_SIZE, start * SUM_SIZE)
        total += sum(int.from_bytes(data[at : at + SUM_SIZE], "big") for at in range(0, len(data), SUM_SIZE))
    return total
