"""A file or a tree of a mount gets a second name for all that it holds, while programs use it.

Owns the order: what the source holds is durable on this machine; then, while writes wait, what came
meanwhile; then, in one step of the loop, the rows of the clone, and its dirty versions are frozen; then the
kernel forgets that the name was not there, and the log is synced.  Promises:

- every request sees no clone or all of it, a crash leaves one of the two;
- the clone is one moment of the source, with every write that had returned before;
- a later write to either does not change the other: a version that both name is never written again;
- no power cut takes bytes from a clone, because nothing is shared that is not on the disk.

The step holds the loop for as long as the rows take: see docs/design/clone.md.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from objfs.app.restoring import Kernel, Replaced
from objfs.cache import ChunkCache
from objfs.errors import ObjfsError
from objfs.fs import FileSystem
from objfs.meta import MetaDatabase
from objfs.meta.clone import Cloned, Origin
from objfs.model import Attr, Ino
from objfs.ports import DOING, Clock, WriteGate
from objfs.volume.snapshots import shown

log = logging.getLogger(__name__)


class Cloner:
    """The clones of one mount that writes.  ``sync`` makes the local log durable; ``kernel`` is set while the
    kernel is served."""

    def __init__(
        self,
        table: MetaDatabase,
        cache: ChunkCache,
        fs: FileSystem,
        gate: WriteGate,
        clock: Clock,
        sync: Callable[[], Awaitable[None]],
    ) -> None:
        self._table = table
        self._cache = cache
        self._fs = fs
        self._gate = gate
        self._clock = clock
        self._sync = sync
        self.kernel: Kernel | None = None

    async def clone(self, origin: Origin, parent: Ino, name: bytes) -> Cloned:
        """``name`` in directory ``parent`` is a clone.  Returns when it is durable here and the kernel knows.
        Raises as ``MetaDatabase.clone``, StaleHandle, ReadOnly; ObjfsError where it was made and the kernel
        could not be told, or the local disk fails."""
        self._gate.check()
        await self._settle(origin)
        async with self._fs.quiet():
            await self._settle(origin)
            await self._fs.settled()
            made = self._step(origin, parent, name)
        log.info("cloned inode=%d name=%s inodes=%d", origin.ino, shown(name), made.inodes)
        await self._tell(parent, name)
        await self._sync()
        return made

    async def _settle(self, origin: Origin) -> None:
        """What the source holds is on the disk: of a file its own bytes, of a tree whatever is there."""
        if self._attr(origin).is_dir:
            await self._cache.sync()
        else:
            await self._cache.fsync(origin.ino)

    def _attr(self, origin: Origin) -> Attr:
        table = self._table if origin.snapshot is None else self._table.at(origin.snapshot)
        return table.get(origin.ino)

    def _step(self, origin: Origin, parent: Ino, name: bytes) -> Cloned:
        """Everything between two requests."""
        DOING.operation = "clone"
        self._gate.check()
        if origin.snapshot is not None:
            self._attr(origin)  # the snapshot may be gone by now
        with self._table.transaction():
            made = self._table.clone(origin, parent, name, self._clock.now_ns())
            self._cache.freeze_only(made.dirty)
        return made

    async def _tell(self, parent: Ino, name: bytes) -> None:
        if self.kernel is None or parent not in self._fs.known():
            return
        try:
            await self.kernel.forget(Replaced([parent], [], [(parent, name)]))
        except OSError as error:
            raise ObjfsError(
                f"it is cloned, and the kernel could not be told ({error}): unmount, and mount again"
            ) from error
