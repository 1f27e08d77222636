"""Access control lists that the kernel enforces: each test runs on a mount and on a local directory, which
says what Linux does."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from objfs.fs.acl import ACCESS, DEFAULT, Acl, encode, parse
from tests.fuse.conftest import mount, public_directory
from tests.fuse.people import NOBODY, as_nobody, as_user, is_root

pytestmark = [pytest.mark.mount, is_root]

ANNA, BERT = 1001, 1002
TEAM, OTHERS = 2001, 2002
ACCESS_NAME, DEFAULT_NAME = ACCESS.decode(), DEFAULT.decode()


def setfacl(path: Path, *arguments: str) -> None:
    subprocess.run(["setfacl", *arguments, "--", path], check=True)


def getfacl(path: Path) -> list[str]:
    """The entries, without comments; ids as numbers."""
    command = ["getfacl", "-n", "-c", "-E", "-p", "--", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def read(path: Path) -> None:
    path.read_bytes()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def make_with(umask: int, path: Path, mode: int) -> None:
    os.umask(umask)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, mode))


def mkdir_with(umask: int, path: Path, mode: int) -> None:
    os.umask(umask)
    path.mkdir(mode)


# --- the tools -----------------------------------------------------------------------------


def test_setfacl_and_getfacl(place: Path) -> None:
    path = place / "f"
    path.touch(0o640)
    setfacl(path, "-m", f"u:{ANNA}:rwx,g:{TEAM}:r,m::rw")
    entries = ["user::rw-", f"user:{ANNA}:rwx", "group::r--", f"group:{TEAM}:r--", "mask::rw-", "other::---"]
    assert getfacl(path) == entries
    assert os.listxattr(path) == [ACCESS_NAME]
    setfacl(path, "-x", f"u:{ANNA}")
    assert f"user:{ANNA}:rwx" not in getfacl(path)
    setfacl(path, "-b")
    assert getfacl(path) == ["user::rw-", "group::r--", "other::---"]
    assert os.listxattr(path) == []


def test_default_lists_come_and_go(place: Path) -> None:
    setfacl(place, "-d", "-m", f"u:{ANNA}:rwx")
    assert [line for line in getfacl(place) if line.startswith("default")] == [
        "default:user::rwx",
        f"default:user:{ANNA}:rwx",
        "default:group::rwx",
        "default:mask::rwx",
        "default:other::rwx",
    ]
    setfacl(place, "-k")
    assert os.listxattr(place) == []
    setfacl(place, "-k")


def test_removing_what_is_not_there(place: Path) -> None:
    (place / "f").touch()
    for name in (ACCESS_NAME, DEFAULT_NAME):
        os.removexattr(place / "f", name)
        os.removexattr(place, name)


# --- mode and list in step -----------------------------------------------------------------


def test_the_mask_is_the_middle_of_the_mode(place: Path) -> None:
    path = place / "f"
    path.touch(0o600)
    setfacl(path, "-m", f"u:{ANNA}:rwx")
    assert permissions(path) == 0o670
    path.chmod(0o644)
    assert getfacl(path) == ["user::rw-", f"user:{ANNA}:rwx", "group::---", "mask::r--", "other::r--"]
    setfacl(path, "-m", "m::---,o::x")
    assert permissions(path) == 0o601


def test_a_list_that_says_no_more_than_a_mode(place: Path) -> None:
    path = place / "f"
    path.touch(0o600)
    before = path.stat().st_ctime_ns
    os.setxattr(path, ACCESS_NAME, encode(Acl(6, 4, 4)))
    assert permissions(path) == 0o644
    assert os.listxattr(path) == []
    assert path.stat().st_ctime_ns > before


def test_setgid_falls_when_a_stranger_to_the_group_sets_a_list(place: Path) -> None:
    path = place / "f"
    path.touch()
    value = encode(Acl(7, 7, 5, 7, ((BERT, 7),)))
    os.chown(path, ANNA, TEAM)
    for groups, left in (([ANNA, TEAM], 0o2775), ([TEAM], 0o2775), ([ANNA, OTHERS], 0o775)):
        path.chmod(0o2755)
        assert as_user(ANNA, groups, os.setxattr, path, ACCESS_NAME, value) == 0
        assert permissions(path) == left


# --- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"\2\0\0", errno.EINVAL),
        (b"\1\0\0\0", errno.EOPNOTSUPP),
        (encode(Acl(7, 5, 0, None, ((ANNA, 7),))), errno.EINVAL),
        (encode(Acl(7, 5, 0, 8)), errno.EINVAL),
    ],
    ids=["short", "version", "no mask", "permissions"],
)
def test_malformed_lists(place: Path, value: bytes, number: int) -> None:
    (place / "f").touch(0o640)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        os.setxattr(place / "f", ACCESS_NAME, value)
    assert caught.value.errno == number
    assert permissions(place / "f") == 0o640


def test_a_file_has_no_default_list(place: Path) -> None:
    (place / "f").touch()
    with pytest.raises(PermissionError) as caught:
        os.setxattr(place / "f", DEFAULT_NAME, encode(Acl(7, 5, 0)))
    assert caught.value.errno == errno.EACCES


def test_a_symbolic_link_has_no_list(place: Path) -> None:
    (place / "l").symlink_to("f")
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(place / "l", ACCESS_NAME, encode(Acl(7, 5, 0)), follow_symlinks=False)


def test_only_the_owner_and_root_set_lists(place: Path) -> None:
    (place / "f").touch(0o666)
    value = encode(Acl(7, 7, 7, 7, ((NOBODY, 7),)))
    assert as_nobody(os.setxattr, place / "f", ACCESS_NAME, value) == errno.EPERM
    assert as_nobody(os.removexattr, place / "f", ACCESS_NAME) == errno.EPERM
    os.chown(place / "f", NOBODY, -1)
    assert as_nobody(os.setxattr, place / "f", ACCESS_NAME, value) == 0


# --- access --------------------------------------------------------------------------------


def test_a_user_who_is_named(place: Path) -> None:
    path = place / "f"
    path.touch(0o600)
    assert as_user(ANNA, [ANNA], read, path) == errno.EACCES
    setfacl(path, "-m", f"u:{ANNA}:r")
    assert as_user(ANNA, [ANNA], read, path) == 0
    assert as_user(ANNA, [ANNA], append, path) == errno.EACCES
    assert as_user(BERT, [BERT], read, path) == errno.EACCES
    setfacl(path, "-m", f"u:{ANNA}:rw")
    assert as_user(ANNA, [ANNA], append, path) == 0


def test_a_user_who_is_named_to_be_kept_out(place: Path) -> None:
    path = place / "f"
    path.touch(0o644)
    setfacl(path, "-m", f"u:{ANNA}:-")
    assert as_user(ANNA, [ANNA], read, path) == errno.EACCES
    assert as_user(BERT, [BERT], read, path) == 0


def test_a_group_that_is_named(place: Path) -> None:
    path = place / "f"
    path.touch(0o600)
    setfacl(path, "-m", f"g:{TEAM}:rw,g:{OTHERS}:-")
    assert as_user(ANNA, [TEAM], append, path) == 0
    assert as_user(ANNA, [ANNA, TEAM], append, path) == 0
    assert as_user(ANNA, [ANNA, OTHERS], read, path) == errno.EACCES
    assert as_user(ANNA, [ANNA, OTHERS, TEAM], append, path) == 0


def test_the_mask_limits_who_is_named(place: Path) -> None:
    path = place / "f"
    path.touch(0o600)
    setfacl(path, "-m", f"u:{ANNA}:rw")
    path.chmod(0o640)
    assert as_user(ANNA, [ANNA], read, path) == 0
    assert as_user(ANNA, [ANNA], append, path) == errno.EACCES


def test_a_list_on_the_way(place: Path) -> None:
    inner = place / "d"
    inner.mkdir(0o700)
    (inner / "f").touch(0o644)
    assert as_user(ANNA, [ANNA], read, inner / "f") == errno.EACCES
    setfacl(inner, "-m", f"u:{ANNA}:x")
    assert as_user(ANNA, [ANNA], read, inner / "f") == 0
    assert as_user(ANNA, [ANNA], os.listdir, inner) == errno.EACCES
    setfacl(inner, "-b")
    assert as_user(ANNA, [ANNA], read, inner / "f") == errno.EACCES


def test_removing_from_a_directory_by_list(place: Path) -> None:
    inner = place / "d"
    inner.mkdir(0o755)
    (inner / "f").touch()
    assert as_user(ANNA, [ANNA], (inner / "f").unlink) == errno.EACCES
    setfacl(inner, "-m", f"u:{ANNA}:rwx")
    assert as_user(ANNA, [ANNA], (inner / "f").unlink) == 0


# --- inheriting ----------------------------------------------------------------------------


def test_files_and_directories_inherit(place: Path) -> None:
    setfacl(place, "-d", "-m", f"u::rwx,g::rx,o::-,g:{TEAM}:rwx")
    assert as_user(ANNA, [ANNA], make_with, 0o022, place / "f", 0o666) == 0
    assert getfacl(place / "f") == ["user::rw-", "group::r-x", f"group:{TEAM}:rwx", "mask::rw-", "other::---"]
    assert as_user(ANNA, [ANNA], mkdir_with, 0o022, place / "d", 0o777) == 0
    own = ["user::rwx", "group::r-x", f"group:{TEAM}:rwx", "mask::rwx", "other::---"]
    assert getfacl(place / "d") == [*own, *[f"default:{line}" for line in own]]
    os.mkfifo(place / "p", 0o600)
    assert permissions(place / "p") == 0o600
    assert "mask::---" in getfacl(place / "p")


def test_a_team_shares_a_directory(place: Path) -> None:
    """What default lists are for: everybody in the group writes, whatever the umask of who made a file."""
    setfacl(place, "-d", "-m", f"u::rwx,g::-,o::-,g:{TEAM}:rwx")
    assert as_user(ANNA, [ANNA, TEAM], make_with, 0o077, place / "f", 0o666) == 0
    assert as_user(BERT, [BERT, TEAM], append, place / "f") == 0
    assert as_user(BERT, [BERT], read, place / "f") == errno.EACCES


def test_the_umask_counts_where_there_is_no_default_list(place: Path) -> None:
    assert as_user(ANNA, [ANNA], make_with, 0o027, place / "f", 0o666) == 0
    assert permissions(place / "f") == 0o640
    assert as_user(ANNA, [ANNA], mkdir_with, 0o027, place / "d", 0o1777) == 0
    assert permissions(place / "d") == 0o1750
    assert as_user(ANNA, [ANNA], make_with, 0, place / "g", 0o666) == 0
    assert permissions(place / "g") == 0o666
    assert as_user(ANNA, [ANNA], mkfifo_with, 0o077, place / "p") == 0
    assert permissions(place / "p") == 0o600


def mkfifo_with(umask: int, path: Path) -> None:
    os.umask(umask)
    os.mkfifo(path, 0o666)


# --- copies --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["rsync", "-aA"], ["cp", "-a"]], ids=["rsync", "cp"])
def test_copies_there_and_back(place: Path, tmp_path: Path, command: list[str]) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "d" / "f").write_text("x")
    (tree / "g").touch(0o604)
    setfacl(tree / "d", "-m", f"u:{ANNA}:rwx", "-d", "-m", f"g:{TEAM}:rx")
    setfacl(tree / "d" / "f", "-m", f"u:{ANNA}:rw,g:{TEAM}:-,m::r")
    subprocess.run([*command, f"{tree}/", place / "copy"], check=True)
    subprocess.run([*command, f"{place}/copy/", tmp_path / "back"], check=True)
    for name in (".", "d", "d/f", "g"):
        assert getfacl(place / "copy" / name) == getfacl(tmp_path / "back" / name) == getfacl(tree / name)
    again = ["rsync", "-aA", "--itemize-changes", f"{tree}/", f"{place}/copy"]
    assert subprocess.run(again, check=True, capture_output=True, text=True).stdout == ""


# --- other mounts --------------------------------------------------------------------------


def test_noacl_keeps_lists_and_checks_the_mode_alone() -> None:
    with public_directory() as directory, mount(directory / "mnt", "noacl") as mounted:
        path = mounted.path / "f"
        path.touch(0o600)
        setfacl(path, "-m", f"u:{ANNA}:rw")
        assert f"user:{ANNA}:rw-" in getfacl(path)
        assert permissions(path) == 0o660
        assert as_user(ANNA, [ANNA], read, path) == errno.EACCES


def test_a_mount_through_the_helper_applies_the_umask_first() -> None:
    """Who may not call mount(2) gets less than the default list grants, never more."""
    with public_directory() as directory, mount(directory / "mnt", "helper") as mounted:
        setfacl(mounted.path, "-d", "-m", f"u::rwx,g::rx,o::-,g:{TEAM}:rwx")
        make_with(0o022, mounted.path / "f", 0o666)
        assert permissions(mounted.path / "f") == 0o640
        assert parse(os.getxattr(mounted.path / "f", ACCESS_NAME)) == Acl(6, 5, 0, 4, (), ((TEAM, 7),))
