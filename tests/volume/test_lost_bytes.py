"""Dirty bytes that are gone from the cache's directory: what checkpoint, recovery and fsck make of them."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from objfs.cache import Loss
from objfs.errors import ExitCode
from objfs.model import ROOT
from objfs.volume.fsck_report import Grade
from tests.volume.patients import Patient, lost
from tests.volume.rigs import CHUNK, Cloud, Rig, running

CONTENT = os.urandom(3 * CHUNK)


def cache_file(rig: Rig, name: bytes, index: int) -> Path:
    row = rig.table.chunk_at(rig.table.lookup(ROOT, name).ino, index)
    assert row is not None
    (path,) = rig.volume.home.cache_path.glob(f"*/{row.chunk:016x}")
    return path


async def lose_one_chunk(rig: Rig) -> list[Loss]:
    """The middle one of ``maimed``; ``whole`` is beside it.  Returns when a checkpoint has ended."""
    losses: list[Loss] = []
    rig.cache.on_loss(losses.append)
    for name in (b"maimed", b"whole"):
        rig.create(name)
        rig.write(name, 0, CONTENT)
    os.truncate(cache_file(rig, b"maimed", 1), 0)
    with trio.fail_after(60):
        await rig.checkpointer.flush()
    return losses


async def test_a_checkpoint_goes_on_and_a_recovery_gets_an_error_and_never_zeros(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home), interval_s=3600) as rig:
        (loss,) = await lose_one_chunk(rig)
        assert (loss.offset, loss.length, loss.ranges) == (CHUNK, CHUNK, ((0, CHUNK),))
        assert [row.index for row in rig.table.lost_chunks(9)] == [1]
        rig.create(b"later")
        rig.write(b"later", 0, b"after it")
        await rig.checkpointer.flush()
        await rig.leave()
    sick = Patient(cloud, home)
    report = await sick.check()
    (found,) = report.of(Grade.LOSS)
    assert (found.rule, report.exit_code) == ("unreadable", ExitCode.DAMAGE_FOUND)
    assert f"(/maimed): bytes {CHUNK} to {2 * CHUNK - 1} cannot be read" in found.line
    expected = {b"/maimed": lost(CONTENT, 1), b"/whole": CONTENT, b"/later": b"after it"}
    assert await sick.tree(await sick.fresh()) == expected


async def test_a_lost_chunk_is_written_anew_and_fsck_is_content(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home), interval_s=3600) as rig:
        await lose_one_chunk(rig)
        rig.write(b"maimed", CHUNK, CONTENT[CHUNK : 2 * CHUNK])
        with trio.fail_after(60):
            await rig.checkpointer.flush()
        assert await rig.tree() == {b"maimed": CONTENT, b"whole": CONTENT}
        assert rig.table.lost_chunks(9) == []
        await rig.leave()
    report = await Patient(cloud, home).check(data=True)
    assert (report.of(Grade.DAMAGE, Grade.LOSS), report.exit_code) == ([], ExitCode.OK)
