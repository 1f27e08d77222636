"""Copies of moved shards, deleted when no kept moment needs them.

Owns the rule: a stray goes when a manifest that names the new place is the oldest that is kept, the grace is
over, and the lease was looked at.  Until then a reader of an older moment finds the shard where its manifest
says.  Promises that a copy which a row names again is not deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from objfs.model import NS, Slot, Stray
from objfs.ports import Clock
from objfs.volume.lease import Lease

log = logging.getLogger(__name__)

BATCH = 64
"""Copies deleted between two looks at the lease."""


class StrayTable(Protocol):
    """The rows of strays."""

    def listed(self) -> Sequence[Stray]: ...
    def fresh(self) -> Sequence[Stray]:
        """Those noted since the call before."""
        ...

    def has(self, stray: Stray) -> bool: ...
    def forget(self, strays: Sequence[Stray]) -> None: ...


class CopyStore(Protocol):
    """The store, as far as strays need it."""

    async def delete_copy(self, uuid: bytes, shard: int, slot: Slot) -> bool:
        """False where it could not be deleted now."""
        ...


class StrayReaper:
    """One per writing mount."""

    def __init__(
        self, store: CopyStore, table: StrayTable, lease: Lease, clock: Clock, grace_s: float
    ) -> None:
        self._store = store
        self._table = table
        self._lease = lease
        self._clock = clock
        self._grace_s = grace_s
        self._dated: dict[Stray, int] = dict.fromkeys(table.listed(), 0)
        """Each with the first manifest that certainly names the new place; 0 while none was cut."""
        self._undated = list(self._dated)

    def at_cut(self, sequence: int) -> None:
        """What is noted by now is in the image of this cut, and the new place of the shard with it."""
        for stray in (*self._undated, *self._table.fresh()):
            self._dated[stray] = sequence
        self._undated = []

    async def round(self, oldest: int) -> int:
        """Deletes what may go, where ``oldest`` is the oldest manifest kept; returns how many copies went.
        Raises LeaseLost, NoQuorum, ReadOnly."""
        horizon = self._clock.now_ns() - int(self._grace_s * NS)
        ripe = [
            stray
            for stray, sequence in self._dated.items()
            if 0 < sequence <= oldest and stray.since_ns <= horizon
        ]
        deleted = 0
        for start in range(0, len(ripe), BATCH):
            await self._lease.check()
            gone = [stray for stray in ripe[start : start + BATCH] if await self._delete(stray)]
            self._table.forget(gone)
            for stray in gone:
                del self._dated[stray]
            deleted += len(gone)
        return deleted

    async def _delete(self, stray: Stray) -> bool:
        await self._lease.confirm()
        if not self._table.has(stray):
            return True
        done = await self._store.delete_copy(stray.uuid, stray.shard, stray.slot)
        if done:
            log.debug(
                "moved copy deleted uuid=%s shard=%d slot=%d", stray.uuid.hex(), stray.shard, stray.slot
            )
        return done
