"""Link counts, unlink and rmdir, and files that live on without a name."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.posix.port import (
    AT_FDCWD,
    Posix,
    call,
    code_of,
    listing,
    names,
    opened,
    read,
    rest,
    wait_for_tick,
    write,
)

AT_SYMLINK_FOLLOW = 0x400


def test_link_counts_names(posix: Posix) -> None:
    write(posix, b"f", b"content")
    posix.mkdir(b"d")
    posix.link(b"f", b"g")
    posix.link(b"g", b"d/h")
    assert {posix.stat(path).nlink for path in (b"f", b"g", b"d/h")} == {3}
    assert len({posix.stat(path).ino for path in (b"f", b"g", b"d/h")}) == 1
    posix.unlink(b"f")
    assert (posix.stat(b"g").nlink, read(posix, b"d/h")) == (2, b"content")


def test_link_and_unlink_set_ctime_of_the_inode_and_times_of_the_directory(posix: Posix) -> None:
    write(posix, b"f")
    posix.mkdir(b"d")
    for change in (partial(posix.link, b"f", b"d/g"), partial(posix.unlink, b"d/g")):
        file, folder = posix.stat(b"f"), posix.stat(b"d")
        wait_for_tick(posix)
        change()
        assert posix.stat(b"f").ctime_ns > file.ctime_ns
        assert posix.stat(b"f").mtime_ns == file.mtime_ns
        assert posix.stat(b"d").mtime_ns > folder.mtime_ns
        assert posix.stat(b"d").ctime_ns > folder.ctime_ns


def test_link_refusals(posix: Posix) -> None:
    write(posix, b"f")
    posix.mkdir(b"d")
    assert code_of(posix.link, b"d", b"x") == "EPERM"
    assert code_of(posix.link, b"f", b"f") == "EEXIST"
    assert code_of(posix.link, b"f", b"d") == "EEXIST"
    assert code_of(posix.link, b"gone", b"x") == "ENOENT"
    assert code_of(posix.link, b"f", b"gone/x") == "ENOENT"
    assert code_of(posix.link, b"f", b"x" * 256) == "ENAMETOOLONG"
    assert names(posix) == [b"d", b"f"]


def test_a_hard_link_to_a_symlink_is_one_more_name_of_it(posix: Posix) -> None:
    posix.symlink(b"gone", b"link")
    posix.link(b"link", b"again")
    assert posix.lstat(b"again").nlink == 2
    assert posix.lstat(b"again").ino == posix.lstat(b"link").ino
    assert posix.readlink(b"again") == b"gone"


def test_unlink_and_rmdir_refusals(posix: Posix) -> None:
    posix.mkdir(b"d")
    write(posix, b"d/f")
    assert code_of(posix.unlink, b"d") == "EISDIR"
    assert code_of(posix.unlink, b"gone") == "ENOENT"
    assert code_of(posix.unlink, b"d/f/x") == "ENOTDIR"
    assert code_of(posix.rmdir, b"d") == "ENOTEMPTY"
    assert code_of(posix.rmdir, b"d/f") == "ENOTDIR"
    assert code_of(posix.rmdir, b"gone") == "ENOENT"
    assert names(posix, b"d") == [b"f"]


def test_an_unlinked_open_file_lives_until_it_is_closed(posix: Posix) -> None:
    with opened(posix, b"f") as fd:
        posix.pwrite(fd, b"a" * 1000, 0)
        posix.unlink(b"f")
        assert names(posix) == []
        assert posix.fstat(fd).nlink == 0
        posix.pwrite(fd, b"b" * 1000, 500)
        posix.ftruncate(fd, 1200)
        assert posix.pread(fd, 9999, 0) == b"a" * 500 + b"b" * 700
        write(posix, b"f", b"another")
        assert posix.stat(b"f").ino != posix.fstat(fd).ino
        assert posix.pread(fd, 10, 0) == b"a" * 10
    assert read(posix, b"f") == b"another"


def test_unlinking_one_name_of_an_open_file_leaves_the_other(posix: Posix) -> None:
    write(posix, b"f", b"content")
    posix.link(b"f", b"g")
    with opened(posix, b"f") as fd:
        posix.unlink(b"f")
        assert posix.fstat(fd).nlink == 1
        posix.pwrite(fd, b"CON", 0)
    assert read(posix, b"g") == b"CONtent"


def test_directories_count_their_subdirectories(posix: Posix) -> None:
    posix.mkdir(b"d")
    assert posix.stat(b"d").nlink == 2
    for number in range(5):
        posix.mkdir(b"d/%d" % number)
        write(posix, b"d/file%d" % number)
    assert posix.stat(b"d").nlink == 7
    assert posix.stat(b"d/0").nlink == 2
    posix.rmdir(b"d/0")
    posix.unlink(b"d/file0")
    assert posix.stat(b"d").nlink == 6
    posix.mkdir(b"d/1/inner")
    assert (posix.stat(b"d").nlink, posix.stat(b"d/1").nlink) == (6, 3)
    posix.rename(b"d/2", b"d/1/2")
    assert (posix.stat(b"d").nlink, posix.stat(b"d/1").nlink) == (5, 4)


def test_a_removed_directory_that_is_open_is_empty_and_takes_nothing(posix: Posix) -> None:
    posix.mkdir(b"d")
    fd = posix.open(b"d", os.O_RDONLY | os.O_DIRECTORY)
    with listing(posix, b"d") as stream:
        posix.rmdir(b"d")
        assert posix.fstat(fd).nlink == 0
        assert set(rest(stream)) <= {b".", b".."}
    posix.close(fd)
    posix.mkdir(b"d")
    assert posix.stat(b"d").nlink == 2


def test_a_removed_working_directory_takes_no_names(directory: Path) -> None:
    script = "mkdir d && cd d && rmdir ../d && ls -A && { touch x; mkdir y; ln -s a b; } 2>&1; true"
    out = subprocess.run(
        ["sh", "-c", script], cwd=directory, check=True, capture_output=True, text=True, env={"LC_ALL": "C"}
    )
    assert out.stdout.count("No such file or directory") == 3


def test_an_unlinked_file_gets_no_new_name(directory: Path) -> None:
    with (directory / "f").open("wb") as file:
        (directory / "f").unlink()
        source, name = b"/proc/self/fd/%d" % file.fileno(), os.fsencode(directory / "g")
        with pytest.raises(FileNotFoundError):
            call("linkat", AT_FDCWD, source, AT_FDCWD, name, AT_SYMLINK_FOLLOW)
    assert list(directory.iterdir()) == []
