"""The trash of one mount: a snapshot before a removal, so that what is removed can be brought back.

Owns when such a snapshot is taken, and when it goes.  Promises:

- a removal that loses something is preceded by one, in the same step and so in the same order after every
  crash, unless one is younger than ``INTERVAL_S``, or younger than ``SERVES_S`` and shows what is removed as
  it is: a tree that is removed costs one snapshot;
- no removal waits for a bucket; with the next checkpoint the buckets have both;
- each is kept so many days after it served for the last time, by the clock of the volume.

Two clocks: ages up to an hour are by one that never goes back, and are those of this mount.
"""

from __future__ import annotations

import logging
import time

import trio

from objfs.errors import ObjfsError
from objfs.fs.data import CHUNKS_PER_STEP
from objfs.meta import MetaDatabase
from objfs.model import NS, Ino, SnapshotFlag
from objfs.ports import Clock, WriteGate
from objfs.volume.snapshots import DROPPED_AT_ONCE, SnapshotKeeper, free_name

log = logging.getLogger(__name__)

NAME = "trash-%Y%m%dT%H%M%SZ"
"""By the time in UTC."""
COMMENT = "before something was removed"
INTERVAL_S = 60.0
SERVES_S = 3600.0
EXPIRE_S = 600.0
"""Between two looks for what is old enough to go."""
DAY_S = 86400
TRUNCATES_S = 0.02
"""How long a removal finishes the truncates of others."""
EVER = 2**62


class Trash:
    """``days`` 0: nothing is added, and nothing expires."""

    def __init__(
        self, table: MetaDatabase, snapshots: SnapshotKeeper, gate: WriteGate, clock: Clock, days: int
    ) -> None:
        self._table = table
        self._snapshots = snapshots
        self._gate = gate
        self._clock = clock
        self.days = days
        self._generation = 0
        self._taken_at = 0.0

    def removing(self, parent: Ino, name: bytes) -> None:
        """To be called in the step that removes a name, before it does.  One or two searches by key."""
        age_s = self._clock.monotonic() - self._taken_at
        if not self._table.trash.keeps(self._generation):
            age_s = SERVES_S
        if age_s < INTERVAL_S:
            return
        shown = self._generation if age_s < SERVES_S else 0
        if self._table.trash.loses(parent, name, shown):
            self._take()

    def _take(self) -> None:
        if not self._truncates_over():
            log.warning("a removal is not kept in the trash: the truncate of a very large file goes on")
            return
        first = time.strftime(NAME, time.gmtime(self._clock.now_ns() // NS)).encode()
        taken = self._snapshots.take(free_name(self._table, first), COMMENT, SnapshotFlag.TRASH)
        self._generation, self._taken_at = taken.generation, self._clock.monotonic()

    def _truncates_over(self) -> bool:
        """What a truncate hides would show in the snapshot (see ``snapshots``)."""
        until = self._clock.monotonic() + TRUNCATES_S
        while found := self._table.truncates(1):
            if self._clock.monotonic() >= until:
                return False
            self._table.purge(found[0], CHUNKS_PER_STEP)
        return True

    # --- the end of it ---------------------------------------------------------------------

    async def run(self) -> None:
        """Removes what is old enough, until cancelled or nothing may be written."""
        while self._gate.open:
            try:
                await self.expire()
            except ObjfsError as error:
                log.error("the trash keeps what is old, tried again in %.0f s: %s", EXPIRE_S, error)
            await trio.sleep(EXPIRE_S)

    async def expire(self) -> int:
        """Drops what is older than it is to be kept; returns how many.  Raises ReadOnly, LeaseLost."""
        if not self.days:
            return 0
        kept_s = self.days * DAY_S + int(SERVES_S)
        return await self._drop(self._clock.now_ns() // NS - kept_s)

    async def empty(self) -> int:
        """Drops all of it but what is held; returns how many, when the buckets know.  Raises ReadOnly,
        LeaseLost, Unreachable."""
        dropped = await self._drop(EVER)
        await self._snapshots.published("the trash is emptied")
        return dropped

    async def _drop(self, before_s: int) -> int:
        dropped = 0
        while old := self._table.trash.older(before_s, DROPPED_AT_ONCE):
            await self._snapshots.drop_all(old)
            dropped += len(old)
        return dropped
