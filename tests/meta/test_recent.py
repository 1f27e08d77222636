"""What is remembered is never from before a change, and writing bytes forgets only what it must."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from objfs.errors import NoAttribute
from objfs.meta import MetaDatabase
from objfs.model import ROOT, DirtyRange, Ino
from tests.meta.contract import mkfile, write
from tests.meta.support import CHUNK, make

CAPABILITY = b"security.capability"


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table


def statements(table: MetaDatabase) -> list[str]:
    """Of all that SQLite is asked from now on."""
    asked: list[str] = []
    table._db.connection.set_trace_callback(asked.append)
    return asked


def look(table: MetaDatabase, ino: Ino) -> None:
    """What the kernel and the file system ask before each write."""
    table.chunk_at(ino, 0)
    with pytest.raises(NoAttribute):
        table.get_xattr(ino, CAPABILITY)


def overwrite(table: MetaDatabase, ino: Ino) -> None:
    chunk = table.chunk_at(ino, 0)
    assert chunk is not None
    table.record_write(ino, CHUNK, 1, [DirtyRange(chunk.chunk, 0, 5, 1)])


def test_one_write_after_another_asks_for_nothing_that_the_first_did_not_change(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    write(table, ino)
    look(table, ino)
    asked = statements(table)
    overwrite(table, ino)
    look(table, ino)
    assert [one for one in asked if one.startswith("SELECT")] == []


def test_a_version_begun_in_the_same_transaction_is_seen(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    first = write(table, ino)
    look(table, ino)
    with table.transaction():
        second = table.begin_chunk(ino, 0, first.chunk, CHUNK)
        table.record_write(ino, CHUNK, 1, [DirtyRange(second.chunk, 0, 5, 1)])
    assert table.chunk_at(ino, 0) == second


def test_an_attribute_set_in_the_same_transaction_is_seen(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    write(table, ino)
    look(table, ino)
    with table.transaction():
        table.set_xattr(ino, CAPABILITY, b"some", 0, 1)
        overwrite(table, ino)
    assert table.get_xattr(ino, CAPABILITY) == b"some"


def test_a_write_that_is_rolled_back_leaves_no_answer_of_its_transaction(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    first = write(table, ino)
    before = table.chunk_at(ino, 0)
    with suppress(ZeroDivisionError), table.transaction():
        second = table.begin_chunk(ino, 0, first.chunk, CHUNK)
        table.chunk_at(ino, 0)
        table.record_write(ino, CHUNK, 1, [DirtyRange(second.chunk, 0, 5, 1)])
        raise ZeroDivisionError
    assert table.chunk_at(ino, 0) == before
