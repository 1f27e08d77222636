"""Snapshot, mistake, diff, restore: on a real mount, with what the kernel remembers and programs hold."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import ExitCode
from tests.posix.port import code_of
from tests.system.harness import Station, have_fuse, mounted_station

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

VOLUME = "vol"
TEXT, LONG = b"chapter one\n", b"bytes" * 300_000


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    with mounted_station(tmp_path) as station:
        yield station


@pytest.fixture
def book(station: Station, tmp_path: Path) -> Path:
    """A directory of a mount, with something in it and a snapshot of that."""
    book = tmp_path / "mnt" / "book"
    (book / "drafts").mkdir(parents=True)
    (book / "one").write_bytes(TEXT)
    (book / "drafts" / "long").write_bytes(LONG)
    (book / os.fsdecode(b"odd\xff")).write_bytes(b"odd")
    os.setxattr(book / "one", "user.kind", b"text")
    station.run("snapshot", "create", tmp_path / "mnt", "good")
    return book


def spoil(book: Path) -> None:
    shutil.rmtree(book / "drafts")
    (book / "one").write_bytes(b"CHAPTER ONE\n")  # of the same size
    os.removexattr(book / "one", "user.kind")
    (book / os.fsdecode(b"odd\xff")).rename(book / "even")
    (book / "new").write_bytes(b"new")


def listed(book: Path) -> dict[str, bytes]:
    """Also what the kernel remembers: names, sizes and pages."""
    files = [path for path in sorted(book.rglob("*")) if path.is_file()]
    assert all(path.stat().st_size == len(path.read_bytes()) for path in files)
    return {str(path.relative_to(book)): path.read_bytes() for path in files}


def test_snapshot_mistake_diff_restore(station: Station, book: Path) -> None:
    mount, good = book.parent, listed(book)
    spoil(book)
    bad = listed(book)
    shown = station.run("snapshot", "diff", mount, "good").stdout.splitlines()
    assert shown == [
        "D /book/drafts/",
        "D /book/drafts/long",
        "R /book/odd\\xff -> /book/even",
        "A /book/new",
        "M /book/one  (content, mtime, xattrs)",
    ]
    found = json.loads(station.run("snapshot", "diff", mount, "good", "book/one", "--json").stdout)
    assert [(one["change"], one["path"], one["size"]) for one in found] == [("modified", "/book/one", 12)]
    words = station.run("snapshot", "diff", mount, "good", "-0", book / "even").stdout.split("\0")
    assert words == ["R", os.fsdecode(b"/book/odd\xff"), "/book/even", ""]

    dry = station.run("snapshot", "restore", mount, "good", "--dry-run")
    assert "5 changes since good would be undone" in dry.stderr
    assert listed(book) == bad

    assert not (book / "drafts").exists(), "the kernel remembers that there is none"
    with (book / "one").open("rb") as one, (book / "new").open("r+b") as new:
        done = json.loads(station.run("snapshot", "restore", mount, "good", "--json").stdout)
        assert listed(book) == good
        assert os.getxattr(book / "one", "user.kind") == b"text"
        assert code_of(os.pwrite, new.fileno(), b"x", 0) == "ESTALE"
        assert code_of(os.fsync, one.fileno()) == "ESTALE"
    assert station.run("snapshot", "diff", mount, "good").stdout == ""
    station.run("snapshot", "restore", mount, done["undo"])
    assert listed(book) == bad


def test_a_restored_path_is_in_the_buckets_after_a_flush(station: Station, book: Path) -> None:
    mount, good = book.parent, listed(book)
    spoil(book)
    (mount / "beside").write_bytes(b"stays")
    station.run("snapshot", "restore", mount, "good", "book", "--no-undo")
    assert listed(book) == good
    assert (mount / "beside").read_bytes() == b"stays"
    station.run("flush", mount)
    station.drop_cache(VOLUME, mount)
    assert listed(book) == good
    station.run("fsck", mount)


def test_what_cannot_be_restored_or_compared(station: Station, book: Path) -> None:
    mount = book.parent
    (mount / "late").write_bytes(b"late")
    for words, code, message in (
        (("restore", mount, "none"), ExitCode.NO_SUCH_SNAPSHOT, "there is no snapshot none"),
        (("restore", mount, "good", "late"), ExitCode.FAILURE, "/late is not in snapshot good"),
        (("restore", mount, "good", "/etc"), ExitCode.USAGE, "/etc is not below"),
        (("diff", mount, "none"), ExitCode.NO_SUCH_SNAPSHOT, "there is no snapshot none"),
    ):
        assert message in station.run("snapshot", *words, code=code).stderr
    assert (mount / "late").read_bytes() == b"late"


def test_versions_of_a_file(station: Station, book: Path) -> None:
    mount, one = book.parent, book / "one"
    station.run("snapshot", "create", mount, "same")
    one.write_bytes(b"other and longer\n")
    station.run("snapshot", "create", mount, "other")
    assert station.run("cat", f"{one}@same").stdout == TEXT.decode()
    one.unlink()
    assert station.run("cat", f"{one}@other").stdout == "other and longer\n"
    assert (
        "there is no snapshot none"
        in station.run("cat", f"{one}@none", code=ExitCode.NO_SUCH_SNAPSHOT).stderr
    )
    found = json.loads(station.run("versions", one, "--json").stdout)
    assert [(v["snapshot"], v["size"], v["moments"]) for v in found] == [("other", 17, 1), ("same", 12, 2)]
    assert "same" in station.run("versions", one).stdout
