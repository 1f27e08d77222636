"""Permissions, owners, the sticky bit and the set-ID bits, as people without privileges meet them."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.posix.children import ANN, BOB, TEAM, Person, run_as
from tests.posix.port import EXCHANGE, Posix, opened, write
from tests.posix.port import call as libc_call

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other people")

ANN_IN_TEAM, BOB_IN_TEAM = Person(ANN.uid, ANN.gid, (TEAM,)), Person(BOB.uid, BOB.gid, (7, TEAM, 8))


def owned(path: Path, mode: int, uid: int = ANN.uid, gid: int = ANN.gid, content: bytes = b"content") -> Path:
    """A file of somebody; chown first, as it clears set-ID bits."""
    path.write_bytes(content)
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def folder(path: Path, mode: int, uid: int = ANN.uid, gid: int = ANN.gid) -> Path:
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def load(path: Path) -> None:
    path.read_bytes()


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


# --- permissions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "who", "reads", "writes"),
    [
        (0o600, ANN, True, True),
        (0o600, BOB, False, False),
        (0o066, ANN, False, False),
        (0o640, BOB_IN_TEAM, True, False),
        (0o640, BOB, False, False),
        (0o660, BOB_IN_TEAM, True, True),
        (0o606, BOB_IN_TEAM, False, False),
        (0o606, BOB, True, True),
        (0o604, BOB, True, False),
        (0o060, ANN_IN_TEAM, False, False),
        (0o000, ANN, False, False),
    ],
)
def test_permission_is_that_of_the_first_class_that_fits(
    directory: Path, mode: int, who: Person, reads: bool, writes: bool
) -> None:
    """Owner, then group, the supplementary ones too, then the others."""
    path = owned(directory / "f", mode, gid=TEAM)
    assert run_as(who, load, path) == (0 if reads else errno.EACCES)
    assert run_as(who, append, path) == (0 if writes else errno.EACCES)

    def ask() -> None:
        assert os.access(path, os.R_OK) is reads
        assert os.access(path, os.W_OK) is writes

    assert run_as(who, ask) == 0


def test_permission_of_directories(directory: Path) -> None:
    inside = folder(directory / "d", 0o711)
    owned(inside / "f", 0o644)
    assert run_as(BOB, os.listdir, inside) == errno.EACCES
    assert run_as(BOB, load, inside / "f") == 0
    assert run_as(BOB, (inside / "new").touch) == errno.EACCES
    assert run_as(BOB, (inside / "f").unlink) == errno.EACCES
    inside.chmod(0o744)
    assert run_as(BOB, os.listdir, inside) == 0
    assert run_as(BOB, os.stat, inside / "f") == errno.EACCES
    inside.chmod(0o700)
    assert run_as(BOB, load, inside / "f") == errno.EACCES, "what the kernel remembers is checked anew"


def test_permission_to_run_a_program(directory: Path) -> None:
    program = owned(directory / "program", 0o750, gid=TEAM, content=b"#!/bin/sh\nexit 0\n")

    def start() -> None:
        subprocess.run([program], check=True)

    assert run_as(BOB_IN_TEAM, start) == 0
    assert run_as(BOB, start) == errno.EACCES
    program.chmod(0o644)
    assert run_as(None, start) == errno.EACCES, "root needs one x bit too"


def test_an_open_file_keeps_the_permission_it_was_opened_with(directory: Path) -> None:
    path = owned(directory / "f", 0o666)

    def attempt() -> None:
        fd = os.open(path, os.O_RDWR)
        os.fchmod(fd, 0o000)
        os.pwrite(fd, b"CON", 0)
        assert os.pread(fd, 7, 0) == b"CONtent"

    assert run_as(ANN, attempt) == 0


def test_the_umask_applies(directory: Path) -> None:
    def attempt() -> None:
        os.umask(0o027)
        os.close(os.open(directory / "f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(directory / "d", 0o777)
        os.mknod(directory / "p", stat.S_IFIFO | 0o666)

    assert run_as(ANN, attempt) == 0
    assert [mode_of(directory / name) for name in "fdp"] == [0o640, 0o750, 0o640]
    assert {(directory / name).stat().st_uid for name in "fdp"} == {ANN.uid}


def test_a_file_made_without_write_permission_can_be_written_by_its_maker(directory: Path) -> None:
    def attempt() -> None:
        fd = os.open(directory / "f", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o400)
        os.write(fd, b"content")

    assert run_as(ANN, attempt) == 0
    assert run_as(ANN, append, directory / "f") == errno.EACCES


# --- changing modes, owners and times --------------------------------------------------------


def test_chmod_is_for_the_owner(directory: Path) -> None:
    path = owned(directory / "f", 0o666)
    assert run_as(BOB, path.chmod, 0o600) == errno.EPERM
    assert run_as(ANN, path.chmod, 0o600) == 0
    assert run_as(ANN, path.chmod, 0o4700) == 0
    assert mode_of(path) == 0o4700


def test_chmod_drops_setgid_for_who_is_not_in_the_group(directory: Path) -> None:
    path = owned(directory / "f", 0o755, gid=TEAM)
    assert run_as(ANN, path.chmod, 0o2755) == 0
    assert mode_of(path) == 0o755
    assert run_as(ANN_IN_TEAM, path.chmod, 0o2755) == 0
    assert mode_of(path) == 0o2755


def test_chown_gives_files_away_only_as_root_and_groups_only_to_members(directory: Path) -> None:
    path = owned(directory / "f", 0o644)
    assert run_as(ANN, os.chown, path, BOB.uid, -1) == errno.EPERM
    assert run_as(ANN, os.chown, path, -1, TEAM) == errno.EPERM
    assert run_as(BOB_IN_TEAM, os.chown, path, -1, TEAM) == errno.EPERM
    assert run_as(ANN_IN_TEAM, os.chown, path, -1, TEAM) == 0
    assert (path.stat().st_uid, path.stat().st_gid) == (ANN.uid, TEAM)


def test_times_are_set_by_the_owner_and_to_now_by_who_may_write(directory: Path) -> None:
    path = owned(directory / "f", 0o666)
    assert run_as(BOB, lambda: os.utime(path, ns=(1, 1))) == errno.EPERM
    assert run_as(BOB, os.utime, path) == 0
    path.chmod(0o644)
    assert run_as(BOB, os.utime, path) == errno.EACCES
    assert run_as(ANN, lambda: os.utime(path, ns=(5, 7))) == 0
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5, 7)


# --- set-ID bits ---------------------------------------------------------------------------


def test_setgid_directories_hand_down_group_and_bit(posix: Posix) -> None:
    posix.mkdir(b"d")
    posix.chown(b"d", -1, TEAM)
    posix.chmod(b"d", 0o2775)
    write(posix, b"d/f")
    posix.mkdir(b"d/sub")
    posix.symlink(b"x", b"d/link")
    posix.mknod(b"d/fifo", stat.S_IFIFO | 0o644)
    posix.mkdir(b"d/sub/deep")
    for path in (b"d/f", b"d/sub", b"d/link", b"d/fifo", b"d/sub/deep"):
        assert posix.lstat(path).gid == TEAM
    assert stat.S_IMODE(posix.stat(b"d/f").mode) == 0o644
    assert stat.S_IMODE(posix.stat(b"d/sub/deep").mode) == 0o2755
    posix.mkdir(b"plain")
    posix.rename(b"plain", b"d/moved")
    assert posix.stat(b"d/moved").gid == 0
    assert stat.S_IMODE(posix.stat(b"d/moved").mode) == 0o755


def test_setgid_of_a_new_file_falls_for_who_is_not_in_the_group(directory: Path) -> None:
    shared = folder(directory / "d", 0o2777, gid=TEAM)

    def attempt() -> None:
        os.umask(0)
        os.close(os.open(shared / "f", os.O_CREAT | os.O_WRONLY, 0o2775))

    assert run_as(BOB, attempt) == 0
    assert ((shared / "f").stat().st_gid, mode_of(shared / "f")) == (TEAM, 0o775)
    (shared / "f").unlink()
    assert run_as(BOB_IN_TEAM, attempt) == 0
    assert mode_of(shared / "f") == 0o2775


def shrink(path: Path) -> None:
    os.truncate(path, 3)


def empty(path: Path) -> None:
    with path.open("wb"):
        pass


def by_descriptor(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.ftruncate(fd, 100)


CHANGES = [append, shrink, empty, by_descriptor]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_set_id_bits_fall_when_somebody_writes_or_truncates(
    directory: Path, change: Callable[[Path], None]
) -> None:
    path = owned(directory / "program", 0o6777)
    assert run_as(BOB, change, path) == 0
    assert mode_of(path) == 0o777
    path.chmod(0o6777)
    assert run_as(ANN, change, path) == 0, "the owner is nobody special here"
    assert mode_of(path) == 0o777


def test_set_id_bits_stay_when_root_writes(directory: Path) -> None:
    path = owned(directory / "program", 0o6777)
    assert run_as(None, append, path) == 0
    assert mode_of(path) == 0o6777


def test_setgid_without_group_execution_is_no_set_id_bit(directory: Path) -> None:
    path = owned(directory / "f", 0o2766, gid=TEAM)
    assert run_as(BOB_IN_TEAM, append, path) == 0
    assert mode_of(path) == 0o2766


def test_set_id_bits_fall_with_a_change_of_owner(posix: Posix) -> None:
    for kind, uid, gid in ((b"uid", ANN.uid, -1), (b"gid", -1, TEAM), (b"both", ANN.uid, TEAM)):
        with opened(posix, kind):
            posix.chmod(kind, 0o6755)
            posix.chown(kind, uid, gid)
            assert stat.S_IMODE(posix.stat(kind).mode) == 0o755
    posix.mkdir(b"d")
    posix.chmod(b"d", 0o6755)
    posix.chown(b"d", ANN.uid, TEAM)
    assert stat.S_IMODE(posix.stat(b"d").mode) == 0o6755, "directories keep them"


def test_set_id_programs_run_as_their_owner(directory: Path) -> None:
    if os.statvfs(directory).f_flag & os.ST_NOSUID:
        pytest.skip("mounted nosuid")
    program = directory / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(program, ANN.uid, TEAM)
    program.chmod(0o6755)

    def effective() -> None:
        assert subprocess.check_output([program, "-u"]).strip() == b"%d" % ANN.uid
        assert subprocess.check_output([program, "-g"]).strip() == b"%d" % TEAM

    assert run_as(BOB, effective) == 0


# --- the sticky bit ------------------------------------------------------------------------


def test_the_sticky_bit_keeps_others_from_removing(directory: Path) -> None:
    common = folder(directory / "tmp", 0o1777, uid=0, gid=0)
    path = owned(common / "f", 0o666)
    folder(common / "d", 0o777)
    assert run_as(BOB, path.unlink) == errno.EPERM
    assert run_as(BOB, (common / "d").rmdir) == errno.EPERM
    assert run_as(BOB, path.rename, common / "g") == errno.EPERM
    assert run_as(BOB, append, path) == 0, "it says nothing about writing"
    assert run_as(ANN, path.rename, common / "g") == 0
    assert run_as(ANN, (common / "g").unlink) == 0
    assert run_as(ANN, (common / "d").rmdir) == 0


def test_the_sticky_bit_lets_the_owner_of_the_directory_remove(directory: Path) -> None:
    common = folder(directory / "tmp", 0o1777, uid=BOB.uid)
    path = owned(common / "f", 0o600)
    assert run_as(BOB, path.unlink) == 0
    owned(common / "f", 0o600)
    assert run_as(None, path.unlink) == 0


def test_the_sticky_bit_protects_the_target_of_a_rename(directory: Path) -> None:
    common = folder(directory / "tmp", 0o1777, uid=0, gid=0)
    theirs, mine = owned(common / "theirs", 0o666), owned(common / "mine", 0o666, uid=BOB.uid)
    assert run_as(BOB, mine.rename, theirs) == errno.EPERM

    def exchange() -> None:
        libc_call("renameat2", -100, os.fsencode(mine), -100, os.fsencode(theirs), EXCHANGE)

    assert run_as(BOB, exchange) == errno.EPERM
    assert run_as(None, exchange) == 0
    assert (theirs.stat().st_uid, mine.stat().st_uid) == (BOB.uid, ANN.uid)
