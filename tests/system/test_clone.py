"""Clones on a real mount, with what the kernel remembers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import Station, have_fuse, mounted_station

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

VOLUME = "vol"
LONG = b"bytes" * 300_000


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with mounted_station(tmp_path) as station:
        yield station


@pytest.fixture
def book(station: Station, tmp_path: Path) -> Path:
    book = tmp_path / "mnt" / "book"
    (book / "drafts").mkdir(parents=True)
    (book / "one").write_bytes(b"chapter one\n")
    (book / "drafts" / "long").write_bytes(LONG)
    (book / "again").hardlink_to(book / "one")
    (book / "link").symlink_to("one")
    with (book / "sparse").open("wb") as sparse:
        sparse.truncate(5_000_000)
        os.pwrite(sparse.fileno(), b"end", 4_999_997)
    os.setxattr(book / "one", "user.kind", b"text")
    os.chmod(book / "one", 0o640)
    os.utime(book / "drafts", ns=(10**18, 10**18))
    return book


def differences(one: Path, other: Path) -> str:
    """What rsync would change to make the other like the one: content, times, links, attributes."""
    words = ["rsync", "-aHAXic", "--delete", "--dry-run", f"{one}/", f"{other}/"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_a_tree_is_cloned_and_both_live_on(station: Station, book: Path) -> None:
    mount, copy = book.parent, book.parent / "copy"
    assert not copy.exists(), "the kernel remembers that there is none"
    said = station.run("clone", book, copy).stderr
    assert "6 inodes" in said
    assert differences(book, copy) == ""
    assert (copy / "sparse").stat().st_blocks == (book / "sparse").stat().st_blocks
    assert (copy / "one").stat().st_ino == (copy / "again").stat().st_ino != (book / "one").stat().st_ino
    with (copy / "drafts" / "long").open("r+b") as long:
        long.write(b"BYTES")
    (book / "one").write_bytes(b"Chapter 1\n")
    station.run("flush", mount)
    station.drop_cache(VOLUME, mount)
    assert (book / "drafts" / "long").read_bytes() == LONG
    assert (copy / "drafts" / "long").read_bytes() == b"BYTES" + LONG[5:]
    assert (copy / "again").read_bytes() == b"chapter one\n"
    station.run("fsck", mount)


def test_out_of_a_snapshot_and_what_is_refused(station: Station, book: Path, tmp_path: Path) -> None:
    mount = book.parent
    station.run("snapshot", "create", mount, "good", "--no-wait")
    (book / "drafts" / "long").unlink()
    station.run("clone", mount / ".snapshots" / "good" / "book" / "drafts" / "long", book / "drafts" / "long")
    assert (book / "drafts" / "long").read_bytes() == LONG
    station.run("clone", mount / ".snapshots" / "good", mount / "everything")
    assert (mount / "everything" / "book" / "one").read_bytes() == b"chapter one\n"
    before = sorted(mount.rglob("*"))
    for source, target, code, message in (
        (book, book, ExitCode.USAGE, "exists: a clone needs a name that is free"),
        (book, book / "drafts" / "copy", ExitCode.FAILURE, "cannot be cloned into itself"),
        (book / "none", mount / "copy", ExitCode.USAGE, "No such file or directory"),
        (book, tmp_path / "copy", ExitCode.USAGE, "lie on different mounts"),
        (book, mount / ".snapshots" / "good" / "copy", ExitCode.FAILURE, "a snapshot cannot be changed"),
        (mount / ".snapshots", mount / "copy", ExitCode.USAGE, "the directory of all snapshots"),
    ):
        assert message in station.run("clone", source, target, code=code).stderr
    assert sorted(mount.rglob("*")) == before
