"""The independent reader gives back what a real mount wrote, with any one of three buckets away."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.harness import PASSPHRASE, REPOSITORY, Station, away, have_fuse, local_buckets, urls
from tests.system.tree import described

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

READER = REPOSITORY / "docs" / "format" / "read_volume.py"
ODD_NAME = os.fsdecode(b"odd \xff\xfe\nname")
HOLE = 5_000_000


def build(root: Path) -> None:
    (root / "deep" / "er" / "est").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "random").write_bytes(random.Random(7).randbytes(3_000_000))
    (root / "deep" / "text").write_bytes(b"the same line again and again\n" * 50_000)
    (root / "deep" / "er" / "est" / ODD_NAME).write_bytes(b"content of a file with an odd name")
    with (root / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(HOLE)
        file.write(b"end")
        file.truncate(2 * HOLE)
    (root / "hard").hardlink_to(root / "random")
    (root / "deep" / "soft").symlink_to("er/est")
    (root / "random").chmod(0o640)
    os.utime(root / "deep" / "er", ns=(1, 1_234_567_890_123_456_789))


def build_more(root: Path) -> None:
    """After the key was rotated."""
    (root / "deep" / "text").write_bytes(b"other lines\n" * 10_000)
    (root / "later").write_bytes(random.Random(8).randbytes(500_000))


@dataclass(frozen=True, slots=True)
class Written:
    """A volume of two keys that was unmounted, and what its mount showed."""

    places: list[Path]
    passphrase: Path
    tree: dict[str, tuple[object, ...]]

    def read(self, path: str, destination: str) -> subprocess.CompletedProcess[bytes]:
        words = [sys.executable, str(READER), str(self.passphrase), path, destination, *map(str, self.places)]
        return subprocess.run(words, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Written]:
    root = tmp_path_factory.mktemp("reader")
    mounted = root / "mnt"
    places = local_buckets(root, 3)
    with Station(root / "machine") as station:
        station.mkfs("vol", urls(places))
        station.mount("vol", mounted)
        build(mounted)
        station.run("key", "rotate", "vol", "--drop-slots", code=12)
        station.umount(mounted)
        station.run("key", "rotate", "vol", "--drop-slots")
        station.mount("vol", mounted)
        build_more(mounted)
        tree = described(mounted)
        station.umount(mounted)
        (root / "passphrase").write_text(f"{PASSPHRASE}\n")
        yield Written(places, root / "passphrase", tree)


@pytest.mark.parametrize("slot", range(3))
def test_everything_comes_out_without_any_one_bucket(written: Written, tmp_path: Path, slot: int) -> None:
    with away([written.places[slot]]):
        done = written.read("/", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr.decode()
    assert described(tmp_path / "out") == written.tree
    assert (tmp_path / "out" / "hard").samefile(tmp_path / "out" / "random")
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 < HOLE


def test_one_directory_and_one_file_come_out(written: Written, tmp_path: Path) -> None:
    assert written.read("deep/er", str(tmp_path / "er")).returncode == 0
    assert (tmp_path / "er" / "est" / ODD_NAME).read_bytes() == b"content of a file with an odd name"
    assert written.read("/random", str(tmp_path / "one")).returncode == 0
    assert described(tmp_path)["one"][-1] == written.tree["random"][-1]


def test_it_lists_every_name(written: Written) -> None:
    done = written.read("/", "-")
    assert done.returncode == 0, done.stderr.decode()
    for name in written.tree:
        assert os.fsencode(f" /{name}\n") in done.stdout
