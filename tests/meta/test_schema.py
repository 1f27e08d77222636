"""Generations: what a snapshot will read, kept by triggers that no code path can forget."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlite_utils

from objfs.errors import Corrupt, NewerFormat, ObjfsError
from objfs.meta import MetaDatabase, migrations, schema
from objfs.model import ROOT, AttrChange, Ino, RenameFlag
from tests.meta.contract import mkdir, mkfile, store, write
from tests.meta.support import BOOT, CHUNK, make, placed, segment, snapshot

Row = tuple[object, ...]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table
        assert table.check() == []


def sql(table: MetaDatabase) -> sqlite3.Connection:
    return table._db.connection


def at(table: MetaDatabase, name: str, generation: int) -> set[Row]:
    """A versioned table as it stood in a generation, without born."""
    one = next(each for each in schema.VERSIONED if each.name == name)
    columns = ", ".join(column for column, _ in one.key + one.columns)
    return set(
        sql(table).execute(
            f"SELECT {columns} FROM {name} WHERE born <= ?1 UNION ALL "
            f"SELECT {columns} FROM {name}_old WHERE born <= ?1 AND died > ?1",
            (generation,),
        )
    )


def everything_at(table: MetaDatabase, generation: int) -> dict[str, set[Row]]:
    return {one.name: at(table, one.name, generation) for one in schema.VERSIONED}


def fill(table: MetaDatabase) -> Ino:
    """A row in every versioned table; returns the file."""
    ino = mkfile(table, ROOT, b"f")
    write(table, ino)
    table.set_xattr(ino, b"user.a", b"1", 0, 1)
    return ino


NEW = {
    "inode": (
        "INSERT OR REPLACE INTO inode (ino, born, mode, uid, gid, nlink, rdev, size, mtime_s, mtime_ns, "
        "ctime_s, ctime_ns, btime_s, btime_ns) SELECT ino, ?, mode, 77, gid, nlink, rdev, size, "
        "0, 0, 0, 0, 0, 0 FROM inode WHERE ino = 2"
    ),
    "entry": (
        "INSERT OR REPLACE INTO entry (parent, name, ino, cookie, born) "
        "SELECT parent, name, ino, 77, ? FROM entry"
    ),
    "xattr": "INSERT OR REPLACE INTO xattr (ino, name, value, born) SELECT ino, name, x'77', ? FROM xattr",
    "map": "INSERT OR REPLACE INTO map (ino, idx, chunk, born) SELECT ino, idx, chunk, ? FROM map",
}
CHANGES = {
    "inode": "UPDATE inode SET uid = 77 WHERE ino = 2",
    "entry": "UPDATE entry SET cookie = 77",
    "xattr": "UPDATE xattr SET value = x'77'",
    "map": "UPDATE map SET idx = idx + 1",
}
KINDS: dict[str, Callable[[str, int], tuple[str, tuple[int, ...]]]] = {
    "update": lambda name, _: (CHANGES[name], ()),
    "delete": lambda name, _: (f"DELETE FROM {name}" + (" WHERE ino = 2" if name == "inode" else ""), ()),
    "replace": lambda name, generation: (NEW[name], (generation,)),
    "upsert": lambda name, generation: (
        NEW[name].replace("OR REPLACE ", "").replace(" FROM map", " FROM map WHERE true")
        + {
            "inode": " ON CONFLICT DO UPDATE SET uid = 77",
            "entry": " WHERE true ON CONFLICT DO UPDATE SET cookie = 77",
            "xattr": " WHERE true ON CONFLICT DO UPDATE SET value = x'77'",
            "map": " ON CONFLICT DO UPDATE SET chunk = excluded.chunk",
        }[name],
        (generation,),
    ),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", ["inode", "entry", "xattr", "map"])
def test_a_change_leaves_the_old_row_readable(tmp_path: Path, name: str, kind: str) -> None:
    table = make(tmp_path / "meta.db")
    fill(table)
    before = everything_at(table, 1)
    assert snapshot(table) == 1
    statement, values = KINDS[kind](name, 2)
    for _ in range(2):  # the second time there is nothing old left to keep
        sql(table).execute(statement, values)
        assert everything_at(table, 1) == before
    assert sql(table).execute(f"SELECT count(*) FROM {name}_old").fetchone() == (1,)
    if kind != "delete":
        assert sql(table).execute(f"SELECT count(*) FROM {name} WHERE born = 2").fetchone() == (1,)
    findings = [line for line in table.check() if line.startswith(("chunk", name))]
    assert [line for line in findings if "refs" in line] == []
    table.close()


@pytest.mark.parametrize("name", ["inode", "entry", "xattr", "map"])
def test_a_stale_birth_is_refused(table: MetaDatabase, name: str) -> None:
    fill(table)
    snapshot(table)
    for born in (1, 3):
        with pytest.raises(sqlite3.IntegrityError, match="present generation"):
            sql(table).execute(NEW[name], (born,))
        with pytest.raises(sqlite3.IntegrityError, match="present generation"):
            sql(table).execute(f"UPDATE {name} SET born = ?", (born,))


def test_without_a_snapshot_nothing_is_kept(table: MetaDatabase) -> None:
    ino = fill(table)
    table.set_attr(ino, AttrChange(mode=0o600))
    table.unlink(ROOT, b"f", 3)
    table.purge(ino, 10)
    for one in schema.VERSIONED:
        assert sql(table).execute(f"SELECT count(*) FROM {one.name}_old").fetchone() == (0,)


def test_upload_compaction_and_reading_keep_nothing(table: MetaDatabase) -> None:
    """They touch no versioned row, so a snapshot costs them nothing."""
    ino = fill(table)
    chunk = table.chunk_at(ino, 0)
    assert chunk is not None
    snapshot(table)
    before = everything_at(table, 1)
    table.mark_synced(chunk.chunk, [(0, CHUNK)])
    store(table, chunk)
    number = table.place(segment(), [placed(chunk)])  # compaction: the same version in another segment
    assert number is not None
    table.set_attr(ino, AttrChange(atime_ns=5))
    for one in schema.VERSIONED:
        assert sql(table).execute(f"SELECT count(*) FROM {one.name}_old").fetchone() == (0,)
    assert everything_at(table, 1) == before
    assert [found.chunk for found in table.chunks_in_segment(number)] == [chunk.chunk]


def test_the_tree_at_an_old_generation(table: MetaDatabase) -> None:
    """A history over three generations; each is still there, row by row, and so are its chunk versions."""
    sub, ino = mkdir(table, ROOT, b"d"), fill(table)
    kept = write(table, ino, 1)
    moments = {}

    def take() -> None:
        generation = table.generation
        moments[generation] = everything_at(table, generation)
        assert snapshot(table) == generation

    take()
    table.rename(ROOT, b"f", sub, b"g", RenameFlag.REPLACE, 20)
    write(table, ino, 1)
    table.set_xattr(ino, b"user.a", b"2", 0, 21)
    take()
    table.truncate(ino, 0, 22, 10)
    table.remove_xattr(ino, b"user.a", 23)
    other = mkfile(table, ROOT, b"f")
    take()
    table.unlink(sub, b"g", 24)
    table.purge(ino, 10)
    table.rmdir(ROOT, b"d", 25)
    table.purge(sub, 10)
    table.unlink(ROOT, b"f", 26)
    table.purge(other, 10)
    assert {generation: everything_at(table, generation) for generation in moments} == moments
    assert table.chunk(kept.chunk) == kept, "the first snapshot needs it"
    assert table.count() == (1, 0)
    # Pruning the first snapshot: rows that only it needs go, and with them the version.
    table.drop_snapshot(b"g1")
    while not table.clear_forgotten(1):
        pass
    assert table.chunk(kept.chunk) is None
    assert {generation: everything_at(table, generation) for generation in (2, 3)} == {
        generation: moments[generation] for generation in (2, 3)
    }


def test_a_rolled_back_generation_is_forgotten(table: MetaDatabase) -> None:
    def fail() -> None:
        with table.transaction():
            snapshot(table)
            raise ObjfsError("on purpose")

    with pytest.raises(ObjfsError, match="on purpose"):
        fail()
    assert table.generation == 1
    mkfile(table, ROOT, b"f")


# --- the schema's number -------------------------------------------------------------------


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with make(tmp_path / "meta.db") as table:
        sql(table).execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    with pytest.raises(NewerFormat):
        MetaDatabase.open(tmp_path / "meta.db", boot_id=BOOT)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    (tmp_path / "noise.db").write_bytes(b"no database at all" * 1000)
    (tmp_path / "empty.db").write_bytes(b"")
    for name in ("other.db", "noise.db", "empty.db"):
        with pytest.raises(Corrupt):
            MetaDatabase.open(tmp_path / name, boot_id=BOOT)


def test_migrations_run_once_and_whole(tmp_path: Path) -> None:
    def two(database: sqlite_utils.Database) -> None:
        database["inode"].add_column("colour", str)  # type: ignore[union-attr]

    def three(database: sqlite_utils.Database) -> None:
        database["segment"].create_index(["kind"])  # type: ignore[union-attr]
        if broken:
            raise ObjfsError("on purpose")

    steps = (*migrations.MIGRATIONS, two, three)
    first = schema.VERSION
    broken = True
    make(tmp_path / "meta.db").close()
    connection = sqlite3.connect(tmp_path / "meta.db", isolation_level=None)
    with pytest.raises(ObjfsError, match="on purpose"):
        migrations.migrate(connection, steps)
    database = sqlite_utils.Database(connection)
    assert connection.execute("PRAGMA user_version").fetchone() == (first + 1,)
    assert "colour" in database["inode"].columns_dict
    broken = False
    assert migrations.migrate(connection, steps) == 1
    assert migrations.migrate(connection, steps) == 0
    assert connection.execute("PRAGMA user_version").fetchone() == (first + 2,)
    assert schema.row_counts(connection)["inode"] == 1
    database.close()


def described(connection: sqlite3.Connection) -> dict[str, object]:
    """Columns of each table, and the text of everything else."""
    found: dict[str, object] = {}
    for kind, name, text in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        columns = connection.execute("SELECT * FROM pragma_table_info(?)", (name,)).fetchall()
        found[name] = columns if kind == "table" else text
    return found


def of_schema(number: int, path: Path) -> sqlite3.Connection:
    """A volume with a root directory, as a former objfs made it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(Path(__file__).with_name(f"schema_{number}.sql").read_text())
    connection.execute(
        "INSERT INTO volume (one, generation, uuid, chunk_size, created_s, created_ns, next_ino, next_chunk, "
        "next_segment) VALUES (1, 1, x'000102030405060708090a0b0c0d0e0f', 1024, 1, 1, 2, 1, 1)"
    )
    connection.execute(
        "INSERT INTO inode (ino, mode, uid, gid, nlink, rdev, size, mtime_s, mtime_ns, ctime_s, ctime_ns, "
        "btime_s, btime_ns, parent, next_cookie, born) "
        "VALUES (1, 16877, 0, 0, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 3, 1)"
    )
    return connection


