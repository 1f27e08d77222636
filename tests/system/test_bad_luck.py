"""Bad luck as a person meets it: buckets that are full or read-only, and a cache that is too small."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.system.harness import VOLUME, Station, away, have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def test_what_a_bucket_did_not_take_is_told(station: Station, directory: Path, places: list[Path]) -> None:
    """Status said that any bucket may be lost, and these files had no shard to spare."""
    station.mount(VOLUME, directory)
    shards = places[0] / "segment"
    shards.mkdir(exist_ok=True)  # of a small segment one bucket has no copy
    shards.rename(places[0] / "aside")
    shards.write_bytes(b"")  # nothing can be made below a file, not even by root
    (directory / "file").write_bytes(os.urandom(3_000_000))
    station.run("flush", directory)
    redundancy = station.status(directory)["redundancy"]
    assert redundancy["waiting"] > 0
    assert "for repair" in redundancy["sentence"]
    assert "DEGRADED: " in station.run("status", directory).stdout


def test_writing_into_a_full_cache_ends_in_time_while_all_buckets_are_away(
    station: Station, directory: Path, places: list[Path]
) -> None:
    """The program hung for as long as they were, and not even a SIGKILL ended it."""
    station.mount(VOLUME, directory, "-o", "cache_size=16MiB,full_timeout=2")
    (directory / "before").write_bytes(b"kept")
    station.run("flush", directory)
    with away(places):
        with pytest.raises(OSError, match="No space") as caught:
            (directory / "file").write_bytes(os.urandom(40_000_000))
        assert caught.value.errno == errno.ENOSPC
        (directory / "file").unlink()
    station.umount(directory)
    station.mount(VOLUME, directory)
    assert [path.name for path in directory.iterdir()] == ["before"]
    assert (directory / "before").read_bytes() == b"kept"
