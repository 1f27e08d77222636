"""Times: which calls set which, to the nanosecond, before 1970 and long after 2106."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.posix.conftest import MOUNT, OBJFS
from tests.posix.port import AT_FDCWD, Posix, call, opened, read, rest, wait_for_tick, write

NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
NS = 10**9
LATER = 2**33 * NS


# --- which calls set which times -----------------------------------------------------------


class Call(NamedTuple):
    """A call, and which times of the file ``d/f`` and of the directory ``d`` it sets (m, c); ``target`` is
    another inode to look at in place of the file."""

    function: Callable[[Posix], object]
    file: str
    directory: str
    target: bytes = b"d/f"


def overwrite(posix: Posix) -> None:
    with opened(posix, b"d/f", os.O_WRONLY) as fd:
        posix.pwrite(fd, b"y", 0)


def write_nothing(posix: Posix) -> None:
    with opened(posix, b"d/f", os.O_WRONLY) as fd:
        posix.pwrite(fd, b"", 0)


def empty(posix: Posix) -> None:
    with opened(posix, b"d/f", os.O_WRONLY | os.O_TRUNC):
        pass


def cut(posix: Posix) -> None:
    with opened(posix, b"d/f", os.O_WRONLY) as fd:
        posix.ftruncate(fd, 1)


def look(posix: Posix) -> None:
    with opened(posix, b"d/f", os.O_RDONLY) as fd:
        posix.fstat(fd)
        posix.pread(fd, 10, 0)
        posix.fsync(fd)


CALLS = {
    "write": Call(overwrite, "mc", ""),
    "write of nothing": Call(write_nothing, "", ""),
    "ftruncate": Call(cut, "mc", ""),
    "truncate to grow": Call(lambda posix: posix.truncate(b"d/f", 10_000), "mc", ""),
    "open with O_TRUNC": Call(empty, "mc", ""),
    "read, fstat, fsync": Call(look, "", ""),
    "chmod": Call(lambda posix: posix.chmod(b"d/f", 0o600), "c", ""),
    "chmod to what it is": Call(lambda posix: posix.chmod(b"d/f", 0o644), "c", ""),
    "utimens": Call(lambda posix: posix.utime(b"d/f", LATER, LATER), "mc", ""),
    "utimens of the directory": Call(lambda posix: posix.utime(b"d", LATER, LATER), "", "mc"),
    "chown": Call(lambda posix: posix.chown(b"d/f", os.getuid(), os.getgid()), "c", ""),
    "link": Call(lambda posix: posix.link(b"d/f", b"e/g"), "c", ""),
    "link in the directory": Call(lambda posix: posix.link(b"d/f", b"d/g"), "c", "mc"),
    "unlink": Call(lambda posix: posix.unlink(b"d/f"), "c", "mc", b"second"),
    "rename": Call(lambda posix: posix.rename(b"d/f", b"d/g"), "c", "mc", b"second"),
    "rename away": Call(lambda posix: posix.rename(b"d/f", b"e/f"), "c", "mc", b"second"),
    "rename to here": Call(lambda posix: posix.rename(b"e/x", b"d/x"), "", "mc"),
    "rename over it": Call(lambda posix: posix.rename(b"e/x", b"d/f"), "c", "mc", b"second"),
    "rename onto itself": Call(lambda posix: posix.rename(b"d/f", b"d/f"), "", ""),
    "open with O_CREAT": Call(lambda posix: write(posix, b"d/new"), "", "mc"),
    "mkdir": Call(lambda posix: posix.mkdir(b"d/new"), "", "mc"),
    "rmdir": Call(lambda posix: posix.rmdir(b"d/empty"), "", "mc"),
    "symlink": Call(lambda posix: posix.symlink(b"t", b"d/new"), "", "mc"),
    "mknod": Call(lambda posix: posix.mknod(b"d/new", stat.S_IFIFO | 0o600), "", "mc"),
    "mkdir below": Call(lambda posix: posix.mkdir(b"d/empty/new"), "", "", b"d"),
    "chmod of the directory": Call(lambda posix: posix.chmod(b"d", 0o700), "", "c"),
}


@pytest.mark.parametrize("name", CALLS)
def test_which_calls_set_mtime_and_ctime(posix: Posix, name: str) -> None:
    function, file, directory, target = CALLS[name]
    for path in (b"d", b"e", b"d/empty"):
        posix.mkdir(path)
    for path in (b"d/f", b"e/x"):
        write(posix, path, b"content")
    posix.link(b"d/f", b"second")
    before = {path: posix.stat(path) for path in (target, b"d")}
    wait_for_tick(posix)
    function(posix)
    changed = {
        path: ("m" if posix.stat(path).mtime_ns > old.mtime_ns else "")
        + ("c" if posix.stat(path).ctime_ns > old.ctime_ns else "")
        for path, old in before.items()
    }
    assert changed == {target: file, b"d": directory} if target != b"d" else {b"d": directory}


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "fifo"])
def test_a_new_inode_has_one_time(posix: Posix, kind: str) -> None:
    before = posix.stat(b"").mtime_ns
    wait_for_tick(posix)
    make: dict[str, Callable[[], None]] = {
        "file": lambda: write(posix, b"new"),
        "directory": lambda: posix.mkdir(b"new"),
        "symlink": lambda: posix.symlink(b"t", b"new"),
        "fifo": lambda: posix.mknod(b"new", stat.S_IFIFO | 0o600),
    }
    make[kind]()
    new = posix.lstat(b"new")
    assert before < new.atime_ns <= new.mtime_ns <= new.ctime_ns <= posix.stat(b"").mtime_ns


# --- access times --------------------------------------------------------------------------
# On objfs alone: what a local file system does depends on how the machine mounted it.


def settle(posix: Posix) -> None:
    """A close is answered before whatever is asked after it."""
    if posix.name == "mount":
        os.statvfs(posix.directory)  # type: ignore[attr-defined]


def list_it(posix: Posix) -> None:
    stream = posix.opendir(b"subject")
    rest(stream)
    stream.close()


READS: dict[str, tuple[Callable[[Posix], None], Callable[[Posix], object]]] = {
    "read": (lambda posix: write(posix, b"subject", b"x"), lambda posix: read(posix, b"subject")),
    "readdir": (lambda posix: posix.mkdir(b"subject"), list_it),
    "readlink": (lambda posix: posix.symlink(b"t", b"subject"), lambda posix: posix.readlink(b"subject")),
}


@pytest.mark.parametrize("posix", OBJFS, indirect=True)
@pytest.mark.parametrize("kind", READS)
def test_reading_sets_an_access_time_that_is_behind(posix: Posix, kind: str) -> None:
    make, look = READS[kind]
    make(posix)
    new = posix.lstat(b"subject")
    wait_for_tick(posix)
    look(posix)
    settle(posix)
    first = posix.lstat(b"subject")
    wait_for_tick(posix)
    assert first.atime_ns > new.atime_ns
    assert (first.mtime_ns, first.ctime_ns) == (new.mtime_ns, new.ctime_ns)
    look(posix)
    settle(posix)
    assert posix.lstat(b"subject").atime_ns == first.atime_ns


@pytest.mark.parametrize("posix", OBJFS, indirect=True)
def test_reading_after_a_change_sets_the_access_time_again(posix: Posix) -> None:
    """Also where the kernel has the pages, as of a mailbox that grows."""
    write(posix, b"mailbox", bytes(8192))
    for _ in range(3):
        wait_for_tick(posix)
        read(posix, b"mailbox")
        settle(posix)
        wait_for_tick(posix)
        seen = posix.stat(b"mailbox")
        assert seen.atime_ns > seen.mtime_ns
        with opened(posix, b"mailbox", os.O_WRONLY) as fd:
            posix.pwrite(fd, b"x" * 4096, 4096)
        news = posix.stat(b"mailbox")
        assert news.atime_ns == seen.atime_ns < news.mtime_ns


# --- setting them --------------------------------------------------------------------------


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def utimens(path: Path, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> None:
    """utimensat(2), which ``os.utime`` does not offer whole."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    call("utimensat", AT_FDCWD, os.fsencode(path), times, flags)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(-(2**55), id="a thousand million years ago"),
        pytest.param(-62_135_596_800, id="year 1"),
        pytest.param(-(2**31) - 1, id="before 1901"),
        -(2**31),
        -1,
        0,
        2**31,
        pytest.param(2**32, id="after 2106"),
        pytest.param(9_223_372_037, id="after 2262"),
        pytest.param(13_569_465_600, id="year 2400"),
        pytest.param(253_402_300_799, id="year 9999"),
        pytest.param(2**55, id="a thousand million years ahead"),
    ],
)
@pytest.mark.parametrize("directory", [MOUNT], indirect=True)
def test_any_date_to_the_nanosecond(directory: Path, seconds: int) -> None:
    """On a mount alone: ext4 ends at 1901 and 2446."""
    path = directory / "f"
    path.touch()
    for nanoseconds in (0, 1, 999_999_999):
        times = (seconds * NS + nanoseconds, seconds * NS + 999_999_999 - nanoseconds)
        os.utime(path, ns=times)
        found = path.stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == times


