"""What POSIX says about names and attributes, as far as it is ours to see to."""

from __future__ import annotations

import os
import stat

import pytest

from objfs.errors import (
    Exists,
    InvalidArgument,
    NameTooLong,
    NotDirectory,
    NotFound,
    NotPermitted,
    PosixError,
    ReadOnly,
)
from objfs.fs import Caller, FileSystem, FsSettings
from objfs.model import ROOT, AttrChange, Ino, RenameFlag
from tests.fs.memory import CHUNK, World

USER = Caller(1000, 100)
SUPER = Caller(0, 0)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def fs(world: World) -> FileSystem:
    return world.fs


def make_file(fs: FileSystem, name: bytes = b"f", mode: int = 0o644, caller: Caller = USER) -> Ino:
    handle, attr = fs.create(ROOT, name, mode, os.O_RDWR, caller)
    fs.release(handle.fh)
    return attr.ino


def test_create_belongs_to_the_caller(fs: FileSystem) -> None:
    attr = fs.getattr(make_file(fs, mode=0o100640))
    assert (attr.mode, attr.uid, attr.gid, attr.nlink) == (stat.S_IFREG | 0o640, 1000, 100, 1)


def test_create_sets_all_times_and_those_of_the_directory(fs: FileSystem) -> None:
    before = fs.getattr(ROOT)
    attr = fs.getattr(make_file(fs))
    after = fs.getattr(ROOT)
    assert attr.atime_ns == attr.mtime_ns == attr.ctime_ns == attr.btime_ns
    assert after.mtime_ns == after.ctime_ns == attr.ctime_ns > before.mtime_ns


def test_setgid_directory_hands_down_its_group(fs: FileSystem) -> None:
    shared = fs.mkdir(ROOT, b"d", 0o2775, Caller(0, 555)).ino
    _, file = fs.create(shared, b"f", 0o664, os.O_RDWR, USER)
    inner = fs.mkdir(shared, b"sub", 0o775, USER)
    assert file.gid == inner.gid == 555
    assert not file.mode & stat.S_ISGID
    assert inner.mode & stat.S_ISGID


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK])
def test_mknod_makes_each_kind(fs: FileSystem, kind: int) -> None:
    attr = fs.mknod(ROOT, b"n", kind | 0o600, 0x801, SUPER)
    assert stat.S_IFMT(attr.mode) == kind
    assert attr.rdev == (0x801 if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)


def test_mknod_refuses_a_directory(fs: FileSystem) -> None:
    with pytest.raises(InvalidArgument):
        fs.mknod(ROOT, b"n", stat.S_IFDIR | 0o600, 0, SUPER)


def test_symlink_keeps_its_target(fs: FileSystem) -> None:
    attr = fs.symlink(ROOT, b"l", b"a/../b\xff", USER)
    assert fs.readlink(attr.ino) == b"a/../b\xff"
    assert attr.mode == stat.S_IFLNK | 0o777
    assert attr.size == 7


def test_symlink_limits(fs: FileSystem) -> None:
    fs.symlink(ROOT, b"longest", b"x" * 4095, USER)
    with pytest.raises(NameTooLong):
        fs.symlink(ROOT, b"l", b"x" * 4096, USER)
    with pytest.raises(NotFound):
        fs.symlink(ROOT, b"l", b"", USER)


def test_readlink_of_a_file_is_invalid(fs: FileSystem) -> None:
    with pytest.raises(InvalidArgument):
        fs.readlink(make_file(fs))


def test_names_up_to_255_bytes(fs: FileSystem) -> None:
    make_file(fs, b"n" * 255)
    for name in (b"n" * 256, b"\xc3\xa4" * 128):
        with pytest.raises(NameTooLong):
            make_file(fs, name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"a\0b"])
def test_impossible_names_are_refused(fs: FileSystem, name: bytes) -> None:
    with pytest.raises(InvalidArgument):
        make_file(fs, name)


def test_lookup_of_dot_and_dotdot(fs: FileSystem) -> None:
    outer = fs.mkdir(ROOT, b"outer", 0o755, USER).ino
    inner = fs.mkdir(outer, b"inner", 0o755, USER).ino
    assert fs.lookup(inner, b".").ino == inner
    assert fs.lookup(inner, b"..").ino == outer
    assert fs.lookup(ROOT, b"..").ino == ROOT
    with pytest.raises(NotDirectory):
        fs.lookup(make_file(fs), b".")


