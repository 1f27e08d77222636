"""What a mount understands of its trash, as commands of its control socket.

Owns the form of requests and answers: paths as text that stands for bytes, from the root of the mount; long
listings in batches that go as progress.  Looking blocks for as long as it takes, so it runs in a worker.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

import trio

from objfs.app.control import Command, Report, send
from objfs.app.differences import BATCH
from objfs.app.engine import Engine
from objfs.app.wire import Message, text
from objfs.meta.trash_view import Deleted, TrashView
from objfs.model import Ino
from objfs.volume.fields import JSON

T = TypeVar("T")


class TrashCommands:
    """The commands about what was deleted in one mount."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, Command]:
        return {"trash-list": self.list, "trash-undelete": self.undelete, "trash-empty": self.empty}

    async def list(self, request: Message, report: Report) -> Message:
        path = os.fsencode(text(request, "path"))
        found = await self._look(lambda view, root: view.deleted(path, root))
        await send(report, "items", map(_described, found), BATCH)
        return {"count": len(found), "days": self._engine.trash.days, "read_only": self._engine.read_only}

    async def undelete(self, request: Message, _report: Report) -> Message:
        self._engine.require_writing("changed")
        path, to = os.fsencode(text(request, "path")), os.fsencode(text(request, "to")) or None
        name = os.fsencode(text(request, "name")) or await self._newest(path)
        done = await self._engine.restorer.undelete(name, path, to)
        return {"snapshot": os.fsdecode(name), "inodes": len(done.rewritten), "names": len(done.names)}

    async def empty(self, _request: Message, _report: Report) -> Message:
        self._engine.require_writing("changed")
        return {"deleted": await self._engine.trash.empty()}

    async def _newest(self, path: bytes) -> bytes:
        """The snapshot that shows what was deleted at a path.  Raises NotFound."""
        return (await self._look(lambda view, root: view.moment_of(path, root))).name

    async def _look(self, job: Callable[[TrashView, Ino], T]) -> T:
        table, root = self._engine.table.path, self._engine.fs.settings.root

        def look() -> T:
            with TrashView(table) as view:
                return job(view, root)

        return await trio.to_thread.run_sync(look)


def _described(one: Deleted) -> JSON:
    return {
        "path": os.fsdecode(one.path),
        "type": one.type,
        "size": one.size,
        "names": one.names,
        "snapshot": os.fsdecode(one.snapshot.name),
        "taken_ns": one.snapshot.created_ns,
        "in_the_way": one.taken,
    }
