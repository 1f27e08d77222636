"""The double of a disk keeps what it must, loses what it may, and sees everything that is done to it."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doubles.disk import Tree, certain, cut_power, kept
from tests.doubles.journal import Journal, Written
from tests.doubles.recorder import Recorder

BLOCK = 4096
MANY = 200
"""Power cuts, of which each possible kind of loss is one with near certainty."""


def content(tree: Tree, path: str) -> bytes | None:
    """Of a file by its path; None where there is none."""
    number = dict(tree.walk()).get(path)
    return bytes(tree.content[number]) if number is not None else None


def every_cut(journal: Journal, path: str) -> set[bytes | None]:
    """What is found at a path after many power cuts."""
    return {content(cut_power(journal.records, random.Random(seed)), path) for seed in range(MANY)}


def durable_file(journal: Journal, path: str, data: bytes) -> int:
    number = journal.make(path)
    journal.write(number, 0, data)
    journal.end_sync(journal.begin_sync(number))
    journal.end_sync(journal.begin_sync(0))
    return number


# --- what may be lost ------------------------------------------------------------------------


def test_what_was_synced_is_kept() -> None:
    journal = Journal()
    durable_file(journal, "f", b"kept")
    assert every_cut(journal, "f") == {b"kept"}


def test_a_write_after_the_sync_began_may_be_lost() -> None:
    journal = Journal()
    number = durable_file(journal, "f", b"old")
    sync = journal.begin_sync(number)
    journal.write(number, 0, b"new")
    journal.end_sync(sync)
    assert every_cut(journal, "f") == {b"old", b"new"}


def test_a_sync_that_never_returned_promises_nothing() -> None:
    journal = Journal()
    number = durable_file(journal, "f", b"old")
    journal.write(number, 0, b"new")
    journal.begin_sync(number)
    assert every_cut(journal, "f") == {b"old", b"new"}


def test_a_large_write_is_torn_into_blocks_in_any_order() -> None:
    journal = Journal()
    number = durable_file(journal, "f", bytes(2 * BLOCK))
    journal.write(number, 100, b"n" * (2 * BLOCK - 100))
    states = {tuple(bool(found[at]) for at in (100, BLOCK)) for found in every_cut(journal, "f") if found}
    assert states == {(False, False), (False, True), (True, False), (True, True)}


def test_a_file_may_grow_without_its_bytes() -> None:
    journal = Journal()
    number = durable_file(journal, "f", b"old")
    journal.write(number, 3, b"new")
    assert every_cut(journal, "f") >= {b"old", b"oldnew", b"old\0\0\0"}


def test_a_name_and_its_file_know_nothing_of_each_other() -> None:
    journal = Journal()
    number = journal.make("f")
    journal.write(number, 0, b"bytes")
    journal.end_sync(journal.begin_sync(number))
    assert every_cut(journal, "f") == {None, b"bytes"}
    unsynced = Journal()
    unsynced.write(unsynced.make("f"), 0, b"bytes")
    unsynced.end_sync(unsynced.begin_sync(0))
    assert every_cut(unsynced, "f") >= {b"", b"bytes"}


def test_a_rename_is_one_change() -> None:
    journal = Journal()
    durable_file(journal, "f", b"old")
    durable_file(journal, "f.new", b"new")
    journal.rename("f.new", "f")
    found = {
        (content(tree, "f"), content(tree, "f.new"))
        for tree in (cut_power(journal.records, random.Random(seed)) for seed in range(MANY))
    }
    assert found == {(b"old", b"new"), (b"new", None)}


def test_what_is_in_a_directory_that_was_lost_is_lost() -> None:
    journal = Journal()
    directory = journal.make("d", is_directory=True)
    number = journal.make("d/f")
    journal.write(number, 0, b"bytes")
    for synced in (number, directory):
        journal.end_sync(journal.begin_sync(synced))
    assert every_cut(journal, "d/f") == {None, b"bytes"}


def test_certain_is_what_no_power_cut_takes() -> None:
    journal = Journal()
    number = durable_file(journal, "f", b"old")
    journal.write(number, 0, b"new")
    journal.make("g")
    tree = certain(journal.records)
    assert (content(tree, "f"), content(tree, "g")) == (b"old", None)


def test_a_journal_of_a_tree_makes_it_again() -> None:
    journal = Journal()
    journal.make("d", is_directory=True)
    durable_file(journal, "d/f", b"bytes")
    journal.link("d/f", "g")
    again = kept(Journal(kept(journal.records).records()).records)
    assert [path for path, _ in again.walk()] == ["d", "d/f", "g"]
    assert content(again, "d/f") == content(again, "g") == b"bytes"


# --- what is seen ----------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Recorder:
    (tmp_path / "disk").mkdir()
    return Recorder(tmp_path / "disk", Journal())


def with_descriptors(root: Path) -> None:
    first, second = (os.open(root / name, os.O_RDWR | os.O_CREAT) for name in ("a", "b"))
    os.pwrite(first, b"0123456789", 5)
    os.write(second, b"one")
    os.write(second, b"two")
    os.ftruncate(first, 8)
    os.fsync(first)
    os.close(first)
    os.close(second)
    os.truncate(root / "b", 4)
    os.link(root / "b", root / "c")


def with_streams(root: Path) -> None:
    (root / "text").write_text("first\n")
    (root / "text").write_text("second\n")
    with (root / "text").open("a") as stream:
        stream.write("third\n")
    with (root / "bytes").open("wb") as stream:
        stream.write(bytes(100_000))
        stream.seek(10)
        stream.write(b"x")
    with (root / "bytes").open("r+b") as stream:
        stream.seek(5)
        stream.write(b"y")
        stream.truncate(50)
    descriptor, name = tempfile.mkstemp(dir=root)
    with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor has no path
        stream.write(b"z")
    Path(name).rename(root / "renamed")


def with_directories(root: Path) -> None:
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "e" / "f").write_bytes(b"f")
    (root / "d").rename(root / "moved")
    (root / "gone" / "deep").mkdir(parents=True)
    (root / "gone" / "deep" / "f").touch()
    shutil.rmtree(root / "gone")
    (root / "other").write_bytes(b"o")
    (root / "other").replace(root / "moved" / "e" / "f")


def with_sqlite(root: Path) -> None:
    connection = sqlite3.connect(root / "t.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)", "PRAGMA wal_autocheckpoint = 0"):
        connection.execute(statement)
    for number in range(50):
        connection.execute("INSERT INTO t VALUES (?)", (b"x" * 100 * number,))
        if number % 20 == 0:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize("work", [with_descriptors, with_streams, with_directories, with_sqlite])
def test_nothing_that_is_done_is_missed(disk: Recorder, tmp_path: Path, work: Callable[[Path], None]) -> None:
    with disk.installed():
        work(tmp_path / "disk")
    assert disk.journal.records
    assert disk.missed() == []


def test_what_is_done_in_a_way_that_is_not_recorded_is_missed(disk: Recorder, tmp_path: Path) -> None:
    with disk.installed():
        (tmp_path / "disk" / "f").write_bytes(b"recorded")
    (tmp_path / "disk" / "f").write_bytes(b"not seen")
    assert disk.missed() == ["f"]


def test_a_commit_of_sqlite_is_durable_as_its_settings_say(disk: Recorder, tmp_path: Path) -> None:
    """FULL syncs the log with each commit, NORMAL does not: the difference is seen."""
    with disk.installed():
        connection = sqlite3.connect(tmp_path / "disk" / "t.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("INSERT INTO t VALUES (2)")
        before_the_end = len(disk.journal.records)
        connection.close()
    (tmp_path / "after").mkdir()
    certain(disk.journal.records[:before_the_end]).write_out(tmp_path / "after")
    after = sqlite3.connect(tmp_path / "after" / "t.db")
    assert after.execute("SELECT x FROM t").fetchall() == [(1,)]
    after.close()


def test_each_record_is_told_as_it_is_made(disk: Recorder, tmp_path: Path) -> None:
    """Who wants to end the process there has to be called before the next thing is done."""
    seen: list[tuple[str, bytes]] = []
    journal = disk.journal
    journal.on_record = lambda record, _journal: (
        seen.append((journal.path_of(record.number), (tmp_path / "disk" / "f").read_bytes()))
        if isinstance(record, Written)
        else None
    )
    with disk.installed(), (tmp_path / "disk" / "f").open("wb", buffering=0) as stream:
        stream.write(b"one")
        stream.write(b"two")
    assert seen == [("f", b"one"), ("f", b"onetwo")]
