"""What docs/user/durability.md says of the end of a process and of a machine, on real mounts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import VOLUME, Station, have_fuse, urls, wait_for_end

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def killed(station: Station, directory: Path) -> None:
    """The daemon ends at once; its dead mount is taken away."""
    pid = int(station.status(directory)["pid"])
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    subprocess.run(["fusermount3", "-u", str(directory)], check=True)


def written_and_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def lost_and_attached(station: Station, directory: Path, places: list[Path]) -> None:
    """The machine goes without a word; another one has the passphrase and a bucket."""
    killed(station, directory)
    station.forget(VOLUME)
    station.attach(VOLUME, urls(places))
    station.mount(VOLUME, directory, "--force")


def test_i1_with_the_kernels_cache_fsync_still_promises(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory, "-o", "writeback")
    written_and_synced(directory / "synced", b"kept" * 300_000)
    killed(station, directory)
    station.mount(VOLUME, directory)
    assert (directory / "synced").read_bytes() == b"kept" * 300_000


def test_i2_fsync_to_the_bucket_outlives_the_machine(
    station: Station, directory: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory, "-o", "fsync=bucket,checkpoint_interval=3600")
    written_and_synced(directory / "synced", b"kept" * 300_000)
    lost_and_attached(station, directory, places)
    assert (directory / "synced").read_bytes() == b"kept" * 300_000


def test_i2_what_was_flushed_outlives_the_machine(
    station: Station, directory: Path, places: list[Path]
) -> None:
    station.mount(VOLUME, directory, "-o", "checkpoint_interval=3600")
    (directory / "flushed").write_bytes(b"kept" * 300_000)
    station.run("flush", directory)
    (directory / "later").write_bytes(b"lost")
    lost_and_attached(station, directory, places)
    assert {path.name: path.stat().st_size for path in directory.iterdir()} == {"flushed": 1_200_000}


def test_i1_flush_local_and_close_outlive_the_process(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory, "-o", "checkpoint_interval=3600")
    (directory / "closed").write_bytes(b"closed" * 1000)
    station.run("flush", directory, "--local")
    (directory / "later").write_bytes(b"later" * 1000)
    killed(station, directory)
    station.mount(VOLUME, directory)
    assert (directory / "closed").read_bytes() == b"closed" * 1000
    assert (directory / "later").read_bytes() == b"later" * 1000
