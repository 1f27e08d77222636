"""Locks between processes: flock, fcntl, lockf, open file descriptions; and SQLite, which needs them."""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.posix.children import Child, run_as

FLOCK = "hhqqi"
"""``struct flock`` of 64-bit Linux: type, whence, start, length, pid."""


@pytest.fixture
def path(directory: Path) -> Path:
    (directory / "f").write_bytes(b"x" * 100)
    return directory / "f"


@contextmanager
def descriptor(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def whole(path: Path, how: int) -> None:
    """flock of a descriptor of its own."""
    with descriptor(path) as fd:
        fcntl.flock(fd, how | fcntl.LOCK_NB)


def part(path: Path, how: int, start: int = 0, length: int = 0) -> None:
    """A record lock of a descriptor of its own."""
    with descriptor(path) as fd:
        fcntl.lockf(fd, how | fcntl.LOCK_NB, length, start)


def own_description(
    fd: int, kind: int, start: int = 0, length: int = 0, command: int = fcntl.F_OFD_SETLK
) -> int:
    """A lock of an open file description; returns the kind that the kernel answers."""
    answer = fcntl.fcntl(fd, command, struct.pack(FLOCK, kind, os.SEEK_SET, start, length, 0))
    return int(struct.unpack(FLOCK, answer)[0])


def free(path: Path, ask: Callable[..., None], *arguments: int) -> bool:
    """Whether another process gets the lock."""
    code = run_as(None, ask, path, *arguments)
    assert code in (0, errno.EAGAIN, errno.EACCES)
    return code == 0


# --- flock ---------------------------------------------------------------------------------


def test_flock_between_processes(path: Path) -> None:
    with descriptor(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH)
        assert free(path, whole, fcntl.LOCK_SH)
        assert not free(path, whole, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert not free(path, whole, fcntl.LOCK_SH)
        fcntl.flock(fd, fcntl.LOCK_UN)
        assert free(path, whole, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_EX)
    assert free(path, whole, fcntl.LOCK_EX), "the last close lets go"


def test_flock_belongs_to_the_description_and_not_to_the_descriptor(path: Path) -> None:
    with descriptor(path) as fd:
        again = os.dup(fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.close(again)
        assert not free(path, whole, fcntl.LOCK_EX)
        with descriptor(path) as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_flock_of_a_process_that_ends_is_gone(path: Path) -> None:
    def take() -> None:
        fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)

    assert run_as(None, take) == 0
    assert free(path, whole, fcntl.LOCK_EX)


def test_a_waiter_gets_the_lock_when_it_is_let_go(path: Path) -> None:
    ready, told = os.pipe()

    def wait(lock: Callable[[int, int], None]) -> None:
        fd = os.open(path, os.O_RDWR)
        os.write(told, b"!")
        lock(fd, fcntl.LOCK_EX)
        os.pwrite(fd, b"mine", 0)

    for lock in (fcntl.flock, fcntl.lockf):
        path.write_bytes(b"held")
        with descriptor(path) as fd:
            lock(fd, fcntl.LOCK_EX)
            other = Child(wait, lock)
            assert os.read(ready, 1) == b"!"
            assert os.pread(fd, 4, 0) == b"held"
            lock(fd, fcntl.LOCK_UN)
            assert other.result() == 0
        assert path.read_bytes() == b"mine"
    os.close(ready)
    os.close(told)


# --- records -------------------------------------------------------------------------------


def test_fcntl_locks_ranges_between_processes(path: Path) -> None:
    with descriptor(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
        fcntl.lockf(fd, fcntl.LOCK_SH, 10, 50)
        assert free(path, part, fcntl.LOCK_EX, 0, 20)
        assert not free(path, part, fcntl.LOCK_SH, 29, 1)
        assert free(path, part, fcntl.LOCK_SH, 50, 10)
        assert not free(path, part, fcntl.LOCK_EX, 59, 100)
        assert free(path, part, fcntl.LOCK_EX, 60, 0)
        fcntl.lockf(fd, fcntl.LOCK_UN, 5, 20)
        assert free(path, part, fcntl.LOCK_EX, 20, 5)
        assert not free(path, part, fcntl.LOCK_EX, 25, 5)


def test_fcntl_locks_reach_to_2_to_the_62(path: Path) -> None:
    with descriptor(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 2**62 - 1)
        assert not free(path, part, fcntl.LOCK_EX, 2**62 - 1, 1)
        assert free(path, part, fcntl.LOCK_EX, 0, 2**62 - 1)


def test_fcntl_tells_who_holds_a_lock(path: Path) -> None:
    holder = os.getpid()

    def ask() -> None:
        with descriptor(path) as fd:
            question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, start, length, pid = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, question))
            assert (kind, start, length, pid) == (fcntl.F_WRLCK, 20, 10, holder)

    with descriptor(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 20)
        assert run_as(None, ask) == 0


def test_fcntl_locks_fall_when_the_process_closes_any_descriptor_of_the_file(path: Path) -> None:
    """As POSIX has it."""
    with descriptor(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX)
        with descriptor(path):
            assert not free(path, part, fcntl.LOCK_EX)
        assert free(path, part, fcntl.LOCK_EX)


def test_fcntl_finds_a_deadlock(path: Path) -> None:
    ready, told = os.pipe()

    def cross() -> None:
        with descriptor(path) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
            os.write(told, b"!")
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)

    with descriptor(path) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 1, 0)
        other = Child(cross)
        assert os.read(ready, 1) == b"!"
        codes = set()
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, 1)
        except OSError as error:
            codes.add(error.errno)
        fcntl.lockf(fd, fcntl.LOCK_UN)
        codes.add(other.result())
    assert codes == {0, errno.EDEADLK} or codes == {errno.EDEADLK}
    os.close(ready)
    os.close(told)


