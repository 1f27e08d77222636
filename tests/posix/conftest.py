"""The subjects: a plain directory (the oracle), the file system without a kernel, a real mount.

``posix`` runs a test on all three through the port; ``directory`` on the two that a kernel stands before,
with a path of the test's own.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from objfs.model import FILE_SIZE_MAX
from tests.fs.real import RealWorld
from tests.posix.inprocess import InProcess
from tests.posix.port import Kernel, Posix
from tests.system.harness import Station, have_fuse, urls

CHUNK_SIZE = 65536
LOCAL_LARGEST = 2**43
"""Half of what ext4 bears with blocks of 4 KiB."""

MOUNT = pytest.param(
    "mount", marks=[pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]
)
OBJFS = ["fs", MOUNT]
"""For what objfs promises beyond POSIX."""


class Mounted:
    """A volume of small chunks, 2+1 over directories, mounted as a person would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "mnt"
        self.station = Station(root / "machine")

    @cached_property
    def pid(self) -> int:
        """Of the process behind the mount."""
        return int(self.station.status(self.path)["pid"])


@pytest.fixture(scope="package")
def open_directory() -> Iterator[Path]:
    """A place that other people can reach: pytest's own directories are 0700."""
    with tempfile.TemporaryDirectory(prefix="objfs-posix-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="package")
def mounted(open_directory: Path) -> Iterator[Mounted]:
    made = Mounted(open_directory)
    buckets = [open_directory / name for name in "abc"]
    for bucket in buckets:
        bucket.mkdir()
    with made.station as station:
        words = [word for url in urls(buckets) for word in ("--bucket", url)]
        station.run("mkfs", "vol", *words, "--code", "2+1", "--chunk-size", f"{CHUNK_SIZE}")
        station.mount("vol", made.path)
        yield made
        station.umount(made.path)


@pytest.fixture(params=["local", MOUNT])
def directory(request: pytest.FixtureRequest, open_directory: Path) -> Path:
    """A directory of the test's own, on this machine's file system and on a mount."""
    return own_directory(request, open_directory)


@pytest.fixture(params=["local", "fs", MOUNT])
def posix(request: pytest.FixtureRequest, open_directory: Path) -> Iterator[Posix]:
    """A subject that holds nothing but what the test makes."""
    if request.param == "fs":
        world = RealWorld()
        try:
            yield InProcess(world)
        finally:
            world.close()
    else:
        largest = FILE_SIZE_MAX if request.param == "mount" else LOCAL_LARGEST
        place = os.fsencode(own_directory(request, open_directory))
        yield Kernel(request.param, place, largest, CHUNK_SIZE)


def own_directory(request: pytest.FixtureRequest, open_directory: Path) -> Path:
    mount: Mounted | None = request.getfixturevalue("mounted") if request.param == "mount" else None
    above = mount.path if mount is not None else open_directory / "local"
    above.mkdir(exist_ok=True)
    name = re.sub(r"\W", "_", str(request.node.name))[:100]
    made = above / name
    made.mkdir(mode=0o777)
    made.chmod(0o777)
    return made
