"""A mount that follows, beside the machine that writes, through the kernel and its caches."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import VOLUME, Station, away, have_fuse, local_buckets, urls

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

INTERVAL = "follow_interval=3600"
"""Looks only when it is asked to, by ``objfs flush``."""
STALE = "Stale file handle"


class Pair:
    """Where the volume is written, and where it is followed."""

    def __init__(self, writer: Station, reader: Station, written: Path, shown: Path) -> None:
        self.writer = writer
        self.reader = reader
        self.written = written
        self.shown = shown

    def go_on(self) -> None:
        """The second shows what the first holds."""
        self.writer.run("flush", self.written)
        self.reader.run("flush", self.shown)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One pair for all tests; each works in a directory of its own."""
    root = tmp_path_factory.mktemp("follow")
    places = local_buckets(root, 3)
    with Station(root / "writer") as writer, Station(root / "reader") as reader:
        writer.mkfs(VOLUME, urls(places))
        writer.mount(VOLUME, root / "written")
        reader.attach(VOLUME, urls(places))
        reader.mount(VOLUME, root / "shown", "--follow", "-o", INTERVAL)
        yield Pair(writer, reader, root / "written", root / "shown")


@pytest.fixture
def both(pair: Pair, request: pytest.FixtureRequest) -> Pair:
    """A directory for one test, which holds ``file``."""
    name = request.node.name
    (pair.written / name).mkdir()
    (pair.written / name / "file").write_bytes(b"first")
    pair.go_on()
    return Pair(pair.writer, pair.reader, pair.written / name, pair.shown / name)


def test_names_sizes_and_contents_follow(both: Pair) -> None:
    written, shown = both.written, both.shown
    (written / "gone").write_bytes(b"gone")
    (written / "dir").mkdir()
    both.go_on()
    assert sorted(path.name for path in shown.iterdir()) == ["dir", "file", "gone"]
    assert not (shown / "dir" / "appears").exists()  # the kernel remembers that too
    with (shown / "file").open("rb", buffering=0) as file, (shown / "gone").open("rb", buffering=0) as gone:
        assert (file.read(), gone.read()) == (b"first", b"gone")
        (written / "file").write_bytes(b"second and longer")
        (written / "gone").unlink()
        (written / "dir" / "appears").write_bytes(b"here")
        (written / "dir" / "appears").chmod(0o600)
        both.go_on()
        file.seek(0)
        assert file.read() == b"second and longer"
        with pytest.raises(OSError, match=STALE):
            os.fstat(gone.fileno())
        with pytest.raises(OSError, match=STALE):
            os.pread(gone.fileno(), 4, 0)
    assert (shown / "dir" / "appears").read_bytes() == b"here"
    assert (shown / "dir" / "appears").stat().st_mode & 0o777 == 0o600
    assert not (shown / "gone").exists()
    assert sorted(path.name for path in shown.iterdir()) == ["dir", "file"]
    with pytest.raises(OSError, match="Read-only"):
        (shown / "new").touch()


def test_other_content_under_the_same_size_and_time(both: Pair) -> None:
    """What rsync --times with --inplace leaves: only the content tells."""
    written, shown = both.written / "file", both.shown / "file"
    before = written.stat()
    assert shown.read_bytes() == b"first"
    with written.open("r+b") as file:
        file.write(b"OTHER")
    os.utime(written, ns=(before.st_atime_ns, before.st_mtime_ns))
    both.go_on()
    assert shown.stat().st_mtime_ns == before.st_mtime_ns
    assert shown.read_bytes() == b"OTHER"


def test_a_directory_that_is_replaced(both: Pair) -> None:
    """A process that stands in the former one is told so, and does not see an empty directory."""
    written, shown = both.written, both.shown
    (written / "dir").mkdir()
    (written / "dir" / "old").touch()
    both.go_on()
    assert os.listdir(shown / "dir") == ["old"]
    descriptor = os.open(shown / "dir", os.O_RDONLY | os.O_DIRECTORY)
    try:
        (written / "dir" / "old").unlink()
        (written / "dir").rmdir()
        (written / "dir").mkdir()
        (written / "dir" / "new").touch()
        both.go_on()
        assert os.listdir(shown / "dir") == ["new"]
        with pytest.raises(OSError, match=STALE):
            os.listdir(descriptor)
    finally:
        os.close(descriptor)


def test_a_mapped_file_goes_on_to_be_readable(both: Pair) -> None:
    with (both.shown / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[:5] == b"first"
        (both.written / "file").write_bytes(b"other")
        both.go_on()
        assert (both.shown / "file").read_bytes() == b"other"
        assert mapped[:5] == b"other"


def test_status_says_that_it_follows_and_what_fails(both: Pair) -> None:
    status = both.reader.status(both.shown)
    assert (status["read_only"], status["follow"]["last_error"]) == (True, "")
    assert "following    looked" in both.reader.run("status", VOLUME).stdout
    places = [Path(bucket["url"].removeprefix("file://")) for bucket in status["buckets"]]
    with away(places):
        both.reader.run("flush", both.shown, code=15)
        assert "the last look failed" in both.reader.run("status", VOLUME).stdout
    both.go_on()
    assert both.reader.status(both.shown)["follow"]["last_error"] == ""


def test_a_walk_that_goes_on_while_the_volume_changes(both: Pair) -> None:
    """Requests, changes and invalidations at the same time: nothing hangs, nothing is torn."""
    for number in range(20):
        (both.written / f"dir{number}").mkdir()
        (both.written / f"dir{number}" / "file").write_bytes(b"x")
    both.go_on()
    script = "while :; do find . -type f -exec cat {} + >/dev/null 2>&1; done"
    walkers = [subprocess.Popen(["sh", "-c", script], cwd=both.shown) for _ in range(2)]
    try:
        for turn in range(4):
            for number in range(20):
                (both.written / f"dir{number}" / "file").write_bytes(b"x" * (turn + 2))
                (both.written / f"dir{number}" / f"new{turn}").write_bytes(b"n")
                (both.written / f"dir{number}" / f"new{turn - 1}").unlink(missing_ok=True)
            both.go_on()
            sizes = {(both.shown / f"dir{number}" / "file").stat().st_size for number in range(20)}
            assert sizes == {turn + 2}
            assert sorted(os.listdir(both.shown / "dir7")) == ["file", f"new{turn}"]
    finally:
        for walker in walkers:
            walker.kill()
            walker.wait()


def test_it_looks_by_itself(pair: Pair) -> None:
    """With a short interval nobody needs to ask; a program that waits for a name gets it."""
    pair.reader.umount(pair.shown)
    pair.reader.mount(VOLUME, pair.shown, "-o", "follow,follow_interval=1")
    waits = subprocess.Popen(["sh", "-c", f"until test -e {pair.shown}/new; do sleep 0.1; done"])
    (pair.written / "new").touch()
    pair.writer.run("flush", pair.written)
    assert waits.wait(timeout=60) == 0
