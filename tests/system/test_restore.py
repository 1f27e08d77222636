"""Restore, export and import beside a real mount, compared with rsync; and a restore that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system import tree
from tests.system.harness import VOLUME, Station, have_fuse, urls

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse"),
]
SLOW = "\n[settings]\nbandwidth = 400000\n"
"""Bytes a second from each bucket, so that a restore can be killed in its midst."""
LIMIT_S = 60.0


def test_a_tree_comes_out_of_a_mounted_volume_and_goes_back(
    station: Station, places: list[Path], directory: Path, tmp_path: Path
) -> None:
    source, out, archive = tmp_path / "source", tmp_path / "out", tmp_path / "file.tar"
    _grow(source, files=100, megabytes=2)
    station.mount(VOLUME, directory)
    tree.copy(source, directory)
    station.run("flush", directory)

    shutil.rmtree(places[0])  # of 2+1
    document = json.loads(station.run("restore", VOLUME, out, "--verify", "--json").stdout)
    assert tree.differences(source, out) == []
    assert (document["kept"], document["refused"], document["unreadable"]) == (0, {}, {})
    assert document["done"] == document["wanted"]

    one = urls(places)[2]  # says where the others are
    said = station.run("restore", "unknown-here", "names", tmp_path / "part", "--bucket", one).stderr
    assert f"bucket 0 was at {urls(places)[0]}, which is not used" in said
    assert tree.differences(source / "names", tmp_path / "part" / "names") == []

    with archive.open("wb") as stream:
        words, environment = station.command("export", VOLUME), station.full_environment()
        subprocess.run(words, check=True, stdout=stream, stderr=subprocess.PIPE, env=environment)
    (directory / "again").mkdir()
    station.run("import", directory / "again", archive)
    assert tree.differences(source, directory / "again") == []
    station.run("import", tmp_path / "out", archive, code=ExitCode.NOT_MOUNTED)
    station.umount(directory)


def test_a_killed_restore_is_gone_on_with_on_a_machine_without_state(
    station: Station, places: list[Path], directory: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    _grow(source, files=60, megabytes=3)
    station.mount(VOLUME, directory)
    tree.copy(source, directory)
    station.umount(directory)
    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places))
        config = other.home / VOLUME / "volume.toml"
        fast = config.read_text()
        config.write_text(fast.replace("\n[settings]\n", SLOW) if "[settings]" in fast else fast + SLOW)
        _kill_halfway(other, out)
        config.write_text(fast)
        other.run("restore", VOLUME, out, code=ExitCode.USAGE)
        document = json.loads(other.run("restore", VOLUME, out, "--resume", "--verify", "--json").stdout)
    assert document["kept"] > 0
    assert tree.differences(source, out) == []


def _grow(source: Path, *, files: int, megabytes: int) -> None:
    """Without the file that is 64 MiB of zeros once rsync has written it."""
    tree.build(source, files=files, megabytes=megabytes)
    (source / "sparse" / "hole-only").unlink()


def _kill_halfway(station: Station, out: Path) -> None:
    """Ends a restore when the first files are there, and not the last."""
    running = subprocess.Popen(
        station.command("restore", VOLUME, out),
        env=station.full_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with running:
        deadline = time.monotonic() + LIMIT_S
        while running.poll() is None and time.monotonic() < deadline:
            if any(path.is_file() for path in out.glob("lib/**/*")):
                os.kill(running.pid, signal.SIGKILL)
                break
            time.sleep(0.01)  # what another process writes can only be looked for
        assert running.wait(LIMIT_S) == -signal.SIGKILL, "it ended before it was killed"
