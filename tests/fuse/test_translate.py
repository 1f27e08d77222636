"""Words of the file system into words of the kernel, and errors into numbers."""

from __future__ import annotations

import errno
import logging
import os

import pyfuse3
import pytest
import trio

from objfs.errors import (
    BadSetting,
    BucketFull,
    Corrupt,
    InvalidArgument,
    LeaseLost,
    NoSuchObject,
    NotFound,
    ObjfsError,
    ReadOnly,
    StaleHandle,
    Throttled,
    TimedOut,
)
from objfs.fs import Caller, FileSystem, FsSettings
from objfs.fuse import FuseSettings, Operations, fuse_options
from objfs.fuse.translate import Views, errno_of, guarded, rename_flag
from objfs.model import ROOT, Ino, RenameFlag
from objfs.ports import DOING
from tests.fs.memory import CHUNK, World

USER = Caller(1000, 100)


class Context(pyfuse3.RequestContext):
    """A request's context; pyfuse3's own has no values before a request fills it."""

    uid = 1000
    gid = 100
    pid = os.getpid()
    umask = 0


CTX = Context()


@pytest.mark.parametrize(
    ("error", "code", "logged"),
    [
        (NotFound("no"), errno.ENOENT, False),
        (ReadOnly("no"), errno.EROFS, False),
        (Corrupt("segment 7"), errno.EIO, True),
        (NoSuchObject("segment 7"), errno.EIO, True),
        (Throttled("slow down"), errno.EIO, True),
        (BucketFull("full"), errno.ENOSPC, True),
        (TimedOut("late"), errno.ETIMEDOUT, True),
        (LeaseLost("taken over"), errno.EROFS, True),
        (ObjfsError("something"), errno.EIO, True),
        (ZeroDivisionError(), errno.EIO, True),
        (OSError(errno.ENOENT, "our own file"), errno.EIO, True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_errors(error: Exception, code: int, logged: bool, caplog: pytest.LogCaptureFixture) -> None:
    assert errno_of(error, "read") == code
    assert bool(caplog.records) is logged
    assert all(
        "operation=read" in record.message and "request=" in record.message for record in caplog.records
    )


class Handlers:
    """Something to guard."""

    @guarded
    async def fails(self, error: BaseException) -> None:
        raise error

    @guarded
    async def sleeps(self) -> None:
        await trio.sleep_forever()

    @guarded
    async def named(self) -> str:
        return DOING.operation


async def test_I8_no_exception_leaves_a_handler(caplog: pytest.LogCaptureFixture) -> None:
    for error in (ValueError("a bug"), ExceptionGroup("several", [ValueError("bugs")]), NotFound("none")):
        with pytest.raises(pyfuse3.FUSEError):
            await Handlers().fails(error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert caplog.records[0].exc_info is not None


async def test_an_answer_to_the_kernel_passes_as_it_is() -> None:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await Handlers().fails(pyfuse3.FUSEError(errno.ENOSYS))
    assert caught.value.errno == errno.ENOSYS


async def test_cancellation_passes() -> None:
    with trio.move_on_after(0) as scope:
        await Handlers().sleeps()
    assert scope.cancelled_caught


async def test_the_running_operation_has_a_name() -> None:
    assert await Handlers().named() == "named"


def test_inode_numbers_carry_their_view() -> None:
    views = Views()
    assert views.encode(0, ROOT) == pyfuse3.ROOT_INODE
    assert views.encode(0, Ino(77)) == 77
    assert views.encode(3, ROOT) == 3 << 48 | 1
    for slot, ino in ((0, ROOT), (0, Ino(2**48 - 1)), (1, ROOT), (65535, Ino(5))):
        assert views.decode(views.encode(slot, ino)) == (slot, ino)


def test_the_root_of_a_subdirectory_mount_is_number_one() -> None:
    views = Views(Ino(50))
    assert views.encode(0, Ino(50)) == pyfuse3.ROOT_INODE
    assert views.decode(pyfuse3.ROOT_INODE) == (0, Ino(50))


def test_rename_flags() -> None:
    assert rename_flag(0) is RenameFlag.REPLACE
    assert rename_flag(pyfuse3.RENAME_NOREPLACE) is RenameFlag.NOREPLACE
    assert rename_flag(pyfuse3.RENAME_EXCHANGE) is RenameFlag.EXCHANGE
    for flags in (3, 4, 8):
        with pytest.raises(InvalidArgument):
            rename_flag(flags)


def test_options_of_every_mount() -> None:
    options = fuse_options("a,b\\c", ("ro", "noexec"), allow_other=True)
    assert {
        "fsname=a\\,b\\\\c",
        "subtype=objfs",
        "default_permissions",
        "allow_other",
        "ro",
        "noexec",
    } == options


@pytest.mark.parametrize("flag", ["auto_unmount", "max_read=4096"])
def test_options_that_would_break_a_promise(flag: str) -> None:
    with pytest.raises(BadSetting, match=flag.split("=")[0]):
        fuse_options("volume", (flag,))
    with pytest.raises(BadSetting, match="ASCII"):
        fuse_options("bücher")


# --- the adapter without a kernel ----------------------------------------------------------


async def opened(operations: Operations, flags: int) -> pyfuse3.FileInfo:
    entry = await operations.lookup(pyfuse3.ROOT_INODE, b"f", CTX)
    return await operations.open(entry.st_ino, flags, CTX)


@pytest.fixture
def fs() -> FileSystem:
    fs = World().fs
    fs.mknod(ROOT, b"f", 0o100644, 0, USER)
    return fs


async def test_absence_is_an_answer_that_may_be_kept(fs: FileSystem) -> None:
    answer = await Operations(fs, FuseSettings(negative_timeout=5)).lookup(1, b"gone", CTX)
    assert (answer.st_ino, answer.entry_timeout) == (0, 5)


async def test_each_answer_counts_as_a_lookup(fs: FileSystem) -> None:
    operations = Operations(fs)
    ino = (await operations.lookup(1, b"f", CTX)).st_ino
    await operations.link(ino, 1, b"g", CTX)
    await operations.getattr(ino, CTX)
    await operations.forget([(ino, 1)])
    assert fs.statistics().known == 1
    await operations.forget([(ino, 1)])
    assert fs.statistics().known == 0


async def test_the_page_cache_is_kept_but_for_direct_writers(fs: FileSystem) -> None:
    operations = Operations(fs)
    assert (await opened(operations, os.O_RDONLY)).keep_cache
    assert (await opened(operations, os.O_RDONLY | os.O_DIRECT)).keep_cache
    assert not (await opened(operations, os.O_RDWR | os.O_DIRECT)).keep_cache
    assert not (await opened(operations, os.O_RDONLY)).keep_cache
    known = (await operations.lookup(1, b"f", CTX)).st_ino
    await operations.forget([(known, 6)])
    assert (await opened(operations, os.O_RDONLY)).keep_cache


async def test_the_page_cache_can_be_turned_off(fs: FileSystem) -> None:
    assert not (await opened(Operations(fs, FuseSettings(keep_cache=False)), os.O_RDONLY)).keep_cache


async def test_two_views_do_not_meet() -> None:
    world = World()
    file = world.fs.mknod(ROOT, b"f", 0o100644, 0, USER).ino
    operations = Operations(world.fs)
    operations.add_view(7, world.mount(FsSettings(CHUNK, read_only=True)))
    snapshot = operations.views.encode(7, ROOT)
    there = await operations.lookup(snapshot, b"f", CTX)
    assert there.st_ino == 7 << 48 | file
    info = await operations.open(there.st_ino, os.O_RDONLY, CTX)
    assert info.fh >> 48 == 7
    assert await operations.read(info.fh, 0, 10) == b""
    for refused in (
        operations.link(there.st_ino, 1, b"g", CTX),
        operations.rename(snapshot, b"f", 1, b"g", 0, CTX),
        operations.unlink(snapshot, b"f", CTX),
    ):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await refused
        assert caught.value.errno == errno.EROFS
    operations.remove_view(7)
    for gone in (operations.getattr(there.st_ino, CTX), operations.read(info.fh, 0, 10)):
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await gone
        assert caught.value.errno == StaleHandle.errno
    await operations.forget([(there.st_ino, 1)])


async def test_lookup_of_a_dot_is_by_number_also_of_a_file(fs: FileSystem) -> None:
    """A file handle becomes an inode again; one without a name is nobody's any more."""
    operations = Operations(fs)
    ino = fs.create(ROOT, b"handled", 0o644, os.O_RDWR, Caller(0, 0))[1].ino
    assert (await operations.lookup(ino, b".", CTX)).st_ino == ino
    fs.unlink(ROOT, b"handled")
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await operations.lookup(ino, b".", CTX)
    assert caught.value.errno == errno.ESTALE
