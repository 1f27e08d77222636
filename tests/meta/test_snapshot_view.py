"""The tree of a named moment: what it was, whatever happens afterwards, and found by indices."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from objfs.errors import NoAttribute, NotDirectory, NotFound, PosixError, ReadOnly, StaleHandle
from objfs.meta import MetaDatabase, SnapshotTable, snapshot_view
from objfs.model import (
    ROOT,
    Attr,
    AttrChange,
    DirtyRange,
    Ino,
    NewInode,
    RenameFlag,
    Snapshot,
)
from objfs.ports import ChunkTable, InodeTable
from tests.meta.contract import Table, mkdir, mkfile, store, write
from tests.meta.support import CHUNK, directory, make, regular, symlink

Image = dict[tuple[bytes, ...], tuple[object, ...]]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table
        assert table.check() == []


def image(table: InodeTable, chunks: ChunkTable) -> Image:
    """All that can be asked of a tree, by path; access times but for those that follow the content."""
    found: Image = {}

    def walk(path: tuple[bytes, ...], attr: Attr, cookie: int) -> None:
        assert table.get(attr.ino) == attr
        names = table.list_xattr(attr.ino)
        versions = [(one.index, one.chunk) for one in chunks.chunks_between(attr.ino, 0, 2**50, 10**6)]
        assert versions == [
            (index, at.chunk) for index in range(8) if (at := chunks.chunk_at(attr.ino, index)) is not None
        ]
        values = tuple((name, table.get_xattr(attr.ino, name)) for name in names)
        found[path] = (attr._replace(atime_ns=attr.mtime_ns), cookie, values, tuple(versions))
        for entry in listed(table, attr.ino) if attr.is_dir else ():
            assert table.lookup(attr.ino, entry[0]) == entry[2]
            walk((*path, entry[0]), entry[2], entry[1])

    walk((), table.get(ROOT), 0)
    return found


def listed(table: InodeTable, ino: Ino) -> list[tuple[bytes, int, Attr]]:
    """A listing in pages of two."""
    entries: list[tuple[bytes, int, Attr]] = []
    while page := table.readdir(ino, entries[-1][1] if entries else 0, 2):
        entries += page
    return entries


NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
NUMBERS = st.integers(0, 7)


class History(RuleBasedStateMachine):
    """Changes of all kinds between moments; each moment is remembered by walking the live tree."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="objfs-history-")
        self.table = make(Path(self.directory.name) / "meta.db")
        self.kept: dict[bytes, tuple[SnapshotTable, Image]] = {}
        self.clock = 100

    def teardown(self) -> None:
        findings = self.table.check()
        self.table.close()
        self.directory.cleanup()
        assert findings == []

    def now(self) -> int:
        self.clock += 1
        return self.clock

    def pick(self, number: int, *, folder: bool) -> Ino:
        """One of the inodes with a name."""
        found: list[Ino] = [ROOT] if folder else []
        pending = [ROOT]
        while pending:
            for entry in self.table.readdir(pending.pop(), 0, 100):
                if entry.attr.is_dir:
                    pending.append(entry.attr.ino)
                if entry.attr.is_dir == folder:
                    found.append(entry.attr.ino)
        return found[number % len(found)] if found else ROOT

    def attempt(self, change: Callable[[], object]) -> None:
        try:
            change()
        except PosixError:
            return

    @rule(where=NUMBERS, name=NAMES, kind=st.sampled_from([directory, regular, regular]))
    def make(self, where: int, name: bytes, kind: Callable[[int], NewInode]) -> None:
        self.attempt(lambda: self.table.create(self.pick(where, folder=True), name, kind(self.now())))

    @rule(where=NUMBERS, name=NAMES)
    def symlink(self, where: int, name: bytes) -> None:
        new = symlink(b"to %d" % self.now())
        self.attempt(lambda: self.table.create(self.pick(where, folder=True), name, new))

    @rule(file=NUMBERS, where=NUMBERS, name=NAMES)
    def link(self, file: int, where: int, name: bytes) -> None:
        parent = self.pick(where, folder=True)
        self.attempt(lambda: self.table.link(self.pick(file, folder=False), parent, name, self.now()))

    @rule(where=NUMBERS, name=NAMES, purge=st.booleans())
    def remove(self, where: int, name: bytes, purge: bool) -> None:
        parent = self.pick(where, folder=True)
        self.attempt(lambda: self.table.unlink(parent, name, self.now()))
        self.attempt(lambda: self.table.rmdir(parent, name, self.now()))
        for ino in self.table.orphans(10) if purge else ():
            while not self.table.purge(ino, 1):
                pass

    @rule(where=NUMBERS, name=NAMES, to=NUMBERS, new=NAMES, flag=st.sampled_from(RenameFlag))
    def rename(self, where: int, name: bytes, to: int, new: bytes, flag: RenameFlag) -> None:
        parent, new_parent = self.pick(where, folder=True), self.pick(to, folder=True)
        self.attempt(lambda: self.table.rename(parent, name, new_parent, new, flag, self.now()))

    @rule(file=NUMBERS, index=NUMBERS, stored=st.booleans())
    def write(self, file: int, index: int, stored: bool) -> None:
        ino = self.pick(file, folder=False)
        if not self.table.get(ino).is_regular:
            return
        old = self.table.chunk_at(ino, index)
        if old is None:
            chunk = write(self.table, ino, index)
        else:
            chunk = self.table.begin_chunk(ino, index, old.chunk, CHUNK)
        if stored:
            store(self.table, chunk)

    @rule(file=NUMBERS, size=st.integers(0, 8))
    def truncate(self, file: int, size: int) -> None:
        ino = self.pick(file, folder=False)
        if self.table.get(ino).is_regular:
            while not self.table.truncate(ino, size * CHUNK, self.now(), 1):
                pass

    @rule(file=NUMBERS, folder=st.booleans(), uid=st.integers(0, 9))
    def change(self, file: int, folder: bool, uid: int) -> None:
        when = self.now()
        change = AttrChange(mode=0o600 + uid, uid=uid, atime_ns=when + 5, mtime_ns=when)
        self.table.set_attr(self.pick(file, folder=folder), change)

    @rule(file=NUMBERS, folder=st.booleans(), name=NAMES, gone=st.booleans())
    def attribute(self, file: int, folder: bool, name: bytes, gone: bool) -> None:
        ino = self.pick(file, folder=folder)
        if gone:
            self.attempt(lambda: self.table.remove_xattr(ino, name, self.now()))
        else:
            self.table.set_xattr(ino, name, b"%d" % self.now(), 0, self.clock)

    @rule()
    def name_the_moment(self) -> None:
        name = b"s%d" % self.now()
        before = image(self.table, self.table)
        self.kept[name] = (self.table.at(self.table.create_snapshot(name, self.clock)), before)

    @rule(number=NUMBERS)
    def forget_a_moment(self, number: int) -> None:
        if len(self.kept) > 1:
            name = list(self.kept)[number % len(self.kept)]
            gone, _ = self.kept.pop(name)
            self.table.drop_snapshot(name)
            with pytest.raises(StaleHandle):
                gone.get(ROOT)

    @invariant()
    def every_moment_is_what_it_was(self) -> None:
        for moment, before in self.kept.values():
            assert image(moment, moment) == before


