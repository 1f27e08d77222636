"""The trash as rows: what a removal would lose, what was deleted, and the way back."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.errors import Exists, InvalidArgument, NotFound
from objfs.meta import MetaDatabase, new_root
from objfs.meta.trash_view import Deleted, TrashView
from objfs.meta.usage import UsageView
from objfs.model import ROOT, AttrChange, Ino, NewInode, RenameFlag, SnapshotFlag

NOW = 5


class Bin:
    """A table, paths of which are removed, and a trash that is taken by hand."""

    def __init__(self, path: Path) -> None:
        self.table = MetaDatabase.make(
            path, uuid=bytes(16), chunk_size=65536, root=new_root(0, 0, NOW), boot_id=b"boot"
        )

    def at(self, path: str) -> tuple[Ino, bytes]:
        """The directory and the name of a path."""
        *above, name = path.encode().split(b"/")
        parent = ROOT
        for one in above:
            parent = self.table.lookup(parent, one).ino
        return parent, name

    def ino(self, path: str) -> Ino:
        return self.table.lookup(*self.at(path)).ino

    def make(self, *paths: str, size: int = 0) -> None:
        for path in paths:
            mode = stat.S_IFDIR | 0o700 if path.endswith("/") else stat.S_IFREG | 0o600
            made = self.table.create(*self.at(path.rstrip("/")), NewInode(mode, 1, 2, NOW))
            if size:
                self.resize(made.ino, size)

    def resize(self, ino: Ino, size: int) -> None:
        assert self.table.truncate(ino, size, NOW, 100)

    def remove(self, *paths: str) -> None:
        for path in paths:
            parent, name = self.at(path.rstrip("/"))
            remove = self.table.rmdir if path.endswith("/") else self.table.unlink
            gone = remove(parent, name, NOW)
            while not gone.nlink and not self.table.purge(gone.ino, 100):
                pass

    def take(self, name: bytes) -> None:
        self.table.create_snapshot(name, NOW, flags=SnapshotFlag.TRASH)

    def deleted(self, below: bytes = b"/") -> list[Deleted]:
        with TrashView(self.table.path) as view:
            return view.deleted(below)

    def paths(self) -> list[bytes]:
        return [one.path for one in self.deleted()]

    def undelete(self, path: bytes, to: bytes | None = None) -> None:
        with TrashView(self.table.path) as view:
            moment = view.moment_of(path)
        self.table.trash.undelete(self.table.trash.plan(moment, ROOT, path, to), NOW)
        assert self.table.check() == []


@pytest.fixture
def bin(tmp_path: Path) -> Iterator[Bin]:
    made = Bin(tmp_path / "meta.db")
    yield made
    assert made.table.check() == []
    made.table.close()


def test_what_a_removal_loses(bin: Bin) -> None:
    bin.make("f", "changed", "linked", "d/")
    bin.table.link(bin.ino("linked"), ROOT, b"other", NOW)
    bin.take(b"t")
    since = bin.table.snapshot(b"t").generation
    bin.make("new", "d/new")
    bin.table.set_attr(bin.ino("changed"), AttrChange(mode=0o640))
    assert bin.table.trash.keeps(since)
    assert not bin.table.trash.keeps(0)
    for path, lost in (
        ("f", False),
        ("changed", True),
        ("new", True),
        ("d", False),
        ("d/new", True),
        ("linked", False),
        ("absent", False),
    ):
        assert bin.table.trash.loses(*bin.at(path), since) is lost, path
    assert bin.table.trash.loses(*bin.at("f"), 0)
    assert not bin.table.trash.loses(*bin.at("linked"), 0)


def test_a_tree_is_one_thing_and_comes_back_whole(bin: Bin) -> None:
    bin.make("d/", "d/e/")
    bin.make("d/f", "d/e/g", size=10)
    bin.table.set_xattr(bin.ino("d/f"), b"user.x", b"1", 0, NOW)
    before = {path: bin.table.get(bin.ino(path)) for path in ("d", "d/f", "d/e", "d/e/g")}
    bin.take(b"t")
    bin.remove("d/e/g", "d/e/", "d/f", "d/")
    (found,) = bin.deleted()
    assert (found.path, found.type, found.size, found.names) == (b"/d", "directory", 20, 4)
    assert not found.taken
    bin.undelete(b"/d")
    assert {path: bin.table.get(bin.ino(path)) for path in before} == before
    assert bin.table.get_xattr(bin.ino("d/f"), b"user.x") == b"1"
    assert bin.deleted() == []


def test_a_part_of_a_tree_goes_elsewhere(bin: Bin) -> None:
    bin.make("d/", "d/e/", "d/e/f", "here/")
    bin.take(b"t")
    bin.remove("d/e/f", "d/e/", "d/")
    with pytest.raises(NotFound, match="/d is no directory now: bring it back first, or say with --to"):
        bin.undelete(b"/d/e")
    bin.undelete(b"/d/e", b"/here")
    assert bin.table.get(bin.ino("here/e")).parent == bin.ino("here")
    assert bin.table.get(bin.ino("here")).nlink == 3
    bin.ino("here/e/f")
    assert [(one.path, one.names) for one in bin.deleted()] == [(b"/d", 1)]
    bin.undelete(b"/d", b"/again")
    assert bin.table.readdir(bin.ino("again"), 0, 10) == [], "e is elsewhere"


def test_a_taken_name_is_left_alone(bin: Bin) -> None:
    bin.make("f", size=1)
    bin.take(b"t")
    bin.make("new", size=2)
    bin.table.rename(ROOT, b"new", ROOT, b"f", RenameFlag.REPLACE, NOW)
    (found,) = bin.deleted()
    assert (found.path, found.size, found.taken) == (b"/f", 1, True)
    with pytest.raises(Exists, match="/f is there now: say with --to"):
        bin.undelete(b"/f")
    bin.undelete(b"/f", b"/old")
    assert [bin.table.get(bin.ino(path)).size for path in ("f", "old")] == [2, 1]


def test_both_names_of_a_file_come_back_as_one_file(bin: Bin) -> None:
    bin.make("d/", "d/a")
    bin.table.link(bin.ino("d/a"), bin.ino("d"), b"b", NOW)
    bin.take(b"t")
    bin.remove("d/a", "d/b", "d/")
    bin.undelete(b"/d")
    assert bin.ino("d/a") == bin.ino("d/b")
    assert bin.table.get(bin.ino("d/a")).nlink == 2


def test_a_lost_name_of_a_file_that_has_another_leads_to_the_file_as_it_is(bin: Bin) -> None:
    bin.make("d/", "d/own", "a")
    bin.table.link(bin.ino("a"), bin.ino("d"), b"b", NOW)
    bin.take(b"t")
    bin.resize(bin.ino("a"), 7)
    bin.remove("d/b", "d/own", "d/")
    assert bin.paths() == [b"/d"]
    bin.undelete(b"/d")
    assert bin.ino("d/b") == bin.ino("a")
    assert (bin.table.get(bin.ino("a")).nlink, bin.table.get(bin.ino("a")).size) == (2, 7)
    with pytest.raises(NotFound, match="is not in the trash"):
        bin.undelete(b"/d/b", b"/twice")
    bin.remove("d/b")
    assert bin.paths() == []
    bin.undelete(b"/d/b")
    assert bin.table.get(bin.ino("a")).nlink == 2


def test_what_was_renamed_was_not_deleted(bin: Bin) -> None:
    bin.make("d/", "d/moved", "d/gone", "dir/")
    bin.take(b"t")
    bin.table.rename(*bin.at("d/moved"), ROOT, b"moved", RenameFlag.REPLACE, NOW)
    bin.table.rename(ROOT, b"dir", ROOT, b"dir2", RenameFlag.REPLACE, NOW)
    bin.remove("d/gone", "d/")
    assert bin.paths() == [b"/d"]
    for path in (b"/dir", b"/d/moved", b"/never"):
        with pytest.raises(NotFound, match="is not in the trash"):
            bin.undelete(path)
    with pytest.raises(InvalidArgument, match="was not deleted: it is there, or has another name now"):
        bin.table.trash.plan(bin.table.snapshot(b"t"), ROOT, b"/dir", None)
    bin.undelete(b"/d")
    assert [entry.name for entry in bin.table.readdir(bin.ino("d"), 0, 10)] == [b"gone"]


def test_what_was_deleted_again_and_again_has_versions(bin: Bin) -> None:
    for number in (1, 2):
        bin.make("f", size=number)
        bin.take(b"t%d" % number)
        bin.remove("f")
    assert [(one.snapshot.name, one.size) for one in bin.deleted()] == [(b"t2", 2), (b"t1", 1)]
    bin.undelete(b"/f")
    assert bin.table.get(bin.ino("f")).size == 2
    assert [one.snapshot.name for one in bin.deleted()] == [b"t1"]
    bin.undelete(b"/f", b"/older")
    assert bin.table.get(bin.ino("older")).size == 1


def test_only_what_a_snapshot_of_the_trash_shows_is_told(bin: Bin) -> None:
    bin.make("f", "d/", "d/g", "d2/")
    bin.table.create_snapshot(b"mine", NOW)
    bin.remove("f")
    bin.take(b"t")
    bin.remove("d/g")
    assert bin.paths() == [b"/d/g"]
    assert [one.path for one in bin.deleted(b"/d/")] == [b"/d/g"]
    assert bin.deleted(b"/d2") == []
    bin.table.drop_snapshot(b"t")
    assert bin.deleted() == []


def test_a_tree_below_the_root_of_the_mount(bin: Bin) -> None:
    bin.make("top/", "top/f", "f")
    bin.take(b"t")
    bin.remove("top/f", "f")
    with TrashView(bin.table.path) as view:
        assert [one.path for one in view.deleted(b"/", bin.ino("top"))] == [b"/f"]
    bin.make("late/")
    with TrashView(bin.table.path) as view:
        assert view.deleted(b"/", bin.ino("late")) == []


def test_a_directory_of_snapshots_does_not_list_the_trash(bin: Bin) -> None:
    bin.take(b"t")
    bin.table.create_snapshot(b"mine", NOW)
    moments = bin.table.moments()
    assert [entry.name for entry in moments.readdir(ROOT, 0, 10)] == [b"mine"]
    assert moments.lookup(ROOT, b"t").is_dir
    assert bin.table.trash.count() == 1
    newest = bin.table.trash.newest_other()
    assert newest is not None
    assert newest.name == b"mine"
    with UsageView(bin.table.path) as view:
        assert [one.name for one, _ in view.snapshots(lambda one: one.trash)] == [b"t"]
