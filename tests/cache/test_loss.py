"""A cache file that was removed or cut under a running cache: that chunk is lost, everything else goes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from objfs.cache import Loss
from objfs.errors import Corrupt, NotEnoughShards, ObjfsError
from tests.cache.rig import INO, OTHER, SMALL, Rig
from tests.cache.test_with_meta import MetaRig

KEPT, GONE = b"kept" * 25_000, b"gone" * 25_000


def file_of(rig: Rig, index: int = 0) -> Path:
    (path,) = rig.directory.glob(f"??/{rig.row(index).chunk:016x}")
    return path


def forget_descriptors(rig: Rig) -> None:
    """As many other files do in time: a removed file stays readable while it is open."""
    rig.cache._files.close()


def kept_of(loss: Loss) -> bytes:
    assert loss.kept is not None
    return loss.kept.read_bytes()


def cut(path: Path) -> None:
    os.truncate(path, 10)


@pytest.fixture(params=[Rig, MetaRig])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    made: Rig = request.param(tmp_path / "cache", SMALL)
    return made


@pytest.fixture
def losses(rig: Rig) -> list[Loss]:
    found: list[Loss] = []
    rig.cache.on_loss(found.append)
    return found


@pytest.mark.parametrize("damage", [os.unlink, cut])
async def test_a_lost_cache_file_of_a_dirty_chunk_holds_up_no_checkpoint(
    rig: Rig,
    losses: list[Loss],
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig.write_now(0, 0, GONE)
    rig.write_now(1, 0, KEPT)
    rig.write_now(0, 0, KEPT, OTHER)
    damage(file_of(rig))
    forget_descriptors(rig)
    with pytest.raises(ObjfsError, match="not uploaded"):
        await rig.read(0, 0, 100)
    with trio.fail_after(30):
        async with rig.running():
            moment = await rig.cache.cut().placed()
    assert len(moment.placed) == 3
    with pytest.raises(NotEnoughShards):
        await rig.read(0, 0, 100)
    assert await rig.read(1, 0, len(KEPT)) == KEPT
    assert await rig.read(0, 0, len(KEPT), OTHER) == KEPT
    left = 10 if damage is cut else 0
    assert [(one.ino, one.offset, one.length, one.ranges) for one in losses] == [
        (INO, 0, len(GONE), ((left, len(GONE)),))
    ]
    kept = losses[0].kept
    assert (kept and kept.read_bytes()) == (GONE[:left] + bytes(len(GONE) - left) if left else None)
    assert any(
        f"ino={INO}" in line and f"bytes {left} to {len(GONE) - 1}" in line
        for _, level, line in caplog.record_tuples
        if level == logging.ERROR
    )
    assert rig.cache.statistics().dirty_chunks == 0
    (nowhere,) = [segment for segment in moment.segments.values() if segment.nowhere]
    assert nowhere.missing == {0}


async def test_what_lies_under_the_lost_bytes_is_kept(rig: Rig, losses: list[Loss]) -> None:
    rig.write_now(0, 0, KEPT)
    async with rig.running():
        await rig.cache.drain()
        rig.write_now(0, 1000, b"?" * 500)
        rig.write_now(0, 5000, b"!" * 10)
        file_of(rig).unlink()
        forget_descriptors(rig)
        with trio.fail_after(30):
            await rig.cache.drain()
    (loss,) = losses
    assert loss.ranges == ((1000, 1500), (5000, 5010))
    assert kept_of(loss) == KEPT[:1000] + bytes(500) + KEPT[1500:5000] + bytes(10) + KEPT[5010:]


async def test_bytes_that_ride_in_the_log_are_not_lost_with_the_file(rig: Rig, losses: list[Loss]) -> None:
    rig.write_now(0, 0, b"small and synced")
    await rig.cache.fsync(INO)
    file_of(rig).unlink()
    forget_descriptors(rig)
    with trio.fail_after(30):
        async with rig.running():
            await rig.cache.drain()
    assert losses == []
    assert await rig.read(0, 0, 16) == b"small and synced"


async def test_a_write_into_a_file_that_is_gone_makes_no_zeros_of_what_was_there(rig: Rig) -> None:
    """A new file would hold zeros where the lost bytes were."""
    rig.write_now(0, 0, GONE)
    path = file_of(rig)
    path.unlink()
    with pytest.raises(ObjfsError, match="removed"):
        rig.write_now(0, 200_000, b"more")
    forget_descriptors(rig)
    with pytest.raises(ObjfsError, match="No such file"):
        rig.write_now(0, 200_000, b"more")
    assert not path.exists()


async def test_fsync_of_a_file_whose_bytes_are_gone_fails(rig: Rig) -> None:
    rig.write_now(0, 0, GONE * 5)
    rig.write_now(0, 0, KEPT * 5, OTHER)
    file_of(rig).unlink()
    with pytest.raises(Corrupt, match="gone"):
        await rig.cache.fsync(INO)
    await rig.cache.fsync(OTHER)


async def test_a_lost_chunk_takes_a_whole_write_and_no_part_of_one(rig: Rig, losses: list[Loss]) -> None:
    rig.write_now(0, 0, GONE)
    file_of(rig).unlink()
    forget_descriptors(rig)
    async with rig.running():
        await rig.cache.drain()
        with pytest.raises(Corrupt, match="chunk 0 of inode 7 is lost"), rig.table.transaction():
            rig.write_now(0, 10, b"part")
        rig.write_now(0, 0, KEPT)
        with trio.fail_after(30):
            await rig.cache.drain()
    assert await rig.read(0, 0, len(KEPT)) == KEPT
    assert len(losses) == 1


async def test_a_version_over_lost_bytes_is_lost_with_them(rig: Rig, losses: list[Loss]) -> None:
    """Written over a version that was frozen, before anybody knew."""
    rig.write_now(0, 0, GONE)
    rig.cache.cut()
    frozen = file_of(rig)
    rig.write_now(0, 10, b"over it")
    frozen.unlink()
    forget_descriptors(rig)
    with trio.fail_after(30):
        async with rig.running():
            await rig.cache.drain()
    assert [one.ranges for one in losses] == [((0, len(GONE)),), ((0, 10), (17, len(GONE)))]
    assert kept_of(losses[1])[10:17] == b"over it"


async def test_a_file_lost_between_two_mounts_is_noticed(tmp_path: Path) -> None:
    """Under the same boot and under another one; what a power cut may take is judged as ever."""
    for boot in (b"first boot", b"second boot"):
        rig = MetaRig(tmp_path / boot.decode() / "cache", SMALL)
        rig.write_now(0, 0, GONE * 5)
        await rig.cache.fsync(INO)
        rig.write_now(0, 0, b"inline")
        await rig.cache.fsync(INO)
        file_of(rig).unlink()
        rig.reopen(boot)
        losses: list[Loss] = []
        rig.cache.on_loss(losses.append)
        rig.cache.recover()
        with pytest.raises(ObjfsError):
            await rig.read(0, 100, 100)
        with trio.fail_after(30):
            async with rig.running():
                await rig.cache.drain()
        assert [one.ranges for one in losses] == [((6, 5 * len(GONE)),)]
        assert kept_of(losses[0])[:6] == b"inline"
        rig.meta.close()
