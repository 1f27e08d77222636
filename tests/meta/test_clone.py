"""A tree once more: the same rows under new numbers, the same versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.errors import Exists, InvalidArgument, NotDirectory, NotFound, TooManyLinks
from objfs.meta import MetaDatabase
from objfs.meta.clone import Origin
from objfs.meta.usage import UsageView
from objfs.model import LINK_MAX, NS, ROOT, AttrChange, Ino
from tests.meta.contract import mkdir, mkfile, store, write
from tests.meta.moments import HISTORY, Image, Step, image, lived
from tests.meta.support import make

NOW = 7 * NS
EXAMPLES = settings(max_examples=25, deadline=None)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table
        assert table.check() == []


def likeness(found: Image, top: bytes) -> dict[bytes, tuple[object, ...]]:
    """What is below a path, but for numbers; names of one file have the same first path."""
    first: dict[Ino, bytes] = {}
    shown: dict[bytes, tuple[object, ...]] = {}
    for path, thing in found.items():
        if path == top or path.startswith(top.rstrip(b"/") + b"/"):
            inside = path.removeprefix(top.rstrip(b"/")).strip(b"/")
            same = first.setdefault(thing.attr.ino, inside)
            shown[inside] = (thing.shown, thing.attr.mtime_ns, thing.attr.held, same)
    return shown


@EXAMPLES
@given(HISTORY, st.integers(0, 10), st.integers(0, 50))
def test_a_clone_of_any_path_of_any_moment_is_like_it(
    history: list[list[Step]], which: int, path: int
) -> None:
    with TemporaryDirectory() as place, make(Path(place) / "meta.db") as table:
        moments = lived(table, history)
        moment, then = moments[which % len(moments)]
        before, top = image(table), sorted(then)[path % len(then)]
        table.clone(Origin(then[top].attr.ino, moment), ROOT, b"clone", NOW)
        after = image(table)
        assert likeness(after, b"/clone") == likeness(then, top)
        assert {one: after[one] for one in before if one != b"/"} == {
            one: before[one] for one in before if one != b"/"
        }
        assert table.check() == []


@EXAMPLES
@given(HISTORY, st.integers(0, 50))
def test_a_clone_of_what_is_there_now_is_like_it(history: list[list[Step]], path: int) -> None:
    with TemporaryDirectory() as place, make(Path(place) / "meta.db") as table:
        lived(table, history)
        target = mkdir(table, ROOT, b"target")
        before = image(table)
        paths = [one for one in sorted(before) if one not in (b"/", b"/target")]
        if not paths:
            return
        top = paths[path % len(paths)]
        table.clone(Origin(before[top].attr.ino), target, b"clone", NOW)
        assert likeness(image(table), b"/target/clone") == likeness(before, top)
        assert table.check() == []


def test_times_links_and_counts_of_a_clone(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    ino = mkfile(table, top, b"f")
    table.link(ino, top, b"g", 2)
    table.link(ino, ROOT, b"outside", 2)
    write(table, ino, 0, 10)
    table.set_attr(ino, AttrChange(mtime_ns=3, atime_ns=4, ctime_ns=5))
    inodes, held = table.count()
    made = table.clone(Origin(top), ROOT, b"clone", NOW)
    assert (made.inodes, made.held) == (2, 10)
    assert table.count() == (inodes + 2, held + 10)
    copy = table.lookup(made.ino, b"f")
    assert copy.ino == table.lookup(made.ino, b"g").ino
    assert (copy.nlink, table.get(ino).nlink) == (2, 3)
    assert (copy.mtime_ns, copy.atime_ns, copy.ctime_ns, copy.btime_ns) == (3, 4, NOW, NOW)
    assert table.lookup(ROOT, b"clone").nlink == 2
    assert table.get(ROOT).mtime_ns == NOW
    assert made.dirty == (chunk_of(table, ino),)
    assert table.shared_versions() == list(made.dirty)


def chunk_of(table: MetaDatabase, ino: Ino) -> int:
    found = table.chunk_at(ino, 0)
    assert found is not None
    assert found.ino == ino
    return found.chunk


def test_a_file_that_one_name_of_many_is_cloned_of_has_one(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    table.link(ino, ROOT, b"g", 2)
    made = table.clone(Origin(ino), ROOT, b"clone", NOW)
    assert table.get(made.ino).nlink == 1


def test_what_only_the_clone_names_is_still_not_written_in_place(table: MetaDatabase) -> None:
    """Whoever clips a version tells the file that it was written for how much less that holds."""
    ino = mkfile(table, ROOT, b"f")
    write(table, ino, 0, 10)
    version = chunk_of(table, ino)
    assert table.shared_versions() == []
    table.clone(Origin(ino), ROOT, b"clone", NOW)
    table.unlink(ROOT, b"f", NOW)
    table.purge(ino, 100)
    assert table.shared_versions() == [version]


def test_where_no_clone_can_be(table: MetaDatabase) -> None:
    top = mkdir(table, ROOT, b"top")
    below = mkdir(table, top, b"below")
    ino = mkfile(table, ROOT, b"f")
    before = image(table)
    for origin, parent, name, error in (
        (top, below, b"clone", InvalidArgument),
        (top, top, b"clone", InvalidArgument),
        (top, ROOT, b"f", Exists),
        (top, ino, b"clone", NotDirectory),
        (999, ROOT, b"clone", NotFound),
        (top, ROOT, b"a/b", InvalidArgument),
    ):
        with pytest.raises(error):
            table.clone(Origin(Ino(origin)), Ino(parent), name, NOW)
    table._db.run("UPDATE inode SET nlink = ? WHERE ino = ?", (LINK_MAX, below))
    with pytest.raises(TooManyLinks):
        table.clone(Origin(mkdir(table, ROOT, b"d")), below, b"clone", NOW)
    table._db.run("UPDATE inode SET nlink = 2 WHERE ino = ?", (below,))
    table.rmdir(ROOT, b"d", NOW)
    assert {one: image(table)[one] for one in before if one != b"/"} == {
        one: before[one] for one in before if one != b"/"
    }


def test_a_file_without_a_name_cannot_be_cloned(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    table.unlink(ROOT, b"f", NOW)
    with pytest.raises(NotFound, match="no name"):
        table.clone(Origin(ino), ROOT, b"clone", NOW)


def test_shared_bytes_take_their_place_once(table: MetaDatabase, tmp_path: Path) -> None:
    top = mkdir(table, ROOT, b"top")
    ino = mkfile(table, top, b"f")
    for index in range(3):
        store(table, write(table, ino, index))
    with UsageView(tmp_path / "meta.db") as view:
        before = view.usage()
    copy = table.clone(Origin(top), ROOT, b"clone", NOW).ino
    with UsageView(tmp_path / "meta.db") as view:
        after = view.usage()
    with UsageView(tmp_path / "meta.db") as view:
        of_one = view.usage(copy)
    assert (of_one.live, of_one.deduplicated, of_one.unique) == (before.live, 0, before.unique)
    assert (before.deduplicated, after.deduplicated) == (0, before.live)
    assert after == before._replace(inodes=before.inodes + 2, live=2 * before.live, deduplicated=before.live)