def test_locks_need_the_right_kind_of_descriptor(path: Path) -> None:
    with descriptor(path, os.O_RDONLY) as fd:
        fcntl.lockf(fd, fcntl.LOCK_SH)
        with pytest.raises(OSError, match="Bad file"):
            fcntl.lockf(fd, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_EX)


def test_ofd_locks_are_between_descriptions_also_in_one_process(path: Path) -> None:
    with descriptor(path) as one, descriptor(path) as two:
        own_description(one, fcntl.F_WRLCK, 10, 10)
        assert own_description(two, fcntl.F_WRLCK, 10, 1, fcntl.F_OFD_GETLK) == fcntl.F_WRLCK
        with pytest.raises(BlockingIOError):
            own_description(two, fcntl.F_RDLCK, 0, 15)
        own_description(two, fcntl.F_WRLCK, 20, 10)
        with descriptor(path):
            pass
        assert not free(path, part, fcntl.LOCK_SH, 10, 10), "closing another descriptor lets nothing go"
        assert not free(path, part, fcntl.LOCK_SH, 25, 1)
        own_description(one, fcntl.F_UNLCK)
        assert free(path, part, fcntl.LOCK_EX, 10, 10)


def test_the_kinds_of_locks_do_not_mix(path: Path) -> None:
    with descriptor(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        assert free(path, part, fcntl.LOCK_EX)


# --- SQLite --------------------------------------------------------------------------------


def insert(path: Path, who: int, count: int) -> None:
    with closing(sqlite3.connect(path, timeout=60.0, isolation_level=None)) as connection:
        for number in range(count):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO t VALUES (?, ?, ?)", (who, number, bytes(500)))
            connection.execute("COMMIT")


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_sqlite_with_several_writers(directory: Path, mode: str) -> None:
    path = directory / "data.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(f"PRAGMA journal_mode = {mode}").fetchone() == (mode,)
        connection.execute("CREATE TABLE t (who, number, filler)")
        children = [Child(insert, path, who, 15) for who in range(3)]
        assert [child.result() for child in children] == [0] * 3
        counts = connection.execute("SELECT who, count(*), max(number) FROM t GROUP BY who").fetchall()
        assert counts == [(who, 15, 14) for who in range(3)]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.execute("DELETE FROM t")
        connection.execute("VACUUM")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
