"""Snapshots by command, on a real mount and without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import VOLUME, Station, have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def listed(station: Station, word: str | Path) -> dict[str, dict[str, Any]]:
    found = json.loads(station.run("snapshot", "list", word, "--json").stdout)
    return {one["name"]: one for one in found}


def usage(station: Station, word: str | Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(station.run("usage", word, "--json").stdout)
    return found


def test_the_life_of_snapshots_on_a_mount(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "tree").mkdir()
    (directory / "tree" / "file").write_bytes(os.urandom(300_000))
    said = station.run("snapshot", "create", directory, "first", "--comment", "before").stderr
    assert "snapshot first is taken: 3 inodes" in said
    assert "writeback" not in said
    (directory / "tree" / "file").write_bytes(b"short")
    station.run("snapshot", "create", directory, "second", "--no-wait")
    station.run("snapshot", "create", directory, "second", code=26)
    station.run("snapshot", "create", directory, "a@b", code=2)
    found = listed(station, directory)
    assert list(found) == ["first", "second"]
    assert (found["first"]["comment"], found["first"]["bytes"]) == ("before", 300_000)
    assert (found["first"]["own_bytes"], found["second"]["own_bytes"]) == (300_000, 0)
    station.run("flush", directory)
    whole = usage(station, directory)
    assert (whole["live"], whole["snapshot_only"]) == (5, 300_000)
    assert whole["garbage"] < 1000, "indexes of segments"
    assert usage(station, directory / "tree")["live"] == 5
    station.run("snapshot", "hold", directory, "first")
    station.run("snapshot", "delete", directory, "first", code=27)
    dry = station.run("snapshot", "prune", directory, "--keep-last", "1", "--dry-run", "--json").stdout
    assert [(one["name"], one["reasons"]) for one in json.loads(dry)] == [
        ("second", ["last"]),
        ("first", ["held"]),
    ]
    station.run("snapshot", "release", directory, "first")
    station.run("snapshot", "prune", directory, code=2)
    assert "1 snapshots are deleted" in station.run("snapshot", "prune", directory, "--keep-last", "1").stderr
    station.run("snapshot", "delete", directory, "first", code=25)
    taken = station.run("snapshot", "scheduled", directory).stderr
    assert "snapshot auto-" in taken
    status = station.status(directory)["snapshots"]
    assert (status["count"], status["newest"][:5]) == (2, "auto-")
    station.umount(directory)


def test_without_a_mount(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(os.urandom(100_000))
    station.umount(directory)
    station.run("snapshot", "create", VOLUME, "cold")
    assert listed(station, VOLUME)["cold"]["bytes"] == 100_000
    assert usage(station, VOLUME)["live"] == 100_000
    config = (station.home / VOLUME / "volume.toml").read_text()
    station.forget(VOLUME)
    (station.home / VOLUME).mkdir(mode=0o700)
    (station.home / VOLUME / "volume.toml").write_text(config)
    station.run("snapshot", "delete", VOLUME, "cold")
    assert listed(station, VOLUME) == {}
    station.run("fsck", VOLUME)
