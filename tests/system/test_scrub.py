"""``objfs scrub`` and ``repair`` as a person runs them, on a mount and without one; a bucket that goes and
comes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, away, have_fuse

needs_fuse = pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")
CONTENT = os.urandom(3 << 20)


def shards(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.glob("segment/*/*")}


def largest(place: Path) -> Path:
    return max(place.glob("segment/*/*"), key=lambda path: path.stat().st_size)


def test_without_a_mount(station: Station, places: list[Path]) -> None:
    lost = next(path for place in places for path in place.glob("segment/*/*"))
    lost.unlink()
    dry = station.run("repair", VOLUME, "--dry-run", code=ExitCode.DAMAGE_FOUND)
    assert "repair: 1 shards of 1 segments (some bear no loss): " in dry.stdout
    assert "repair: " not in dry.stderr, "once"
    assert not lost.exists()
    done = station.run("repair", VOLUME, code=ExitCode.DAMAGE_HEALED)
    assert "repair: 1 shards of 1 segments" in done.stderr
    assert lost.exists()
    document = json.loads(station.run("scrub", VOLUME, "--json", "--rate", "100MiB").stdout)
    assert (document["verdict"], document["findings"]) == ("ok", [])


@needs_fuse
@pytest.mark.mount
def test_beside_a_mount(station: Station, places: list[Path], directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(CONTENT)
    station.run("flush", VOLUME)
    before = [shards(place) for place in places]
    bad = largest(places[1])
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 1
    bad.write_bytes(data)
    next(path for path in places[2].glob("segment/*/*") if path.stem != bad.stem).unlink()
    found = station.run("scrub", VOLUME, code=ExitCode.DAMAGE_FOUND).stdout
    assert "shard-damaged: " in found
    assert "shard-missing: " in found
    mended = station.run("scrub", VOLUME, "--repair", code=ExitCode.DAMAGE_HEALED).stdout
    assert mended.splitlines()[-1].startswith("mended: 2 mended")
    for place, held in zip(places, before, strict=True):
        assert shards(place).items() >= held.items()
    station.run("repair", VOLUME)
    assert (directory / "file").read_bytes() == CONTENT


@needs_fuse
@pytest.mark.mount
def test_what_was_written_without_a_bucket_is_healed_by_the_mount(
    station: Station, places: list[Path], directory: Path
) -> None:
    station.mount(VOLUME, directory)
    with away([places[1]]):
        (directory / "file").write_bytes(CONTENT)
        station.run("flush", VOLUME)
        status = json.loads(station.run("status", VOLUME, "--json").stdout)
        assert status["at_risk"]["bytes"] >= len(CONTENT)
        assert "at risk      " in station.run("status", VOLUME).stdout
    deadline = time.monotonic() + 240  # the health board asks a bucket that is down after a pause
    while (risk := json.loads(station.run("status", VOLUME, "--json").stdout)["at_risk"])["segments"]:
        assert time.monotonic() < deadline, station.logs()
    assert (risk["bytes"], risk["blobs"]) == (0, 0)
    assert risk["healed_segments"] >= 1
    assert sum(map(len, shards(places[1]).values())) > len(CONTENT) // 2
