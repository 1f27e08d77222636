"""Rows of named moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import NoSuchSnapshot, SnapshotExists
from objfs.meta import MetaDatabase
from tests.meta.support import make


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table
        assert table.check() == []


def test_a_snapshot_names_the_generation_that_it_ends(table: MetaDatabase) -> None:
    first = table.create_snapshot(b"a", 5, "before the move")
    second = table.create_snapshot(b"b", -7)
    assert (first.generation, second.generation) == (1, 2)
    assert table.snapshots() == [first, second]
    assert table.snapshot(b"b").created_ns == -7
    assert table.statistics().generation == 3


def test_a_name_is_given_once(table: MetaDatabase) -> None:
    table.create_snapshot(b"a", 5)
    with pytest.raises(SnapshotExists, match="snapshot a already"):
        table.create_snapshot(b"a", 6)
    assert [one.created_ns for one in table.snapshots()] == [5]
    assert table.statistics().generation == 2


def test_a_name_that_is_not_there(table: MetaDatabase) -> None:
    with pytest.raises(NoSuchSnapshot):
        table.snapshot(b"a")
    with pytest.raises(NoSuchSnapshot):
        table.drop_snapshot(b"a")
    kept = table.create_snapshot(b"a", 5)
    assert table.drop_snapshot(b"a") == kept
    assert table.snapshots() == []
