"""Rows that are exchanged behind the backs of those who use a mount, and whom to tell of it.

Owns what every such change needs of the mount, and its end: the kernel has forgotten what it remembered, and
the log is durable.  Does not know what is exchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from objfs.cache import ChunkCache
from objfs.errors import ObjfsError
from objfs.fs import FileSystem
from objfs.meta import MetaDatabase
from objfs.meta.restore import Restored
from objfs.model import Ino
from objfs.ports import Clock, WriteGate


@dataclass(frozen=True, slots=True)
class Replaced:
    """What the kernel is told to forget: only what it knows."""

    _inodes: Sequence[Ino]
    _rewritten: Sequence[Ino]
    _names: Sequence[tuple[Ino, bytes]]

    @classmethod
    def among(cls, known: set[Ino], done: Restored) -> Replaced:
        """Of what a restore did."""
        rewritten = [ino for ino in done.rewritten if ino in known]
        others = [ino for ino in {*done.lost, *done.touched} if ino in known]
        return cls(
            rewritten + others, rewritten, [(parent, name) for parent, name in done.names if parent in known]
        )

    def inodes(self) -> Sequence[Ino]:
        return self._inodes

    def rewritten(self) -> Sequence[Ino]:
        return self._rewritten

    def names(self) -> Sequence[tuple[Ino, bytes]]:
        return self._names


class Kernel(Protocol):
    """Who remembers what it was told of the tree: ``fuse.Session``."""

    async def forget(self, changes: Replaced) -> None: ...


@dataclass(slots=True)
class Exchange:
    """One mount that writes.  ``sync`` makes the local log durable; ``kernel`` is set while the kernel is
    served."""

    table: MetaDatabase
    cache: ChunkCache
    fs: FileSystem
    gate: WriteGate
    clock: Clock
    sync: Callable[[], Awaitable[None]]
    kernel: Kernel | None = None

    async def settle(self, changes: Replaced | None, done: str) -> None:
        """Returns when the kernel knows, and what was ``done`` is durable here; None: nothing to tell.

        Raises ObjfsError where the kernel could not be told, and what a sync raises."""
        if self.kernel is not None and changes is not None:
            try:
                await self.kernel.forget(changes)
            except OSError as error:
                raise ObjfsError(
                    f"it is {done}, and the kernel could not be told ({error}): unmount, and mount again"
                ) from error
        await self.sync()
