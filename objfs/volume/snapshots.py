"""Snapshots of an open volume: taken in one step, durable in the buckets, dropped.

Owns the order of a creation.  Promises that a snapshot is one whole moment which contains everything that was
written before it was asked for, and that its bytes never change: the versions that were dirty then are frozen
in the step that names the moment, so later writes begin new ones.  Nothing depends on the size of the tree.

A truncate that goes on hides rows from readers of the present, and a reader of the snapshot would see them
again: so those are finished first, piece by piece, and the moment is taken in the step that finds none left.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from objfs.cache import ChunkCache
from objfs.errors import LeaseLost, ObjfsError, ReadOnly, Unreachable, UsageError
from objfs.fs.data import CHUNKS_PER_STEP
from objfs.meta import MetaDatabase
from objfs.model import DOING, NAME_MAX, Clock, Snapshot, WriteGate

log = logging.getLogger(__name__)

COMMENT_MAX = 4096
"""Bytes of a comment."""


def shown(name: bytes) -> str:
    """A name for people."""
    return name.decode("utf-8", "backslashreplace")


def check_name(name: bytes) -> None:
    """Raises UsageError for what cannot be the name of a snapshot."""
    if not 1 <= len(name) <= NAME_MAX:
        raise UsageError(f"the name of a snapshot has 1 to {NAME_MAX} bytes, not {len(name)}")
    if name in (b".", b"..") or any(byte in name for byte in (b"/", b"@", b"\0")):
        raise UsageError(f"{shown(name)!r} cannot name a snapshot: no '/', no '@', no NUL, not '.' or '..'")


def check_comment(comment: str) -> None:
    """Raises UsageError for a comment that is too long."""
    if len(comment.encode("utf-8", "surrogatepass")) > COMMENT_MAX:
        raise UsageError(f"the comment of a snapshot has at most {COMMENT_MAX} bytes")


class SnapshotKeeper:
    """The snapshots of one open volume.  ``publish`` returns when everything committed before is recoverable
    from the buckets."""

    def __init__(
        self,
        table: MetaDatabase,
        cache: ChunkCache,
        gate: WriteGate,
        clock: Clock,
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self._table = table
        self._cache = cache
        self._gate = gate
        self._clock = clock
        self._publish = publish

    def recover(self) -> None:
        """After a crash, before anybody writes: versions that a snapshot shows are not written in place."""
        if self._table.snapshots():
            self._cache.freeze()

    def listed(self) -> list[Snapshot]:
        """All, oldest first."""
        return self._table.snapshots()

    def get(self, name: bytes) -> Snapshot:
        """Raises NoSuchSnapshot."""
        return self._table.snapshot(name)

    async def create(self, name: bytes, comment: str = "", *, wait: bool = True) -> Snapshot:
        """Names the present moment; with ``wait`` returns when it is recoverable from the buckets.

        Raises UsageError (name, comment), SnapshotExists, ReadOnly, LeaseLost; and Unreachable when it was
        taken, but the buckets do not have it yet.
        """
        check_name(name)
        check_comment(comment)
        await self._finish_truncates()
        # One moment: nothing may run from here to the row.
        DOING.operation = "snapshot"
        self._gate.check()
        with self._table.transaction():
            taken = self._table.create_snapshot(name, self._clock.now_ns(), comment)
            self._cache.freeze()
        log.info("snapshot taken name=%s generation=%d", shown(name), taken.generation)
        if wait:
            await self._published(f"snapshot {shown(name)} is taken")
        return taken

    async def delete(self, name: bytes, *, wait: bool = True) -> Snapshot:
        """Drops a snapshot.  Raises NoSuchSnapshot, ReadOnly, LeaseLost, Unreachable."""
        self._gate.check()
        dropped = self._table.drop_snapshot(name)
        log.info("snapshot deleted name=%s generation=%d", shown(name), dropped.generation)
        if wait:
            await self._published(f"snapshot {shown(name)} is deleted")
        return dropped

    async def _finish_truncates(self) -> None:
        """On return there is none, until the caller awaits."""
        while found := self._table.truncates(1):
            self._gate.check()
            self._table.purge(found[0], CHUNKS_PER_STEP)
            await trio.lowlevel.checkpoint()

    async def _published(self, done: str) -> None:
        try:
            await self._publish()
        except (LeaseLost, ReadOnly):
            raise
        except ObjfsError as error:
            raise Unreachable(f"{done} here, and the buckets do not know it yet ({error})") from error