@pytest.mark.parametrize("number", range(1, schema.VERSION))
def test_a_former_schema_is_migrated(tmp_path: Path, number: int) -> None:
    """What it holds stays, and from then on it is like one that was made today."""
    path = tmp_path / "meta.db"
    of_schema(number, path).close()
    make(tmp_path / "new.db").close()
    with (
        MetaDatabase.open(path, boot_id=BOOT) as old,
        MetaDatabase.open(tmp_path / "new.db", boot_id=BOOT) as new,
    ):
        assert described(sql(old)) == described(sql(new))
        fill(old)
        before = everything_at(old, snapshot(old))
        old.unlink(ROOT, b"f", 5)
        assert everything_at(old, 1) == before
        assert old.check() == []
    with MetaDatabase.open(path, boot_id=BOOT) as again:
        assert again.snapshots()[0].inodes == 2


def test_the_snapshots_of_the_second_schema_stay(tmp_path: Path) -> None:
    path = tmp_path / "meta.db"
    connection = of_schema(2, path)
    for generation in (1, 2, 3):
        connection.execute(
            "INSERT INTO snapshot (name, generation, created_s, created_ns) VALUES (?, ?, 1, 0)",
            (b"s%d" % generation, generation),
        )
        connection.execute("UPDATE volume SET generation = generation + 1")
        connection.execute("UPDATE inode SET mode = mode - 1")
    assert len(connection.execute("SELECT ino FROM inode_old").fetchall()) == 3
    connection.close()
    with MetaDatabase.open(path, boot_id=BOOT) as table:
        modes = [table.at(taken).get(ROOT).mode for taken in table.snapshots()]
        assert modes == [16877, 16876, 16875]
        assert table.get(ROOT).mode == 16874
        assert table.check() == []
