"""What a mount understands of clones, as a command of its socket.

Owns the form of request and answer: inodes by the numbers that programs see, the name as text that stands for
bytes.  Holds no state.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from objfs.app.control import Command, Report
from objfs.app.engine import Engine
from objfs.app.wire import Message, text
from objfs.errors import ReadOnly, UsageError
from objfs.meta.clone import Origin
from objfs.meta.snapshot_view import SnapshotTable
from objfs.model import Ino


class CloneCommands:
    """The command ``clone`` of one mount."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, Command]:
        return {"clone": self.clone}

    async def clone(self, request: Message, _report: Report) -> Message:
        self._engine.require_writing("cloned")
        name = os.fsencode(text(request, "name"))
        origin, parent = self._origin(request), self._parent(request)
        made = await self._engine.cloner.clone(origin, parent, name)
        return {"inodes": made.inodes, "bytes": made.held, "writeback": self._engine.writeback}

    def _origin(self, request: Message) -> Origin:
        fs, ino = self._engine.operations.located(_number(request, "ino"))
        if fs is self._engine.fs:
            return Origin(ino)
        if not isinstance(fs.tables, SnapshotTable):
            raise UsageError("this is the directory of all snapshots: clone one of them, or a path in it")
        return Origin(ino, fs.tables.snapshot)

    def _parent(self, request: Message) -> Ino:
        fs, ino = self._engine.operations.located(_number(request, "parent"))
        if fs is not self._engine.fs:
            raise ReadOnly("a snapshot cannot be changed: clone to a place outside of it")
        return ino


def _number(request: Message, key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int):
        raise UsageError(f"the request lacks an inode number: {key}")
    return value
