"""A named moment's window on the live cache.

Owns the readahead of one tree.  Promises that nothing is kept twice: a version has one entry whoever reads
it, and its frames are asked for once at a time; that all bytes count against the one cap; and that versions
of a moment that were not uploaded yet are read like all others.  Nothing can be written through it.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

import trio

from objfs.cache.prefetch import Scout
from objfs.errors import ReadOnly
from objfs.model import Chunk, DirtyRange, Ino


class Shared(Protocol):
    """The live cache, as its views use it."""

    def read_nowait_of(self, scout: Scout, chunk: Chunk, offset: int, length: int) -> bytes | None: ...

    async def read_of(self, scout: Scout, chunk: Chunk, offset: int, length: int) -> bytes: ...

    def visible_length(self, chunk: Chunk) -> int: ...


class CacheView:
    """What a read-only tree needs of a cache; the errors of reading are those of ``ChunkCache``."""

    def __init__(self, shared: Shared, scout: Scout) -> None:
        self._shared = shared
        self._scout = scout
        self.visible_length = shared.visible_length

    def read_nowait(self, chunk: Chunk, offset: int, length: int) -> bytes | None:
        """Exactly ``length`` bytes, or None when some of them are not in memory or not verified yet."""
        return self._shared.read_nowait_of(self._scout, chunk, offset, length)

    async def read(self, chunk: Chunk, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes."""
        return await self._shared.read_of(self._scout, chunk, offset, length)

    def writable(self, _chunk: Chunk) -> bool:
        """Never."""
        return False

    async def admit(self, _nbytes: int) -> None:
        """Raises ReadOnly."""
        self._refuse()

    def write(self, _chunk: Chunk, _offset: int, _data: bytes) -> DirtyRange:
        """Raises ReadOnly."""
        self._refuse()

    def clip(self, _chunk: Chunk, _length: int) -> None:
        """Raises ReadOnly."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ReadOnly("a snapshot cannot be changed")

    async def fsync(self, _ino: Ino) -> None:
        """Nothing was written."""
        await trio.lowlevel.checkpoint()

    async def sync(self) -> None:
        """Nothing was written."""
        await trio.lowlevel.checkpoint()
