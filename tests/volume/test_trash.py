"""The trash of a machine that is lost: another one has the file, or the snapshot that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.meta.trash_view import TrashView
from objfs.model import ROOT
from objfs.volume.open import OpenOptions
from objfs.volume.snapshots import SnapshotKeeper
from objfs.volume.trash import Trash
from tests.volume.rigs import Cloud, Rig, running
from tests.volume.support import TrioClock


def trash_of(rig: Rig) -> Trash:
    clock = TrioClock()
    keeper = SnapshotKeeper(rig.table, rig.cache, rig.volume.gate, clock, rig.checkpointer.flush)
    return Trash(rig.table, keeper, rig.volume.gate, clock, 7)


def deleted(rig: Rig) -> list[bytes]:
    with TrashView(rig.table.path) as view:
        return [one.path for one in view.deleted()]


@pytest.mark.parametrize("published", [False, True])
async def test_a_lost_machine_leaves_the_file_or_the_trash(tmp_path: Path, published: bool) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"f")
        rig.write(b"f", 0, b"text" * 1000)
        await rig.drain()
        before = rig.checkpointer.statistics().checkpoints
        trash_of(rig).removing(ROOT, b"f")
        rig.unlink(b"f")
        assert rig.checkpointer.statistics().checkpoints == before, "it waited for no bucket"
        if published:
            await rig.drain()
    rig.vanish()
    taking = OpenOptions(host="other", force=True)
    async with running(await cloud.open(await cloud.attach(), taking)) as rig:
        assert deleted(rig) == ([b"/f"] if published else [])
        if published:
            (moment,) = rig.table.snapshots()
            rig.table.trash.undelete(rig.table.trash.plan(moment, ROOT, b"/f", None), 1)
        assert await rig.tree() == {b"f": b"text" * 1000}
        await rig.leave()
