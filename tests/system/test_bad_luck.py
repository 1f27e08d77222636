"""Bad luck as a person meets it: buckets that are full or read-only, and a cache that is too small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.harness import VOLUME, Station, have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def test_what_a_bucket_did_not_take_is_told_when_it_is_well_again(
    station: Station, directory: Path, places: list[Path]
) -> None:
    """Status said that any bucket may be lost, and these files had no shard to spare."""
    station.mount(VOLUME, directory)
    shards = places[0] / "segment"
    shards.rename(places[0] / "aside")
    shards.write_bytes(b"")  # nothing can be made below a file, not even by root
    (directory / "file").write_bytes(os.urandom(3_000_000))
    station.run("flush", directory)
    shards.unlink()
    (places[0] / "aside").rename(shards)
    (directory / "other").write_bytes(b"x")
    station.run("flush", directory)
    redundancy = station.status(directory)["redundancy"]
    assert redundancy["waiting"] > 0
    assert "for repair" in redundancy["sentence"]
    assert "DEGRADED: " in station.run("status", directory).stdout
