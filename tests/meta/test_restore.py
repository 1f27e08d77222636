"""The present becomes what a moment was."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.errors import InvalidArgument, NotFound
from objfs.meta import MetaDatabase
from objfs.meta.diff import ChangeKind, Difference
from objfs.meta.restore import Plan, Restored
from objfs.model import ROOT, AttrChange, RenameFlag, Snapshot
from tests.meta.contract import mkdir, mkfile, store, write
from tests.meta.moments import HISTORY, Image, Step, image, lived
from tests.meta.support import CHUNK, make

ADDED, REMOVED = ChangeKind.ADDED, ChangeKind.REMOVED

EXAMPLES = settings(max_examples=60, deadline=None)


@EXAMPLES
@given(HISTORY, st.integers(0, 10))
def test_a_restore_gives_the_tree_of_the_moment_and_can_be_undone(
    history: list[list[Step]], which: int
) -> None:
    with TemporaryDirectory() as place, make(Path(place) / "meta.db") as table:
        moments = lived(table, history)
        moment, then = moments[which % len(moments)]
        before = image(table)
        undo = table.create_snapshot(b"undo", 0)
        table.restore(table.plan_restore(moment, ROOT, b"/"), 5)
        assert image(table) == then
        assert table.check() == []
        table.restore(table.plan_restore(undo, ROOT, b""), 6)
        assert image(table) == before
        assert table.check() == []


@EXAMPLES
@given(HISTORY, st.integers(0, 10), st.integers(0, 50))
def test_a_path_is_restored_and_what_is_beside_it_stays(
    history: list[list[Step]], which: int, path: int
) -> None:
    with TemporaryDirectory() as place, make(Path(place) / "meta.db") as table:
        moments = lived(table, history)
        moment, then = moments[which % len(moments)]
        before, top = image(table), sorted(then)[path % len(then)]
        undo = table.create_snapshot(b"undo", 0)
        try:
            table.restore(table.plan_restore(moment, ROOT, top), 5)
        except (NotFound, InvalidArgument):
            assert image(table) == before
            return
        after, wanted = image(table), below(then, top)
        assert {path: thing.shown for path, thing in below(after, top).items()} == {
            path: thing.shown for path, thing in wanted.items()
        }
        assert beside(after, top) == beside(before, top, {thing.attr.ino for thing in wanted.values()})
        assert table.check() == []
        table.restore(table.plan_restore(undo, ROOT, b""), 6)
        assert image(table) == before
        assert table.check() == []


def below(tree: Image, top: bytes) -> Image:
    above = top.rstrip(b"/") + b"/"
    return {path: thing for path, thing in tree.items() if path == top or path.startswith(above)}


def beside(tree: Image, top: bytes, moved_back: Collection[int] = ()) -> dict[bytes, int]:
    """Inodes of the paths that are not restored, without directories that are moved back."""
    kept = {path: thing for path, thing in tree.items() if path not in below(tree, top)}
    back = [p for p, thing in kept.items() if thing.attr.is_dir and thing.attr.ino in moved_back]
    inside = {path for top in back for path in below(tree, top)}
    return {path: thing.attr.ino for path, thing in kept.items() if path not in inside}


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table
        assert table.check() == []


def restore(table: MetaDatabase, snapshot: Snapshot, path: bytes = b"/") -> Restored:
    return table.restore(table.plan_restore(snapshot, ROOT, path), 99)


def test_what_a_restore_says_it_did(table: MetaDatabase) -> None:
    kept, gone = mkfile(table, ROOT, b"kept"), mkfile(table, ROOT, b"gone")
    moment = table.create_snapshot(b"m", 1)
    new = mkfile(table, ROOT, b"new")
    table.unlink(ROOT, b"gone", 5)
    assert table.purge(gone, 10)
    done = restore(table, moment)
    assert done.rewritten == (ROOT, gone)
    assert done.lost == (new,)
    assert sorted(done.names) == [(ROOT, b"gone"), (ROOT, b"new")]
    assert table.orphans(10) == [new]
    assert table.get(kept).nlink == table.get(gone).nlink == 1
    assert table.count()[0] == 4, "the lost one is counted until it is purged"


def test_names_that_come_back_are_listed_after_those_that_stayed(table: MetaDatabase) -> None:
    """A listing that goes on meets every name once, and offsets are never given twice."""
    for name in (b"1", b"2", b"3"):
        mkfile(table, ROOT, name)
    moment = table.create_snapshot(b"m", 1)
    table.unlink(ROOT, b"1", 5)
    mkfile(table, ROOT, b"4")
    highest = table.readdir(ROOT, 0, 10)[-1].cookie
    restore(table, moment)
    assert [entry.name for entry in table.readdir(ROOT, 0, 10)] == [b"2", b"3", b"1"]
    assert table.readdir(ROOT, 0, 10)[-1].cookie > highest
    mkfile(table, ROOT, b"5")
    assert len({entry.cookie for entry in table.readdir(ROOT, 0, 10)}) == 4


def test_chunk_versions_come_back_with_their_bytes_counted(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    first = write(table, ino)
    store(table, first)
    moment = table.create_snapshot(b"m", 1)
    store(table, write(table, ino, 1))
    table.truncate(ino, 0, 30, 10)
    assert table.count()[1] == 0
    restore(table, moment)
    assert table.chunk_at(ino, 0) == table.chunk(first.chunk)
    assert table.chunk_at(ino, 1) is None
    assert table.count()[1] == CHUNK == table.get(ino).size


def test_an_orphan_that_somebody_holds_gets_its_name_back(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    moment = table.create_snapshot(b"m", 1)
    table.unlink(ROOT, b"f", 5)
    restore(table, moment)
    assert table.orphans(10) == []
    assert table.lookup(ROOT, b"f").ino == ino


def test_a_file_with_a_name_elsewhere_is_restored_under_both(table: MetaDatabase) -> None:
    inside = mkdir(table, ROOT, b"d")
    ino = mkfile(table, inside, b"f")
    moment = table.create_snapshot(b"m", 1)
    table.link(ino, ROOT, b"outside", 5)
    table.set_attr(ino, AttrChange(mode=0o600))
    table.unlink(inside, b"f", 6)
    restore(table, moment, b"/d")
    assert table.lookup(ROOT, b"outside") == table.lookup(inside, b"f")
    assert (table.get(ino).nlink, table.get(ino).mode & 0o777) == (2, 0o644)


def test_a_directory_that_was_moved_out_is_moved_back(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    moved = mkdir(table, top, b"moved")
    moment = table.create_snapshot(b"m", 1)
    table.rename(top, b"moved", ROOT, b"elsewhere", RenameFlag.REPLACE, 5)
    mkfile(table, moved, b"new")
    restore(table, moment, b"/top")
    assert list(image(table)) == [b"/", b"/top", b"/top/moved"]
    assert table.get(ROOT).nlink == 3


def test_what_was_made_in_a_directory_that_was_moved_out_goes_as_a_whole(table: MetaDatabase) -> None:
    """Also what lies deeper: else rows stay that no name leads to."""
    top = mkdir(table, ROOT, b"top")
    moved = mkdir(table, top, b"moved")
    moment = table.create_snapshot(b"m", 1)
    table.rename(top, b"moved", ROOT, b"elsewhere", RenameFlag.REPLACE, 5)
    new = mkdir(table, moved, b"new")
    below = mkfile(table, mkdir(table, new, b"deeper"), b"f")
    restore(table, moment, b"/top")
    assert list(image(table)) == [b"/", b"/top", b"/top/moved"]
    assert below in table.orphans(10)
    assert table.check() == []


def test_a_path_whose_directory_came_to_lie_in_what_is_moved_back_cannot_be_restored(
    table: MetaDatabase,
) -> None:
    """However deep: it would be moved into itself."""
    deep = mkdir(table, mkdir(table, ROOT, b"a"), b"deep")
    inner = mkdir(table, mkdir(table, deep, b"top"), b"inner")
    moment = table.create_snapshot(b"m", 1)
    table.rename(table.lookup(deep, b"top").ino, b"inner", ROOT, b"new", RenameFlag.REPLACE, 5)
    table.rename(ROOT, b"a", inner, b"a", RenameFlag.REPLACE, 5)
    table.rename(inner, b"a", inner, b"between", RenameFlag.REPLACE, 5)
    table.rename(ROOT, b"new", ROOT, b"a", RenameFlag.REPLACE, 5)
    table.rename(inner, b"between", inner, b"deep", RenameFlag.REPLACE, 5)
    before = image(table)
    with pytest.raises(InvalidArgument, match="lay below it"):
        restore(table, moment, b"/a/deep/top")
    assert image(table) == before


def test_a_path_that_cannot_be_restored(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    inner = mkdir(table, top, b"inner")
    moment = table.create_snapshot(b"m", 1)
    with pytest.raises(NotFound, match="/top/new is not in snapshot m"):
        table.plan_restore(moment, ROOT, b"/top/new")
    table.rename(top, b"inner", ROOT, b"x", RenameFlag.REPLACE, 5)
    table.rename(ROOT, b"top", inner, b"top", RenameFlag.REPLACE, 5)
    with pytest.raises(NotFound, match="/top is no directory now"):
        table.plan_restore(moment, ROOT, b"/top/inner")
    table.rename(ROOT, b"x", ROOT, b"top", RenameFlag.REPLACE, 5)
    before = image(table)
    with pytest.raises(InvalidArgument, match="lay below it"):
        table.restore(Plan(moment.generation, inner, b"top", top), 9)
    assert image(table) == before


def test_a_directory_that_was_purged_is_compared_rightly_afterwards(table: MetaDatabase) -> None:
    """Its next offset goes on from the highest that a moment knows: what came is found by it."""
    top = mkdir(table, ROOT, b"top")
    mkfile(table, top, b"f")
    first = table.create_snapshot(b"1", 1)
    table.unlink(top, b"f", 5)
    for number in range(5):
        mkfile(table, top, b"%d" % number)
    second = table.create_snapshot(b"2", 2)
    for number in range(5):
        table.unlink(top, b"%d" % number, 6)
    table.rmdir(ROOT, b"top", 7)
    for ino in table.orphans(10):
        table.purge(ino, 10)
    restore(table, first)
    with Difference(table.path, second.generation, None) as found:
        told = {(change.kind, change.path) for change in found.changes()}
    assert told == {(REMOVED, b"/top/%d" % number) for number in range(5)} | {(ADDED, b"/top/f")}
