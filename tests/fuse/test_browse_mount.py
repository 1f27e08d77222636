"""Snapshots on a real mount, as programs meet them."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuse.conftest import Mounted, mount, public_directory
from tests.posix.port import code_of

pytestmark = pytest.mark.mount

CHILD = "tests.fuse.browsed"
HOLE = 3 * 4096
TIMES = (1_600_000_000 * 10**9 + 1, 1_500_000_000 * 10**9 + 123)


class Machine:
    """A mount with a volume whose snapshots are taken by word."""

    def __init__(self, mounted: Mounted, scratch: Path) -> None:
        self._mounted = mounted
        self.root = mounted.path
        self.scratch = scratch

    def tell(self, order: str) -> None:
        process = self._mounted.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(order + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    def past(self, name: str) -> Path:
        return self.root / ".snapshots" / name


@pytest.fixture
def machine() -> Iterator[Machine]:
    with public_directory() as directory, mount(directory / "mnt", module=CHILD) as mounted:
        yield Machine(mounted, directory)


def run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def differences(one: Path, other: Path) -> list[str]:
    """What rsync would do to make ``other`` the same: contents, links, lists, attributes, times."""
    said = run("rsync", "-aHAXnic", "--delete", "--out-format=%i %n", f"{one}/", f"{other}/")
    # A door says when the snapshot was taken, not when its root was changed.
    return [line for line in said.splitlines() if line != ".d..t...... ./"]


def fill(root: Path) -> None:
    """One of everything."""
    (root / "d" / "deep").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"f" * 10_000)
    os.link(root / "d" / "f", root / "twin")
    (root / "link").symlink_to("d/f")
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    with (root / "sparse").open("wb") as stream:
        stream.seek(HOLE)
        stream.write(b"end")
        stream.truncate(4 * HOLE)
    os.setxattr(root / "d" / "f", "user.colour", b"blue")
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.chown(root / "d", 1000, 100)
        run("setfacl", "-m", "u:1234:r", root / "twin")
        run("setfacl", "-d", "-m", "u:1234:rx", root / "d")
    for number in range(40):
        (root / "d" / "deep" / f"n{number}").write_bytes(b"%d" % number)
    for path in (root / "d" / "f", root / "sparse", root / "d"):
        os.utime(path, ns=TIMES)


def wreck(root: Path) -> None:
    """The live tree goes on."""
    with (root / "d" / "f").open("r+b") as stream:
        stream.write(b"changed")
    os.setxattr(root / "d" / "f", "user.colour", b"red")
    os.truncate(root / "sparse", 5)
    os.unlink(root / "twin")
    os.rename(root / "link", root / "moved")
    shutil.rmtree(root / "d" / "deep")
    os.chmod(root / "d", 0o700)
    (root / "new").write_bytes(b"new")


@pytest.mark.parametrize("uploaded", [False, True])
def test_a_snapshot_is_the_tree_as_it_stood(machine: Machine, uploaded: bool) -> None:
    fill(machine.root)
    copy = machine.scratch / "copy"
    run("rsync", "-aHAXS", f"{machine.root}/", f"{copy}/")
    machine.tell("take s")
    wreck(machine.root)
    if uploaded:
        machine.tell("upload")
    past = machine.past("s")
    assert differences(past, copy) == []
    assert (past / "twin").stat().st_nlink == 2
    assert (past / "twin").stat().st_ino == (past / "d" / "f").stat().st_ino
    assert (past / "sparse").stat().st_blocks * 512 <= HOLE
    assert (past / "d" / "f").stat().st_atime_ns == TIMES[1]
    assert differences(past, copy) == [], "reading changes nothing"
    machine.tell("take t")
    assert differences(past, copy) == []
    assert differences(machine.root, copy) != []
    assert differences(machine.past("t"), machine.root) == []


def test_the_directory_is_hidden_and_dated(machine: Machine) -> None:
    (machine.root / "f").write_bytes(b"x")
    assert not machine.past("s").exists()
    before = time.time()
    machine.tell("take s")
    assert machine.past("s").is_dir(), "that it was not there is not remembered"
    assert os.listdir(machine.root) == ["f"]
    assert os.listdir(machine.root / ".snapshots") == ["s"]
    assert before - 1 < machine.past("s").stat().st_mtime < time.time() + 1
    assert run("find", machine.root, "-name", "f").splitlines() == [str(machine.root / "f")]
    assert os.path.realpath(machine.past("s") / ".." / "..") == str(machine.root)


def test_it_can_be_listed() -> None:
    with public_directory() as directory, mount(directory / "mnt", "show_snapshots", module=CHILD) as mounted:
        for number in range(300):
            (mounted.path / f"f{number}").touch()
        names = os.listdir(mounted.path)
        assert sorted(names) == sorted([".snapshots", *[f"f{number}" for number in range(300)]])
        shutil.rmtree(mounted.path / "f0", ignore_errors=True)
        os.unlink(mounted.path / "f0")
        assert ".snapshots" in os.listdir(mounted.path)


def test_a_deleted_snapshot_is_gone_for_everybody(machine: Machine) -> None:
    (machine.root / "f").write_bytes(b"x" * 300_000)
    machine.tell("take s")
    os.truncate(machine.root / "f", 0)
    with (machine.past("s") / "f").open("rb", buffering=0) as stream:
        assert stream.read(1) == b"x"
        machine.tell("drop s")
        assert code_of(os.pread, stream.fileno(), 1, 250_000) == "ESTALE"
    with pytest.raises(FileNotFoundError):
        (machine.past("s") / "f").open()
    assert os.listdir(machine.root / ".snapshots") == []
    deadline = time.monotonic() + 10
    while machine.past("s").exists():
        assert time.monotonic() < deadline
    machine.tell("take s")
    assert (machine.past("s") / "f").read_bytes() == b""


def test_nothing_inside_can_be_changed(machine: Machine) -> None:
    fill(machine.root)
    machine.tell("take s")
    past, live = machine.past("s"), machine.root
    changes: list[Callable[[], object]] = [
        lambda: (past / "d" / "f").write_bytes(b"x"),
        lambda: (past / "new").touch(),
        lambda: (past / "new").mkdir(),
        lambda: os.unlink(past / "twin"),
        lambda: os.rename(past / "twin", past / "other"),
        lambda: os.rename(past / "twin", live / "other"),
        lambda: os.rename(live / "twin", past / "other"),
        lambda: os.link(past / "twin", live / "other"),
        lambda: os.chmod(past / "twin", 0o600),
        lambda: os.utime(past / "twin"),
        lambda: os.truncate(past / "twin", 0),
        lambda: os.setxattr(past / "twin", "user.x", b""),
        lambda: os.rmdir(past),
        lambda: (machine.root / ".snapshots" / "t").mkdir(),
        lambda: os.rename(live / "d", live / ".snapshots"),
    ]
    for number, change in enumerate(changes):
        assert code_of(change) in ("EROFS", "EXDEV"), f"change {number}"
    for change in (lambda: os.mkdir(live / ".snapshots"), lambda: os.symlink("x", live / ".snapshots")):
        with pytest.raises(FileExistsError):
            change()


def test_trees_side_by_side_are_not_taken_for_hard_links(machine: Machine) -> None:
    (machine.root / "f").write_bytes(b"one")
    os.link(machine.root / "f", machine.root / "g")
    machine.tell("take a")
    (machine.root / "f").write_bytes(b"two")
    machine.tell("take b")
    copy = machine.scratch / "all"
    run("rsync", "-aH", machine.past("a"), machine.past("b"), machine.root, f"{copy}/")
    files = {path.relative_to(copy): path.stat() for path in copy.rglob("f")}
    assert len({found.st_ino for found in files.values()}) == len(files) == 3
    assert {found.st_nlink for found in files.values()} == {2}


def test_programs_work_inside(machine: Machine) -> None:
    git = ("git", "-c", "safe.directory=*", "-c", "user.name=n", "-c", "user.email=e@x", "-C")
    (machine.root / "repo").mkdir()
    run(*git, machine.root / "repo", "init", "-q")
    (machine.root / "repo" / "f").write_bytes(b"kept")
    run(*git, machine.root / "repo", "add", "f")
    run(*git, machine.root / "repo", "commit", "-qm", "kept")
    machine.tell("take s")
    shutil.rmtree(machine.root / "repo")
    past = machine.past("s")
    assert run(*git, past / "repo", "log", "--format=%s") == "kept\n"
    run(*git, past / "repo", "fsck", "--strict")
    assert run(*git, past / "repo", "--no-optional-locks", "status", "--porcelain") == ""
    run("tar", "-C", past, "-cf", machine.scratch / "s.tar", ".")
    run("tar", "-C", past, "-df", machine.scratch / "s.tar")
    run("cp", "-a", past / "repo", machine.root / "repo")
    assert run(*git, machine.root / "repo", "status", "--porcelain") == ""
    assert run("find", past, "-type", "f", "-name", "f").splitlines() == [str(past / "repo" / "f")]
    assert shutil.disk_usage(past).total == shutil.disk_usage(machine.root).total
    inside = subprocess.run(["pwd", "-P"], cwd=past / "repo", capture_output=True, text=True)
    assert inside.stdout.strip() == str(past / "repo")
