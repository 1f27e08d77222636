"""What differs between two moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.meta import MetaDatabase
from objfs.meta.diff import Change, ChangeKind, Difference
from objfs.model import ROOT, AttrChange, RenameFlag
from tests.meta.contract import mkdir, mkfile, write
from tests.meta.moments import HISTORY, Image, Step, image, lived
from tests.meta.support import make, symlink

ADDED, REMOVED, RENAMED, MODIFIED, METADATA = ChangeKind


@settings(max_examples=60, deadline=None)
@given(HISTORY, st.integers(0, 10), st.integers(0, 10))
def test_a_difference_that_is_applied_makes_one_tree_of_the_other(
    history: list[list[Step]], one: int, other: int
) -> None:
    with TemporaryDirectory() as place, make(Path(place) / "meta.db") as table:
        moments = lived(table, history)
        (since, before), (until, after) = sorted(
            (moments[one % len(moments)], moments[other % len(moments)]), key=lambda one: one[0].generation
        )
        present = image(table)
        with Difference(table.path, since.generation, until.generation) as found:
            assert shown(applied(found.changes(), before, after)) == shown(after)
        with Difference(table.path, since.generation, None) as found:
            assert shown(applied(found.changes(), before, present)) == shown(present)


def applied(changes: list[Change], before: Image, after: Image) -> Image:
    """``before`` with all changes made; what is new or other is taken from ``after``, and nothing else."""
    kept = dict(before)
    moved = {}
    for change in changes:
        if change.kind is REMOVED:
            del kept[change.path]
        elif change.kind is RENAMED:
            assert change.old_path is not None
            moved[change.old_path] = change.path
    tree = {_moved(path, moved): thing for path, thing in kept.items()}
    for change in changes:
        if change.kind is ADDED:
            assert change.path not in tree
        if change.kind in (ADDED, MODIFIED, METADATA) or change.fields:
            tree[change.path] = after[change.path]
    return tree


def _moved(path: bytes, moved: dict[bytes, bytes]) -> bytes:
    """The path of something whose directories may have moved."""
    above, rest = path, b""
    while above:
        if above in moved:
            return moved[above] + rest
        above, _, name = above.rpartition(b"/")
        rest = b"/" + name + rest
    return path


def shown(tree: Image) -> dict[bytes, tuple[object, ...]]:
    return {path: thing.shown for path, thing in tree.items()}


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table


def told(table: MetaDatabase, since: int, below: bytes = b"/") -> list[tuple[object, ...]]:
    """(kind, path, old path, fields) of each change up to the present."""
    with Difference(table.path, since, None) as found:
        return [(one.kind, one.path, one.old_path, one.fields) for one in found.changes(below)]


def test_each_kind_of_change(table: MetaDatabase) -> None:
    for name in (b"gone", b"moved", b"content", b"mode", b"owner", b"time", b"xattr", b"same"):
        mkfile(table, ROOT, name)
    inos = {name: table.lookup(ROOT, name).ino for name in (b"content", b"mode", b"owner", b"time", b"xattr")}
    moment = table.create_snapshot(b"m", 1).generation
    table.unlink(ROOT, b"gone", 5)
    table.rename(ROOT, b"moved", ROOT, b"there", RenameFlag.REPLACE, 5)
    write(table, inos[b"content"])
    table.set_attr(inos[b"mode"], AttrChange(mode=0o600))
    table.set_attr(inos[b"owner"], AttrChange(uid=7))
    table.set_attr(inos[b"time"], AttrChange(mtime_ns=7))
    table.set_xattr(inos[b"xattr"], b"user.x", b"1", 0, 5)
    mkfile(table, ROOT, b"new\xff")
    assert told(table, moment) == [
        (MODIFIED, b"/content", None, ("content", "mtime")),
        (REMOVED, b"/gone", None, ()),
        (METADATA, b"/mode", None, ("mode",)),
        (ADDED, b"/new\xff", None, ()),
        (METADATA, b"/owner", None, ("owner",)),
        (RENAMED, b"/there", b"/moved", ()),
        (METADATA, b"/time", None, ("mtime",)),
        (METADATA, b"/xattr", None, ("xattrs",)),
    ]


def test_a_renamed_directory_is_one_change_and_what_is_in_it_has_two_paths(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    ino, _ = mkfile(table, top, b"f"), mkfile(table, top, b"g")
    moment = table.create_snapshot(b"m", 1).generation
    table.rename(ROOT, b"top", ROOT, b"new", RenameFlag.REPLACE, 5)
    write(table, ino)
    assert told(table, moment) == [
        (RENAMED, b"/new", b"/top", ()),
        (MODIFIED, b"/new/f", b"/top/f", ("content", "mtime")),
    ]


def test_an_editor_that_saves_by_renaming_changes_a_file(table: MetaDatabase) -> None:
    mkfile(table, ROOT, b"f")
    moment = table.create_snapshot(b"m", 1).generation
    write(table, mkfile(table, ROOT, b"f~"))
    table.rename(ROOT, b"f~", ROOT, b"f", RenameFlag.REPLACE, 6)
    assert told(table, moment) == [(MODIFIED, b"/f", None, ("content", "mtime"))]


def test_something_of_another_type_under_a_name_is_another_thing(table: MetaDatabase) -> None:
    mkfile(table, ROOT, b"f")
    moment = table.create_snapshot(b"m", 1).generation
    table.unlink(ROOT, b"f", 5)
    table.create(ROOT, b"f", symlink(b"x"))
    assert told(table, moment) == [(ADDED, b"/f", None, ()), (REMOVED, b"/f", None, ())]


def test_only_what_is_below_a_path(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    moment = table.create_snapshot(b"m", 1).generation
    mkfile(table, top, b"f")
    mkfile(table, ROOT, b"topmost")
    assert told(table, moment, b"/top/") == [(ADDED, b"/top/f", None, ())]


def test_times_of_directories_are_not_told_and_their_modes_are(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    moment = table.create_snapshot(b"m", 1).generation
    table.set_attr(top, AttrChange(mtime_ns=77))
    assert told(table, moment) == []
    table.set_attr(ROOT, AttrChange(mode=0o700))
    assert told(table, moment) == [(METADATA, b"/", None, ("mode",))]


def test_equal_moments_do_not_differ(table: MetaDatabase) -> None:
    mkfile(table, ROOT, b"f")
    one, other = (table.create_snapshot(name, 1).generation for name in (b"1", b"2"))
    with Difference(table.path, one, other) as found:
        assert found.changes() == []


def test_the_size_of_the_tree_does_not_matter_to_names(table: MetaDatabase) -> None:
    """Instructions of SQLite's machine, in hundreds: counted and not timed."""
    work = [mkdir(table, ROOT, b"work"), mkdir(table, ROOT, b"archive")]
    costs = []
    for size in (0, 3000):
        for number in range(size):
            mkfile(table, work[1], b"%d" % number)
        moment = table.create_snapshot(b"%d" % size, 1).generation
        mkfile(table, work[0], b"new%d" % size)
        table.rename(work[0], b"new%d" % size, work[0], b"renamed", RenameFlag.REPLACE, 5)
        costs.append(_cost(table, moment))
        table.unlink(work[0], b"renamed", 6)
    assert costs[1] < costs[0] + 10


def _cost(table: MetaDatabase, since: int) -> int:
    ticks = []
    with Difference(table.path, since, None) as found:
        found.connection.set_progress_handler(lambda: ticks.append(1), 100)
        assert len(found.changes()) == 1
    return len(ticks)
