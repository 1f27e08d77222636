"""Extended attributes: each test runs on a mount and on a local directory, which says what Linux does."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.people import NOBODY, as_nobody, is_root

pytestmark = pytest.mark.mount


@pytest.fixture
def file(place: Path) -> Path:
    path = place / "f"
    path.touch(0o644)
    return path


def refused(number: int, function: Callable[..., object], *arguments: object, **options: bool) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        function(*arguments, **options)
    assert caught.value.errno == number


# --- names and values ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"user.a", b"user.\xff\xfe\n \x01=", b"user..", "user.äß".encode()])
@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256))])
def test_names_and_values_of_any_bytes(file: Path, name: bytes, value: bytes) -> None:
    os.setxattr(file, name, value)
    assert os.listxattr(os.fsencode(file)) == [os.fsdecode(name)]
    assert os.getxattr(file, name) == value
    os.removexattr(file, name)
    assert os.listxattr(file) == []
    refused(errno.ENODATA, os.getxattr, file, name)
    refused(errno.ENODATA, os.removexattr, file, name)


def test_names_of_255_bytes(file: Path) -> None:
    longest = "user." + "n" * 250
    os.setxattr(file, longest, b"x")
    assert os.listxattr(file) == [longest]
    refused(errno.ERANGE, os.setxattr, file, longest + "n", b"x")


@pytest.mark.parametrize(
    ("name", "number"),
    [("", errno.ERANGE), ("user.", errno.EINVAL), ("user", errno.EOPNOTSUPP), ("other.x", errno.EOPNOTSUPP)],
)
def test_names_that_no_attribute_has(file: Path, name: str, number: int) -> None:
    refused(number, os.setxattr, file, name, b"x")


def test_values_of_64_kib(root: Path) -> None:
    """On the mount alone: few local file systems keep as much."""
    largest = os.urandom(65536)
    for path in (root / "f", root / "d"):
        path.mkdir() if path.name == "d" else path.touch()
        os.setxattr(path, "user.big", largest)
        assert os.getxattr(path, "user.big") == largest
        refused(errno.E2BIG, os.setxattr, path, "user.big", largest + b"x")
        assert os.getxattr(path, "user.big") == largest


def test_a_buffer_that_is_too_small(file: Path) -> None:
    os.setxattr(file, "user.a", b"12345678")
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(16)
    path = os.fsencode(file)
    assert libc.getxattr(path, b"user.a", None, 0) == 8
    assert libc.getxattr(path, b"user.a", buffer, 8) == 8
    assert libc.getxattr(path, b"user.a", buffer, 7) == -1
    assert ctypes.get_errno() == errno.ERANGE
    assert libc.listxattr(path, None, 0) == 7
    assert libc.listxattr(path, buffer, 7) == 7
    assert libc.listxattr(path, buffer, 6) == -1
    assert ctypes.get_errno() == errno.ERANGE


def test_as_many_names_as_can_be_listed(root: Path) -> None:
    """The kernel lists 64 KiB of names: what would not fit is refused, and all others stay readable."""
    (root / "f").touch()
    names = [f"user.{number:0250}" for number in range(256)]
    for name in names:
        os.setxattr(root / "f", name, b"")
    assert sorted(os.listxattr(root / "f")) == names
    refused(errno.ENOSPC, os.setxattr, root / "f", "user.more", b"")
    os.removexattr(root / "f", names[7])
    os.setxattr(root / "f", "user.more", b"")


# --- create and replace --------------------------------------------------------------------


def test_create_and_replace(file: Path) -> None:
    refused(errno.ENODATA, os.setxattr, file, "user.a", b"0", os.XATTR_REPLACE)
    os.setxattr(file, "user.a", b"1", os.XATTR_CREATE)
    refused(errno.EEXIST, os.setxattr, file, "user.a", b"2", os.XATTR_CREATE)
    assert os.getxattr(file, "user.a") == b"1"
    os.setxattr(file, "user.a", b"3", os.XATTR_REPLACE)
    assert os.getxattr(file, "user.a") == b"3"


def race(path: Path, names: list[str]) -> None:
    """Exits with how many names were ours to create."""
    won = 0
    for name in names:
        try:
            os.setxattr(path, name, b"", os.XATTR_CREATE)
            won += 1
        except FileExistsError:
            pass
    os._exit(won)


def test_of_many_who_create_one_wins(file: Path) -> None:
    names = [f"user.{number}" for number in range(20)]
    children = []
    for _ in range(6):
        pid = os.fork()
        if not pid:
            race(file, names)
        children.append(pid)
    assert sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children) == len(names)


# --- who may, and on what ------------------------------------------------------------------


@is_root
def test_trusted_attributes_are_roots_alone(file: Path) -> None:
    os.setxattr(file, "trusted.a", b"secret")
    os.setxattr(file, "user.a", b"open")
    os.chown(file, NOBODY, NOBODY)
    assert sorted(os.listxattr(file)) == ["trusted.a", "user.a"]

    def sees_one() -> None:
        assert os.listxattr(file) == ["user.a"]

    assert as_nobody(sees_one) == 0
    assert as_nobody(os.getxattr, file, "trusted.a") == errno.ENODATA
    assert as_nobody(os.setxattr, file, "trusted.b", b"") == errno.EPERM
    assert as_nobody(os.removexattr, file, "trusted.a") == errno.EPERM


@is_root
def test_user_attributes_need_the_permissions_of_the_file(file: Path) -> None:
    os.setxattr(file, "user.a", b"1")
    assert as_nobody(os.getxattr, file, "user.a") == 0
    assert as_nobody(os.setxattr, file, "user.b", b"1") == errno.EACCES
    file.chmod(0o600)
    assert as_nobody(os.getxattr, file, "user.a") == errno.EACCES


@is_root
def test_user_attributes_of_a_sticky_directory_are_its_owners(place: Path) -> None:
    place.chmod(0o1777)
    assert as_nobody(os.setxattr, place, "user.a", b"") == errno.EPERM
    place.chmod(0o777)
    assert as_nobody(os.setxattr, place, "user.a", b"") == 0


@is_root
def test_only_files_and_directories_have_user_attributes(place: Path) -> None:
    (place / "link").symlink_to("f")
    os.mkfifo(place / "fifo")
    os.mknod(place / "device", 0o20600, os.makedev(1, 3))
    for name in ("link", "fifo", "device"):
        refused(errno.EPERM, os.setxattr, place / name, "user.a", b"", follow_symlinks=False)
        os.setxattr(place / name, "trusted.a", b"1", follow_symlinks=False)
        assert os.listxattr(place / name, follow_symlinks=False) == ["trusted.a"]


# --- capabilities --------------------------------------------------------------------------


def grant(path: Path) -> None:
    subprocess.run(["setcap", "cap_net_raw+ep", path], check=True)
    assert "cap_net_raw=ep" in capabilities(path)


def capabilities(path: Path) -> str:
    return subprocess.run(["getcap", str(path)], check=True, capture_output=True, text=True).stdout


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def empty(path: Path) -> None:
    with path.open("wb"):
        pass


@is_root
@pytest.mark.parametrize(
    "change",
    [append, empty, lambda path: os.truncate(path, 1), lambda path: os.chown(path, NOBODY, -1)],
    ids=["write", "O_TRUNC", "truncate", "chown"],
)
def test_a_changed_program_loses_its_capabilities(file: Path, change: Callable[[Path], object]) -> None:
    file.write_bytes(b"program")
    grant(file)
    change(file)
    assert capabilities(file) == ""
    assert os.listxattr(file) == []


@is_root
def test_capabilities_stay_over_what_does_not_change_the_program(file: Path) -> None:
    file.write_bytes(b"program")
    grant(file)
    file.read_bytes()
    file.chmod(0o755)
    os.utime(file, (1, 1))
    os.setxattr(file, "user.a", b"")
    file.rename(file.with_name("g"))
    assert "cap_net_raw=ep" in capabilities(file.with_name("g"))


@is_root
def test_rsync_keeps_attributes_of_every_kind(file: Path, tmp_path: Path) -> None:
    for name in ("user.a", "trusted.b", "security.c"):
        os.setxattr(file, name, name.encode())
    grant(file)
    subprocess.run(["rsync", "-aX", f"{file}", f"{tmp_path}/"], check=True)
    copy = tmp_path / "f"
    assert sorted(os.listxattr(copy)) == ["security.c", "security.capability", "trusted.b", "user.a"]
    assert all(os.getxattr(copy, name) == os.getxattr(file, name) for name in os.listxattr(file))
