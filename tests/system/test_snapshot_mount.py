"""One snapshot as a mount of its own, beside the volume and on another machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from objfs.app.engine import Order, opened_engine
from objfs.app.options import MountOptions
from objfs.errors import ExitCode
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from tests.system.harness import PASSPHRASE, VOLUME, Station, have_fuse, urls
from tests.system.test_read_only import changes

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


async def take(home: VolumeHome, name: bytes) -> None:
    """A snapshot of a volume that is not mounted, published."""
    order = Order(home, Secret("passphrase", PASSPHRASE.encode()), MountOptions())
    async with opened_engine(order, lambda _text: None) as engine, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        engine.table.create_snapshot(name, engine.clock.now_ns())
        await engine.finish()
        nursery.cancel_scope.cancel()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    buckets = [tmp_path / name for name in "abc"]
    for bucket in buckets:
        bucket.mkdir()
    with Station(tmp_path / "here") as station:
        station.mkfs(VOLUME, urls(buckets))
        yield station


def test_a_snapshot_is_mounted_beside_the_volume_and_elsewhere(station: Station, tmp_path: Path) -> None:
    live, past, away = (tmp_path / name for name in ("live", "past", "away"))
    station.mount(VOLUME, live)
    (live / "d").mkdir()
    (live / "d" / "f").write_bytes(b"old" * 100_000)
    os.link(live / "d" / "f", live / "f")
    station.umount(live)
    trio.run(take, VolumeHome(station.home, VOLUME), b"before it all")

    station.mount(VOLUME, live)
    (live / "f").write_bytes(b"new")
    (live / "g").write_bytes(b"new")
    station.mount(VOLUME, past, "--snapshot", "before it all")
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls([tmp_path / name for name in "abc"]))
        other.mount(f"{VOLUME}@before it all", away)
        for top in (past, away):
            assert sorted(os.listdir(top)) == ["d", "f"]
            assert (top / "f").read_bytes() == b"old" * 100_000
            assert (top / "f").stat().st_nlink == 2
            assert not (top / ".snapshots").exists()
            for name, change in changes(top).items():
                with pytest.raises(OSError, match="Read-only"):
                    change()
                assert name
        other.umount(away)
    assert (live / ".snapshots" / "before it all" / "f").read_bytes() == b"old" * 100_000
    compared = subprocess.run(
        ["rsync", "-aHAXnic", "--delete", f"{live}/.snapshots/before it all/d/", f"{past}/d/"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert compared.stdout == ""
    assert (live / "g").read_bytes() == b"new"
    assert station.status(past)["read_only"] is True
    listed = json.loads(station.run("status", "--json").stdout)
    assert {found["volume"] for found in listed} == {VOLUME, f"{VOLUME}@before%20it%20all"}
    station.run("umount", f"{VOLUME}@before%20it%20all")
    assert not os.path.ismount(past)
    assert [path.name for path in station.home.iterdir()] == [VOLUME], "nothing stays of it"
    station.umount(live)


def test_a_snapshot_that_is_not_there(station: Station, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    failed = station.run(
        "mount", VOLUME, tmp_path / "mnt", "-o", "snapshot=none", code=ExitCode.NO_SUCH_SNAPSHOT
    )
    assert "there is no snapshot none" in failed.stderr
    assert [path.name for path in station.home.iterdir()] == [VOLUME]
    station.run("mount", VOLUME, tmp_path / "mnt", "-o", "follow,snapshot=x", code=ExitCode.BAD_SETTING)
    station.run("mkfs", "a@b", "--bucket", f"file://{tmp_path}/a", "--code", "1+0", code=ExitCode.USAGE)
