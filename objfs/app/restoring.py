"""A mount goes back to a moment, the whole volume or what is below a path, while programs use it.

Owns the order: long truncates over; then, in one step of the loop, a snapshot of what is there, the rows of
the moment, and what the file system knows of open files; then the kernel forgets, and the log is synced.
Promises that every request sees the tree before or after, that a crash leaves one of the two, and that the
kernel has forgotten what it remembered when the command returns.

The step holds the loop for as long as the rows take: see docs/design/restore.md.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from objfs.cache import ChunkCache
from objfs.errors import ObjfsError
from objfs.fs import FileSystem
from objfs.meta import MetaDatabase
from objfs.meta.restore import Restored
from objfs.model import NS, Ino, Snapshot
from objfs.ports import DOING, Clock, WriteGate
from objfs.volume.snapshots import free_name, shown

log = logging.getLogger(__name__)

UNDO = "before-restore-%Y%m%dT%H%M%SZ"
"""Name of the snapshot that undoes a restore, by the time in UTC."""


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, and the snapshot that undoes it, if one was taken."""

    done: Restored
    undo: Snapshot | None


class Restorer:
    """The restores of one mount that writes.  ``sync`` makes the local log durable; ``kernel`` is set while
    the kernel is served."""

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

    async def restore(self, name: bytes, path: bytes, *, undo: bool) -> Outcome:
        """``path`` begins at the root of the mount.  Returns when it is durable here and the kernel knows.
        Raises NoSuchSnapshot, NotFound, InvalidArgument, ReadOnly; ObjfsError where it was done and the
        kernel could not be told, or the local disk fails."""
        await self._fs.settled()
        outcome, replaced = self._step(name, path, undo=undo)
        done = outcome.done
        log.info(
            "restored snapshot=%s path=%s rewritten=%d lost=%d undo=%s",
            shown(name),
            shown(path),
            len(done.rewritten),
            len(done.lost),
            shown(outcome.undo.name) if outcome.undo is not None else "",
        )
        await self._tell(replaced)
        await self._sync()
        return outcome

    def _step(self, name: bytes, path: bytes, *, undo: bool) -> tuple[Outcome, Replaced]:
        """Everything between two requests."""
        DOING.operation = "restore"
        self._gate.check()
        moment = self._table.snapshot(name)
        with self._table.transaction():
            plan = self._table.plan_restore(moment, self._fs.settings.root, path)
            taken = self._undo_snapshot(name) if undo else None
            done = self._table.restore(plan, self._clock.now_ns())
        return Outcome(done, taken), self._replaced(done)

    async def undelete(self, name: bytes, path: bytes, to: bytes | None) -> Restored:
        """Brings back what was deleted at ``path`` since a snapshot, in its place or to ``to``; both begin at
        the root of the mount.  Returns, and raises, as ``restore`` does; and Exists."""
        await self._fs.settled()
        DOING.operation = "undelete"
        self._gate.check()
        with self._table.transaction():
            moment = self._table.snapshot(name)
            plan = self._table.trash.plan(moment, self._fs.settings.root, path, to)
            done = self._table.trash.undelete(plan, self._clock.now_ns())
        replaced = self._replaced(done)
        log.info("undeleted snapshot=%s path=%s names=%d", shown(name), shown(path), len(done.names))
        await self._tell(replaced)
        await self._sync()
        return done

    def _replaced(self, done: Restored) -> Replaced:
        """In the step that changed the rows: open files know, and what is to be told to the kernel."""
        self._fs.replaced(done.rewritten, done.lost)
        return Replaced.among(set(self._fs.known()), done)

    def _undo_snapshot(self, name: bytes) -> Snapshot:
        """Of what is there; its dirty bytes do not change any more."""
        now_ns = self._clock.now_ns()
        first = time.strftime(UNDO, time.gmtime(now_ns // NS)).encode()
        taken = self._table.create_snapshot(
            free_name(self._table, first), now_ns, f"before {shown(name)} was restored"
        )
        self._cache.freeze()
        return taken

    async def _tell(self, replaced: Replaced) -> None:
        if self.kernel is None:
            return
        try:
            await self.kernel.forget(replaced)
        except OSError as error:
            raise ObjfsError(
                f"it is restored, and the kernel could not be told ({error}): unmount, and mount again"
            ) from error
