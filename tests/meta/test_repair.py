"""Each rule of the inode table: what breaks it is found, mended, and stays mended; what is lost is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from objfs.errors import Corrupt, Unclean
from objfs.meta import MetaDatabase
from objfs.meta.lostfound import Repaired
from objfs.meta.repair import reindex, restore_volume_row
from objfs.meta.view import TableView
from objfs.model import ROOT, ChunkId, Ino, Location, RenameFlag, SegmentNo
from tests.meta.contract import mkdir, mkfile, store, write
from tests.meta.support import BOOT, CHUNK, START, make, segment, snapshot, symlink

LF = b"/lost+found"
TREE = {
    b"/d": 2,
    b"/d/e": 3,
    b"/d/e/h": 7,
    b"/f": 4,
    b"/h2": 7,
    b"/s": 6,
}
"""Path -> inode of the tree that is damaged.  Inode 5 has lost its name and waits to be purged; 4 has
a stored and a dirty chunk and an extended attribute."""


def build(path: Path) -> MetaDatabase:
    table = make(path)
    inner = mkdir(table, mkdir(table, ROOT, b"d"), b"e")
    ino = mkfile(table, ROOT, b"f")
    store(table, write(table, ino))
    write(table, ino, 1)
    mkfile(table, ROOT, b"g")
    table.unlink(ROOT, b"g", 1)
    table.create(ROOT, b"s", symlink(b"target"))
    linked = mkfile(table, inner, b"h")
    table.link(linked, ROOT, b"h2", START)
    table.set_xattr(ino, b"user.a", b"v", 0, START)
    return table


def walk(table: MetaDatabase, ino: Ino = ROOT, above: bytes = b"") -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for entry in table.readdir(ino, 0, 1000):
        path = above + b"/" + entry.name
        found[path] = entry.attr.ino
        if entry.attr.is_dir:
            found |= walk(table, entry.attr.ino, path)
    return found


@dataclass(frozen=True)
class Damage:
    """Statements that break ``rule``.  After the repair ``gone`` paths are not there any more, ``new`` ones
    are (0: an inode that the repair made), and ``lost`` says whether something is lost for good."""

    rule: str
    sql: str
    gone: tuple[bytes, ...] = ()
    new: dict[bytes, int] = field(default_factory=dict)
    lost: bool = False


ADOPTED = {LF: 0, LF + b"/#4": 4}
PIECES = {LF: 0, LF + b"/#4.chunks": 0}

DAMAGE = {
    "root is no directory": Damage("root", "UPDATE inode SET mode = 33188 WHERE ino = 1"),
    "root is gone": Damage("root", "DELETE FROM inode WHERE ino = 1"),
    "mode without a type": Damage("types", "UPDATE inode SET mode = 420 WHERE ino = 4"),
    "directory became a file": Damage("entries", "UPDATE inode SET mode = 33188 WHERE ino = 3"),
    "file became a directory": Damage("mapped", "UPDATE inode SET mode = 16877 WHERE ino = 4"),
    "symlink without target": Damage("types", "UPDATE inode SET target = NULL WHERE ino = 6", lost=True),
    "impossible size": Damage("sizes", "UPDATE inode SET size = -5 WHERE ino = 4"),
    "size too small": Damage("beyond", "UPDATE inode SET size = 10 WHERE ino = 4"),
    "slash in a name": Damage("names", "UPDATE entry SET name = x'612f62' WHERE ino = 4", (b"/f",), ADOPTED),
    "directory named ..": Damage(
        "names",
        "UPDATE entry SET name = x'2e2e' WHERE ino = 3",
        (b"/d/e", b"/d/e/h"),
        {LF: 0, LF + b"/#3": 3, LF + b"/#3/h": 7},
    ),
    "entry to nowhere": Damage(
        "entries", "UPDATE entry SET ino = 999 WHERE name = x'66'", (b"/f",), ADOPTED, lost=True
    ),
    "entry in a file": Damage(
        "entries", "UPDATE entry SET parent = 4 WHERE name = x'73'", (b"/s",), {LF: 0, LF + b"/#6": 6}
    ),
    "entry is gone": Damage("links", "DELETE FROM entry WHERE ino = 4", (b"/f",), ADOPTED),
    "inode is gone, chunks are there": Damage("entries", "DELETE FROM inode WHERE ino = 4"),
    "inode is gone, nothing is there": Damage(
        "entries", "DELETE FROM inode WHERE ino = 7", (b"/d/e/h", b"/h2"), lost=True
    ),
    "inode and entry are gone": Damage(
        "mapped", "DELETE FROM inode WHERE ino = 4; DELETE FROM entry WHERE ino = 4", (b"/f",), ADOPTED
    ),
    "directory's inode is gone": Damage("entries", "DELETE FROM inode WHERE ino = 2"),
    "links": Damage("links", "UPDATE inode SET nlink = 5 WHERE ino = 4"),
    "named, but nlink 0": Damage("links", "UPDATE inode SET nlink = 0 WHERE ino = 4"),
    "directory links": Damage("directory_links", "UPDATE inode SET nlink = 5 WHERE ino = 2"),
    "dead directory with a name": Damage(
        "orphans", "UPDATE inode SET nlink = 0 WHERE ino = 2; INSERT INTO orphan VALUES (2, -1, 0)"
    ),
    "parent": Damage("parents", "UPDATE inode SET parent = 1 WHERE ino = 3"),
    "directory with two names": Damage("parents", "INSERT INTO entry VALUES (1, x'7a', 3, 77, 1)"),
    "directory without a name": Damage(
        "parents",
        "DELETE FROM entry WHERE ino = 2",
        (b"/d", b"/d/e", b"/d/e/h"),
        {LF: 0, LF + b"/#2": 2, LF + b"/#2/e": 3, LF + b"/#2/e/h": 7},
    ),
    "loop": Damage(
        "loops",
        "UPDATE entry SET parent = 3, cookie = 9 WHERE ino = 2; UPDATE inode SET parent = 3 WHERE ino = 2",
        (b"/d", b"/d/e", b"/d/e/h"),
        {LF: 0, LF + b"/#2": 2, LF + b"/#2/e": 3, LF + b"/#2/e/h": 7},
    ),
    "cookie": Damage("cookies", "UPDATE entry SET cookie = 2 WHERE ino = 4"),
    "next cookie": Damage("cookies", "UPDATE inode SET next_cookie = 3 WHERE ino = 1"),
    "orphan off the list": Damage("orphans", "DELETE FROM orphan", (), {LF: 0, LF + b"/#5": 5}),
    "orphan with a name": Damage("orphans", "INSERT INTO orphan VALUES (4, -1, 0)"),
    "orphan of nobody": Damage("orphans", "INSERT INTO orphan VALUES (999, -1, 0)"),
    "attribute of nobody": Damage(
        "attached", "INSERT INTO xattr VALUES (500, x'61', x'62', 1)", (), {LF: 0, LF + b"/#500": 500}
    ),
    "access time of nobody": Damage("attached", "INSERT INTO atime VALUES (500, 1, 1)"),
    "references": Damage("references", "UPDATE chunk SET refs = 7 WHERE chunk = 1"),
    "references of nought": Damage(
        "references", "DROP TRIGGER chunk_unnamed; UPDATE chunk SET refs = 0 WHERE chunk = 1"
    ),
    "map row is gone": Damage(
        "references", "DROP TRIGGER map_delete; DELETE FROM map WHERE ino = 4 AND idx = 0"
    ),
    "map row is gone, the file holds no more": Damage(
        "references",
        "DROP TRIGGER map_delete; DELETE FROM map WHERE ino = 4 AND idx = 1; "
        "UPDATE inode SET held = 1024 WHERE ino = 4",
        (),
        PIECES,
    ),
    "version of nowhere": Damage("mapped", "INSERT INTO map VALUES (4, 9, 999, 1)", lost=True),
    "map of a directory": Damage(
        "mapped", "INSERT INTO map VALUES (2, 0, 1, 1)", (), {LF: 0, LF + b"/#2.chunks": 0}
    ),
    "stored version is gone": Damage(
        "mapped", "DROP TRIGGER chunk_delete; DELETE FROM chunk WHERE chunk = 1", lost=True
    ),
    "dirty version is gone": Damage("mapped", "DROP TRIGGER chunk_delete; DELETE FROM chunk WHERE chunk = 2"),
    "held": Damage("held", "UPDATE inode SET held = 12345 WHERE ino = 4"),
    "stored over a base": Damage("bases", "UPDATE chunk SET base = 2 WHERE chunk = 1"),
    "base is gone, not needed": Damage("bases", "UPDATE chunk SET base = 500, base_size = 9 WHERE chunk = 2"),
    "base is gone, and needed": Damage(
        "bases",
        "UPDATE chunk SET base = 500, base_size = 1024 WHERE chunk = 2; UPDATE local_dirty SET length = 10",
        (),
        PIECES,
        lost=True,
    ),
    "location": Damage("stored", "UPDATE chunk SET size = NULL WHERE chunk = 1", lost=True),
    "state": Damage("stored", "UPDATE chunk SET state = 7"),
    "condemned with chunks": Damage("stored", "UPDATE segment SET state = 1"),
    "segment is gone": Damage("stored", "DROP TRIGGER segment_delete; DELETE FROM segment", lost=True),
    "segment means nothing": Damage("segments", "UPDATE segment SET cuts = x'00'", lost=True),
    "dirty ranges of a stored version": Damage(
        "dirty", "INSERT INTO local_dirty VALUES (1, 99, 0, 1, 1, 0, NULL, NULL, NULL)"
    ),
    "in use and freed": Damage("freed", "INSERT INTO local_freed VALUES (2)"),
    "died before birth": Damage("generations", "INSERT INTO xattr_old VALUES (4, x'00', x'00', 1, 1)"),
    "snapshot to come": Damage("generations", "INSERT INTO snapshot VALUES (x'61', 5, 0, 0, '', 0, 0, 0)"),
    "next numbers": Damage("numbers", "UPDATE volume SET next_ino = 1, next_chunk = 1, next_segment = 1"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meta.db"


@pytest.fixture
def damaged(path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[MetaDatabase, Damage]]:
    """The table after the damage that the test's parameter names, opened as a mount would."""
    damage = DAMAGE[request.param]
    table = build(path)
    assert (table.check(), walk(table)) == ([], TREE)
    for statement in damage.sql.split("; "):
        table._db.connection.execute(statement)
    table._db.connection.close()
    with MetaDatabase.open(path, boot_id=BOOT) as opened:
        yield opened, damage


