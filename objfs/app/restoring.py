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
from dataclasses import dataclass

from objfs.app.exchange import Exchange, Replaced
from objfs.meta.restore import Restored
from objfs.model import NS, Snapshot
from objfs.ports import DOING
from objfs.volume.snapshots import free_name, shown

log = logging.getLogger(__name__)

UNDO = "before-restore-%Y%m%dT%H%M%SZ"
"""Name of the snapshot that undoes a restore, by the time in UTC."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, and the snapshot that undoes it, if one was taken."""

    done: Restored
    undo: Snapshot | None


class Restorer:
    """The restores of one mount that writes."""

    def __init__(self, mount: Exchange) -> None:
        self._mount = mount

    async def restore(self, name: bytes, path: bytes, *, undo: bool) -> Outcome:
        """``path`` begins at the root of the mount.  Returns when it is durable here and the kernel knows.
        Raises NoSuchSnapshot, NotFound, InvalidArgument, ReadOnly; ObjfsError where it was done and the
        kernel could not be told, or the local disk fails."""
        await self._mount.fs.settled()
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
        await self._mount.settle(replaced, "restored")
        return outcome

    def _step(self, name: bytes, path: bytes, *, undo: bool) -> tuple[Outcome, Replaced]:
        """Everything between two requests."""
        DOING.operation = "restore"
        self._mount.gate.check()
        moment = self._mount.table.snapshot(name)
        with self._mount.table.transaction():
            plan = self._mount.table.plan_restore(moment, self._mount.fs.settings.root, path)
            taken = self._undo_snapshot(name) if undo else None
            done = self._mount.table.restore(plan, self._mount.clock.now_ns())
        return Outcome(done, taken), self._replaced(done)

    async def undelete(self, name: bytes, path: bytes, to: bytes | None) -> Restored:
        """Brings back what was deleted at ``path`` since a snapshot, in its place or to ``to``; both begin at
        the root of the mount.  Returns, and raises, as ``restore`` does; and Exists."""
        await self._mount.fs.settled()
        DOING.operation = "undelete"
        self._mount.gate.check()
        with self._mount.table.transaction():
            moment = self._mount.table.snapshot(name)
            plan = self._mount.table.trash.plan(moment, self._mount.fs.settings.root, path, to)
            done = self._mount.table.trash.undelete(plan, self._mount.clock.now_ns())
        replaced = self._replaced(done)
        log.info("undeleted snapshot=%s path=%s names=%d", shown(name), shown(path), len(done.names))
        await self._mount.settle(replaced, "restored")
        return done

    def _replaced(self, done: Restored) -> Replaced:
        """In the step that changed the rows: open files know, and what is to be told to the kernel."""
        self._mount.fs.replaced(done.rewritten, done.lost)
        return Replaced.among(set(self._mount.fs.known()), done)

    def _undo_snapshot(self, name: bytes) -> Snapshot:
        """Of what is there; its dirty bytes do not change any more."""
        now_ns = self._mount.clock.now_ns()
        first = time.strftime(UNDO, time.gmtime(now_ns // NS)).encode()
        taken = self._mount.table.create_snapshot(
            free_name(self._mount.table, first), now_ns, f"before {shown(name)} was restored"
        )
        self._mount.cache.freeze()
        return taken
