"""A machine dies with work that is nowhere else, another goes on: ``objfs salvage`` brings the work back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import VOLUME, Station, have_fuse, urls, wait_for_end

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse"),
]
OLD, NEW = os.urandom(2_500_000), os.urandom(700_000)


def test_what_was_written_before_a_takeover_is_copied_out(
    station: Station, places: list[Path], directory: Path, tmp_path: Path
) -> None:
    station.mount(VOLUME, directory, "-o", "checkpoint_interval=3600")
    (directory / "old").write_bytes(OLD)
    (directory / "untouched").write_bytes(OLD[:1000])
    station.run("flush", directory)
    (directory / "made").mkdir()
    (directory / "made" / "new").write_bytes(NEW)
    with (directory / "old").open("r+b") as stream:
        stream.seek(1_500_000)
        stream.write(b"changed here")
    pid = station.status(directory)["pid"]
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    subprocess.run(["fusermount3", "-u", "-z", "--", str(directory)], check=True)
    station.mounted.remove(directory)

    with Station(tmp_path / "other") as other:
        other.attach(VOLUME, urls(places))
        other.mount(VOLUME, directory, "--force")
        (directory / "elsewhere").write_bytes(b"went on")
        other.umount(directory)

    said = station.run("salvage", VOLUME, tmp_path / "early", "--from", "current").stdout
    assert "2 files copied whole, 0 incomplete" in said
    station.run("salvage", VOLUME, tmp_path / "none", code=ExitCode.USAGE)
    station.mount(VOLUME, directory, "--force")
    assert sorted(path.name for path in directory.iterdir()) == ["elsewhere", "old", "untouched"]
    out = tmp_path / "out"
    document = json.loads(station.run("salvage", VOLUME, out, "--json").stdout)
    assert document["source"].startswith("salvage-")
    assert sorted(one["path"] for one in document["files"]) == ["/made/new", "/old"]
    assert (out / "made" / "new").read_bytes() == NEW
    assert (out / "old").read_bytes() == OLD[:1_500_000] + b"changed here" + OLD[1_500_012:]
    assert not (out / "untouched").exists()
    station.run("salvage", VOLUME, out, code=ExitCode.USAGE)
    local = station.run("salvage", VOLUME, tmp_path / "local", "--local", code=ExitCode.DAMAGE_FOUND).stdout
    assert "missing    /old: bytes 0 to 1048575: stored in the buckets" in local
    assert (tmp_path / "local" / "made" / "new").read_bytes() == NEW
    station.umount(directory)
    station.run("fsck", VOLUME)
