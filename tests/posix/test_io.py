"""Flags of open, mapped memory, and several processes at one file."""

from __future__ import annotations

import errno
import faulthandler
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.posix.children import Child, run_as
from tests.posix.conftest import CHUNK_SIZE

PAGE = mmap.PAGESIZE


@contextmanager
def descriptor(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


# --- O_APPEND ------------------------------------------------------------------------------


def append_records(path: Path, who: int, count: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in range(count):
        body = b"%d:%04d:" % (who, number)
        os.write(fd, body + b"%c" % (97 + who) * (37 * (number % 9)) + b"\n")


def test_o_append_from_several_processes_loses_nothing_and_mixes_nothing(directory: Path) -> None:
    path = directory / "log"
    path.touch()
    children = [Child(append_records, path, who, 150) for who in range(4)]
    assert [child.result() for child in children] == [0] * 4
    seen: dict[int, list[int]] = {who: [] for who in range(4)}
    for line in path.read_bytes().splitlines():
        who, number, filler = line.split(b":")
        assert filler == b"%c" % (97 + int(who)) * (37 * (int(number) % 9))
        seen[int(who)].append(int(number))
    assert seen == {who: list(range(150)) for who in range(4)}


def test_o_append_writes_at_the_end_wherever_the_offset_is(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"0123456789")
    with descriptor(path, os.O_RDWR | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.write(fd, b"ab") == 2
        assert os.lseek(fd, 0, os.SEEK_CUR) == 12
        assert os.pwrite(fd, b"cd", 3) == 2, "Linux appends here too"
        os.ftruncate(fd, 5)
        os.write(fd, b"ef")
    assert path.read_bytes() == b"01234ef"


# --- O_TRUNC, O_SYNC, O_DIRECT ---------------------------------------------------------------


def test_o_trunc_with_o_rdonly_and_o_excl(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"content")
    with descriptor(path, os.O_RDWR | os.O_TRUNC | os.O_CREAT) as fd:
        assert os.fstat(fd).st_size == 0
    with pytest.raises(FileExistsError):
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_WRONLY)


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC], ids=["O_SYNC", "O_DSYNC"])
def test_synchronous_writes_are_whole_and_in_order(directory: Path, flag: int) -> None:
    path = directory / "f"
    data = os.urandom(3 * CHUNK_SIZE + 100)
    with descriptor(path, os.O_CREAT | os.O_RDWR | flag) as fd:
        for start in range(0, len(data), 50_000):
            os.write(fd, data[start : start + 50_000])
            assert os.fstat(fd).st_size == min(len(data), start + 50_000)
        os.pwrite(fd, b"!" * 10, CHUNK_SIZE - 5)
        os.fsync(fd)
        os.fdatasync(fd)
    assert path.read_bytes() == data[: CHUNK_SIZE - 5] + b"!" * 10 + data[CHUNK_SIZE + 5 :]


def test_fsync_of_a_directory_and_of_a_reader(directory: Path) -> None:
    (directory / "f").write_bytes(b"content")
    for path in (directory, directory / "f"):
        with descriptor(path, os.O_RDONLY) as fd:
            os.fsync(fd)
            os.fdatasync(fd)


def aligned(data: bytes) -> mmap.mmap:
    """Memory that O_DIRECT takes everywhere."""
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def test_o_direct_and_buffered_access_see_each_other(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"a" * 4 * PAGE)
    with (
        descriptor(path, os.O_RDWR | os.O_DIRECT) as direct,
        descriptor(path, os.O_RDWR) as buffered,
        aligned(b"b" * PAGE) as memory,
    ):
        assert os.pread(buffered, 4 * PAGE, 0) == b"a" * 4 * PAGE
        assert os.pwrite(direct, memory, PAGE) == PAGE
        assert os.pread(buffered, 4 * PAGE, 0) == b"a" * PAGE + b"b" * PAGE + b"a" * 2 * PAGE
        os.pwrite(buffered, b"c" * 10, 0)
        assert os.preadv(direct, [memory], 0) == PAGE
        assert memory[:20] == b"c" * 10 + b"a" * 10
        assert os.preadv(direct, [memory], 4 * PAGE) == 0
    with descriptor(path, os.O_RDONLY) as later:
        assert os.pread(later, 20, PAGE - 10) == b"a" * 10 + b"b" * 10