def test_a_view_of_a_subdirectory_does_not_lead_out(world: World) -> None:
    sub = world.fs.mkdir(ROOT, b"sub", 0o755, USER).ino
    view = world.mount(FsSettings(CHUNK, root=sub))
    assert view.lookup(sub, b"..").ino == sub
    assert view.parent_of(sub).ino == sub


def test_link_counts_and_ctime(fs: FileSystem) -> None:
    ino = make_file(fs)
    before = fs.getattr(ino)
    attr = fs.link(ino, ROOT, b"g")
    assert attr.nlink == 2
    assert attr.ctime_ns > before.ctime_ns
    assert attr.mtime_ns == before.mtime_ns
    with pytest.raises(Exists):
        fs.link(ino, ROOT, b"g")
    with pytest.raises(NotPermitted):
        fs.link(ROOT, ROOT, b"h")


def test_rename_flags(fs: FileSystem) -> None:
    one, two = make_file(fs, b"1"), make_file(fs, b"2")
    with pytest.raises(Exists):
        fs.rename(ROOT, b"1", ROOT, b"2", RenameFlag.NOREPLACE)
    fs.rename(ROOT, b"1", ROOT, b"2", RenameFlag.EXCHANGE)
    assert (fs.lookup(ROOT, b"1").ino, fs.lookup(ROOT, b"2").ino) == (two, one)
    fs.rename(ROOT, b"1", ROOT, b"2")
    assert fs.lookup(ROOT, b"2").ino == two
    with pytest.raises(NotFound):
        fs.lookup(ROOT, b"1")


def test_chmod_keeps_the_type_and_sets_ctime(fs: FileSystem) -> None:
    ino = make_file(fs)
    before = fs.getattr(ino)
    attr = fs._names.set_attr(ino, AttrChange(mode=stat.S_IFDIR | 0o4711))
    assert attr.mode == stat.S_IFREG | 0o4711
    assert attr.ctime_ns > before.ctime_ns
    assert attr.mtime_ns == before.mtime_ns


async def test_chown_clears_set_id_bits_of_files(fs: FileSystem) -> None:
    ino = make_file(fs, mode=0o6755)
    attr = await fs.setattr(ino, AttrChange(gid=7), None, SUPER)
    assert (stat.S_IMODE(attr.mode), attr.gid) == (0o755, 7)


async def test_chown_keeps_setgid_without_group_execution(fs: FileSystem) -> None:
    ino = make_file(fs, mode=0o6745)
    attr = await fs.setattr(ino, AttrChange(uid=7), None, USER)
    assert stat.S_IMODE(attr.mode) == 0o2745


async def test_chown_keeps_the_bits_of_directories(fs: FileSystem) -> None:
    ino = fs.mkdir(ROOT, b"d", 0o6755, USER).ino
    attr = await fs.setattr(ino, AttrChange(uid=7), None, USER)
    assert stat.S_IMODE(attr.mode) == 0o6755


async def test_times_are_set_as_given_also_before_1970(fs: FileSystem) -> None:
    ino = make_file(fs)
    attr = await fs.setattr(ino, AttrChange(atime_ns=-1, mtime_ns=9_999_999_999_000_000_001), None, USER)
    assert (attr.atime_ns, attr.mtime_ns) == (-1, 9_999_999_999_000_000_001)


async def test_an_empty_change_moves_only_ctime(fs: FileSystem) -> None:
    before = fs.getattr(make_file(fs))
    after = await fs.setattr(before.ino, AttrChange(), None, USER)
    assert after.ctime_ns > before.ctime_ns
    assert (after.mode, after.mtime_ns, after.atime_ns) == (before.mode, before.mtime_ns, before.atime_ns)


