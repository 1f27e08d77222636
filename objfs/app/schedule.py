"""Snapshots that a timer takes: named by the time, pruned by the policy of ``volume.toml``.

Owns the name, and the note of the last failure, for ``status``.  Promises that nobody else's snapshot is
pruned here.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from objfs.errors import ObjfsError
from objfs.model import NS, Snapshot, SnapshotFlag
from objfs.ports import Clock
from objfs.volume.retention import Policy, Verdict
from objfs.volume.settings import VolumeSettings
from objfs.volume.snapshots import SnapshotKeeper

log = logging.getLogger(__name__)

COMMENT = "scheduled"


@dataclass(frozen=True, slots=True)
class Failure:
    """When the last scheduled snapshot failed (nanoseconds since 1970), and why."""

    at_ns: int
    error: str


def policy_of(settings: VolumeSettings) -> Policy:
    """What ``volume.toml`` says is kept."""
    return Policy(
        last=settings.snapshot_keep_last,
        hourly=settings.snapshot_keep_hourly,
        daily=settings.snapshot_keep_daily,
        weekly=settings.snapshot_keep_weekly,
        monthly=settings.snapshot_keep_monthly,
        yearly=settings.snapshot_keep_yearly,
    )


class Schedule:
    """The scheduled snapshots of one mount."""

    def __init__(self, snapshots: SnapshotKeeper, policy: Policy, clock: Clock) -> None:
        self._snapshots = snapshots
        self._policy = policy
        self._clock = clock
        self.failure: Failure | None = None
        """None too once another has succeeded."""

    async def take(self) -> tuple[Snapshot, list[Verdict]]:
        """Takes one and prunes.  Raises what that raises, and notes it."""
        now_ns = self._clock.now_ns()
        name = time.strftime("auto-%Y%m%dT%H%M%SZ", time.gmtime(now_ns // NS)).encode()
        try:
            taken = await self._snapshots.create(name, COMMENT, flags=SnapshotFlag.SCHEDULED)
            pruned: list[Verdict] = []
            if not self._policy.empty:
                pruned = await self._snapshots.prune(self._policy, flags=SnapshotFlag.SCHEDULED)
        except ObjfsError as error:
            self.failure = Failure(now_ns, str(error))
            log.error("scheduled snapshot failed name=%s: %s", name.decode(), error)
            raise
        self.failure = None
        return taken, pruned
