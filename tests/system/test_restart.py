"""Ends that nobody planned, on real mounts: what was written is there after the next mount."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import VOLUME, Station, have_fuse, urls, wait_for_end
from tests.system.tree import described

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def kill(station: Station, directory: Path) -> None:
    """The mount's process is gone from one instruction to the next; the dead mount is taken away."""
    pid = int(station.status(directory)["pid"])
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    take_away(directory)


def take_away(directory: Path) -> None:
    subprocess.run(["fusermount3", "-u", str(directory)], check=True)


def write_without_sync(directory: Path, seed: int) -> None:
    """Files of many kinds, some written in the middle of what is there already."""
    generator = random.Random(seed)
    for number in range(40):
        parent = directory / f"dir{number % 4}"
        parent.mkdir(exist_ok=True)
        with (parent / f"file{number}").open("r+b" if (parent / f"file{number}").exists() else "wb") as file:
            file.seek(generator.choice([0, 0, 5_000, 1_500_000]))
            file.write(generator.randbytes(generator.choice([1, 4096, 100_000, 2_500_000])))
    (directory / f"renamed{seed}").write_bytes(b"first")
    (directory / f"renamed{seed}").rename(directory / "renamed")
    (directory / f"link{seed}").symlink_to("renamed")


def test_killed_before_anything_was_uploaded(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    write_without_sync(directory, 1)
    before = described(directory)
    kill(station, directory)
    station.mount(VOLUME, directory)
    assert described(directory) == before


def test_killed_again_and_again_over_data_in_the_buckets(station: Station, directory: Path) -> None:
    """Parts stored, parts only here, parts written over what is stored."""
    for seed in range(3):
        station.mount(VOLUME, directory)
        write_without_sync(directory, seed)
        if seed == 1:
            station.run("flush", directory)
            write_without_sync(directory, 10)
        before = described(directory)
        kill(station, directory)
        station.mounted.remove(directory)
    station.mount(VOLUME, directory)
    assert described(directory) == before
    station.drop_cache(VOLUME, directory)
    assert described(directory) == before


def stored(station: Station) -> list[Path]:
    return list((station.root.parent / "buckets").rglob("segment/*/*.??"))


def test_killed_while_it_uploads(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory, "-o", "checkpoint_interval=600,bandwidth=4MiB")
    write_without_sync(directory, 2)
    before = described(directory)
    flush = subprocess.Popen(
        station.command("flush", directory),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=station.full_environment(),
    )
    known = set(stored(station))
    while not set(stored(station)) - known:
        assert flush.poll() is None
    kill(station, directory)
    flush.wait()
    station.mount(VOLUME, directory)
    assert described(directory) == before
    station.run("flush", directory)
    station.drop_cache(VOLUME, directory)
    assert described(directory) == before


def test_what_is_deleted_before_the_crash_stays_deleted(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "kept").write_bytes(b"k" * 3_000_000)
    (directory / "gone").write_bytes(b"g" * 3_000_000)
    station.run("flush", directory)
    (directory / "gone").unlink()
    with (directory / "kept").open("r+b") as file:
        file.truncate(1_000_001)
        file.seek(2_000_000)
        file.write(b"end")
    before = described(directory)
    kill(station, directory)
    station.mount(VOLUME, directory)
    assert described(directory) == before
    assert (directory / "kept").read_bytes() == b"k" * 1_000_001 + bytes(999_999) + b"end"


def test_taken_away_and_mounted_again_at_once(station: Station, directory: Path) -> None:
    """The old process still drains; the next mount waits for it and finds everything."""
    station.mount(VOLUME, directory, "-o", "bandwidth=8MiB")
    old = int(station.status(directory)["pid"])
    for seed in range(2):
        write_without_sync(directory, seed)
        before = described(directory)
        take_away(directory)
        station.mounted.remove(directory)
        station.mount(VOLUME, directory)
        assert described(directory) == before
    assert wait_for_end(old, 5)


def test_a_second_mount_on_the_same_directory_is_refused(
    station: Station, directory: Path, places: list[Path], tmp_path: Path
) -> None:
    """The same volume or another: one line, and the mount that is there goes on."""
    station.mkfs("other", urls([_made(tmp_path / "more" / name) for name in "abc"]))
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"there")
    for name in (VOLUME, "other"):
        said = station.run("mount", name, directory, code=21).stderr
        assert said.count("\n") == 1
        assert str(directory) in said
        assert "already" in said
    assert (directory / "file").read_bytes() == b"there"
    station.umount(directory)
    assert not os.path.ismount(directory)


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def test_on_a_dead_mount_the_messages_say_what_to_do(station: Station, directory: Path) -> None:
    station.mount(VOLUME, directory)
    (directory / "file").write_bytes(b"written before")
    pid = int(station.status(directory)["pid"])
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    said = station.run("mount", VOLUME, directory, code=21).stderr
    assert said.count("\n") == 1
    assert "unmount it first" in said
    said = station.run("umount", directory, code=13).stderr
    assert said.count("\n") == 1
    assert f"mount {VOLUME} again" in said
    station.mount(VOLUME, directory)
    assert (directory / "file").read_bytes() == b"written before"


def test_status_tells_of_a_mount_that_died_and_of_what_is_only_here(
    station: Station, directory: Path, tmp_path: Path
) -> None:
    def told(of: Station) -> str:
        return of.run("status", VOLUME).stdout.splitlines()[1].removeprefix("state").strip()

    assert told(station) == "not mounted on this machine"
    station.mount(VOLUME, directory)
    with Station(tmp_path / "other") as other:
        (tmp_path / "more").mkdir()
        other.mkfs(VOLUME, urls([tmp_path / "more"]), "1+0")
        assert told(other) == "not mounted on this machine", "though one of its name is, with another home"
    (directory / "file").write_bytes(b"written before")
    pid = int(station.status(directory)["pid"])
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    left = f"; what was not uploaded is in the local state: mount {VOLUME} again to go on"
    dead = f"the process of the mount at {directory} died: unmount it with objfs umount {directory}"
    assert told(station) == dead + left
    assert station.run("status").stdout.split("\n")[1].split()[:3] == [VOLUME, "dead", str(directory)]
    station.run("umount", VOLUME, code=13)
    assert told(station) == "not mounted on this machine" + left
    station.mount(VOLUME, directory)
    station.run("umount", VOLUME)
    assert told(station) == "not mounted on this machine"
    assert "no mount of volume" in station.run("umount", VOLUME, code=24).stderr
