"""The code of a real mount is changed while programs write, and back without a mount."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, contents, have_fuse, local_buckets, urls
from tests.system.test_buckets import Writing

needs_fuse = pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")


def recode(station: Station, *words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(station.run("recode", *words, "--json").stdout)
    return found


@pytest.mark.mount
@needs_fuse
def test_a_mount_gets_a_wider_code_under_load(tmp_path: Path) -> None:
    mount, places = tmp_path / "mnt", local_buckets(tmp_path, 6)
    with Station(tmp_path) as station:
        station.mkfs(VOLUME, urls(places), "2+1")
        station.mount(VOLUME, mount)
        before = {f"b{number}": os.urandom(500_000) for number in range(8)}
        for name, data in before.items():
            (mount / name).write_bytes(data)
        station.run("snapshot", "create", VOLUME, "s")
        dry = recode(station, mount, "4+2", "--dry-run")["estimate"]
        assert dry["segments"] > 0
        assert dry["code"] == "2+1"
        program = Writing(mount)
        program.start()
        try:
            done = recode(station, mount, "4+2")
        finally:
            written = program.stop()
        assert (done["left"], done["code"]) == (0, "4+2")
        assert done["old_bytes"] >= dry["bytes"]
        assert done["new_segments"] >= dry["new_segments"]
        assert written
        station.run("flush", mount)
        status = station.status(mount)
        assert status["recode"] == {}
        assert "survives the loss of any two of 6 buckets" in status["redundancy"]["sentence"]
        assert contents(mount) == before | written
        assert (mount / ".snapshots" / "s" / "b0").read_bytes() == before["b0"]
        station.umount(mount)
        station.run("fsck", VOLUME, "--data")
        for place in places[:2]:
            shutil.rmtree(place)
        with Station(tmp_path / "elsewhere") as other:
            other.attach(VOLUME, urls(places[2:]))
            other.mount(VOLUME, tmp_path / "again", "--read-only")
            assert contents(tmp_path / "again") == before | written


def test_a_volume_without_a_mount(station: Station, places: list[Path]) -> None:
    refused = station.run("recode", VOLUME, "4+2", code=ExitCode.USAGE).stderr
    assert "4+2 over 3 buckets bears the loss of any one bucket" in refused
    assert "--fewer-buckets" in refused
    said = station.run("recode", VOLUME, "1+2", "--dry-run")
    assert "1+2 over 3 buckets bears the loss of any 2 buckets" in said.stderr
    assert "GETS" in said.stdout
    assert "everything has code 1+2 now" in station.run("recode", VOLUME, "1+2").stderr
    assert recode(station, VOLUME, "1+2")["estimate"]["segments"] == 0
    station.run("fsck", VOLUME, "--data")
    station.run("recode", VOLUME, "2+", code=ExitCode.USAGE)
