"""Garbage on a real mount: told, collected beside it and alone; all of it sealed anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import VOLUME, Station, have_fuse, local_buckets, stored_bytes, urls

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no /dev/fuse here")]

QUICK = "recovery_window=0,recovery_keep=1,delete_grace=0,checkpoint_interval=1"
CONTENT = os.urandom(200_000)


def gc(station: Station, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(station.run("gc", VOLUME, *options, "--json").stdout)
    return found


def test_garbage_is_told_and_collected_beside_a_mount(tmp_path: Path) -> None:
    mount, places = tmp_path / "mnt", local_buckets(tmp_path, 3)
    with Station(tmp_path) as station:
        station.mkfs(VOLUME, urls(places))
        station.mount(VOLUME, mount, "-o", QUICK)
        for number in range(20):
            (mount / f"f{number}").write_bytes(CONTENT + bytes([number]))
        station.run("flush", mount)
        for number in range(2, 20):
            (mount / f"f{number}").unlink()
        before, told = stored_bytes(places), gc(station)
        assert told["sparse"]["segments"] >= 1
        assert told["cost"]["freed_bytes"] > 0
        assert stored_bytes(places) >= before
        assert "rewritten into" in station.run("gc", mount, "--run").stdout
        assert stored_bytes(places) < before / 3
        assert [(mount / f"f{number}").read_bytes() for number in (0, 1)] == [
            CONTENT + b"\0",
            CONTENT + b"\1",
        ]
        costs = json.loads(station.run("cost", VOLUME, "--json").stdout)
        assert (costs["buckets"][0]["puts"] > 0, costs["stored_bytes"] > 0, costs["example"]) == (
            True,
            True,
            False,
        )
        station.umount(mount)


def test_a_volume_that_is_not_mounted_is_collected_and_sealed_anew(tmp_path: Path) -> None:
    mount, places = tmp_path / "mnt", local_buckets(tmp_path, 3)
    with Station(tmp_path) as station:
        station.mkfs(VOLUME, urls(places))
        station.mount(VOLUME, mount)
        (mount / "file").write_bytes(CONTENT)
        station.umount(mount)
        stray = places[0] / "segment" / "ab" / f"{'ab' * 16}.00"
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"left by somebody")
        assert "too young" in station.run("gc", VOLUME, "--delete").stdout
        assert stray.exists()
        os.utime(stray, (1, 1))
        assert gc(station, "--delete")["done"]["unknown_objects"] == 1
        assert not stray.exists()
        said = station.run("key", "rotate", VOLUME, "--drop-slots", "--rewrite").stderr
        assert "1 segments are rewritten" in said
        assert gc(station)["old_keys"]["segments"] == 0
        assert "not mounted" in station.run("cost", VOLUME).stdout
        station.run("fsck", VOLUME, "--data")
