"""Rows of named moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from objfs.errors import NoSuchSnapshot, SnapshotExists
from objfs.meta import MetaDatabase, schema
from objfs.model import ROOT, AttrChange, Ino, SnapshotFlag
from tests.meta.contract import mkfile, store, write
from tests.meta.support import BOOT, make, snapshot


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
    assert table.newest_snapshot() is None


def test_a_snapshot_says_how_much_the_volume_held(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    write(table, ino)
    assert (table.create_snapshot(b"a", 5).inodes, table.snapshot(b"a").content_bytes) == table.count()


def test_it_is_held_and_released(table: MetaDatabase) -> None:
    table.create_snapshot(b"a", 5)
    assert table.mark_snapshot(b"a", SnapshotFlag.HELD).held
    assert table.snapshots()[0].held
    assert not table.mark_snapshot(b"a", 0).held
    with pytest.raises(NoSuchSnapshot):
        table.mark_snapshot(b"b", 0)


# --- rows that no snapshot shows ---------------------------------------------------------------

Rows = set[tuple[object, ...]]
NAMES = [b"a", b"b", b"c"]
STEPS = st.one_of(
    st.tuples(st.just("take"), st.integers(0, 5)),
    st.tuples(st.just("drop"), st.integers(0, 5)),
    st.tuples(st.just("clear"), st.integers(1, 5)),
    st.tuples(st.just("reopen"), st.just(0)),
    st.tuples(st.sampled_from(["write", "create", "unlink", "chmod", "mark", "truncate"]), st.integers(0, 2)),
)


def rows(table: MetaDatabase, name: str) -> list[tuple[object, ...]]:
    return table._db.all(f"SELECT * FROM {name}")


def tree_at(table: MetaDatabase, generation: int) -> dict[str, Rows]:
    """Every versioned row as a snapshot shows it."""
    found: dict[str, Rows] = {}
    for one in schema.VERSIONED:
        width = len(one.key) + len(one.columns)
        found[one.name] = {row[:width] for row in rows(table, one.name) if row[width] <= generation}  # type: ignore[operator]
        for row in rows(table, f"{one.name}_old"):
            born, died = row[width:]
            if born <= generation < died:  # type: ignore[operator]
                assert row[:width] not in found[one.name]
                found[one.name].add(row[:width])
    return found


class History:
    """A table, and what each of its snapshots must show."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = make(path)
        self.shown: dict[bytes, dict[str, Rows]] = {}
        self.now = 10

    def step(self, kind: str, number: int) -> None:
        self.now += 1
        match kind:
            case "take":
                name = b"s%d" % number
                if name not in self.shown:
                    generation = self.table.create_snapshot(name, self.now).generation
                    self.shown[name] = tree_at(self.table, generation)
            case "drop":
                if self.shown.pop(b"s%d" % number, None) is not None:
                    self.table.drop_snapshot(b"s%d" % number)
            case "clear":
                self.table.clear_forgotten(number)
            case "reopen":
                self.table.close()
                self.table = MetaDatabase.open(self.path, boot_id=BOOT)
            case _:
                self._change(kind, NAMES[number])

    def _change(self, kind: str, name: bytes) -> None:
        table = self.table
        there = {entry.name: entry.attr.ino for entry in table.readdir(ROOT, 0, 10)}
        if kind == "create" or name not in there:
            if name not in there:
                mkfile(table, ROOT, name)
            return
        ino = Ino(there[name])
        if kind == "write":
            store(table, write(table, ino, self.now % 3))
        elif kind == "chmod":
            table.set_attr(ino, AttrChange(mode=self.now % 512))
        elif kind == "mark":
            table.set_xattr(ino, b"user.a", b"%d" % self.now, 0, self.now)
        elif kind == "truncate":
            table.truncate(ino, 0, self.now, 10)
        else:
            table.unlink(ROOT, name, self.now)
            table.purge(ino, 10)

    def check(self) -> None:
        for one in self.table.snapshots():
            assert tree_at(self.table, one.generation) == self.shown[one.name]
        assert self.table.check() == []

    def check_nothing_is_left(self) -> None:
        """Every row of a twin is shown by some snapshot, every version is named by something."""
        kept = [one.generation for one in self.table.snapshots()]
        for one in schema.VERSIONED:
            for row in rows(self.table, f"{one.name}_old"):
                born, died = row[-2:]
                assert any(born <= generation < died for generation in kept)  # type: ignore[operator]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=40))
def test_snapshots_never_change_and_nothing_outlives_them(steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as directory:
        history = History(Path(directory) / "meta.db")
        for kind, number in steps:
            history.step(kind, number)
        history.check()
        while not history.table.clear_forgotten(3):
            pass
        history.check()
        history.check_nothing_is_left()
        history.table.close()


def test_what_changes_after_the_last_snapshot_is_gone_is_not_kept(table: MetaDatabase) -> None:
    """Nobody would remove it: no snapshot that could go shows it."""
    ino = mkfile(table, ROOT, b"f")
    write(table, ino)
    snapshot(table)
    table.drop_snapshot(b"g1")
    assert table.clear_forgotten(10)
    table.set_attr(ino, AttrChange(mode=0o600))
    table.unlink(ROOT, b"f", 3)
    table.purge(ino, 10)
    assert all(rows(table, f"{one.name}_old") == [] for one in schema.VERSIONED)


def test_deleting_the_last_reference_frees(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    chunk = write(table, ino)
    store(table, chunk)
    snapshot(table)
    table.unlink(ROOT, b"f", 3)
    table.purge(ino, 10)
    assert table.segments_without_chunks(10) == []
    table.drop_snapshot(b"g1")
    assert table.chunk(chunk.chunk) is not None, "removing comes later, piece by piece"
    while not table.clear_forgotten(1):
        pass
    assert table.chunk(chunk.chunk) is None
    assert len(table.segments_without_chunks(10)) == 1


def test_ten_thousand_snapshots_go_in_small_pieces(tmp_path: Path) -> None:
    """No piece looks at more than it removes: the time of each is bounded, not only its rows."""
    with make(tmp_path / "meta.db") as table:
        ino = mkfile(table, ROOT, b"f")
        with table.transaction():
            for number in range(10_000):
                table.create_snapshot(b"%d" % number, number)
                table.set_attr(ino, AttrChange(mode=number % 512))
        with table.transaction():
            for number in range(10_000):
                if number % 200:
                    table.drop_snapshot(b"%d" % number)
        pieces = 1
        while not table.clear_forgotten(256):
            pieces += 1
        assert pieces < 12_000
        assert len(rows(table, "inode_old")) == 50
        assert len(table.snapshots()) == 50
