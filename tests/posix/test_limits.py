"""Names, paths, symlinks, sizes and links at their limits, and the errno just beyond."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from objfs.model import FILE_SIZE_MAX, LINK_MAX, Ino
from tests.fs.real import RealWorld
from tests.posix.children import run_as
from tests.posix.conftest import OBJFS
from tests.posix.inprocess import InProcess
from tests.posix.port import PATH_MAX, Posix, code_of, names, opened, read, write

NAME_MAX = 255
SYMLINK_MAX = 4095
LINKS_FOLLOWED = 40


# --- names ---------------------------------------------------------------------------------


def test_names_of_every_byte(posix: Posix) -> None:
    every = [bytes([value]) for value in range(1, 256) if value not in b"/."]
    for name in every:
        write(posix, name, name)
    assert names(posix) == sorted(every)
    assert all(read(posix, name) == name for name in every)
    for name in every:
        posix.rename(name, b"in" + name + b"side")
    assert names(posix) == sorted(b"in" + name + b"side" for name in every)


def test_names_of_every_length(posix: Posix) -> None:
    made = [bytes([97 + length % 26]) * length for length in range(1, NAME_MAX + 1)]
    for name in made:
        write(posix, name)
    assert names(posix) == sorted(made)


def test_names_are_bytes_and_not_characters(posix: Posix) -> None:
    """No folding of case, no normal forms, no encoding."""
    characters = ["é", "e\u0301", "E", "e", " ", "...", "-rf", "\n"]
    different = [b"\xff\xfe", b"\xc3", *(each.encode() for each in characters)]
    for name in different:
        write(posix, name, name)
    assert names(posix) == sorted(different)
    assert all(read(posix, name) == name for name in different)


def test_names_beyond_255_bytes_are_refused_everywhere(posix: Posix) -> None:
    long = b"n" * (NAME_MAX + 1)
    write(posix, b"f")
    posix.mkdir(b"d")
    for attempt in (
        lambda: posix.open(long, os.O_CREAT | os.O_WRONLY),
        lambda: posix.open(long, os.O_RDONLY),
        lambda: posix.mkdir(b"d/" + long),
        lambda: posix.mknod(long, stat.S_IFIFO | 0o644),
        lambda: posix.symlink(b"x", long),
        lambda: posix.link(b"f", long),
        lambda: posix.rename(b"f", long),
        lambda: posix.rename(long, b"f"),
        lambda: posix.unlink(long),
        lambda: posix.rmdir(long),
        lambda: posix.lstat(long),
    ):
        assert code_of(attempt) == "ENAMETOOLONG"
    assert names(posix) == [b"d", b"f"]


def test_f_namemax(directory: Path) -> None:
    assert os.statvfs(directory).f_namemax == NAME_MAX
    assert os.pathconf(directory, "PC_NAME_MAX") == NAME_MAX
    assert os.pathconf(directory, "PC_PATH_MAX") == PATH_MAX


# --- paths ---------------------------------------------------------------------------------


def deep(length: int) -> bytes:
    """A relative path of ``length`` bytes."""
    parts, left = [], length
    while left > NAME_MAX:
        parts.append(b"d" * min(NAME_MAX, left - 2))
        left -= len(parts[-1]) + 1
    return b"/".join([*parts, b"e" * left])


def test_paths_up_to_path_max(directory: Path) -> None:
    inside = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        longest = deep(PATH_MAX - 1)
        above = b""
        for part in longest.split(b"/")[:-1]:
            above = os.path.join(above, part)
            os.mkdir(above, dir_fd=inside)
        os.close(os.open(longest, os.O_CREAT | os.O_WRONLY, dir_fd=inside))
        assert os.stat(longest, dir_fd=inside).st_size == 0
        assert code_of(lambda: os.stat(longest + b"e", dir_fd=inside)) == "ENAMETOOLONG"
        assert code_of(lambda: os.mkdir(longest + b"e", dir_fd=inside)) == "ENAMETOOLONG"
        os.unlink(longest, dir_fd=inside)
    finally:
        os.close(inside)


def test_trees_deeper_than_path_max(directory: Path) -> None:
    """Reached step by step; rm -r takes them away."""
    fds = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY)]
    for _ in range(40):
        os.mkdir("n" * 200, dir_fd=fds[-1])
        fds.append(os.open("n" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fds[-1]))
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=fds[-1]))
    assert os.stat("../../n" + "n" * 199, dir_fd=fds[-1]).st_nlink == 3
    for fd in fds:
        os.close(fd)
    subprocess.run(["rm", "-r", directory / ("n" * 200)], check=True)
    assert list(directory.iterdir()) == []


# --- symlinks ------------------------------------------------------------------------------


def test_symlinks_up_to_4095_bytes(posix: Posix) -> None:
    for length in (1, 2, 59, 60, 61, 255, 256, 1000, 4094, SYMLINK_MAX):
        target = b"\xff" + b"t" * (length - 1)
        posix.symlink(target, b"%d" % length)
        assert posix.readlink(b"%d" % length) == target
        assert posix.lstat(b"%d" % length).size == length
    assert code_of(lambda: posix.symlink(b"t" * (SYMLINK_MAX + 1), b"x")) == "ENAMETOOLONG"
    assert code_of(lambda: posix.symlink(b"", b"x")) == "ENOENT"
    assert code_of(lambda: posix.readlink(b"")) == "EINVAL"


def test_eloop(posix: Posix) -> None:
    posix.symlink(b"b", b"a")
    posix.symlink(b"a", b"b")
    posix.symlink(b"self/x", b"self")
    for path in (b"a", b"b/c", b"self"):
        assert code_of(posix.stat, path) == "ELOOP"
        assert code_of(posix.open, path, os.O_RDONLY) == "ELOOP"
    write(posix, b"target", b"content")
    posix.symlink(b"target", b"0")
    for number in range(1, LINKS_FOLLOWED + 1):
        posix.symlink(b"%d" % (number - 1), b"%d" % number)
    assert read(posix, b"%d" % (LINKS_FOLLOWED - 1)) == b"content"
    assert code_of(posix.stat, b"%d" % LINKS_FOLLOWED) == "ELOOP"
    assert code_of(posix.open, b"0", os.O_RDONLY | os.O_NOFOLLOW) == "ELOOP"


# --- links ---------------------------------------------------------------------------------


def test_emlink() -> None:
    """Nobody makes 2^31 names in a test: the counts are set to the limit where they are kept."""
    world = RealWorld()
    posix = InProcess(world)
    try:
        write(posix, b"f")
        for path in (b"d", b"e", b"e/sub"):
            posix.mkdir(path)
        set_links(world, posix.stat(b"f").ino, LINK_MAX)
        set_links(world, posix.stat(b"d").ino, LINK_MAX)
        assert posix.stat(b"f").nlink == 2**31 - 1
        assert code_of(posix.link, b"f", b"g") == "EMLINK"
        assert code_of(posix.mkdir, b"d/sub") == "EMLINK"
        assert code_of(posix.rename, b"e/sub", b"d/sub") == "EMLINK"
        write(posix, b"d/file")
        set_links(world, posix.stat(b"f").ino, 1)
        set_links(world, posix.stat(b"d").ino, 2)
    finally:
        world.close()


def set_links(world: RealWorld, ino: int, nlink: int) -> None:
    world.table._inodes.set_links(Ino(ino), nlink, 0)


# --- sizes ---------------------------------------------------------------------------------


def test_efbig_beyond_every_size(posix: Posix) -> None:
    with opened(posix, b"f") as fd:
        posix.pwrite(fd, b"content", 0)
        last = 2**63 - 1
        assert code_of(posix.pwrite, fd, b"xx", last - 2) in ("EFBIG", "EINVAL")
        assert code_of(posix.ftruncate, fd, last) == "EFBIG"
        assert code_of(posix.truncate, b"f", last) == "EFBIG"
        assert posix.fstat(fd).size == 7
        assert posix.pread(fd, 100, 0) == b"content"


@pytest.mark.parametrize("posix", OBJFS, indirect=True)
def test_efbig_is_at_2_to_the_62(posix: Posix) -> None:
    with opened(posix, b"f") as fd:
        posix.ftruncate(fd, FILE_SIZE_MAX)
        posix.pwrite(fd, b"end", FILE_SIZE_MAX - 3)
        assert posix.fstat(fd).size == FILE_SIZE_MAX
        assert code_of(posix.pwrite, fd, b"x", FILE_SIZE_MAX) == "EFBIG"
        assert code_of(posix.ftruncate, fd, FILE_SIZE_MAX + 1) == "EFBIG"
        assert posix.pread(fd, 100, FILE_SIZE_MAX - 4) == b"\0end"


def test_efbig_at_the_limit_of_the_process(directory: Path) -> None:
    """RLIMIT_FSIZE: the kernel shortens the write that crosses it and refuses the next."""

    def attempt() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        fd = os.open(directory / "f", os.O_CREAT | os.O_WRONLY)
        assert os.write(fd, b"x" * 20_000) == 10_000
        os.write(fd, b"x")

    assert run_as(None, attempt) == errno.EFBIG
    assert (directory / "f").stat().st_size == 10_000


# --- programs that run ---------------------------------------------------------------------


def test_etxtbsy(directory: Path) -> None:
    """A program that runs cannot be written, and one that is open for writing cannot be run."""
    program = directory / "program"
    program.write_bytes(Path("/bin/cat").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert code_of(os.open, program, os.O_WRONLY) == "ETXTBSY"
        assert code_of(os.truncate, program, 0) == "ETXTBSY"
        assert running.communicate(b"it runs")[0] == b"it runs"
    with program.open("r+b"), pytest.raises(OSError) as caught:  # noqa: PT011  # asserted below
        subprocess.run([program], check=False)
    assert caught.value.errno == errno.ETXTBSY
    assert subprocess.run([program], input=b"again", capture_output=True, check=True).stdout == b"again"