def mend(table: MetaDatabase) -> list[Repaired]:
    repairs = table.repairs(START, 1)
    return repairs.mend() + repairs.give_up()


@pytest.mark.parametrize("damaged", DAMAGE, indirect=True)
def test_damage_is_found_and_mended(damaged: tuple[MetaDatabase, Damage]) -> None:
    table, damage = damaged
    with TableView(table.path) as view:
        assert damage.rule in {breach.rule for breach in view.breaches()}
    done = mend(table)
    assert table.check() == []
    assert any(said.lost for said in done) is damage.lost
    kept = {name: ino for name, ino in TREE.items() if name not in damage.gone}
    found = walk(table)
    assert found == {name: ino or found.get(name) for name, ino in (kept | damage.new).items()}
    assert mend(table) == []


@pytest.mark.parametrize("damaged", DAMAGE, indirect=True)
def test_no_number_is_used_twice_after_a_repair(damaged: tuple[MetaDatabase, Damage]) -> None:
    table, _ = damaged
    mend(table)
    ino = mkfile(table, ROOT, b"new")
    store(table, write(table, ino))
    snapshot(table)
    table.set_xattr(ino, b"user.a", b"v", 0, START)
    assert table.check() == []


@pytest.mark.parametrize("damaged", ["base is gone, and needed"], indirect=True)
def test_what_is_left_of_a_chunk_is_kept_and_the_rest_reads_as_an_error(
    damaged: tuple[MetaDatabase, Damage],
) -> None:
    table, _ = damaged
    mend(table)
    lost = table.chunk_at(Ino(4), 1)
    assert lost is not None
    assert lost.location is not None
    assert table.segment(lost.location.segment).missing == {0}
    pieces = table.lookup(table.lookup(ROOT, b"lost+found").ino, b"#4.chunks")
    kept = table.chunk_at(pieces.ino, 1)
    assert kept is not None
    assert (kept.chunk, kept.base) == (2, None)
    assert [one.length for one in table.dirty_ranges(kept.chunk)] == [10]
    assert pieces.size == CHUNK + 10


