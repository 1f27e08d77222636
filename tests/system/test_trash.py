"""Deleted, and brought back: on a real mount, with what the kernel remembers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.system.harness import Station, have_fuse, local_buckets, urls

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

VOLUME = "vol"
TEXT, LONG = b"chapter one\n", b"bytes" * 300_000


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with Station(tmp_path / "machine") as station:
        station.mkfs(VOLUME, urls(local_buckets(tmp_path, 3)))
        station.mount(VOLUME, tmp_path / "mnt", "-o", "trash_days=7")
        yield station
        station.umount(tmp_path / "mnt")


def listed(station: Station, directory: Path) -> list[dict[str, object]]:
    return json.loads(station.run("undelete", directory, "--json").stdout)  # type: ignore[no-any-return]


def test_deleted_listed_brought_back(station: Station, tmp_path: Path) -> None:
    mount = tmp_path / "mnt"
    book, odd = mount / "book", mount / os.fsdecode(b"odd\xff")
    (book / "drafts").mkdir(parents=True)
    (book / "one").write_bytes(TEXT)
    os.link(book / "one", book / "also one")
    (book / "drafts" / "long").write_bytes(LONG)
    (book / "drafts" / "link").symlink_to("long")
    os.setxattr(book / "one", "user.kind", b"text")
    odd.write_bytes(b"odd")
    was = (book / "one").stat()
    odd.unlink()
    shutil.rmtree(book)
    assert not book.exists(), "the kernel remembers that there is none"
    found = [(one["path"], one["type"], one["size"], one["names"]) for one in listed(station, mount)]
    assert found == [
        ("/book", "directory", 2 * len(TEXT) + len(LONG) + len("long"), 6),
        ("/" + odd.name, "file", 3, 1),
    ]
    assert "/odd\\xff" in station.run("undelete", mount).stdout
    assert "trash        1 snapshot, each kept 7 days" in station.run("status", mount).stdout
    assert "trash only" in station.run("usage", mount).stdout
    assert json.loads(station.run("snapshot", "list", mount, "--json").stdout) == []
    assert len(json.loads(station.run("snapshot", "list", mount, "--trash", "--json").stdout)) == 1

    station.run("undelete", book, odd)
    assert (book / "drafts" / "long").read_bytes() == LONG
    assert (book / "drafts" / "link").readlink() == Path("long")
    assert (book / "one").read_bytes() == (book / "also one").read_bytes() == TEXT
    is_now = (book / "one").stat()
    assert (is_now.st_ino, is_now.st_nlink, is_now.st_mtime_ns) == (was.st_ino, 2, was.st_mtime_ns)
    assert os.getxattr(book / "one", "user.kind") == b"text"
    assert odd.read_bytes() == b"odd"
    assert listed(station, mount) == []

    assert "is not in the trash" in station.run("undelete", book / "one", code=ExitCode.FAILURE).stderr
    (book / "one").unlink()
    (book / "also one").unlink()
    (book / "one").write_bytes(b"another")
    refused = station.run("undelete", book / "one", code=ExitCode.FAILURE).stderr
    assert "/book/one is there now: say with --to where this is to go" in refused
    station.run("undelete", book / "one", "--to", mount / "saved")
    assert ((book / "one").read_bytes(), (mount / "saved").read_bytes()) == (b"another", TEXT)
    station.run("flush", mount)
    station.drop_cache(VOLUME, mount)
    assert (mount / "saved").read_bytes() == TEXT

    assert "the trash is empty" in station.run("undelete", mount, "--empty").stderr
    assert "not in the trash" in station.run("undelete", book / "also one", code=ExitCode.FAILURE).stderr
    station.run("fsck", mount)
