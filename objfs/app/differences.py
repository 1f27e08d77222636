"""What a mount understands of differences between moments, and of restores, as commands of its socket.

Owns the form of requests and answers: names and paths as text that stands for bytes, long listings in
batches that go as progress.  Comparing blocks for as long as it takes, so it runs in a worker.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import trio

from objfs.app.control import Command, Report, send
from objfs.app.engine import Engine
from objfs.app.wire import Message, text
from objfs.errors import NameTooLong, NotDirectory, NotFound, StaleHandle, UsageError
from objfs.fs import Tables
from objfs.meta.diff import Change, Difference
from objfs.meta.versions import FileVersion, VersionsView
from objfs.model import ROOT, Snapshot
from objfs.volume.fields import JSON
from objfs.volume.snapshots import shown

BATCH = 2000
"""Changes in one line of progress."""


class DifferenceCommands:
    """The commands about differences of one mount."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def table(self) -> Mapping[str, Command]:
        return {
            "snapshot-diff": self.diff,
            "snapshot-restore": self.restore,
            "snapshot-directory": self.directory,
            "versions": self.versions,
        }

    async def diff(self, request: Message, report: Report) -> Message:
        engine, path = self._engine, _bytes(request, "path")
        since = engine.snapshots.get(_bytes(request, "since"))
        until = engine.snapshots.get(_bytes(request, "until")) if request.get("until") else None
        if until is not None and until.generation < since.generation:
            raise UsageError("the first snapshot must be the older one: give them in order of time")
        if request.get("exists") is True:
            engine.table.plan_restore(since, engine.fs.settings.root, path)
        end = None if until is None else until.generation
        changes = await trio.to_thread.run_sync(self._compare, since.generation, end, path)
        if not changes and not any(self._is_there(moment, path) for moment in (since, until)):
            raise NotFound(f"{shown(path)} is not there, neither then nor later")
        await send(report, "items", map(_change, changes), BATCH)
        return {"count": len(changes)}

    def _compare(self, since: int, until: int | None, path: bytes) -> list[Change]:
        with Difference(self._engine.table.path, since, until, self._engine.fs.settings.root) as found:
            return found.changes(path)

    def _is_there(self, moment: Snapshot | None, path: bytes) -> bool:
        """At a moment; None is the present."""
        table: Tables = self._engine.table
        if moment is not None:
            moments = self._engine.table.moments()
            table = moments.moment(moments.lookup(ROOT, moment.name).ino).table
        ino = self._engine.fs.settings.root
        try:
            for name in filter(None, path.split(b"/")):
                ino = table.lookup(ino, name).ino
        except (NotFound, NotDirectory, NameTooLong, StaleHandle):
            return False
        return True

    async def restore(self, request: Message, _report: Report) -> Message:
        self._engine.require_writing("restored")
        name, path = _bytes(request, "name"), _bytes(request, "path")
        outcome = await self._engine.restorer.restore(name, path, undo=request.get("undo") is not False)
        return {
            "rewritten": len(outcome.done.rewritten),
            "lost": len(outcome.done.lost),
            "names": len(outcome.done.names),
            "undo": os.fsdecode(outcome.undo.name) if outcome.undo is not None else "",
        }

    async def directory(self, request: Message, _report: Report) -> Message:
        """Where a snapshot is shown, below the root of the mount.  Raises NoSuchSnapshot."""
        self._engine.snapshots.get(_bytes(request, "name"))
        return {"directory": self._engine.snapshot_dir}

    async def versions(self, request: Message, report: Report) -> Message:
        found = await trio.to_thread.run_sync(self._versions, _bytes(request, "path"))
        await send(report, "items", map(_version, found), BATCH)
        return {"count": len(found)}

    def _versions(self, path: bytes) -> list[FileVersion]:
        with VersionsView(self._engine.table.path, self._engine.fs.settings.root) as view:
            found = view.versions(path)
        if not found:
            raise NotFound(f"{shown(path)} is not there, neither now nor in a snapshot")
        return found


def _bytes(request: Message, key: str) -> bytes:
    return os.fsencode(text(request, key))


def _change(one: Change) -> JSON:
    return {
        "change": str(one.kind),
        "path": os.fsdecode(one.path),
        "old_path": None if one.old_path is None else os.fsdecode(one.old_path),
        "type": one.type,
        "inode": one.ino,
        "old_size": one.old_size,
        "size": one.size,
        "fields": [*one.fields],
    }


def _version(one: FileVersion) -> JSON:
    return {
        "snapshot": None if one.snapshot is None else os.fsdecode(one.snapshot),
        "taken_ns": one.taken_ns,
        "inode": one.ino,
        "size": one.size,
        "mtime_ns": one.mtime_ns,
        "moments": one.moments,
    }
