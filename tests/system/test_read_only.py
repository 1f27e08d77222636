"""EROFS, and what the kernel remembers where nothing may change: read-only, or the lease lost.

The kernel keeps names, attributes and pages for a day (docs/design/kernel-caching.md), so each test looks at
what it would show wrongly.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.posix.port import code_of
from tests.posix.test_unsupported import DROP_CACHES
from tests.system.harness import Station, have_fuse, urls

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

VOLUME = "vol"
FORGETS_S = 60.0
BEFORE = b"before" * 20_000


class Machines:
    """Machines with one volume; ``writer`` is mounted at ``here``, and everything is in the buckets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.here = root / "here"
        buckets = [root / name for name in "abc"]
        for bucket in buckets:
            bucket.mkdir()
        self.buckets = urls(buckets)
        self.writer = Station(root / "writer")

    def begin(self) -> None:
        self.writer.mkfs(VOLUME, self.buckets)
        self.writer.mount(VOLUME, self.here, "-o", "lease_interval=1")
        (self.here / "d").mkdir()
        (self.here / "d" / "inner").write_bytes(b"inner")
        (self.here / "f").write_bytes(BEFORE)
        (self.here / "link").symlink_to("f")
        self.writer.run("flush", self.here)

    @contextmanager
    def another(self, name: str, *options: str) -> Iterator[Path]:
        """The volume on one more machine."""
        with Station(self.root / f"machine-{name}") as station:
            station.attach(VOLUME, self.buckets)
            station.mount(VOLUME, self.root / name, *options)
            yield self.root / name
            station.umount(self.root / name)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with tempfile.TemporaryDirectory(prefix="objfs-read-only-") as directory:
        made = Machines(Path(directory))
        with made.writer:
            made.begin()
            yield made


def names(top: Path) -> list[str]:
    return sorted(str(path.relative_to(top)) for path in top.rglob("*"))


def forget() -> None:
    """The kernel forgets what it can, where a test may ask for that."""
    if os.access(DROP_CACHES, os.W_OK):
        DROP_CACHES.write_text("3\n")


def changes(top: Path) -> dict[str, Callable[[], object]]:
    """Every call that would change something."""
    file, folder = top / "f", top / "d"
    return {
        "open for writing": lambda: os.open(file, os.O_WRONLY),
        "O_TRUNC": lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        "create": lambda: os.open(top / "new", os.O_CREAT | os.O_WRONLY),
        "truncate": lambda: os.truncate(file, 3),
        "unlink": file.unlink,
        "mkdir": (top / "new").mkdir,
        "rmdir": folder.rmdir,
        "mknod": lambda: os.mknod(top / "new", stat.S_IFIFO | 0o600),
        "symlink": lambda: (top / "new").symlink_to("f"),
        "link": lambda: (top / "new").hardlink_to(file),
        "rename": lambda: file.rename(top / "new"),
        "chmod": lambda: file.chmod(0o600),
        "chown": lambda: os.chown(file, os.getuid(), os.getgid()),
        "utime": lambda: os.utime(file),
        "setxattr": lambda: os.setxattr(file, "user.a", b"1"),
    }


# --- a read-only mount ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(machines: Machines) -> Iterator[Path]:
    with machines.another("reader", "--read-only") as top:
        yield top


@pytest.mark.parametrize("name", changes(Path()))
def test_erofs_on_a_read_only_mount(reader: Path, name: str) -> None:
    before = names(reader), (reader / "f").stat()
    assert code_of(changes(reader)[name]) == "EROFS"
    assert (names(reader), (reader / "f").stat()) == before


def test_a_read_only_mount_reads_and_says_what_it_is(reader: Path) -> None:
    assert (reader / "f").read_bytes() == BEFORE
    assert (reader / "link").read_bytes() == BEFORE
    assert os.statvfs(reader).f_flag & os.ST_RDONLY
    assert not os.access(reader / "f", os.W_OK)
    with (reader / "f").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:6] == b"before"


def test_a_read_only_mount_stays_at_its_moment(machines: Machines, reader: Path) -> None:
    """Whatever the writer does meanwhile, and whether the kernel remembers or asks again."""
    seen = names(reader), (reader / "f").read_bytes()
    attributes = (reader / "f").stat()
    (machines.here / "f").write_bytes(b"after")
    (machines.here / "d" / "inner").unlink()
    (machines.here / "new").mkdir()
    machines.writer.run("flush", machines.here)
    for _ in range(2):
        assert (names(reader), (reader / "f").read_bytes(), (reader / "f").stat()) == (*seen, attributes)
        assert not (reader / "new").exists()
        forget()
    (machines.here / "f").write_bytes(BEFORE)
    (machines.here / "d" / "inner").write_bytes(b"inner")
    (machines.here / "new").rmdir()
    machines.writer.run("flush", machines.here)


# --- a lost lease --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def held(machines: Machines) -> Iterator[int]:
    """``f``, open for writing since before the lease was lost."""
    fd = os.open(machines.here / "f", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture(scope="module")
def lost(machines: Machines, held: int) -> Iterator[Path]:
    """The writer's mount after another machine took the volume."""
    assert os.pread(held, len(BEFORE), 0) == BEFORE  # it is in the page cache
    with machines.another("taker", "--force"):
        wait_until_refused(machines.here)
        yield machines.here


def wait_until_refused(top: Path) -> None:
    """It notices at a renewal of its lease; until then it goes on writing."""
    until = time.monotonic() + FORGETS_S
    with suppress(OSError):
        while time.monotonic() < until:
            os.utime(top / "f")
    assert time.monotonic() < until


@pytest.mark.parametrize("name", changes(Path()))
def test_erofs_after_a_lost_lease(lost: Path, name: str) -> None:
    before = names(lost), (lost / "f").stat()
    assert code_of(changes(lost)[name]) == "EROFS"
    for _ in range(2):
        assert (names(lost), (lost / "f").stat()) == before
        forget()


def test_after_a_lost_lease_what_is_local_is_still_read(lost: Path) -> None:
    for _ in range(2):
        assert (lost / "f").read_bytes() == BEFORE
        assert (lost / "d" / "inner").read_bytes() == b"inner"
        forget()


def test_a_write_that_a_lost_lease_refuses_is_not_in_the_page_cache(held: int, lost: Path) -> None:
    """Write-through: what write(2) refused nobody reads, not even through the pages it had filled."""
    for offset in (0, 5000, len(BEFORE) - 3, len(BEFORE)):
        assert code_of(os.pwrite, held, b"refused" * 1000, offset) == "EROFS"
        assert os.fstat(held).st_size == len(BEFORE)
        assert os.pread(held, len(BEFORE) + 1, 0) == BEFORE
        assert (lost / "f").read_bytes() == BEFORE
    assert code_of(os.ftruncate, held, 10) == "EROFS"
    assert os.pread(held, len(BEFORE) + 1, 0) == BEFORE


def test_a_mapped_change_that_a_lost_lease_refuses_is_told_by_msync(held: int, lost: Path) -> None:
    """As on a disk that fails: the page shows it until it is dropped, and msync said that it is not kept."""
    with mmap.mmap(held, 0) as mapped:
        mapped[:7] = b"refused"
        with pytest.raises(OSError) as caught:  # noqa: PT011  # either says so
            mapped.flush()
    assert caught.value.errno in (errno.EIO, errno.EROFS)
    os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(held, len(BEFORE) + 1, 0) == BEFORE
