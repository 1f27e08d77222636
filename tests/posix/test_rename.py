"""rename(2) in all its cases."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.posix.children import Child
from tests.posix.port import (
    EXCHANGE,
    NOREPLACE,
    Posix,
    code_of,
    listing,
    names,
    opened,
    read,
    rest,
    wait_for_tick,
    write,
)


def refused(posix: Posix, code: int, old: bytes, new: bytes, flags: int = 0) -> None:
    """The rename fails so, and nothing has moved."""
    before = tree(posix)
    assert code_of(posix.rename, old, new, flags) == errno.errorcode[code]
    assert tree(posix) == before


def tree(posix: Posix, top: bytes = b"") -> dict[bytes, tuple[int, int]]:
    """Inode and link count of everything below, by path."""
    found = {}
    for name in names(posix, top):
        path = os.path.join(top, name) if top else name
        stat = posix.lstat(path)
        found[path] = (stat.ino, stat.nlink)
        if stat.mode & 0o170000 == 0o040000:
            found |= tree(posix, path)
    return found


def above(posix: Posix, path: bytes) -> int:
    """The inode that '..' of a directory leads to."""
    return posix.stat(path + b"/..").ino


def test_rename_onto_itself_does_nothing(posix: Posix) -> None:
    write(posix, b"f", b"content")
    posix.mkdir(b"d")
    before = tree(posix)
    posix.rename(b"f", b"f")
    posix.rename(b"d", b"d")
    assert tree(posix) == before
    assert read(posix, b"f") == b"content"


def test_rename_onto_another_name_of_the_same_inode_does_nothing(posix: Posix) -> None:
    write(posix, b"f", b"content")
    posix.mkdir(b"d")
    posix.link(b"f", b"g")
    posix.link(b"f", b"d/h")
    before = tree(posix)
    posix.rename(b"f", b"g")
    posix.rename(b"f", b"d/h")
    assert tree(posix) == before
    assert posix.stat(b"f").nlink == 3


def test_rename_moves_every_kind(posix: Posix) -> None:
    posix.mkdir(b"there")
    write(posix, b"file", b"content")
    posix.mkdir(b"dir")
    posix.symlink(b"nowhere", b"link")
    posix.mknod(b"fifo", 0o010644)
    for name in (b"file", b"dir", b"link", b"fifo"):
        ino = posix.lstat(name).ino
        posix.rename(name, b"there/" + name)
        assert posix.lstat(b"there/" + name).ino == ino
    assert names(posix) == [b"there"]
    assert posix.readlink(b"there/link") == b"nowhere"
    assert read(posix, b"there/file") == b"content"


def test_rename_over_a_file_replaces_it(posix: Posix) -> None:
    write(posix, b"new", b"new")
    write(posix, b"old", b"old")
    posix.link(b"old", b"kept")
    ino = posix.stat(b"new").ino
    posix.rename(b"new", b"old")
    assert names(posix) == [b"kept", b"old"]
    assert (posix.stat(b"old").ino, read(posix, b"old")) == (ino, b"new")
    assert (posix.stat(b"kept").nlink, read(posix, b"kept")) == (1, b"old")


def test_rename_over_a_symlink_replaces_the_link_and_not_its_target(posix: Posix) -> None:
    write(posix, b"target", b"target")
    posix.symlink(b"target", b"link")
    write(posix, b"f", b"f")
    posix.rename(b"f", b"link")
    assert (read(posix, b"link"), read(posix, b"target")) == (b"f", b"target")
    posix.symlink(b"gone", b"dangling")
    posix.rename(b"dangling", b"link")
    assert posix.readlink(b"link") == b"gone"


def test_rename_a_directory_over_an_empty_one(posix: Posix) -> None:
    for path in (b"from", b"from/d", b"from/d/sub", b"to", b"to/d"):
        posix.mkdir(path)
    write(posix, b"from/d/f", b"content")
    ino = posix.stat(b"from/d").ino
    posix.rename(b"from/d", b"to/d")
    assert posix.stat(b"to/d").ino == ino
    assert names(posix, b"to/d") == [b"f", b"sub"]
    assert (posix.stat(b"from").nlink, posix.stat(b"to").nlink) == (2, 3)
    assert above(posix, b"to/d") == posix.stat(b"to").ino
    assert names(posix, b"from") == []


def test_rename_a_directory_over_a_full_one_is_refused(posix: Posix) -> None:
    posix.mkdir(b"d")
    posix.mkdir(b"full")
    write(posix, b"full/f")
    refused(posix, errno.ENOTEMPTY, b"d", b"full")
    posix.mkdir(b"d/sub")
    refused(posix, errno.ENOTEMPTY, b"d/sub", b"full")
    refused(posix, errno.ENOTEMPTY, b"d/sub", b"d")


@pytest.mark.parametrize("flags", [0, NOREPLACE])
@pytest.mark.parametrize("to", [b"d/x", b"d/sub/x", b"d/sub/deep/x"])
def test_rename_into_its_own_subtree_is_refused(posix: Posix, to: bytes, flags: int) -> None:
    for path in (b"d", b"d/sub", b"d/sub/deep"):
        posix.mkdir(path)
    refused(posix, errno.EINVAL, b"d", to, flags)


def test_rename_a_file_over_a_directory_and_back_is_refused(posix: Posix) -> None:
    write(posix, b"f")
    posix.symlink(b"d", b"link")
    posix.mkdir(b"d")
    refused(posix, errno.EISDIR, b"f", b"d")
    refused(posix, errno.EISDIR, b"link", b"d")
    refused(posix, errno.ENOTDIR, b"d", b"f")
    refused(posix, errno.ENOTDIR, b"d", b"link")


def test_rename_of_what_is_not_there(posix: Posix) -> None:
    write(posix, b"f")
    refused(posix, errno.ENOENT, b"gone", b"x")
    refused(posix, errno.ENOENT, b"f", b"gone/x")
    refused(posix, errno.ENOTDIR, b"f", b"f/x")
    refused(posix, errno.ENAMETOOLONG, b"f", b"x" * 256)


def test_rename_noreplace(posix: Posix) -> None:
    write(posix, b"f", b"f")
    write(posix, b"there", b"there")
    posix.link(b"f", b"same")
    posix.mkdir(b"d")
    for new in (b"there", b"same", b"d", b"f"):
        refused(posix, errno.EEXIST, b"f", new, NOREPLACE)
    posix.rename(b"f", b"free", NOREPLACE)
    assert names(posix) == [b"d", b"free", b"same", b"there"]


def test_rename_exchange(posix: Posix) -> None:
    for path in (b"one", b"two", b"one/d", b"one/d/inner"):
        posix.mkdir(path)
    write(posix, b"two/f", b"content")
    before = {path: posix.stat(path).ino for path in (b"one/d", b"two/f")}
    posix.rename(b"one/d", b"two/f", EXCHANGE)
    assert posix.stat(b"one/d").ino == before[b"two/f"]
    assert posix.stat(b"two/f").ino == before[b"one/d"]
    assert names(posix, b"two/f") == [b"inner"]
    assert (posix.stat(b"one").nlink, posix.stat(b"two").nlink) == (2, 3)
    assert above(posix, b"two/f") == posix.stat(b"two").ino
    posix.rename(b"one/d", b"one/d", EXCHANGE)
    assert read(posix, b"one/d") == b"content"


def test_rename_exchange_is_refused_where_it_makes_no_sense(posix: Posix) -> None:
    for path in (b"d", b"d/sub", b"d/sub/deep"):
        posix.mkdir(path)
    refused(posix, errno.ENOENT, b"d", b"gone", EXCHANGE)
    refused(posix, errno.ENOENT, b"gone", b"d", EXCHANGE)
    for deeper in (b"d/sub", b"d/sub/deep"):
        refused(posix, errno.EINVAL, b"d", deeper, EXCHANGE)
        refused(posix, errno.EINVAL, deeper, b"d", EXCHANGE)
    refused(posix, errno.EINVAL, b"d/sub", b"d", EXCHANGE | NOREPLACE)


def test_rename_of_a_directory_moves_its_parent_and_the_link_counts(posix: Posix) -> None:
    for path in (b"one", b"two", b"one/d"):
        posix.mkdir(path)
    write(posix, b"one/d/f", b"content")
    posix.rename(b"one/d", b"two/e")
    assert (posix.stat(b"one").nlink, posix.stat(b"two").nlink) == (2, 3)
    assert above(posix, b"two/e") == posix.stat(b"two").ino
    with listing(posix, b"two/e") as stream:
        assert sorted(rest(stream)) == [b".", b"..", b"f"]
    assert read(posix, b"two/e/f") == b"content"


def test_rename_sets_the_times_of_both_directories(posix: Posix) -> None:
    for path in (b"one", b"two"):
        posix.mkdir(path)
    write(posix, b"one/f")
    before = [posix.stat(path) for path in (b"one", b"two")]
    wait_for_tick(posix)
    posix.rename(b"one/f", b"two/f")
    for old, path in zip(before, (b"one", b"two"), strict=True):
        assert posix.stat(path).mtime_ns > old.mtime_ns
        assert posix.stat(path).ctime_ns > old.ctime_ns


def test_rename_over_an_open_file_leaves_it_to_who_has_it_open(posix: Posix) -> None:
    write(posix, b"old", b"old content")
    write(posix, b"new", b"new")
    with opened(posix, b"old") as displaced, opened(posix, b"new") as moved:
        posix.rename(b"new", b"old")
        assert posix.fstat(displaced).nlink == 0
        assert posix.pread(displaced, 100, 0) == b"old content"
        posix.pwrite(displaced, b"!!!", 0)
        posix.pwrite(moved, b"NEW", 0)
        assert posix.pread(displaced, 100, 0) == b"!!! content"
    assert read(posix, b"old") == b"NEW"


def test_rename_of_an_open_file_follows_it(posix: Posix) -> None:
    with opened(posix, b"a") as fd:
        posix.pwrite(fd, b"before ", 0)
        posix.rename(b"a", b"b")
        posix.pwrite(fd, b"after", 7)
        assert posix.fstat(fd).ino == posix.stat(b"b").ino
    assert read(posix, b"b") == b"before after"


def replace_often(directory: Path, rounds: int) -> None:
    for number in range(rounds):
        (directory / "next").write_bytes(b"%08d" % number * 100)
        (directory / "next").rename(directory / "current")


def test_rename_never_shows_a_moment_without_the_name(directory: Path) -> None:
    """A reader beside a writer that replaces by rename sees one whole content or another."""
    (directory / "current").write_bytes(b"%08d" % 0 * 100)
    writer = Child(replace_often, directory, 150)
    seen = set()
    while not os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        content = (directory / "current").read_bytes()
        assert content == content[:8] * 100
        seen.add(content[:8])
    assert writer.result() == 0
    assert seen
