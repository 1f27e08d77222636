"""Scheduled snapshots: named by the time, pruned among themselves, and a failure is remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.app.schedule import Schedule, policy_of
from objfs.errors import Unreachable
from objfs.model import NS
from objfs.volume.retention import Policy
from objfs.volume.settings import VolumeSettings
from objfs.volume.snapshots import SnapshotKeeper
from tests.volume.rigs import Cloud, running
from tests.volume.support import TrioClock


class Wall(TrioClock):
    """A wall clock that the test sets, in seconds, and whether buckets answer."""

    seconds = 1_800_000_000
    silent = True
    """No bucket answers."""

    def now_ns(self) -> int:
        return self.seconds * NS


def told(schedule: Schedule) -> str:
    """What status says of the last failure."""
    return "" if schedule.failure is None else schedule.failure.error


async def test_the_life_of_a_schedule(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    wall = Wall()

    async def publish() -> None:
        if wall.silent:
            raise Unreachable("no bucket answers")

    async with running(await cloud.open(home)) as rig:
        snapshots = SnapshotKeeper(rig.table, rig.cache, rig.volume.gate, wall, publish)
        schedule = Schedule(snapshots, Policy(hourly=2), wall)
        with pytest.raises(Unreachable, match="no bucket answers"):
            await schedule.take()
        assert schedule.failure is not None
        assert (schedule.failure.at_ns, "no bucket answers" in schedule.failure.error) == (
            wall.now_ns(),
            True,
        )
        wall.silent = False
        await snapshots.create(b"mine")
        for _ in range(4):
            wall.seconds += 3600
            await schedule.take()
        assert told(schedule) == ""
        names = [one.name for one in snapshots.listed()]
        assert names == [b"mine", b"auto-20270115T110000Z", b"auto-20270115T120000Z"]
        await rig.leave()


def test_the_policy_is_that_of_the_settings() -> None:
    settings = VolumeSettings.read({"snapshot_keep_hourly": 0, "snapshot_keep_yearly": 3})
    assert policy_of(settings) == Policy(0, 0, 7, 5, 12, 3)
