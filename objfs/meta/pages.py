"""Page images outside the database: a bounded place to keep them, and a set of them.

Owns ``Spool`` (some in memory, the rest in a file without a name) and ``PageSet``. Knows nothing of
SQLite.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from objfs.errors import ObjfsError

MEMORY_PAGES = 1024
"""How many images a spool holds in memory: 4 MiB."""


class Spool:
    """Images by slot.  Slots of released images are used again.  Not for two threads at once."""

    def __init__(self, directory: Path, page_size: int, memory_pages: int = MEMORY_PAGES) -> None:
        self._directory = directory
        self._page_size = page_size
        self._memory_pages = memory_pages
        self._memory: dict[int, bytes] = {}
        self._file: int | None = None
        self._free: list[int] = []
        self._end = 0

    def put(self, image: bytes, slot: int | None = None) -> int:
        """Keeps an image, in ``slot`` where one is given (over what it held); returns the slot.  Raises
        OSError."""
        where = slot if slot is not None else self._free.pop() if self._free else self._end
        self._end = max(self._end, where + 1)
        if where in self._memory or len(self._memory) < self._memory_pages:
            self._memory[where] = image
        elif os.pwrite(self._open(), image, where * self._page_size) != self._page_size:
            raise ObjfsError(f"{self._directory}: a page could not be written whole; is the disk full?")
        return where

    def get(self, slot: int) -> bytes:
        """Raises OSError."""
        image = self._memory.get(slot)
        return os.pread(self._open(), self._page_size, slot * self._page_size) if image is None else image

    def release(self, slot: int) -> None:
        """The slot may be used again; an empty spool gives its space back."""
        self._memory.pop(slot, None)
        self._free.append(slot)
        if len(self._free) == self._end:
            self._free.clear()
            self._end = 0
            if self._file is not None:
                os.ftruncate(self._file, 0)

    @property
    def pages(self) -> int:
        return self._end - len(self._free)

    @property
    def disk_bytes(self) -> int:
        """What the file without a name takes on the disk."""
        return 0 if self._file is None else os.fstat(self._file).st_blocks * 512

    def _open(self) -> int:
        if self._file is None:
            descriptor, name = tempfile.mkstemp(prefix=".spool-", dir=self._directory)
            Path(name).unlink()
            self._file = descriptor
            weakref.finalize(self, os.close, descriptor)
        return self._file


class _Spooled(Mapping[int, bytes]):
    """Page number -> image, out of a spool of its own."""

    def __init__(self, spool: Spool, slots: Mapping[int, int]) -> None:
        self._spool = spool
        self._slots = slots

    def __getitem__(self, number: int) -> bytes:
        return self._spool.get(self._slots[number])

    def __iter__(self) -> Iterator[int]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)


@dataclass(frozen=True, slots=True)
class PageSet:
    """Images of pages at one moment, ascending; numbers begin at 1, ``page_count`` is the whole table's.

    The images may lie in a file without a name: they are read when asked for.
    """

    page_size: int
    page_count: int
    pages: Mapping[int, bytes]

    def __len__(self) -> int:
        return len(self.pages)


def spooled(directory: Path, page_size: int, page_count: int, images: Iterable[tuple[int, bytes]]) -> PageSet:
    """A set that holds little of itself in memory.  ``images`` ascending.  Raises OSError."""
    return spooled_in(Spool(directory, page_size), page_size, page_count, images)


def spooled_in(spool: Spool, page_size: int, page_count: int, images: Iterable[tuple[int, bytes]]) -> PageSet:
    """``spooled`` in a new spool of the caller's."""
    slots = {number: spool.put(image) for number, image in images}
    return PageSet(page_size, page_count, _Spooled(spool, slots))
