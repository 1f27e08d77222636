"""Extended attributes, and access control lists in step with modes, over both inode tables."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import pytest

from objfs.errors import (
    AccessDenied,
    AttributeTooBig,
    Exists,
    InvalidArgument,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotPermitted,
    NotSupported,
)
from objfs.fs import Caller, FileSystem
from objfs.fs.acl import ACCESS, DEFAULT, Acl, encode, parse
from objfs.model import ROOT, AttrChange, Ino
from tests.fs.memory import World
from tests.fs.real import RealWorld

USER = Caller(1000, 100)
SUPER = Caller(0, 0)
TEAM = Acl(owner=7, group=5, other=0, mask=7, groups=((500, 7),))
"""What a shared directory has as its default: a group may write, others nothing."""


@pytest.fixture(params=[World, RealWorld], ids=["memory", "sqlite"])
def fs(request: pytest.FixtureRequest) -> Iterator[FileSystem]:
    world = request.param()
    yield world.fs
    world.close()


def make_file(fs: FileSystem, parent: Ino = ROOT, mode: int = 0o644, caller: Caller = USER) -> Ino:
    handle, attr = fs.create(parent, b"f", mode, os.O_RDWR, caller)
    fs.release(handle.fh)
    return attr.ino


def permissions(fs: FileSystem, ino: Ino) -> int:
    return stat.S_IMODE(fs.getattr(ino).mode)


def kept(fs: FileSystem, ino: Ino, name: bytes = ACCESS) -> Acl | None:
    try:
        return parse(fs.get_xattr(ino, name))
    except NoAttribute:
        return None


# --- names, values, limits -----------------------------------------------------------------


@pytest.mark.parametrize("name", [b"user.x", b"trusted.x", b"security.capability", b"user.\xff\n \x01"])
def test_attributes_are_kept_as_given(fs: FileSystem, name: bytes) -> None:
    ino = make_file(fs)
    fs.set_xattr(ino, name, b"\0value")
    assert fs.get_xattr(ino, name) == b"\0value"
    assert fs.list_xattr(ino) == [name]
    fs.remove_xattr(ino, name)
    with pytest.raises(NoAttribute):
        fs.get_xattr(ino, name)
    with pytest.raises(NoAttribute):
        fs.remove_xattr(ino, name)


@pytest.mark.parametrize("name", [b"system.other", b"user", b"btrfs.x", b""])
def test_other_name_spaces_are_not_supported(fs: FileSystem, name: bytes) -> None:
    ino = make_file(fs)
    with pytest.raises(NotSupported):
        fs.set_xattr(ino, name, b"")
    with pytest.raises(NotSupported):
        fs.get_xattr(ino, name)


def test_limits_of_names_and_values(fs: FileSystem) -> None:
    ino = make_file(fs)
    fs.set_xattr(ino, b"user." + b"n" * 250, b"v" * 65536)
    with pytest.raises(AttributeTooBig):
        fs.set_xattr(ino, b"user.v", b"v" * 65537)
    with pytest.raises(NameTooLong):
        fs.set_xattr(ino, b"user." + b"n" * 251, b"")
    with pytest.raises(InvalidArgument):
        fs.set_xattr(ino, b"user.", b"")


def test_names_never_exceed_what_a_listing_can_hold(fs: FileSystem) -> None:
    ino = make_file(fs)
    for number in range(256):
        fs.set_xattr(ino, b"user.%0250d" % number, b"")
    with pytest.raises(NoSpace):
        fs.set_xattr(ino, b"user.one-more", b"")
    fs.set_xattr(ino, b"user.%0250d" % 0, b"replaced")


def test_create_and_replace(fs: FileSystem) -> None:
    ino = make_file(fs)
    with pytest.raises(NoAttribute):
        fs.set_xattr(ino, b"user.x", b"", os.XATTR_REPLACE)
    fs.set_xattr(ino, b"user.x", b"", os.XATTR_CREATE)
    with pytest.raises(Exists):
        fs.set_xattr(ino, b"user.x", b"", os.XATTR_CREATE)


def test_user_attributes_are_for_files_and_directories(fs: FileSystem) -> None:
    link = fs.symlink(ROOT, b"l", b"t", USER).ino
    with pytest.raises(NotPermitted):
        fs.set_xattr(link, b"user.x", b"")
    fs.set_xattr(link, b"trusted.x", b"")
    fs.set_xattr(ROOT, b"user.x", b"")


def test_trusted_attributes_are_listed_for_root_alone(fs: FileSystem) -> None:
    ino = make_file(fs)
    for name in (b"user.x", b"trusted.x", b"security.x"):
        fs.set_xattr(ino, name, b"")
    assert fs.list_xattr(ino, USER) == [b"security.x", b"user.x"]
    assert fs.list_xattr(ino, SUPER) == [b"security.x", b"trusted.x", b"user.x"]


def test_changes_of_attributes_set_ctime_alone(fs: FileSystem) -> None:
    ino = make_file(fs)
    changes: tuple[Callable[[], None], ...] = (
        lambda: fs.set_xattr(ino, b"user.x", b"1"),
        lambda: fs.set_xattr(ino, b"user.x", b"2"),
        lambda: fs.remove_xattr(ino, b"user.x"),
        lambda: fs.set_xattr(ino, ACCESS, encode(TEAM)),
        lambda: fs.remove_xattr(ino, ACCESS),
    )
    for change in changes:
        before = fs.getattr(ino)
        change()
        after = fs.getattr(ino)
        assert after.ctime_ns > before.ctime_ns
        assert (after.mtime_ns, after.atime_ns) == (before.mtime_ns, before.atime_ns)


# --- lists and modes -----------------------------------------------------------------------


def test_a_list_sets_the_mode(fs: FileSystem) -> None:
    ino = make_file(fs, mode=0o4644)
    fs.set_xattr(ino, ACCESS, encode(TEAM))
    assert permissions(fs, ino) == 0o4770
    assert kept(fs, ino) == TEAM


async def test_a_mode_sets_the_list(fs: FileSystem) -> None:
    ino = make_file(fs)
    fs.set_xattr(ino, ACCESS, encode(TEAM))
    attr = await fs.setattr(ino, AttrChange(mode=0o741), None, USER)
    assert stat.S_IMODE(attr.mode) == 0o741
    assert kept(fs, ino) == Acl(owner=7, group=5, other=1, mask=4, groups=((500, 7),))


async def test_a_change_of_owner_leaves_the_list(fs: FileSystem) -> None:
    ino = make_file(fs)
    fs.set_xattr(ino, ACCESS, encode(TEAM))
    await fs.setattr(ino, AttrChange(uid=7, gid=8), None, SUPER)
    assert kept(fs, ino) == TEAM


def test_a_list_that_says_no_more_than_a_mode_is_not_kept(fs: FileSystem) -> None:
    ino = make_file(fs)
    fs.set_xattr(ino, ACCESS, encode(TEAM))
    fs.set_xattr(ino, ACCESS, encode(Acl(6, 4, 1)))
    assert fs.list_xattr(ino) == []
    assert permissions(fs, ino) == 0o641


def test_an_empty_list_removes_it_and_leaves_the_mode(fs: FileSystem) -> None:
    ino = make_file(fs)
    fs.set_xattr(ino, ACCESS, encode(TEAM))
    for _ in range(2):
        fs.set_xattr(ino, ACCESS, b"\2\0\0\0")
        assert fs.list_xattr(ino) == []
        assert permissions(fs, ino) == 0o770


@pytest.mark.parametrize("name", [ACCESS, DEFAULT])
def test_a_malformed_list_changes_nothing(fs: FileSystem, name: bytes) -> None:
    ino = fs.mkdir(ROOT, b"d", 0o755, USER).ino
    before = fs.getattr(ino)
    with pytest.raises(InvalidArgument):
        fs.set_xattr(ino, name, b"\2\0\0\0nonsense")
    assert fs.getattr(ino) == before
    assert fs.list_xattr(ino) == []


def test_default_lists_are_for_directories(fs: FileSystem) -> None:
    with pytest.raises(AccessDenied):
        fs.set_xattr(make_file(fs), DEFAULT, encode(TEAM))


def test_a_symbolic_link_has_no_list(fs: FileSystem) -> None:
    link = fs.symlink(ROOT, b"l", b"t", USER).ino
    with pytest.raises(NotSupported):
        fs.set_xattr(link, ACCESS, encode(TEAM))


@pytest.mark.parametrize(
    ("caller", "groups", "left"),
    [
        (USER, frozenset(), 0o2770),
        (Caller(1000, 7), frozenset((100,)), 0o2770),
        (SUPER, frozenset(), 0o2770),
        (Caller(1000, 7), frozenset((8,)), 0o770),
    ],
    ids=["its group", "another of its groups", "root", "a stranger to the group"],
)
def test_a_list_set_by_a_stranger_to_the_group_drops_setgid(
    fs: FileSystem, caller: Caller, groups: frozenset[int], left: int
) -> None:
    ino = make_file(fs, mode=0o2755)
    fs.set_xattr(ino, ACCESS, encode(TEAM), caller=caller, groups=groups)
    assert permissions(fs, ino) == left


# --- inheriting ----------------------------------------------------------------------------


@pytest.fixture
def shared(fs: FileSystem) -> Ino:
    """A directory with a default list."""
    ino = fs.mkdir(ROOT, b"shared", 0o755, SUPER).ino
    fs.set_xattr(ino, DEFAULT, encode(TEAM))
    assert permissions(fs, ino) == 0o755
    return ino


def test_the_umask_counts_where_there_is_no_default_list(fs: FileSystem) -> None:
    careful = Caller(1000, 100, umask=0o027)
    assert permissions(fs, make_file(fs, mode=0o4666, caller=careful)) == 0o4640
    assert permissions(fs, fs.mkdir(ROOT, b"d", 0o1777, careful).ino) == 0o1750
    assert permissions(fs, fs.mknod(ROOT, b"p", stat.S_IFIFO | 0o666, 0, careful).ino) == 0o640
    assert permissions(fs, fs.symlink(ROOT, b"l", b"t", careful).ino) == 0o777


def test_a_default_list_takes_the_place_of_the_umask(fs: FileSystem, shared: Ino) -> None:
    careful = Caller(1000, 100, umask=0o077)
    ino = make_file(fs, shared, 0o666, careful)
    assert permissions(fs, ino) == 0o660
    assert kept(fs, ino) == Acl(owner=6, group=5, other=0, mask=6, groups=((500, 7),))
    assert fs.list_xattr(ino) == [ACCESS]


def test_a_directory_hands_its_default_list_on(fs: FileSystem, shared: Ino) -> None:
    inner = fs.mkdir(shared, b"inner", 0o777, USER)
    assert stat.S_IMODE(inner.mode) == permissions(fs, inner.ino) == 0o770
    assert kept(fs, inner.ino) == kept(fs, inner.ino, DEFAULT) == TEAM
    deeper = make_file(fs, inner.ino, 0o600)
    assert kept(fs, deeper) == Acl(owner=6, group=5, other=0, mask=0, groups=((500, 7),))


def test_special_files_inherit_and_symbolic_links_do_not(fs: FileSystem, shared: Ino) -> None:
    pipe = fs.mknod(shared, b"p", stat.S_IFIFO | 0o666, 0, USER).ino
    assert kept(fs, pipe) is not None
    assert permissions(fs, pipe) == 0o660
    link = fs.symlink(shared, b"l", b"t", USER).ino
    assert fs.list_xattr(link) == []
    assert permissions(fs, link) == 0o777


def test_a_default_list_that_says_no_more_than_a_mode(fs: FileSystem) -> None:
    ino = fs.mkdir(ROOT, b"d", 0o755, SUPER).ino
    fs.set_xattr(ino, DEFAULT, encode(Acl(7, 5, 0)))
    assert kept(fs, ino, DEFAULT) == Acl(7, 5, 0)
    file = make_file(fs, ino, 0o666, Caller(1000, 100, umask=0o777))
    assert permissions(fs, file) == 0o640
    assert fs.list_xattr(file) == []


def test_the_bits_above_the_permissions_survive_inheriting(fs: FileSystem, shared: Ino) -> None:
    assert permissions(fs, fs.mkdir(shared, b"d", 0o1777, USER).ino) == 0o1770


# --- access --------------------------------------------------------------------------------


def test_access_by_list(fs: FileSystem) -> None:
    ino = make_file(fs, caller=SUPER)
    fs.set_xattr(ino, ACCESS, encode(Acl(6, 4, 0, mask=6, users=((7, 6), (8, 0)), groups=((500, 2),))))
    assert fs.access(ino, os.R_OK | os.W_OK, Caller(7, 7))
    assert not fs.access(ino, os.R_OK, Caller(8, 0))
    assert fs.access(ino, os.W_OK, Caller(9, 9), frozenset((500,)))
    assert not fs.access(ino, os.R_OK, Caller(9, 9), frozenset((500,)))
    assert not fs.access(ino, os.R_OK, Caller(9, 9))


def test_access_is_limited_by_the_mask(fs: FileSystem) -> None:
    ino = make_file(fs, caller=SUPER)
    fs.set_xattr(ino, ACCESS, encode(Acl(6, 6, 0, mask=4, users=((7, 7),))))
    assert fs.access(ino, os.R_OK, Caller(7, 7))
    assert not fs.access(ino, os.W_OK, Caller(7, 7))
    assert not fs.access(ino, os.W_OK, Caller(9, 0))
