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

from objfs.app.exchange import Exchange, Replaced
from objfs.meta.clone import Cloned, Origin
from objfs.model import Attr, Ino
from objfs.ports import DOING
from objfs.volume.snapshots import shown

log = logging.getLogger(__name__)


class Cloner:
    """The clones of one mount that writes."""

    def __init__(self, mount: Exchange) -> None:
        self._mount = mount

    async def clone(self, origin: Origin, parent: Ino, name: bytes) -> Cloned:
        """``name`` in directory ``parent`` is a clone.  Returns when it is durable here and the kernel knows.
        Raises as ``MetaDatabase.clone``, StaleHandle, ReadOnly; ObjfsError where it was made and the kernel
        could not be told, or the local disk fails."""
        self._mount.gate.check()
        await self._settle(origin)
        async with self._mount.fs.quiet():
            await self._settle(origin)
            await self._mount.fs.settled()
            made = self._step(origin, parent, name)
        log.info("cloned inode=%d name=%s inodes=%d", origin.ino, shown(name), made.inodes)
        known = self._mount.fs.knows(parent)
        await self._mount.settle(Replaced([parent], [], [(parent, name)]) if known else None, "cloned")
        return made

    async def _settle(self, origin: Origin) -> None:
        """What the source holds is on the disk: of a file its own bytes, of a tree whatever is there."""
        if self._attr(origin).is_dir:
            await self._mount.cache.sync()
        else:
            await self._mount.cache.fsync(origin.ino)

    def _attr(self, origin: Origin) -> Attr:
        table = self._mount.table if origin.snapshot is None else self._mount.table.at(origin.snapshot)
        return table.get(origin.ino)

    def _step(self, origin: Origin, parent: Ino, name: bytes) -> Cloned:
        """Everything between two requests."""
        DOING.operation = "clone"
        self._mount.gate.check()
        if origin.snapshot is not None:
            self._attr(origin)  # the snapshot may be gone by now
        with self._mount.table.transaction():
            made = self._mount.table.clone(origin, parent, name, self._mount.clock.now_ns())
            self._mount.cache.freeze_only(made.dirty)
        return made
