"""Somebody cuts a file of the cache under a running mount: one file suffers, and everything says so."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, have_fuse

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse"),
]


def test_flush_and_umount_end_and_the_lost_bytes_are_named(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory, "-o", "checkpoint_interval=3600")
    maimed, whole = os.urandom(300_000), os.urandom(300_000)
    (directory / "d").mkdir()
    (directory / "d" / "maimed").write_bytes(maimed)
    (directory / "whole").write_bytes(whole)
    cache = station.home / VOLUME / "cache"
    (path,) = (path for path in cache.glob("*/*") if path.is_file() and path.read_bytes() == maimed)
    os.truncate(path, 100)
    station.run("flush", directory)
    status = station.status(directory)
    assert status["safe"] is True
    assert [(one["path"], one["offset"], one["length"]) for one in status["lost"]] == [
        ("/d/maimed", 0, len(maimed))
    ]
    assert "LOST         /d/maimed (inode" in station.run("status", directory).stdout
    with (directory / "d" / "maimed").open("r+b") as stream, pytest.raises(OSError, match="Input") as refused:
        os.pwrite(stream.fileno(), b"a part of what is lost", 5000)
    assert refused.value.errno == errno.EIO
    station.umount(directory)
    said = station.run("fsck", VOLUME, code=ExitCode.DAMAGE_FOUND).stdout
    assert f"(/d/maimed): bytes 0 to {len(maimed) - 1} cannot be read" in said
    logged = (station.home / VOLUME / "mount.log").read_text()
    assert logged.count("path=/d/maimed") == 1
    (kept,) = (station.home / VOLUME / "lost").iterdir()
    assert kept.read_bytes() == maimed[:100] + bytes(len(maimed) - 100)

    station.mount(VOLUME, directory)
    with pytest.raises(OSError, match="Input"):
        (directory / "d" / "maimed").read_bytes()
    assert (directory / "whole").read_bytes() == whole
    (directory / "d" / "maimed").write_bytes(maimed)
    station.run("flush", directory)
    assert station.status(directory)["lost"] == []
    station.umount(directory)
    station.run("fsck", VOLUME)