@pytest.mark.parametrize(
    ("caller", "mask", "allowed"),
    [
        (Caller(1000, 5), os.R_OK | os.W_OK, True),
        (Caller(1000, 5), os.X_OK, False),
        (Caller(7, 100), os.R_OK, True),
        (Caller(7, 100), os.W_OK, False),
        (Caller(7, 7), os.R_OK, False),
        (Caller(0, 0), os.R_OK | os.W_OK, True),
        (Caller(0, 0), os.X_OK, False),
    ],
)
def test_access(fs: FileSystem, caller: Caller, mask: int, allowed: bool) -> None:
    assert fs.access(make_file(fs, mode=0o640), mask, caller) is allowed


def test_access_through_a_supplementary_group(fs: FileSystem) -> None:
    assert fs.access(make_file(fs, mode=0o640), os.R_OK, Caller(7, 7), frozenset((100,)))


def test_readdir_pages_survive_changes(fs: FileSystem) -> None:
    for number in range(20):
        make_file(fs, b"%d" % number)
    first = fs.readdir(ROOT, 2, 10)
    fs.unlink(ROOT, first[0].name)
    fs.unlink(ROOT, b"15")
    make_file(fs, b"late")
    rest = fs.readdir(ROOT, first[-1].cookie, 100)
    names = [entry.name for entry in first + rest]
    assert len(names) == len(set(names))
    assert set(names) >= {b"%d" % number for number in range(20) if number != 15}


def test_statfs_is_finite(fs: FileSystem) -> None:
    make_file(fs)
    stats = fs.statfs()
    assert stats.inodes_used == 2
    assert 0 < stats.capacity.available <= stats.capacity.free <= stats.capacity.total


def mutations(fs: FileSystem, ino: Ino) -> None:
    """Tries every change; each must raise ReadOnly."""
    for change in (
        lambda: fs.create(ROOT, b"n", 0o600, os.O_RDWR, USER),
        lambda: fs.mkdir(ROOT, b"n", 0o700, USER),
        lambda: fs.mknod(ROOT, b"n", stat.S_IFIFO, 0, USER),
        lambda: fs.symlink(ROOT, b"n", b"t", USER),
        lambda: fs.link(ino, ROOT, b"n"),
        lambda: fs.unlink(ROOT, b"f"),
        lambda: fs.rmdir(ROOT, b"d"),
        lambda: fs.rename(ROOT, b"f", ROOT, b"g"),
        lambda: fs.set_xattr(ino, b"user.x", b""),
        lambda: fs.remove_xattr(ino, b"user.x"),
    ):
        with pytest.raises(ReadOnly):
            change()


async def async_mutations(fs: FileSystem, ino: Ino, fh: int) -> None:
    with pytest.raises(ReadOnly):
        await fs.setattr(ino, AttrChange(mode=0o600), None, USER)
    with pytest.raises(ReadOnly):
        await fs.setattr(ino, AttrChange(), 0, USER)
    with pytest.raises(ReadOnly):
        await fs.write(fh, 0, b"x")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(ReadOnly):
            await fs.open(ino, flags, USER)


async def test_a_read_only_mount_changes_nothing(world: World) -> None:
    ino = make_file(world.fs)
    view = world.mount(FsSettings(CHUNK, read_only=True))
    fh = view._handles.open(ino, os.O_RDWR).fh
    mutations(view, ino)
    await async_mutations(view, ino, fh)
    assert await view.read((await view.open(ino, os.O_RDONLY, USER)).fh, 0, 10) == b""


async def test_a_closed_gate_stops_every_change_with_its_reason(world: World) -> None:
    ino = make_file(world.fs)
    handle = await world.fs.open(ino, os.O_RDWR, USER)
    world.gate.close("the lease was lost")
    mutations(world.fs, ino)
    await async_mutations(world.fs, ino, handle.fh)
    with pytest.raises(ReadOnly, match="the lease was lost"):
        world.fs.unlink(ROOT, b"f")


def test_a_refused_change_leaves_nothing_behind(world: World) -> None:
    make_file(world.fs)
    before = dict(world.table.inodes), {ino: dict(names) for ino, names in world.table.entries.items()}
    for change in (
        lambda: make_file(world.fs),
        lambda: world.fs.rmdir(ROOT, b"f"),
        lambda: world.fs.rename(ROOT, b"gone", ROOT, b"x"),
    ):
        with pytest.raises(PosixError):
            change()
    assert (world.table.inodes, world.table.entries) == before