@pytest.mark.parametrize("damaged", ["stored version is gone", "segment is gone", "location"], indirect=True)
def test_what_the_segments_tell_comes_back_before_anything_is_given_up(
    damaged: tuple[MetaDatabase, Damage],
) -> None:
    table, _ = damaged
    with TableView(table.path) as view:
        assert view.incomplete() == [ChunkId(1)]
    repairs = table.repairs(START, 1)
    number = repairs.restore_segment(SegmentNo(1), segment(CHUNK + 17))
    repairs.restore_version(ChunkId(1), Ino(4), 0, Location(number, 0, 0, (CHUNK + 17,), CHUNK, bytes(32)))
    assert not any(said.lost for said in mend(table))
    assert table.check() == []
    assert walk(table) == TREE
    chunk = table.chunk_at(Ino(4), 0)
    assert chunk is not None
    assert chunk.chunk == 1
    assert chunk.location is not None


def test_names_that_are_taken_get_a_number(path: Path) -> None:
    with build(path) as table:
        mkfile(table, ROOT, b"lost+found")
        table._db.connection.execute("DELETE FROM entry WHERE ino IN (4, 6)")
        mend(table)
        place = table.lookup(ROOT, b"lost+found.1").ino
        assert sorted(entry.name for entry in table.readdir(place, 0, 9)) == [b"#4", b"#6"]
        table.rename(place, b"#6", ROOT, b"s", RenameFlag.REPLACE, START)
        assert table.check() == []