TestHistory = History.TestCase
TestHistory.settings = settings(max_examples=40, stateful_step_count=30)


# --- single promises -----------------------------------------------------------------------


def at(table: MetaDatabase, name: bytes = b"s") -> SnapshotTable:
    return table.at(table.create_snapshot(name, 7))


def test_what_came_later_is_not_there(table: MetaDatabase) -> None:
    old = mkfile(table, ROOT, b"old")
    moment = at(table)
    new = mkfile(table, ROOT, b"new")
    table.unlink(ROOT, b"old", 9)
    assert table.purge(old, 10)
    with pytest.raises(NotFound):
        moment.lookup(ROOT, b"new")
    with pytest.raises(StaleHandle):
        moment.get(new)
    with pytest.raises(StaleHandle):
        moment.list_xattr(new)
    assert [entry.name for entry in moment.readdir(ROOT, 0, 10)] == [b"old"]
    assert moment.get(old).nlink == 1


def test_an_orphan_of_the_moment_has_no_name_and_no_links(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    table.unlink(ROOT, b"f", 9)
    moment = at(table)
    assert moment.readdir(ROOT, 0, 10) == []
    assert moment.get(ino).nlink == 0
    assert moment.orphans(10) == []


def test_the_access_time_is_that_of_the_last_change_of_content(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f", now=5)
    table.set_attr(ino, AttrChange(atime_ns=50, mtime_ns=20))
    moment = at(table)
    table.set_atimes([(ino, 60)])
    assert moment.get(ino).atime_ns == moment.lookup(ROOT, b"f").atime_ns == 20
    assert table.get(ino).atime_ns == 60


def test_a_truncate_that_goes_on_takes_nothing_from_a_moment(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    chunks = [write(table, ino, index).chunk for index in range(4)]
    moment = at(table)
    assert not table.truncate(ino, 0, 9, 1)
    assert table.chunks_between(ino, 0, 9, 9) == []
    assert [one.chunk for one in moment.chunks_between(ino, 0, 9, 9)] == chunks
    assert [one.chunk for one in moment.chunks_between(ino, 1, 2, 9)] == chunks[1:3]
    assert [one.chunk for one in moment.chunks_between(ino, 0, 9, 2)] == chunks[:2]
    while not table.purge(ino, 1):
        pass
    assert [one.chunk for one in moment.chunks_between(ino, 0, 9, 9)] == chunks


def test_where_the_bytes_lie_is_said_as_it_is_now(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    chunk = write(table, ino)
    moment = at(table)
    table.begin_chunk(ino, 0, chunk.chunk, CHUNK)
    before = moment.chunk_at(ino, 0)
    assert before is not None
    assert before.location is None
    store(table, chunk)
    after = moment.chunk_at(ino, 0)
    assert after is not None
    assert after.location is not None
    assert moment.segment(after.location.segment) == table.segment(after.location.segment)


def test_errors_are_those_of_the_live_table(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    moment = at(table)
    with pytest.raises(NotDirectory):
        moment.lookup(ino, b"x")
    with pytest.raises(NotDirectory):
        moment.readdir(ino, 0, 1)
    with pytest.raises(NoAttribute):
        moment.get_xattr(ino, b"user.x")
    assert moment.count() == table.count()


def test_nothing_can_be_changed(table: MetaDatabase) -> None:
    moment: Table = at(table)
    with pytest.raises(ReadOnly):
        mkdir(moment, ROOT, b"d")
    with pytest.raises(ReadOnly):
        moment.set_atimes([(ROOT, 1)])
    with pytest.raises(ReadOnly), moment.transaction():
        moment.begin_chunk(ROOT, 0, None, 0)


def test_a_moment_of_the_same_name_is_another_one(table: MetaDatabase) -> None:
    first = at(table)
    table.drop_snapshot(b"s")
    second = at(table)
    with pytest.raises(StaleHandle, match="snapshot s was deleted"):
        first.readdir(ROOT, 0, 1)
    assert second.get(ROOT).ino == ROOT


# --- cost ----------------------------------------------------------------------------------


@pytest.mark.parametrize("query", snapshot_view.QUERIES)
def test_every_query_searches_by_an_index(table: MetaDatabase, query: str) -> None:
    wanted = max((int(number) for number in re.findall(r"\?(\d)", query)), default=2)
    plan = table._db.all(f"EXPLAIN QUERY PLAN {query}", (1,) * wanted)
    scans = [row[3] for row in plan if row[3].startswith("SCAN")]
    made_here = ("SCAN place", "SCAN k", "SCAN e", "SCAN CONSTANT ROW")
    assert [scan for scan in scans if scan not in made_here] == [], plan
    assert not [row[3] for row in plan if "AUTOMATIC" in row[3]], plan


def instructions(connection: sqlite3.Connection, ask: Callable[[], object]) -> int:
    """How many steps of SQLite's machine it takes to ask."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 1)
    ask()
    connection.set_progress_handler(None, 0)
    return steps


def test_a_moment_is_read_at_the_same_cost_among_many(table: MetaDatabase) -> None:
    """Everything changes after each moment; the oldest and the newest of many cost what one of few does."""
    ino = mkfile(table, ROOT, b"f")
    moments: list[Snapshot] = []

    def one_more() -> None:
        for index in range(4):
            old = table.chunk_at(ino, index)
            new = table.begin_chunk(
                ino, index, None if old is None else old.chunk, 0 if old is None else CHUNK
            )
            if old is None:
                table.record_write(ino, 4 * CHUNK, 1, [DirtyRange(new.chunk, 0, CHUNK, 7, grown=CHUNK)])
            store(table, new)
        table.set_xattr(ino, b"user.x", b"%d" % len(moments), 0, len(moments))
        other = mkfile(table, ROOT, b"g%d" % len(moments))
        table.rename(ROOT, b"g%d" % len(moments), ROOT, b"f", RenameFlag.EXCHANGE, len(moments))
        table.rename(ROOT, b"g%d" % len(moments), ROOT, b"f", RenameFlag.EXCHANGE, len(moments))
        table.unlink(ROOT, b"g%d" % len(moments), len(moments))
        assert table.purge(other, 9)
        moments.append(table.create_snapshot(b"%d" % len(moments), 1))

    def cost(snapshot: Snapshot) -> list[int]:
        moment = table.at(snapshot)
        moment.get(ROOT)
        asks: list[Callable[[], object]] = [
            lambda: moment.get(ino),
            lambda: moment.lookup(ROOT, b"f"),
            lambda: moment.get_xattr(ino, b"user.x"),
            lambda: moment.chunk_at(ino, 2),
            lambda: moment.chunks_between(ino, 0, 3, 4),
        ]
        return [instructions(table._db.connection, ask) for ask in asks]

    for _ in range(3):
        one_more()
    few = cost(moments[0])
    for _ in range(200):
        one_more()
    for moment in (moments[0], moments[100], moments[199]):
        assert all(now <= before + 8 for now, before in zip(cost(moment), few, strict=True))
