"""Snapshots of an open volume: taken in one step, durable in the buckets, dropped, and cleared away.

Owns the order of a creation, and the task that removes what no snapshot shows any more.  Promises that a
snapshot is one whole moment which contains everything that was written before it was asked for, and that its
bytes never change: the versions that were dirty then are frozen in the step that names the moment, so later
writes begin new ones.  Neither depends on the size of the tree.

A truncate that goes on hides rows from readers of the present, and a reader of the snapshot would see them
again: so those are finished first, piece by piece, and the moment is taken in the step that finds none left.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from objfs.cache import ChunkCache
from objfs.errors import (
    LeaseLost,
    NoSuchSnapshot,
    ObjfsError,
    ReadOnly,
    SnapshotHeld,
    Unreachable,
    UsageError,
)
from objfs.fs.data import CHUNKS_PER_STEP
from objfs.meta import MetaDatabase
from objfs.model import NAME_MAX, Snapshot, SnapshotFlag
from objfs.ports import DOING, Clock, WriteGate
from objfs.volume.retention import Policy, Verdict, judge

log = logging.getLogger(__name__)

COMMENT_MAX = 4096
"""Bytes of a comment."""
DROPPED_AT_ONCE = 256
ROWS_PER_STEP = 64
PIECE_S = 0.005
"""How long one piece of removing holds the loop, and how long it is left to others in between."""
RETRY_S = 1.0


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
    """Raises UsageError for a comment that is too long, or no text."""
    try:
        length = len(comment.encode())
    except UnicodeEncodeError:
        raise UsageError("the comment of a snapshot is not valid UTF-8") from None
    if length > COMMENT_MAX:
        raise UsageError(f"the comment of a snapshot has at most {COMMENT_MAX} bytes, not {length}")


def free_name(table: MetaDatabase, first: bytes) -> bytes:
    """``first``, or where there is such a snapshot the same with a number."""
    name, number = first, 1
    while _is_there(table, name):
        number += 1
        name = first + b"-%d" % number
    return name


def _is_there(table: MetaDatabase, name: bytes) -> bool:
    try:
        table.snapshot(name)
    except NoSuchSnapshot:
        return False
    return True


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
        self._wake = trio.Event()

    def recover(self) -> None:
        """After a crash, before anybody writes: versions that a snapshot, or a clone of their file, shows are
        not written in place."""
        if self._table.newest_snapshot() is not None:
            self._cache.freeze()
        else:
            self._cache.freeze_only(self._table.shared_versions())

    def listed(self) -> list[Snapshot]:
        """All, oldest first."""
        return self._table.snapshots()

    def get(self, name: bytes) -> Snapshot:
        """Raises NoSuchSnapshot."""
        return self._table.snapshot(name)

    async def create(self, name: bytes, comment: str = "", *, flags: int = 0, wait: bool = True) -> Snapshot:
        """Names the present moment; with ``wait`` returns when it is recoverable from the buckets.

        Raises UsageError (name, comment), SnapshotExists, ReadOnly, LeaseLost; and Unreachable when it was
        taken, but the buckets do not have it yet.
        """
        check_name(name)
        check_comment(comment)
        await self._finish_truncates()
        # One moment: nothing may run from here to the row.
        DOING.operation = "snapshot"
        taken = self.take(name, comment, flags)
        if wait:
            await self.published(f"snapshot {shown(name)} is taken")
        return taken

    def take(self, name: bytes, comment: str, flags: int) -> Snapshot:
        """The step that names the present moment, while no truncate goes on.  Raises SnapshotExists,
        ReadOnly, LeaseLost."""
        self._gate.check()
        with self._table.transaction():
            taken = self._table.create_snapshot(name, self._clock.now_ns(), comment, flags)
            self._cache.freeze()
        log.info("snapshot taken name=%s generation=%d", shown(name), taken.generation)
        return taken

    async def delete(self, name: bytes, *, force: bool = False, wait: bool = True) -> Snapshot:
        """Drops a snapshot, a held one by ``force`` only.  Raises NoSuchSnapshot, SnapshotHeld, ReadOnly,
        LeaseLost; and Unreachable when it is gone here, but the buckets do not know that yet."""
        found = self.get(name)
        if found.held and not force:
            raise SnapshotHeld(f"snapshot {shown(name)} is held: release it first, or use --force")
        self._drop([found])
        if wait:
            await self.published(f"snapshot {shown(name)} is deleted")
        return found

    async def hold(self, name: bytes, *, held: bool) -> Snapshot:
        """Keeps a snapshot from being pruned and deleted, or lets it go; durable as a creation is.  Raises
        NoSuchSnapshot, ReadOnly, LeaseLost, Unreachable."""
        self._gate.check()
        flags = self.get(name).flags & ~SnapshotFlag.HELD
        marked = self._table.mark_snapshot(name, flags | (SnapshotFlag.HELD if held else 0))
        await self.published(f"snapshot {shown(name)} is marked")
        return marked

    async def prune(self, policy: Policy, *, flags: int = 0, dry: bool = False) -> list[Verdict]:
        """Drops what a policy does not keep, among the snapshots that have all of ``flags``; returns what was
        decided on each, newest first.  The trash is no part of it.  ``dry``: decides only.  Raises ReadOnly,
        LeaseLost, Unreachable."""
        found = [one for one in self.listed() if one.flags & flags == flags and not one.trash]
        verdicts = await trio.to_thread.run_sync(judge, found, policy)
        going = [verdict.snapshot for verdict in verdicts if not verdict.reasons]
        if going and not dry:
            await self.drop_all(going)
            await self.published(f"{len(going)} snapshots are deleted")
        return verdicts

    async def drop_all(self, going: Sequence[Snapshot]) -> None:
        """Many, in steps that do not hold the loop for long; what was changed meanwhile stays."""
        for at in range(0, len(going), DROPPED_AT_ONCE):
            self._drop([one for one in going[at : at + DROPPED_AT_ONCE] if self._is_still(one)])
            await trio.lowlevel.checkpoint()

    def _is_still(self, one: Snapshot) -> bool:
        try:
            return self.get(one.name) == one
        except NoSuchSnapshot:
            return False

    def _drop(self, going: Sequence[Snapshot]) -> None:
        self._gate.check()
        with self._table.transaction():
            for one in going:
                self._table.drop_snapshot(one.name)
        for one in going:
            log.info("snapshot deleted name=%s generation=%d", shown(one.name), one.generation)
        self._wake.set()

    # --- what no snapshot shows any more ---------------------------------------------------

    async def run(self) -> None:
        """Removes it in the background, until cancelled or nothing may be written; begins with what earlier
        mounts have left."""
        while self._gate.open:
            self._wake = trio.Event()
            await self.clear()
            await self._wake.wait()

    async def clear(self) -> None:
        """Removes all of it, in pieces that leave the loop to others; also while ``run`` does."""
        while self._gate.open:
            try:
                if self._clear_piece():
                    return
            except ObjfsError as error:
                log.error("rows that no snapshot shows stay, tried again in %.0f s: %s", RETRY_S, error)
                await trio.sleep(RETRY_S)
            await trio.sleep(PIECE_S)

    def _clear_piece(self) -> bool:
        DOING.operation = "clear snapshots"
        until = self._clock.monotonic() + PIECE_S
        with self._table.transaction():
            while not self._table.clear_forgotten(ROWS_PER_STEP):
                if self._clock.monotonic() >= until:
                    return False
            return True

    # --- parts -----------------------------------------------------------------------------

    async def _finish_truncates(self) -> None:
        """On return there is none, until the caller awaits."""
        while found := self._table.truncates(1):
            self._gate.check()
            self._table.purge(found[0], CHUNKS_PER_STEP)
            await trio.lowlevel.checkpoint()

    async def published(self, done: str) -> None:
        """Returns when the buckets know what is ``done`` here.  Raises LeaseLost, ReadOnly, Unreachable."""
        try:
            await self._publish()
        except (LeaseLost, ReadOnly):
            raise
        except ObjfsError as error:
            raise Unreachable(f"{done} here, and the buckets do not know it yet ({error})") from error
