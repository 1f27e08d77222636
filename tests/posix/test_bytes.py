"""What files hold: borders of chunks, holes, truncation, reads past the end."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.posix.conftest import OBJFS, Mounted
from tests.posix.port import Posix, code_of, names, opened, read, wait_for_tick, write

KIB = 1024


def around(border: int) -> list[int]:
    """Offsets at and beside a border."""
    return [border - 1, border, border + 1]


def test_writes_across_chunk_borders(posix: Posix) -> None:
    chunk = posix.chunk
    for number, start in enumerate([*around(chunk), *around(2 * chunk)]):
        for length in (1, 2, 100, chunk, chunk + 2, 2 * chunk + 1):
            image = bytearray(b"." * (5 * chunk))
            data = bytes([65 + number]) * length
            image[start : start + length] = data
            write(posix, b"f", b"." * (5 * chunk))
            with opened(posix, b"f") as fd:
                assert posix.pwrite(fd, data, start) == length
                assert posix.pread(fd, length + 4, start - 2) == image[start - 2 : start + length + 2]
            assert read(posix, b"f") == image


@pytest.mark.parametrize("seed", range(3))
def test_random_writes_truncates_and_reads_are_those_of_an_array_of_bytes(posix: Posix, seed: int) -> None:
    dice = random.Random(seed)
    top = 4 * posix.chunk
    offsets = [0, *around(posix.chunk), *around(2 * posix.chunk), *(dice.randrange(top) for _ in range(20))]
    image = bytearray()
    with opened(posix, b"f") as one, opened(posix, b"f") as two:
        for step in range(80):
            fd, start, length = dice.choice((one, two)), dice.choice(offsets), dice.choice(offsets)
            if dice.random() < 0.6:
                data = bytes([step + 1]) * length
                posix.pwrite(fd, data, start)
                if data:
                    image.extend(bytes(max(0, start - len(image))))
                    image[start : start + length] = data
            elif dice.random() < 0.4:
                posix.ftruncate(fd, length)
                del image[length:]
                image.extend(bytes(length - len(image)))
            assert posix.pread(fd, length, start) == image[start : start + length]
            assert posix.fstat(two).size == len(image)
    assert read(posix, b"f") == image


def test_reads_past_the_end_are_short_and_then_empty(posix: Posix) -> None:
    write(posix, b"f", b"0123456789")
    with opened(posix, b"f") as fd:
        assert posix.pread(fd, 100, 8) == b"89"
        assert [posix.pread(fd, 10, offset) for offset in (10, 11, 2**40)] == [b"", b"", b""]
        posix.ftruncate(fd, 5)
        assert posix.pread(fd, 100, 4) == b"4"
        posix.ftruncate(fd, 2 * posix.chunk)
        assert posix.pread(fd, 3 * posix.chunk, 4) == b"4" + bytes(2 * posix.chunk - 5)


def test_truncate_down_and_up_under_open_handles_shows_zeros(posix: Posix) -> None:
    chunk = posix.chunk
    with opened(posix, b"f") as one, opened(posix, b"f") as two:
        posix.pwrite(one, b"x" * (3 * chunk), 0)
        assert posix.pread(two, 10, 2 * chunk) == b"x" * 10
        posix.truncate(b"f", chunk + 7)
        assert [posix.fstat(fd).size for fd in (one, two)] == [chunk + 7] * 2
        assert posix.pread(two, 100, chunk) == b"x" * 7
        posix.ftruncate(two, 3 * chunk)
        assert posix.pread(one, 3 * chunk, 0) == b"x" * (chunk + 7) + bytes(2 * chunk - 7)
        posix.pwrite(one, b"y", 3 * chunk - 1)
        assert posix.pread(two, 2, 3 * chunk - 2) == b"\0y"


def test_o_trunc_under_another_handle(posix: Posix) -> None:
    with opened(posix, b"f") as one:
        posix.pwrite(one, b"x" * 5000, 0)
        with opened(posix, b"f", os.O_WRONLY | os.O_TRUNC):
            assert posix.fstat(one).size == 0
            assert posix.pread(one, 10, 0) == b""
        posix.pwrite(one, b"late", 100)
    assert read(posix, b"f") == bytes(100) + b"late"


def test_o_trunc_of_a_file_that_is_not_empty_sets_its_times(posix: Posix) -> None:
    write(posix, b"f", b"x")
    before = posix.stat(b"f")
    wait_for_tick(posix)
    write(posix, b"f")
    assert posix.stat(b"f").mtime_ns > before.mtime_ns
    assert posix.stat(b"f").ctime_ns > before.ctime_ns


def test_truncate_is_for_files(posix: Posix) -> None:
    posix.mkdir(b"d")
    assert code_of(posix.truncate, b"d", 0) == "EISDIR"
    assert code_of(posix.truncate, b"gone", 0) == "ENOENT"


# --- holes ---------------------------------------------------------------------------------


def test_sparse_files_to_the_largest_size(posix: Posix) -> None:
    end = posix.largest
    with opened(posix, b"f") as fd:
        for offset in (0, 2**30 + 5, 2**40 - 1, end - 3):
            posix.pwrite(fd, b"abc", offset)
            assert posix.pread(fd, 5, max(0, offset - 1))[-4:].strip(b"\0") == b"abc"
        assert posix.fstat(fd).size == end
        assert posix.pread(fd, 100, 2**35) == bytes(100)
        assert posix.pread(fd, 100, end - 5) == b"\0\0abc"
        assert posix.fstat(fd).blocks * 512 <= 4 * max(posix.chunk, 64 * KIB)


def test_blocks_of_a_dense_file_are_its_size(posix: Posix) -> None:
    """Programs take fewer for a sign of holes."""
    write(posix, b"f", b"x" * (3 * posix.chunk + 5))
    with opened(posix, b"f") as fd:
        posix.fsync(fd)
        assert 0 <= posix.fstat(fd).blocks * 512 - posix.fstat(fd).size < 64 * KIB


@pytest.mark.parametrize("posix", OBJFS, indirect=True)
def test_blocks_do_not_count_holes(posix: Posix) -> None:
    with opened(posix, b"f") as fd:
        posix.ftruncate(fd, 1 << 40)
        assert posix.fstat(fd).blocks == 0
        posix.pwrite(fd, b"x" * 4096, 10 * posix.chunk)
        assert posix.fstat(fd).blocks == 8
        posix.pwrite(fd, b"x", 20 * posix.chunk)
        assert posix.fstat(fd).blocks == 9
        posix.ftruncate(fd, 10 * posix.chunk + 512)
        assert posix.fstat(fd).blocks == 1
        posix.ftruncate(fd, 1 << 40)
        assert posix.fstat(fd).blocks == 1


# --- huge ----------------------------------------------------------------------------------


def test_truncating_to_2_to_the_50_and_removing_takes_no_time(posix: Posix) -> None:
    size = min(posix.largest, 2**50)
    begin = time.monotonic()
    for number in range(20):
        with opened(posix, b"%d" % number) as fd:
            posix.ftruncate(fd, size)
            posix.pwrite(fd, b"x", size - 1)
            assert posix.fstat(fd).size == size
            posix.ftruncate(fd, size // 2)
        posix.unlink(b"%d" % number)
    assert time.monotonic() - begin < 10.0
    assert names(posix) == []


@pytest.mark.parametrize("directory", [pytest.param("mount", marks=pytest.mark.mount)], indirect=True)
def test_truncating_to_2_to_the_50_and_removing_takes_no_memory(directory: Path, mounted: Mounted) -> None:
    def resident_kib() -> int:
        lines = Path(f"/proc/{mounted.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def rounds(count: int) -> None:
        for _ in range(count):
            with (directory / "f").open("wb") as file:
                file.truncate(2**50)
                file.truncate(2**49)
            (directory / "f").unlink()

    rounds(10)
    before = resident_kib()
    rounds(100)
    assert resident_kib() - before < 8 * KIB
