"""Deleted, and brought back: on a real mount, with what the kernel remembers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import Station, have_fuse, mounted_station

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

VOLUME = "vol"
TEXT, LONG = b"chapter one\n", b"bytes" * 300_000


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with mounted_station(tmp_path, "-o", "trash_days=7") as station:
        yield station


def listed(station: Station, directory: Path) -> list[dict[str, object]]:
    return json.loads(station.run("undelete", directory, "--json").stdout)  # type: ignore[no-any-return]


@pytest.fixture
def book(station: Station, tmp_path: Path) -> Path:
    """A directory of the mount with something of most kinds in it."""
    book = tmp_path / "mnt" / "book"
    (book / "drafts").mkdir(parents=True)
    (book / "one").write_bytes(TEXT)
    os.link(book / "one", book / "also one")
    (book / "drafts" / "long").write_bytes(LONG)
    (book / "drafts" / "link").symlink_to("long")
    os.setxattr(book / "one", "user.kind", b"text")
    return book


def test_deleted_listed_brought_back(station: Station, book: Path) -> None:
    odd, was = book.parent / os.fsdecode(b"odd\xff"), (book / "one").stat()
    odd.write_bytes(b"odd")
    odd.unlink()
    shutil.rmtree(book)
    assert not book.exists(), "the kernel remembers that there is none"
    found = [(one["path"], one["type"], one["size"], one["names"]) for one in listed(station, book.parent)]
    assert found == [
        ("/book", "directory", 2 * len(TEXT) + len(LONG) + len("long"), 6),
        ("/" + odd.name, "file", 3, 1),
    ]
    station.run("undelete", book, odd)
    assert (book / "drafts" / "long").read_bytes() == LONG
    assert (book / "drafts" / "link").readlink() == Path("long")
    assert (book / "one").read_bytes() == (book / "also one").read_bytes() == TEXT
    is_now = (book / "one").stat()
    assert (is_now.st_ino, is_now.st_nlink, is_now.st_mtime_ns) == (was.st_ino, 2, was.st_mtime_ns)
    assert os.getxattr(book / "one", "user.kind") == b"text"
    assert odd.read_bytes() == b"odd"
    assert "nothing in the trash here" in station.run("undelete", book.parent).stderr


def test_a_name_that_is_taken_and_an_empty_trash(station: Station, book: Path) -> None:
    long, saved = book / "drafts" / "long", book / "saved"
    long.unlink()
    long.write_bytes(b"another")
    refused = station.run("undelete", long, code=ExitCode.FAILURE).stderr
    assert "/book/drafts/long is there now: say with --to where this is to go" in refused
    said = station.run("undelete", long, "--to", saved).stderr
    assert f"{long} is back as {saved}, as of trash-" in said
    assert (long.read_bytes(), saved.read_bytes()) == (b"another", LONG)
    saved.unlink()
    assert "the trash is empty" in station.run("undelete", book, "--empty").stderr
    assert "/book/saved is not in the trash" in station.run("undelete", saved, code=ExitCode.FAILURE).stderr


def test_what_is_said_of_the_trash(station: Station, book: Path) -> None:
    mount = book.parent
    (book / "drafts" / "long").unlink()
    assert "/book/drafts/long" in station.run("undelete", book).stdout
    assert "trash        1 snapshot, each kept 7 days" in station.run("status", mount).stdout
    assert "trash only" in station.run("usage", mount).stdout
    assert json.loads(station.run("snapshot", "list", mount, "--json").stdout) == []
    assert len(json.loads(station.run("snapshot", "list", mount, "--trash", "--json").stdout)) == 1
    station.umount(mount)
    station.mount(VOLUME, mount, "-o", "ro")
    assert "trash_days" not in station.run("undelete", mount).stderr, "nothing is deleted on such a mount"
    assert "trash        1 snapshot\n" in station.run("status", mount).stdout
