"""Buckets of a real mount are lost and come back: as many as the code bears, others after them, one more."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.harness import VOLUME, Station, away, contents, have_fuse, local_buckets, stored_bytes, urls

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

LOSSES = ((0, 3), (1, 5))
ONE_MORE = (0, 2, 4)


def write(directory: Path, name: str) -> dict[str, bytes]:
    data = os.urandom(400_000)
    (directory / name).write_bytes(data)
    return {name: data}


def test_any_two_of_six_may_be_lost_and_then_two_others(tmp_path: Path) -> None:
    places, mount = local_buckets(tmp_path, 6), tmp_path / "mnt"
    with Station(tmp_path / "machine") as station:
        station.mkfs(VOLUME, urls(places), "4+2")
        station.mount(VOLUME, mount)
        tree = write(mount, "first") | write(mount, "second")
        station.run("flush", mount)
        for number, lost in enumerate(LOSSES):
            with away([places[slot] for slot in lost]):
                station.drop_cache(VOLUME, mount)
                assert contents(mount) == tree
                tree |= write(mount, f"without {number}")
                station.run("flush", mount)
            station.run("repair", VOLUME)
            station.run("scrub", VOLUME, "--all")
        station.drop_cache(VOLUME, mount)
        one_more_is_an_error(places, mount)
        deadline = time.monotonic() + 240  # the health board asks a bucket that is down after a pause
        while True:
            with contextlib.suppress(OSError):
                assert contents(mount) == tree
                break
            assert time.monotonic() < deadline, station.logs()
        station.umount(mount)


def one_more_is_an_error(places: Sequence[Path], mount: Path) -> None:
    """And takes nothing away from those that are there."""
    lost = [places[slot] for slot in ONE_MORE]
    with away(lost):
        left = [place for place in places if place not in lost]
        before = stored_bytes(left)
        for name in ("first", "second"):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                (mount / name).read_bytes()
        assert stored_bytes(left) >= before
