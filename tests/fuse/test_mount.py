"""What programs see through a real mount of the adapter."""

from __future__ import annotations

import errno
import mmap
import multiprocessing
import os
import resource
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuse.conftest import Mounted, mount
from tests.fuse.mounted import SOURCE
from tests.fuse.people import NOBODY, as_nobody, is_root

pytestmark = pytest.mark.mount


def rename2(old: Path, new: Path, flags: int) -> None:
    """renameat2(2) through the C library, in a child, as ``os`` has no name for it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def test_proc_mounts_shows_source_type_and_options(shared: Mounted) -> None:
    line = next(line for line in Path("/proc/mounts").read_text().splitlines() if str(shared.path) in line)
    source, _, kind, options, *_ = line.split(" ")
    assert source.replace("\\040", " ").replace("\\134", "\\") == SOURCE
    assert kind == "fuse.objfs"
    assert {"rw", "default_permissions", "allow_other"} <= set(options.split(","))
    assert "nosuid" not in options
    assert "nodev" not in options


def test_create_write_read_stat(root: Path) -> None:
    path = root / "file"
    path.write_bytes(b"hello")
    assert path.read_bytes() == b"hello"
    found = path.stat()
    assert (found.st_size, found.st_nlink, found.st_blocks, found.st_blksize) == (5, 1, 1, 65536)
    assert stat.S_ISREG(found.st_mode)


def test_listing_with_dots_and_lookups(root: Path) -> None:
    names = {f"{number:03d}" for number in range(300)}
    for name in names:
        (root / name).touch()
    assert set(os.listdir(root)) == names
    out = subprocess.run(["ls", "-1ai", str(root)], check=True, capture_output=True, text=True).stdout
    listed = {name: number for number, name in (line.split(None, 1) for line in out.splitlines())}
    assert set(listed) == names | {".", ".."}
    assert listed["."] == str(root.stat().st_ino)
    assert listed[".."] == str(root.parent.stat().st_ino)


def test_remove_while_listing(root: Path) -> None:
    for number in range(500):
        (root / f"{number}").touch()
    removed = 0
    with os.scandir(root) as entries:
        for entry in entries:
            Path(entry.path).unlink()
            removed += 1
    assert removed == 500
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"with space", b"new\nline", b"-", b"a" * 255, "ä€😀".encode(), b"back\\slash"]
)
def test_odd_names(root: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(root), name)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    assert os.listdir(os.fsencode(root)) == [name]
    os.unlink(path)


def test_too_long_a_name(root: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        (root / ("a" * 256)).touch()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_links_of_both_kinds(root: Path) -> None:
    path = root / "a"
    path.write_text("x")
    (root / "b").hardlink_to(path)
    (root / "c").symlink_to("a")
    assert path.stat().st_nlink == 2
    assert (root / "b").stat().st_ino == path.stat().st_ino
    assert (root / "c").readlink() == Path("a")
    assert (root / "c").read_text() == "x"
    path.unlink()
    assert (root / "b").stat().st_nlink == 1
    assert not (root / "c").exists()


@is_root
def test_special_files(root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert stat.S_ISFIFO((root / "fifo").stat().st_mode)
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    (root / "null").write_bytes(b"swallowed")
    assert (root / "null").read_bytes() == b""


def test_rename_and_its_flags(root: Path) -> None:
    one, two = root / "1", root / "2"
    one.write_text("one")
    two.write_text("two")
    with pytest.raises(FileExistsError):
        rename2(one, two, 1)
    rename2(one, two, 2)
    assert (one.read_text(), two.read_text()) == ("two", "one")
    with pytest.raises(OSError, match="Invalid") as caught:
        rename2(one, two, 4)
    assert caught.value.errno == errno.EINVAL
    one.rename(two)
    assert [path.name for path in root.iterdir()] == ["2"]
    with pytest.raises(OSError, match="Invalid"):
        root.rename(root / "inside")


def test_errors_have_their_numbers(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d" / "f").touch()
    with pytest.raises(OSError, match="not empty"):
        (root / "d").rmdir()
    with pytest.raises(NotADirectoryError):
        (root / "d" / "f" / "x").touch()
    with pytest.raises(IsADirectoryError):
        (root / "d").unlink()
    with pytest.raises(FileNotFoundError):
        (root / "gone").stat()


def test_a_name_that_did_not_exist_appears(root: Path) -> None:
    """Absence is remembered by the kernel, and forgotten when the name is made."""
    for _ in range(2):
        assert not (root / "f").exists()
    (root / "f").touch()
    assert (root / "f").exists()
    (root / "f").rename(root / "g")
    assert not (root / "f").exists()
    assert (root / "g").exists()


def test_xattrs(root: Path) -> None:
    path = root / "f"
    path.touch()
    os.setxattr(path, "user.a", b"1")
    os.setxattr(path, "user.b", b"x" * 60000)
    assert sorted(os.listxattr(path)) == ["user.a", "user.b"]
    assert os.getxattr(path, "user.b") == b"x" * 60000
    with pytest.raises(FileExistsError):
        os.setxattr(path, "user.a", b"2", os.XATTR_CREATE)
    os.setxattr(path, "user.a", b"2", os.XATTR_REPLACE)
    os.removexattr(path, "user.b")
    assert os.listxattr(path) == ["user.a"]
    with pytest.raises(OSError, match="No data"):
        os.getxattr(path, "user.b")


def test_megabyte_writes_and_cold_reads(root: Path) -> None:
    data = os.urandom(5 << 20)
    fd = os.open(root / "big", os.O_CREAT | os.O_RDWR)
    try:
        for start in range(0, len(data), 1 << 20):
            assert os.write(fd, data[start : start + (1 << 20)]) == 1 << 20
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, len(data), 0) == data
    finally:
        os.close(fd)


def test_sparse_files_and_truncation(root: Path) -> None:
    path = root / "sparse"
    with path.open("wb") as file:
        file.seek(1 << 40)
        file.write(b"end")
    assert path.stat().st_size == (1 << 40) + 3
    assert path.stat().st_blocks == 1
    os.truncate(path, 1 << 20)
    os.truncate(path, (1 << 20) + 5)
    with path.open("rb") as file:
        file.seek((1 << 20) - 3)
        assert file.read() == bytes(8)
    with path.open("wb"):
        pass
    assert path.stat().st_size == 0


def test_append_from_two_handles(root: Path) -> None:
    with (root / "log").open("ab", buffering=0) as one, (root / "log").open("ab", buffering=0) as two:
        for number in range(50):
            (one if number % 2 else two).write(b"%03d\n" % number)
    assert (root / "log").read_bytes() == b"".join(b"%03d\n" % number for number in range(50))


def test_shared_mmap(root: Path) -> None:
    path = root / "map"
    path.write_bytes(bytes(200_000))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[100_000:100_005] = b"hello"
        mapped.flush()
        assert os.pread(file.fileno(), 5, 100_000) == b"hello"
    assert path.read_bytes()[100_000:100_005] == b"hello"


def test_unlinked_while_open(root: Path) -> None:
    with (root / "f").open("w+b") as file:
        file.write(b"still ")
        file.flush()
        (root / "f").unlink()
        file.write(b"here")
        file.flush()
        assert os.pread(file.fileno(), 100, 0) == b"still here"
        assert os.fstat(file.fileno()).st_nlink == 0
        os.fchmod(file.fileno(), 0o600)
    assert os.listdir(root) == []


def test_unlinked_working_directory(root: Path) -> None:
    script = 'mkdir d && cd d && rmdir ../d && ls -a && touch x; echo "status $?"'
    out = subprocess.run(["sh", "-c", script], cwd=root, check=True, capture_output=True, text=True)
    assert out.stdout.strip().endswith("status 1")


def test_times_to_the_nanosecond(root: Path) -> None:
    path = root / "f"
    path.touch()
    for times in ((1, 2), (-5, 1_234_567_890_123_456_789), (10**18 + 1, -1)):
        os.utime(path, ns=times)
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == times
    before = path.stat()
    os.chmod(path, 0o600)
    assert path.stat().st_ctime_ns > before.st_ctime_ns


def test_fsync_of_files_and_directories(root: Path) -> None:
    for path, flags in ((root / "f", os.O_CREAT | os.O_WRONLY | os.O_DSYNC), (root, os.O_RDONLY)):
        fd = os.open(path, flags)
        os.fsync(fd)
        os.fdatasync(fd)
        os.close(fd)


def test_statvfs(root: Path) -> None:
    found = os.statvfs(root)
    assert found.f_blocks * found.f_frsize == 1 << 40
    assert found.f_namemax == 255
    assert found.f_files > found.f_ffree > 0


def test_locks_are_the_kernels(root: Path) -> None:
    import fcntl

    with (root / "f").open("w") as one, (root / "f").open("w") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_reader_after_direct_writes_sees_them(root: Path) -> None:
    path = root / "direct"
    path.write_bytes(b"a" * 65536)
    path.read_bytes()
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        page[:] = b"b" * 4096
        os.pwrite(fd, page, 8192)
    os.close(fd)
    assert path.read_bytes() == b"a" * 8192 + b"b" * 4096 + b"a" * (65536 - 12288)


# --- as somebody else ----------------------------------------------------------------------


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def empty(path: Path) -> None:
    with path.open("wb"):
        pass


@is_root
@pytest.mark.parametrize(
    "change", [append, empty, lambda path: os.truncate(path, 5)], ids=["write", "O_TRUNC", "truncate"]
)
def test_set_id_bits_fall_when_others_write(root: Path, change: Callable[[Path], object]) -> None:
    path = root / "program"
    path.write_bytes(b"0123456789")
    path.chmod(0o6777)
    assert as_nobody(change, path) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


@is_root
def test_set_id_bits_fall_with_a_change_of_owner(root: Path) -> None:
    path = root / "program"
    path.touch()
    path.chmod(0o6755)
    os.chown(path, NOBODY, NOBODY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert path.stat().st_uid == NOBODY


@is_root
def test_permissions_are_checked(root: Path) -> None:
    (root / "mine").mkdir(mode=0o700)
    (root / "file").touch(mode=0o600)
    assert as_nobody(os.listdir, root / "mine") == errno.EACCES
    assert as_nobody(append, root / "file") == errno.EACCES
    assert as_nobody((root / "theirs").touch) == 0
    assert (root / "theirs").stat().st_uid == NOBODY
    root.chmod(0o1777)
    assert as_nobody((root / "file").unlink) == errno.EPERM


@is_root
def test_a_setgid_directory_gives_its_group(root: Path) -> None:
    shared = root / "shared"
    shared.mkdir()
    os.chown(shared, 0, 1234)
    shared.chmod(0o2777)
    assert as_nobody((shared / "f").touch) == 0
    assert as_nobody((shared / "d").mkdir) == 0
    assert (shared / "f").stat().st_gid == (shared / "d").stat().st_gid == 1234
    assert (shared / "d").stat().st_mode & stat.S_ISGID


# --- many at once --------------------------------------------------------------------------


def hammer(root: Path, who: int) -> None:
    for round_ in range(40):
        mine = root / f"{who}-{round_}"
        mine.write_bytes(b"%d" % who * 5000)
        mine.rename(root / f"shared-{round_ % 3}")
        for path in root.iterdir():
            try:
                content = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            assert len(set(content)) <= 1
        (root / f"d{who}").mkdir()
        (root / f"d{who}").rmdir()
    (root / f"done-{who}").touch()


def test_eight_processes_in_one_directory(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=hammer, args=(root, who)) for who in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    names = {path.name for path in root.iterdir()}
    assert names == {f"done-{who}" for who in range(8)} | {f"shared-{number}" for number in range(3)}


# --- mounts of their own -------------------------------------------------------------------


def test_a_mount_leaves_nothing_that_was_deleted(tmp_path: Path) -> None:
    with mount(tmp_path / "mnt") as mounted:
        for number in range(20):
            (mounted.path / f"{number}").write_bytes(b"x" * 100_000)
        held = (mounted.path / "held").open("wb")
        held.write(b"x" * 100_000)
        for path in list(mounted.path.iterdir()):
            path.unlink()
        held.close()
        assert mounted.unmount() == "inodes=1 versions=0\n"


def test_a_read_only_mount(tmp_path: Path) -> None:
    with mount(tmp_path / "mnt", "ro") as mounted:
        with pytest.raises(OSError, match="Read-only") as caught:
            (mounted.path / "f").touch()
        assert caught.value.errno == errno.EROFS
        assert os.listdir(mounted.path) == []


def test_without_xattrs_the_kernel_stops_asking(tmp_path: Path) -> None:
    with mount(tmp_path / "mnt", "noxattr") as mounted:
        (mounted.path / "f").touch()
        with pytest.raises(OSError, match="not supported") as caught:
            os.setxattr(mounted.path / "f", "user.a", b"")
        assert caught.value.errno == errno.EOPNOTSUPP


def test_a_mount_of_a_subdirectory_is_a_root(tmp_path: Path) -> None:
    with mount(tmp_path / "mnt", "subdir") as mounted:
        (mounted.path / "d").mkdir()
        (mounted.path / "d" / "f").touch()
        assert mounted.path.stat().st_ino == 1
        assert os.listdir(mounted.path) == ["d"]
        (mounted.path / "d").rename(mounted.path / "e")
        assert (mounted.path / "e" / ".." / "e" / "f").exists()
        assert (mounted.path / "..").samefile(tmp_path)


def test_the_server_raises_its_file_limit(shared: Mounted) -> None:
    soft, hard = resource.prlimit(shared.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


def test_a_mount_point_that_is_a_file_is_refused(tmp_path: Path) -> None:
    from objfs.errors import MountPointUnusable
    from objfs.fs import FsSettings
    from objfs.fuse import Operations, Session, fuse_options
    from tests.fs.memory import World

    (tmp_path / "file").touch()
    session = Session(Operations(World(FsSettings(4096)).fs), tmp_path / "file", fuse_options("x"))
    with pytest.raises(MountPointUnusable, match="not a directory"):
        session.mount()
