"""A volume with features that only a newer objfs can write, through the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from objfs.volume import header as headers
from objfs.volume.features import Features
from objfs.volume.header import Secret
from tests.system.harness import PASSPHRASE, VOLUME, Station, have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def give_feature(places: list[Path], name: str) -> None:
    """What a newer program would have done to the header in every bucket."""
    found = {str(place): (place / "header").read_bytes() for place in places}
    header, ring = headers.newest(found, Secret("passphrase", PASSPHRASE.encode()))
    features = Features(ro_compat=frozenset({name}))
    newer = replace(header, generation=header.generation + 1, features=features)
    for place in places:
        (place / "header").write_bytes(headers.encode(newer, ring))


def test_it_is_mounted_read_only_and_says_why(station: Station, places: list[Path], directory: Path) -> None:
    give_feature(places, "quota")
    station.mounted.append(directory)
    said = station.run("mount", VOLUME, directory).stderr
    assert "quota" in said
    assert "mounted read-only" in said
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    assert [line[3].split(",")[0] for line in lines if line[1] == str(directory)] == ["ro"]
    with pytest.raises(OSError, match="Read-only"):
        (directory / "file").touch()
    shown = station.run("status", VOLUME).stdout
    assert "read only: the volume has quota" in shown
    station.run("key", "add", VOLUME, "--recovery", code=14)
    station.run("key", "rotate", VOLUME, "--drop-slots", code=12)  # it is mounted
    station.umount(directory)
    station.run("key", "rotate", VOLUME, "--drop-slots", code=14)
    assert not [name for place in places for name in place.glob("readers/*")]