def test_o_direct_across_chunks_and_to_the_end(directory: Path) -> None:
    path = directory / "f"
    data = os.urandom(2 * CHUNK_SIZE)
    with (
        descriptor(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT) as fd,
        aligned(data) as memory,
        aligned(bytes(4 * CHUNK_SIZE)) as room,
    ):
        assert os.pwrite(fd, memory, PAGE) == len(data)
        assert os.preadv(fd, [room], 0) == PAGE + len(data)
        assert room[: PAGE + len(data)] == bytes(PAGE) + data
    assert path.read_bytes() == bytes(PAGE) + data


# --- mapped memory -------------------------------------------------------------------------


def poke(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[at : at + len(data)] = data


def test_mmap_shared_is_seen_by_other_processes_and_by_read(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(bytes(3 * CHUNK_SIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert run_as(None, poke, path, CHUNK_SIZE - 2, b"child") == 0
        assert mapped[CHUNK_SIZE - 2 : CHUNK_SIZE + 3] == b"child"
        mapped[:6] = b"parent"
        assert os.pread(file.fileno(), 6, 0) == b"parent"
        os.pwrite(file.fileno(), b"WRITE", 2 * CHUNK_SIZE)
        assert mapped[2 * CHUNK_SIZE : 2 * CHUNK_SIZE + 5] == b"WRITE"


def test_mmap_shared_and_msync_reach_who_reads_past_the_page_cache(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(bytes(2 * CHUNK_SIZE))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        before = path.stat().st_mtime_ns
        mapped[CHUNK_SIZE : CHUNK_SIZE + 5] = b"hello"
        mapped.flush()
        with descriptor(path, os.O_RDONLY | os.O_DIRECT) as direct, aligned(bytes(PAGE)) as room:
            os.preadv(direct, [room], CHUNK_SIZE)
            assert room[:5] == b"hello"
        assert path.stat().st_mtime_ns >= before
    assert path.stat().st_size == 2 * CHUNK_SIZE


def test_mmap_private_changes_nothing(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"a" * 2 * PAGE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:5] = b"mine!"
        mapped.flush()
        assert mapped[:5] == b"mine!"
        os.truncate(path, PAGE)
    assert path.read_bytes() == b"a" * PAGE


def test_mmap_of_a_hole_makes_data_of_it(directory: Path) -> None:
    path = directory / "f"
    with path.open("w+b") as file:
        file.truncate(10 * CHUNK_SIZE)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[5 * CHUNK_SIZE] = 120
    data = path.read_bytes()
    assert data == bytes(5 * CHUNK_SIZE) + b"x" + bytes(5 * CHUNK_SIZE - 1)


def test_mmap_beyond_the_end_is_sigbus(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"x" * 10)

    def attempt() -> None:
        faulthandler.disable()
        os.truncate(path, 2 * PAGE)
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 2 * PAGE) as mapped:
            os.truncate(path, 5)
            assert mapped[3:8] == b"xx\0\0\0"
            mapped[PAGE]

    assert run_as(None, attempt) == -signal.SIGBUS


def test_mmap_shared_keeps_zeros_beyond_the_end(directory: Path) -> None:
    """What is written into the last page behind the end is no part of the file, also when it grows."""
    path = directory / "f"
    path.write_bytes(b"x" * 10)
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 10) as mapped:
            mapped.flush()
        os.truncate(path, 5)
        os.truncate(path, 20)
    assert path.read_bytes() == b"xxxxx" + bytes(15)


# --- several processes -----------------------------------------------------------------------


def write_stripes(path: Path, who: int) -> None:
    fd = os.open(path, os.O_WRONLY)
    for number in range(who, 256, 4):
        os.pwrite(fd, bytes([who + 1]) * 1000, number * 1000)


def test_several_processes_write_their_own_ranges(directory: Path) -> None:
    path = directory / "f"
    path.touch()
    children = [Child(write_stripes, path, who) for who in range(4)]
    assert [child.result() for child in children] == [0] * 4
    assert path.read_bytes() == b"".join(bytes([number % 4 + 1]) * 1000 for number in range(256))


def test_a_read_only_handle_is_not_for_writing_and_the_other_way_round(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"content")
    with descriptor(path, os.O_RDONLY) as reads, descriptor(path, os.O_WRONLY) as writes:
        with pytest.raises(OSError, match="Bad file") as caught:
            os.write(reads, b"x")
        assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match="Bad file"):
            os.read(writes, 1)
        with pytest.raises(OSError, match="Invalid"):
            os.ftruncate(reads, 0)
        os.pwrite(writes, b"C", 0)
    assert path.read_bytes() == b"Content"
