"""A machine is lost at any time under writes, renames and unlinks: what comes back is one moment (I2)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from objfs.backends.wrappers.faults import Fault, Slow
from objfs.volume.open import OpenOptions
from tests.volume.rigs import Cloud, Model, Rig, running

STEPS = 60


async def work(cloud: Cloud, model: Model) -> tuple[Rig, int]:
    """Random operations with checkpoints in between, until the machine vanishes at a random time.

    Returns the rig and how much of the history was acknowledged as recoverable.
    """
    home = cloud.home()
    await cloud.make(home)
    volume = await cloud.open(home)
    for bucket in volume.buckets.buckets.values():
        delay = Slow(model.random.uniform(0, 0.004))
        bucket.add(Fault(delay, op=("put", "put_if_absent")))  # type: ignore[attr-defined]
    acknowledged = 0
    with trio.CancelScope() as life:
        async with running(volume, interval_s=0.02) as rig, trio.open_nursery() as nursery:

            async def flush() -> None:
                nonlocal acknowledged
                before = len(model.history) - 1
                await rig.checkpointer.flush()
                await rig.reaper.round()
                acknowledged = max(acknowledged, before)

            end = model.random.randrange(5, STEPS)
            for step in range(end):
                model.step(rig)
                if model.random.random() < 0.1:
                    nursery.start_soon(flush)
                if model.random.random() < 0.5:
                    await trio.sleep(model.random.uniform(0, 0.01))
                if step % 10 == 0:
                    rig.reaper.search()
            await trio.sleep(model.random.uniform(0, 0.05))
            life.cancel()
    return rig, acknowledged


@pytest.mark.parametrize("seed", range(20))
async def test_what_comes_back_is_one_moment_and_no_older_than_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    cloud, model = Cloud(tmp_path), Model(seed)
    rig, acknowledged = await work(cloud, model)
    lost = model.random.choice([*cloud.names, None])
    home = await cloud.attach(without={lost} if lost else ())
    async with running(await cloud.open(home, OpenOptions(host="other", force=True))) as fresh:
        tree = await fresh.tree()
        position = model.position(tree)
        assert position >= acknowledged
    fresh.vanish()
    rig.vanish()


@pytest.mark.parametrize("seed", range(100, 105))
async def test_after_a_crash_of_the_process_the_machine_itself_has_everything(
    tmp_path: Path, seed: int
) -> None:
    cloud, model = Cloud(tmp_path), Model(seed)
    rig, _ = await work(cloud, model)
    rig.vanish()
    async with running(await cloud.open(rig.volume.home)) as again:
        assert await again.tree() == model.tree
        for _ in range(20):
            model.step(again)
        await again.leave()
    async with running(await cloud.open(await cloud.attach())) as fresh:
        assert await fresh.tree() == model.tree
        assert fresh.table.check() == []
        await fresh.leave()
