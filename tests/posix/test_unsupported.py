"""What the binding cannot hand over, and what programs get for it: each errno, each way out, by trial.

A program that copes with an errno here (it falls back to something else) is part of the promise.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.posix.children import Child
from tests.posix.conftest import MOUNT
from tests.posix.port import AT_FDCWD, WHITEOUT, call, code_of
from tests.posix.test_programs import run

on_a_mount = pytest.mark.parametrize("directory", [MOUNT], indirect=True)
"""Where a local file system would answer otherwise."""

KEEP_SIZE, PUNCH_HOLE, COLLAPSE, ZERO, INSERT = 1, 2, 8, 16, 32
FICLONE, FICLONERANGE, FIEMAP = 0x40049409, 0x4020940D, 0xC020660B
IOCTLS = {
    "FS_IOC_GETFLAGS": (0x80086601, 8),
    "FS_IOC_SETFLAGS": (0x40086602, 8),
    "FS_IOC_GETVERSION": (0x80087601, 8),
    "FS_IOC_FSGETXATTR": (0x801C581F, 28),
    "FS_IOC_FSSETXATTR": (0x401C5820, 28),
    "FS_IOC_GET_ENCRYPTION_POLICY": (0x400C6615, 12),
    "FITRIM": (0xC0185879, 24),
}
STATX_BASIC_STATS, STATX_BTIME = 0x7FF, 0x800
RWF_NOWAIT, RWF_APPEND, RWF_ATOMIC = 8, 16, 64
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
off_t, size_t = ctypes.c_longlong, ctypes.c_size_t


@pytest.fixture
def fd(directory: Path) -> Iterator[int]:
    """A file of two pages of data and a hole up to 1 MiB."""
    opened = os.open(directory / "f", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(opened, b"x" * 8192, 0)
    os.ftruncate(opened, 1 << 20)
    yield opened
    os.close(opened)


# --- space ---------------------------------------------------------------------------------


@on_a_mount
@pytest.mark.parametrize(
    "mode", [0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO, COLLAPSE, INSERT],
    ids=["allocate", "keep size", "punch hole", "zero", "collapse", "insert"],
)  # fmt: skip
def test_fallocate_is_refused(fd: int, mode: int) -> None:
    assert code_of(call, "fallocate", fd, mode, off_t(0), off_t(4096)) == "ENOTSUP"
    assert os.pread(fd, 8192, 0) == b"x" * 8192


def test_posix_fallocate_makes_room_by_writing(directory: Path, fd: int) -> None:
    """By the C library, a byte in each block of 4 KiB: right, and slow for large files."""
    os.posix_fallocate(fd, 0, 2 << 20)
    assert os.fstat(fd).st_size == 2 << 20
    assert os.fstat(fd).st_blocks >= (2 << 20) // 512
    assert (directory / "f").read_bytes() == b"x" * 8192 + bytes((2 << 20) - 8192)


@on_a_mount
def test_seek_hole_and_seek_data_find_data_everywhere(fd: int) -> None:
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 1 << 20
    assert [os.lseek(fd, offset, os.SEEK_DATA) for offset in (0, 500_000)] == [0, 500_000]
    for whence in (os.SEEK_DATA, os.SEEK_HOLE):
        assert code_of(os.lseek, fd, 1 << 20, whence) == "ENXIO"


@on_a_mount
def test_fiemap_is_refused(fd: int) -> None:
    question = struct.pack("QQLLLL", 0, 1 << 20, 0, 0, 0, 0)
    assert code_of(fcntl.ioctl, fd, FIEMAP, question) == "ENOTSUP"


# --- copying -------------------------------------------------------------------------------


def test_copy_file_range_within_a_file_system_copies(directory: Path, fd: int) -> None:
    target = os.open(directory / "g", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"marker", 5000)
    left = 8192
    while left:
        left -= os.copy_file_range(fd, target, left, 8192 - left, 8192 - left)
    assert os.pread(target, 9000, 0) == os.pread(fd, 8192, 0)
    os.close(target)


@on_a_mount
def test_copy_file_range_to_another_file_system_is_refused(fd: int) -> None:
    with tempfile.TemporaryFile() as target:
        assert code_of(os.copy_file_range, fd, target.fileno(), 8192, 0, 0) == "EXDEV"


def test_sendfile_and_splice_copy(directory: Path, fd: int) -> None:
    target = os.open(directory / "g", os.O_CREAT | os.O_RDWR)
    assert os.sendfile(target, fd, 0, 8192) == 8192
    end, start = os.pipe()
    assert call("splice", fd, None, start, None, size_t(4096), 0) == 4096
    assert call("splice", end, None, target, None, size_t(4096), 0) == 4096
    assert os.fstat(target).st_size == 12288
    assert os.pread(target, 20000, 0) == os.pread(fd, 8192, 0) + os.pread(fd, 4096, 0)
    for each in (target, end, start):
        os.close(each)


def test_clones_are_refused_where_there_are_none(directory: Path, fd: int) -> None:
    """``cp --reflink=auto`` copies instead.  A local file system may clone: nothing is asked of it."""
    (directory / "g").touch()
    run("cp", "--reflink=auto", directory / "f", directory / "copy")
    assert (directory / "copy").read_bytes() == (directory / "f").read_bytes()


@on_a_mount
def test_ficlone_is_refused(directory: Path, fd: int) -> None:
    target = os.open(directory / "g", os.O_CREAT | os.O_RDWR)
    assert code_of(fcntl.ioctl, target, FICLONE, fd) == "ENOTSUP"
    assert code_of(fcntl.ioctl, target, FICLONERANGE, struct.pack("qQQQ", fd, 0, 4096, 0)) == "ENOTSUP"
    os.close(target)


# --- ioctl and what lsattr, chattr and fsfreeze ask -------------------------------------------


@on_a_mount
@pytest.mark.parametrize("name", IOCTLS)
def test_ioctls_of_file_systems_are_refused(fd: int, name: str) -> None:
    request, length = IOCTLS[name]
    assert code_of(fcntl.ioctl, fd, request, bytes(length)) == "ENOTTY"


@on_a_mount
def test_lsattr_and_chattr_are_refused(directory: Path, fd: int) -> None:
    assert fd
    for words in (["lsattr", "f"], ["chattr", "+a", "f"]):
        done = subprocess.run(words, cwd=directory, capture_output=True, check=False)
        assert done.returncode != 0


# --- opening -------------------------------------------------------------------------------


@on_a_mount
def test_o_tmpfile_is_refused_and_temporary_files_have_a_name_for_a_moment(directory: Path) -> None:
    assert code_of(os.open, directory, os.O_TMPFILE | os.O_RDWR) == "ENOTSUP"
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
        assert os.fstat(file.fileno()).st_nlink == 0
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(not os.access(DROP_CACHES, os.W_OK), reason="needs root, to make the kernel forget")
def test_file_handles_find_inodes_that_the_kernel_has_forgotten(directory: Path) -> None:
    """What an NFS server in the kernel relies on."""
    (directory / "d").mkdir()
    (directory / "d" / "f").write_bytes(b"content")
    handle, mount_id = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136), ctypes.c_int()
    path = os.fsencode(directory / "d" / "f")
    call("name_to_handle_at", AT_FDCWD, path, handle, ctypes.byref(mount_id), 0)
    top = os.open(directory, os.O_RDONLY)
    try:
        for _ in range(2):
            again = call("open_by_handle_at", top, handle, os.O_RDONLY)
            assert os.read(again, 100) == b"content"
            os.close(again)
            DROP_CACHES.write_text("2\n")
        os.unlink(path)
        DROP_CACHES.write_text("2\n")
        assert code_of(call, "open_by_handle_at", top, handle, os.O_RDONLY) == "ESTALE"
    finally:
        os.close(top)


def statx(path: Path, mask: int) -> int:
    """Which of the asked for fields statx(2) filled in."""
    answer = ctypes.create_string_buffer(256)
    call("statx", AT_FDCWD, os.fsencode(path), 0, mask, answer)
    return int(struct.unpack_from("I", answer)[0])


@on_a_mount
def test_statx_tells_everything_but_the_time_of_birth(directory: Path, fd: int) -> None:
    assert fd
    found = statx(directory / "f", STATX_BASIC_STATS | STATX_BTIME)
    assert found & STATX_BASIC_STATS == STATX_BASIC_STATS
    assert not found & STATX_BTIME


# --- syncing -------------------------------------------------------------------------------


def test_sync_and_syncfs_return(fd: int) -> None:
    """They do not reach objfs: see docs/user/durability.md."""
    call("syncfs", fd)
    call("sync_file_range", fd, off_t(0), off_t(8192), 7)


# --- reading and writing with flags -----------------------------------------------------------


def test_preadv2_and_pwritev2(fd: int) -> None:
    assert os.pwritev(fd, [b"D"], 0, os.RWF_DSYNC) == 1
    assert os.pwritev(fd, [b"end"], 0, RWF_APPEND) == 3
    assert os.pread(fd, 10, 1 << 20) == b"end"
    assert os.preadv(fd, [bytearray(10)], 0, os.RWF_HIPRI) == 10


@on_a_mount
def test_preadv2_nowait_and_atomic_writes_are_refused(fd: int) -> None:
    assert code_of(os.preadv, fd, [bytearray(10)], 0, RWF_NOWAIT) == "ENOTSUP"
    assert code_of(os.pwritev, fd, [b"x" * 4096], 0, RWF_ATOMIC) == "ENOTSUP"


@on_a_mount
def test_o_direct_takes_any_alignment(directory: Path) -> None:
    fd = os.open(directory / "f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    assert os.pwrite(fd, b"abc", 1) == 3
    assert os.pread(fd, 10, 0) == b"\0abc"
    os.close(fd)


def test_map_sync_is_refused(fd: int) -> None:
    """It is for persistent memory."""
    shared_validate_sync = 0x80003
    with pytest.raises((OSError, ValueError)):
        mmap.mmap(fd, 4096, flags=shared_validate_sync, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def test_advice_is_taken(fd: int) -> None:
    for advice in (os.POSIX_FADV_SEQUENTIAL, os.POSIX_FADV_WILLNEED, os.POSIX_FADV_DONTNEED):
        os.posix_fadvise(fd, 0, 0, advice)
    call("readahead", fd, off_t(0), size_t(65536))
    assert os.pread(fd, 10, 0) == b"x" * 10


# --- renaming --------------------------------------------------------------------------------


@on_a_mount
def test_rename_whiteout_is_refused(directory: Path, fd: int) -> None:
    """So a mount cannot be the upper layer of an overlay."""
    assert fd
    old, new = (os.fsencode(directory / name) for name in ("f", "g"))
    assert code_of(call, "renameat2", AT_FDCWD, old, AT_FDCWD, new, WHITEOUT) == "EINVAL"
    assert [path.name for path in directory.iterdir()] == ["f"]


# --- waiting and watching ----------------------------------------------------------------------


def test_poll_and_select_say_ready(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLOUT)
    assert poll.poll(0) == [(fd, select.POLLIN | select.POLLOUT)]
    assert select.select([fd], [fd], [], 0) == ([fd], [fd], [])


@on_a_mount
def test_epoll_takes_files(fd: int) -> None:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        assert epoll.poll(0) == [(fd, select.EPOLLIN)]


def test_inotify_tells_of_changes_made_here(directory: Path) -> None:
    watcher = call("inotify_init1", os.O_NONBLOCK)
    in_create, in_delete, in_close_write = 0x100, 0x200, 0x8
    call("inotify_add_watch", watcher, os.fsencode(directory), in_create | in_delete | in_close_write)
    (directory / "f").write_bytes(b"x")
    (directory / "f").unlink()
    seen, at = [], 0
    data = os.read(watcher, 4096)
    while at < len(data):
        _, mask, _, length = struct.unpack_from("iIII", data, at)
        seen.append((mask, data[at + 16 : at + 16 + length].rstrip(b"\0")))
        at += 16 + length
    assert seen == [(in_create, b"f"), (in_close_write, b"f"), (in_delete, b"f")]
    os.close(watcher)


def test_leases_are_the_kernels(directory: Path) -> None:
    (directory / "f").touch()
    reader = os.open(directory / "f", os.O_RDONLY)
    fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    assert fcntl.fcntl(reader, fcntl.F_GETLEASE) == fcntl.F_RDLCK
    fcntl.fcntl(reader, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    os.close(reader)


# --- directories and special files --------------------------------------------------------------


@on_a_mount
def test_directories_have_no_size(directory: Path) -> None:
    (directory / "f").touch()
    assert (directory.stat().st_size, directory.stat().st_blocks) == (0, 0)


def test_fifos_and_sockets_join_processes(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    writer = Child((directory / "fifo").write_bytes, b"through the fifo")
    assert (directory / "fifo").read_bytes() == b"through the fifo"
    assert writer.result() == 0
    here = os.open(".", os.O_RDONLY)
    os.chdir(directory)  # a socket's address is short
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind("socket")
            server.listen()
            client.connect("socket")
            accepted, _ = server.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(10) == b"hello"
    finally:
        os.fchdir(here)
        os.close(here)
    assert stat.S_ISSOCK((directory / "socket").stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_device_files(directory: Path) -> None:
    os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(directory / "big", stat.S_IFBLK | 0o600, os.makedev(259, 1_000_000))
    assert (directory / "big").stat().st_rdev == os.makedev(259, 1_000_000)
    if not os.statvfs(directory).f_flag & os.ST_NODEV:
        (directory / "null").write_bytes(b"swallowed")
        assert (directory / "null").read_bytes() == b""
