"""What differs between two tables, for whoever remembers the older one."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from objfs.errors import ObjfsError, StaleHandle
from objfs.meta import MetaDatabase
from objfs.meta.compare import Comparison, Name
from objfs.model import ROOT, AttrChange, Ino, RenameFlag
from tests.meta.contract import mkdir, mkfile, write
from tests.meta.support import BOOT, START, make

LATER = START + 10**9


class Pair:
    """A table as it was, and one that went on from it; both open, as in a mount."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = make(path / "before.db")

    @contextmanager
    def changed(self) -> Iterator[MetaDatabase]:
        """The table that goes on, to be changed."""
        self.before.close()
        shutil.copy(self.path / "before.db", self.path / "after.db")
        self.before = MetaDatabase.open(self.path / "before.db", boot_id=BOOT)
        with MetaDatabase.open(self.path / "after.db", boot_id=BOOT) as after:
            yield after

    def compare(self, after: MetaDatabase, known: Iterable[Ino]) -> Comparison:
        found = Comparison(self.before.path, after.path)
        found.note(known)
        return found


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.before.close()


def test_equal_tables_do_not_differ(pair: Pair) -> None:
    ino = mkfile(pair.before, ROOT, b"f")
    with pair.changed() as after, closing(pair.compare(after, [ROOT, ino])) as found:
        assert (list(found.inodes()), list(found.names()), list(found.rewritten())) == ([], [], [])


def test_names_that_came_went_and_lead_elsewhere(pair: Pair) -> None:
    top = mkdir(pair.before, ROOT, b"top")
    gone, moved, kept = (mkfile(pair.before, top, name) for name in (b"gone", b"moved", b"kept"))
    with pair.changed() as after:
        after.unlink(top, b"gone", LATER)
        after.purge(gone, 10)
        after.rename(top, b"moved", top, b"target", RenameFlag.REPLACE, LATER)
        new = mkfile(after, top, b"gone")
        with closing(pair.compare(after, [ROOT, top, gone, moved, kept])) as found:
            assert set(found.names()) == {Name(top, name) for name in (b"gone", b"moved", b"target")}
            assert list(found.inodes()) == sorted([top, gone, moved])
        assert new != gone


def test_what_nobody_knows_is_not_told(pair: Pair) -> None:
    known, unknown = mkdir(pair.before, ROOT, b"known"), mkdir(pair.before, ROOT, b"unknown")
    with pair.changed() as after:
        mkfile(after, known, b"f")
        mkfile(after, unknown, b"f")
        with closing(pair.compare(after, [known])) as found:
            assert list(found.names()) == [Name(known, b"f")]
            assert list(found.inodes()) == [known]


@pytest.mark.parametrize(
    "change",
    [
        lambda table, ino: table.set_attr(ino, AttrChange(mode=0o600)),
        lambda table, ino: table.set_attr(ino, AttrChange(atime_ns=5)),
        lambda table, ino: table.set_xattr(ino, b"user.x", b"1", 0, LATER),
        lambda table, ino: table.truncate(ino, 5, LATER, 10),
        lambda table, ino: table.link(ino, ROOT, b"second", LATER),
        lambda table, ino: write(table, ino),
    ],
    ids=["mode", "atime", "xattr", "size", "nlink", "content"],
)
def test_each_kind_of_change_is_noticed(pair: Pair, change: Callable[[MetaDatabase, Ino], object]) -> None:
    ino = mkfile(pair.before, ROOT, b"f")
    with pair.changed() as after:
        change(after, ino)
        with closing(pair.compare(after, [ino])) as found:
            assert list(found.inodes()) == [ino]


def test_other_content_under_the_same_size_and_mtime(pair: Pair) -> None:
    """Attributes tell a kernel nothing here; a change of mode alone rewrites nothing."""
    files = [mkfile(pair.before, ROOT, name) for name in (b"rewritten", b"touched", b"grown")]
    for ino in files:
        write(pair.before, ino)
        pair.before.set_attr(ino, AttrChange(mtime_ns=START))
    with pair.changed() as after:
        rewritten, touched, grown = files
        after.begin_chunk(rewritten, 0, None, 0)
        after.set_attr(rewritten, AttrChange(ctime_ns=LATER))
        after.set_attr(touched, AttrChange(mode=0o600))
        write(after, grown, 1)
        with closing(pair.compare(after, files)) as found:
            assert list(found.inodes()) == sorted(files)
            assert list(found.rewritten()) == [rewritten]


def test_a_second_look_compares_only_what_is_new(pair: Pair) -> None:
    first, second = mkfile(pair.before, ROOT, b"1"), mkfile(pair.before, ROOT, b"2")
    with pair.changed() as after:
        after.set_attr(first, AttrChange(mode=0o600))
        with closing(pair.compare(after, [first])) as found:
            after.set_attr(first, AttrChange(mode=0o644))
            after.set_attr(second, AttrChange(mode=0o600))
            found.note([first, second])
            assert list(found.inodes()) == [first, second]


def test_a_file_that_is_no_table(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ObjfsError, match="cannot be compared"):
        Comparison(pair.before.path, tmp_path / "absent.db")


def test_a_table_made_in_a_worker_takes_the_place_of_another(pair: Pair) -> None:
    """Whoever holds the table sees the new one; the old one is handed back, open."""
    old = mkfile(pair.before, ROOT, b"old")
    with pair.changed() as after:
        after.unlink(ROOT, b"old", LATER)
        after.purge(old, 10)
    held = pair.before
    made: list[MetaDatabase] = []
    worker = threading.Thread(
        target=lambda: made.append(MetaDatabase.open(pair.path / "after.db", boot_id=BOOT, movable=True))
    )
    worker.start()
    worker.join()
    former = held.become(made[0])
    assert (held.path.name, former.path.name) == ("after.db", "before.db")
    with pytest.raises(StaleHandle):
        held.get(old)
    assert former.get(old).ino == old
    former.close()
