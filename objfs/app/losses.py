"""What is lost for good, by path: for the log and for ``objfs status``.

Owns the way from a lost chunk to the name of its file.  Looking names up reads all entries, so it is done in
a worker, and only where something is lost.
"""

from __future__ import annotations

import logging

import trio

from objfs.cache import Loss
from objfs.errors import ObjfsError
from objfs.meta import MetaDatabase
from objfs.meta.view import TableView
from objfs.model import Chunk, Ino
from objfs.volume.fields import JSON

log = logging.getLogger(__name__)

MOST = 100
"""Chunks that ``status`` names."""
_QUEUE = 1000


class Losses:
    """The losses of one mount; ``run`` names in the log what ``note`` was told."""

    def __init__(self, table: MetaDatabase) -> None:
        self._table = table
        self._send, self._receive = trio.open_memory_channel[Loss](_QUEUE)

    def note(self, loss: Loss) -> None:
        """One step of the loop; the cache has logged it without a path."""
        try:
            self._send.send_nowait(loss)
        except trio.WouldBlock:
            return  # status names it all the same

    async def run(self) -> None:
        """Until cancelled."""
        async for loss in self._receive:
            path = (await self._paths({loss.ino})).get(loss.ino, "(no name)")
            log.error(
                "lost: path=%s ino=%d offset=%d length=%d: reading there is an error; %s",
                path,
                loss.ino,
                loss.offset,
                loss.length,
                loss.left,
            )

    async def status(self) -> list[JSON]:
        """The lost chunks of files, at most ``MOST``."""
        rows = self._table.lost_chunks(MOST)
        paths = await self._paths({row.ino for row in rows})
        return [self._describe(row, paths) for row in rows]

    def _describe(self, row: Chunk, paths: dict[Ino, str]) -> JSON:
        return {
            "path": paths.get(row.ino, ""),
            "inode": row.ino,
            "offset": row.index * self._table.chunk_size,
            "length": row.location.size if row.location is not None else 0,
        }

    async def _paths(self, inodes: set[Ino]) -> dict[Ino, str]:
        return await trio.to_thread.run_sync(self._look_up, inodes) if inodes else {}

    def _look_up(self, inodes: set[Ino]) -> dict[Ino, str]:
        try:
            with TableView(self._table.path) as view:
                found = view.paths(inodes)
        except ObjfsError as error:
            log.warning("no path can be told: %s", error)
            return {}
        return {ino: path.decode("utf-8", "backslashreplace") for ino, path in found.items()}