def test_the_row_of_the_volume_comes_back_from_its_header(path: Path) -> None:
    build(path).close()
    with TableView(path) as view:
        uuid = view.uuid
    with MetaDatabase.open(path, boot_id=BOOT) as table:
        table._db.connection.execute("DELETE FROM volume")
    with TableView(path) as view:
        assert {breach.rule for breach in view.breaches()} >= {"volume"}
        assert (view.uuid, view.chunk_size) == (b"", 0)
    with pytest.raises(Corrupt, match="fsck"):
        MetaDatabase.open(path, boot_id=BOOT)
    restore_volume_row(path, uuid, CHUNK, START)
    with MetaDatabase.open(path, boot_id=BOOT) as table:
        mend(table)
        assert table.check() == []
        assert (table.uuid, table.chunk_size, walk(table)) == (uuid, CHUNK, TREE)


def test_indexes_are_made_anew(path: Path) -> None:
    """A row is written while its index is out of sight."""
    with build(path) as table:
        connection = table._db.connection
        where = "WHERE name = 'chunk_segment'"
        columns = "type, name, tbl_name, rootpage, sql"
        row = connection.execute(f"SELECT {columns} FROM sqlite_master {where}").fetchone()
        for statement, values in (
            (f"DELETE FROM sqlite_master {where}", ()),
            (f"INSERT INTO sqlite_master ({columns}) VALUES (?, ?, ?, ?, ?)", row),
        ):
            connection.execute("PRAGMA writable_schema = ON")
            connection.execute(statement, values)
            connection.execute("PRAGMA writable_schema = RESET")
            if not values:
                connection.execute("UPDATE chunk SET segment = NULL WHERE chunk = 1")
    with TableView(path) as view:
        assert {breach.rule for breach in view.breaches()} == {"pages"}
    assert reindex(path)
    with MetaDatabase.open(path, boot_id=BOOT) as table:
        assert any(said.lost for said in mend(table))
        assert table.check() == []


def test_indexes_do_not_help_where_pages_are_gone(path: Path) -> None:
    with build(path) as table:
        for number in range(500):
            mkfile(table, ROOT, b"%d" % number)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes([0xA5]) * (len(data) - len(data) // 2)
    path.write_bytes(data)
    assert not reindex(path)


def test_a_view_names_who_uses_a_version(path: Path) -> None:
    with build(path) as table, TableView(path) as view:
        assert view.places([ChunkId(1), ChunkId(2), ChunkId(9)]) == [(1, 4, 0, True), (2, 4, 1, True)]
        assert view.paths([ROOT, Ino(4), Ino(3), Ino(5)]) == {1: b"/", 4: b"/f", 3: b"/d/e"}
        assert view.paths([Ino(7)])[Ino(7)] in (b"/d/e/h", b"/h2")
        assert [row.number for row in view.segments(0, 9)] == [1]
        assert [chunk.chunk for chunk in view.chunks_in(SegmentNo(1))] == [1]
        assert [chunk.chunk for chunk in view.dirty(0, 9)] == [2]
        assert view.ranges(ChunkId(2)) == table.dirty_ranges(ChunkId(2))
        assert view.map_of(Ino(4)) == [(0, 1), (1, 2)]
        assert view.attr(Ino(4)) == table.get(Ino(4))


def test_a_view_changes_nothing_and_sees_what_was_committed_since(path: Path) -> None:
    with build(path) as table, TableView(path) as view:
        mkfile(table, ROOT, b"later")
        assert view.paths([Ino(8)]) == {8: b"/later"}
        with pytest.raises(Corrupt, match="readonly"):
            view._all("DELETE FROM entry")


def test_what_is_no_inode_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unclean):
        TableView(tmp_path / "meta.db")
    (tmp_path / "meta.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Corrupt):
        TableView(tmp_path / "meta.db")


def test_what_lies_under_lost_bytes_is_kept_where_nothing_else_names_it(path: Path) -> None:
    with build(path) as table:
        below = table.chunk_at(Ino(4), 0)
        assert below is not None
        above = table.begin_chunk(Ino(4), 0, below.chunk, CHUNK)
        repairs = table.repairs(START, 1)
        done = repairs.keep_beneath(above.chunk) + repairs.split(above.chunk, 0) + repairs.mend()
        assert table.check() == []
        assert any(said.lost for said in done)
        pieces = table.lookup(table.lookup(ROOT, b"lost+found").ino, b"#4.chunks")
        kept = table.chunk_at(pieces.ino, 0)
        assert kept is not None
        assert (kept.chunk, kept.location) == (below.chunk, below.location)
        lost = table.chunk_at(Ino(4), 0)
        assert lost is not None
        assert [row.chunk for row in table.lost_chunks(9)] == [lost.chunk]