def test_dates_that_every_file_system_has(directory: Path) -> None:
    path = directory / "f"
    path.touch()
    for times in ((1, 2), (-5, 1_234_567_890_123_456_789), (2**32 * NS + 7, -(2**31) * NS)):
        before = path.stat().st_ctime_ns
        os.utime(path, ns=times)
        found = path.stat()
        assert (found.st_atime_ns, found.st_mtime_ns) == times
        assert found.st_ctime_ns >= before


def test_utime_now_and_omit(directory: Path) -> None:
    path = directory / "f"
    path.touch()
    os.utime(path, ns=(5, 7))
    utimens(path, (0, OMIT), (11, 13))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5, 11 * NS + 13)
    utimens(path, (17, 19), (0, OMIT))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (17 * NS + 19, 11 * NS + 13)
    before = path.stat()
    utimens(path, (0, OMIT), (0, OMIT))
    assert path.stat() == before
    fresh = directory / "fresh"
    fresh.touch()
    utimens(path, (0, NOW), (0, OMIT))
    assert path.stat().st_atime_ns >= fresh.stat().st_ctime_ns
    assert path.stat().st_mtime_ns == 11 * NS + 13
    utimens(path, (1, 0), (0, NOW))
    assert path.stat().st_atime_ns == NS
    assert path.stat().st_mtime_ns >= fresh.stat().st_ctime_ns


def test_times_of_a_symbolic_link_are_its_own(directory: Path) -> None:
    (directory / "f").touch()
    (directory / "l").symlink_to("f")
    before = (directory / "f").stat()
    os.utime(directory / "l", ns=(3, 4), follow_symlinks=False)
    found = (directory / "l").lstat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (3, 4)
    assert (directory / "f").stat() == before


def test_what_happens_later_is_never_stamped_earlier(directory: Path) -> None:
    """Times that the kernel sets (touch) and those of changes come from clocks that agree; make(1) relies
    on it."""
    written, touched = directory / "written", directory / "touched"
    touched.touch()
    with written.open("wb", buffering=0) as file:
        for _ in range(300):
            file.write(b"x")
            os.utime(touched)
            assert touched.stat().st_mtime_ns >= written.stat().st_mtime_ns
            file.write(b"x")
            assert written.stat().st_mtime_ns >= touched.stat().st_mtime_ns
            (directory / "new").touch()
            assert (directory / "new").stat().st_mtime_ns >= written.stat().st_mtime_ns
            (directory / "new").unlink()
