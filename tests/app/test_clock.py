"""A machine whose clock was wrong: the volume's time goes on, and what is old is deleted all the same."""

from __future__ import annotations

import os
from pathlib import Path

import trio
import trio.testing

from objfs.app.clock import SystemClock, VolumeClock
from objfs.app.engine import Order, opened_engine
from objfs.app.options import MountOptions
from objfs.backends.registry import open_bucket
from objfs.codec.keys import Cost
from objfs.fs import Caller
from objfs.model import ROOT, Code
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from tests.app.test_follow import say_nothing
from tests.app.test_readonly import SECRET
from tests.volume.support import TrioClock

YEARS_NS = 10 * 365 * 86400 * 10**9


class Ahead(SystemClock):
    """Ten years ahead."""

    def now_ns(self) -> int:
        return super().now_ns() + YEARS_NS


async def test_a_clock_behind_the_volume_goes_on_from_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine = TrioClock()
    clock = VolumeClock(machine, machine.now_ns() + YEARS_NS)
    began = clock.now_ns()
    assert began == machine.now_ns() + YEARS_NS
    await trio.sleep(5)
    assert clock.now_ns() - began == 5 * 10**9
    assert VolumeClock(machine, 0).now_ns() == machine.now_ns()


async def test_after_a_mount_with_a_clock_far_ahead_old_moments_still_go(tmp_path: Path) -> None:
    """They were kept for as many years: each checkpoint left a manifest, and no segment was deleted."""
    home, buckets = VolumeHome(tmp_path, "vol"), []
    for number in range(3):
        (tmp_path / f"b{number}").mkdir()
        url = f"file://{tmp_path}/b{number}"
        buckets.append(NewBucket(url, {}, open_bucket(url, {})))
    new = NewVolume(SECRET, Code(2, 1), cost=Cost(memory_kib=8, passes=1, lanes=1))
    await create_volume(home, buckets, new, clock=Ahead())
    eager = {"cache_reserve": 0, "recovery_window": 0, "recovery_keep": 1, "delete_grace": 0}
    order = Order(home, SECRET, MountOptions(settings=eager))
    async with opened_engine(order, say_nothing) as engine, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        for name in (b"a", b"b", b"c"):
            handle, _ = engine.fs.create(ROOT, name, 0o644, os.O_RDWR, Caller(0, 0))
            engine.fs.release(handle.fh)
            await engine.flush()
        assert engine.reaper is not None
        await engine.reaper.round()
        assert engine.reaper.statistics().total.manifests > 0
        await engine.finish()
        nursery.cancel_scope.cancel()
