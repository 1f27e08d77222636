"""Access times as a mount was asked to keep them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fuse.conftest import mount, public_directory

pytestmark = pytest.mark.mount


@contextmanager
def mounted(*flags: str) -> Iterator[Path]:
    with public_directory() as directory, mount(directory / "mnt", *flags) as made:
        (made.path / "f").write_bytes(b"content")
        (made.path / "d").mkdir()
        yield made.path


def read(path: Path, flags: int = os.O_RDONLY) -> int:
    """Reads it through; the access time afterwards."""
    if path.is_dir():
        os.listdir(path)
    else:
        fd = os.open(path, flags)
        os.read(fd, 100)
        os.close(fd)
    os.statvfs(path)  # answered after the close
    return path.stat().st_atime_ns


def test_relatime() -> None:
    with mounted("relatime") as root:
        for path in (root / "f", root / "d"):
            new = path.stat().st_atime_ns
            first = read(path)
            assert first > new
            assert read(path) == first
            os.utime(path, ns=(first - 25 * 3600 * 10**9, 0))
            assert read(path) > first


def test_strictatime_with_pages_that_the_kernel_has() -> None:
    with mounted("strictatime") as root:
        for path in (root / "f", root / "d"):
            first, second, third = (read(path) for _ in range(3))
            assert first < second < third


def test_noatime_and_who_asks_for_it() -> None:
    with mounted("noatime") as root:
        assert "noatime" in options(root)
        for path in (root / "f", root / "d"):
            new = path.stat().st_atime_ns
            assert read(path) == new
    with mounted("strictatime") as root:
        path = root / "f"
        before = path.stat().st_atime_ns
        assert read(path, os.O_RDONLY | os.O_NOATIME) == before


def test_nodiratime() -> None:
    with mounted("nodiratime") as root:
        new = (root / "d").stat().st_atime_ns
        assert read(root / "d") == new
        assert read(root / "f") > new


def options(path: Path) -> list[str]:
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if f" {path} " in line)
    return line.split()[3].split(",")


def test_a_program_that_only_stats_leaves_no_trace() -> None:
    with mounted("strictatime") as root:
        before = (root / "f").stat()
        fd = os.open(root / "f", os.O_PATH)
        os.fstat(fd)
        os.close(fd)
        os.access(root / "f", os.R_OK)
        assert (root / "f").stat() == before
