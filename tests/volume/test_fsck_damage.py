"""One damage of each kind: done, found, mended, and the whole read again, here and on a new machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from objfs.errors import ExitCode
from objfs.store import layout
from objfs.volume.fsck_report import Grade
from objfs.volume.local import VolumeHome
from tests.volume.patients import BIG, CLEAN_TREE, CRASHED_TREE, OVER, Patient, Tree, build, lost
from tests.volume.rigs import CHUNK, Cloud

Do = Callable[[Patient], Awaitable[None]]
LF = b"/lost+found"
Template = tuple[Cloud, VolumeHome]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Template]:
    """A clean and a crashed volume; nobody changes them."""
    root = tmp_path_factory.mktemp("templates")

    async def make() -> dict[bool, Template]:
        return {
            crashed: await build(root, f"crashed-{crashed}", crashed=crashed) for crashed in (False, True)
        }

    return trio.run(make)


async def patient(templates: dict[bool, Template], tmp_path: Path, *, crashed: bool) -> Patient:
    cloud, home = templates[crashed]
    return Patient(*await cloud.copied(tmp_path, home))


@dataclass(frozen=True)
class Damage:
    """``do`` breaks ``rule``.  After the repair the tree differs from that before by ``gone`` and ``new``;
    ``lost``: something is lost and named, so that the exit code is 17 and not 16."""

    rule: str
    do: Do
    crashed: bool = True
    data: bool = False
    gone: tuple[bytes, ...] = ()
    new: Tree = field(default_factory=dict)
    lost: bool = False
    stays: bool = False
    """A later check still names the loss."""
    reduced: bool = False
    """Nothing is wrong but how many buckets hold it: exit code 15."""


# --- the inode table -----------------------------------------------------------------------


def sql(*statements: str) -> Do:
    """Statements behind objfs's back; ``{big}`` and the like are inodes."""

    async def do(patient: Patient) -> None:
        names = {name: patient.ino(name) for name in ("big", "small", "d", "inner", "link", "sparse", "new")}
        patient.sql(*(statement.format(**names) for statement in statements))

    return do


def of_chunk(name: str, index: int, *statements: str) -> Do:
    """The same with ``{chunk}`` and ``{segment}`` of one chunk of a file."""

    async def do(patient: Patient) -> None:
        values = {"chunk": patient.chunk(name, index), "ino": patient.ino(name), "index": index}
        row = patient.ask(f"SELECT segment, base FROM chunk WHERE chunk = {values['chunk']}")[0]
        values |= {"segment": row[0], "base": row[1]}
        patient.sql(*(statement.format(**values) for statement in statements))

    return do


INNER_LOST = {b"/d/inner": lost(CLEAN_TREE[b"/d/inner"], 0)}

TABLE: dict[str, Damage] = {
    "root is gone": Damage("root", sql("DELETE FROM inode WHERE ino = 1")),
    "entry to nowhere": Damage(
        "entries", sql("DELETE FROM inode WHERE ino = {link}"), gone=(b"/link",), lost=True
    ),
    "inode is gone": Damage("entries", sql("DELETE FROM inode WHERE ino = {big}")),
    "directory's inode is gone": Damage("entries", sql("DELETE FROM inode WHERE ino = {d}")),
    "bad name": Damage(
        "names",
        sql("UPDATE entry SET name = x'612f62' WHERE name = x'7477696e'"),
        gone=(b"/twin",),
        new={LF: b"/", LF + b"/#8": CLEAN_TREE[b"/twin"]},
    ),
    "bad type": Damage("types", sql("UPDATE inode SET mode = 420 WHERE ino = {big}")),
    "bad size": Damage("sizes", sql("UPDATE inode SET size = -1 WHERE ino = {sparse}")),
    "short size": Damage("beyond", sql("UPDATE inode SET size = 10 WHERE ino = {big}")),
    "links": Damage("links", sql("UPDATE inode SET nlink = 9 WHERE ino = {small}")),
    "links of a directory": Damage("directory_links", sql("UPDATE inode SET nlink = 9 WHERE ino = {d}")),
    "parent": Damage("parents", sql("UPDATE inode SET parent = 99 WHERE ino = {d}")),
    "loop": Damage(
        "loops",
        sql(
            "UPDATE entry SET parent = {d}, cookie = 99 WHERE ino = {d}",
            "UPDATE inode SET parent = {d} WHERE ino = {d}",
        ),
        gone=(b"/d", b"/d/inner"),
        new={LF: b"/", LF + b"/#4": b"/", LF + b"/#4/inner": CLEAN_TREE[b"/d/inner"]},
    ),
    "cookie": Damage("cookies", sql("UPDATE inode SET next_cookie = 3 WHERE ino = 1")),
    "orphan with a name": Damage("orphans", sql("INSERT INTO orphan VALUES ({big}, -1, 0)")),
    "attributes of nobody": Damage(
        "attached",
        sql("INSERT INTO xattr SELECT 999, name, value, generation FROM xattr, volume"),
        new={LF: b"/", LF + b"/#999": b""},
    ),
    "references": Damage("references", sql("UPDATE chunk SET refs = refs + 1")),
    "row of the map is gone": Damage(
        "references",
        of_chunk("big", 2, "DROP TRIGGER map_delete", "DELETE FROM map WHERE ino = {ino} AND idx = 2"),
    ),
    "row of a stored chunk is gone": Damage(
        "mapped", of_chunk("inner", 0, "DROP TRIGGER chunk_delete", "DELETE FROM chunk WHERE chunk = {chunk}")
    ),
    "row of a dirty chunk is gone": Damage(
        "mapped", of_chunk("new", 0, "DROP TRIGGER chunk_delete", "DELETE FROM chunk WHERE chunk = {chunk}")
    ),
    "base of a dirty chunk is gone": Damage(
        "bases", of_chunk("big", 1, "DROP TRIGGER chunk_delete", "DELETE FROM chunk WHERE chunk = {base}")
    ),
    "version that never was": Damage(
        "mapped",
        of_chunk(
            "inner",
            0,
            "UPDATE map SET chunk = 4000 WHERE ino = {ino}",
            "DELETE FROM chunk WHERE chunk = {chunk}",
        ),
        new=INNER_LOST,
        lost=True,
        stays=True,
    ),
    "held": Damage("held", sql("UPDATE inode SET held = 5 WHERE ino = {big}")),
    "location is gone": Damage(
        "stored", of_chunk("inner", 0, "UPDATE chunk SET position = NULL WHERE chunk = {chunk}")
    ),
    "location of an equal chunk is gone": Damage(
        "stored", of_chunk("twin", 0, "UPDATE chunk SET frames = NULL, length = NULL WHERE chunk = {chunk}")
    ),
    "location beyond the segment": Damage(
        "place", of_chunk("inner", 0, "UPDATE chunk SET position = 5000000 WHERE chunk = {chunk}")
    ),
    "location across a cut": Damage(
        "place", of_chunk("big", 2, "UPDATE chunk SET position = position + 7000 WHERE chunk = {chunk}")
    ),
    "location of another chunk": Damage(
        "place",
        of_chunk("sparse", 3, "UPDATE chunk SET first_frame = first_frame + 1 WHERE chunk = {chunk}"),
        data=True,
    ),
    "segment's row is gone": Damage(
        "stored",
        of_chunk("inner", 0, "DROP TRIGGER segment_delete", "DELETE FROM segment WHERE segment = {segment}"),
    ),
    "segment's row means nothing": Damage(
        "segments", of_chunk("inner", 0, "UPDATE segment SET cuts = x'00' WHERE segment = {segment}")
    ),
    "segment's cuts are wrong": Damage(
        "segment-row",
        of_chunk("inner", 0, "UPDATE segment SET cuts = zeroblob(8 * (k + 1)) WHERE segment = {segment}"),
    ),
    "segment's uuid is wrong": Damage(
        "shard-missing",
        of_chunk("inner", 0, "UPDATE segment SET uuid = zeroblob(16) WHERE segment = {segment}"),
    ),
    "segment's uuid is short": Damage(
        "segment-row", of_chunk("inner", 0, "UPDATE segment SET uuid = x'00' WHERE segment = {segment}")
    ),
    "segment's placement is wrong": Damage(
        "shard-moved",
        of_chunk("inner", 0, "UPDATE segment SET placement = zeroblob(k + m) WHERE segment = {segment}"),
    ),
    "segment is condemned": Damage(
        "stored",
        of_chunk("big", 0, "UPDATE segment SET state = 1, condemned_seq = 1 WHERE segment = {segment}"),
    ),
    "shard counts as missing": Damage(
        "shard-found", of_chunk("big", 0, "UPDATE segment SET missing = x'01' WHERE segment = {segment}")
    ),
    "dirty ranges of a stored chunk": Damage(
        "dirty",
        of_chunk("inner", 0, "INSERT INTO local_dirty VALUES ({chunk}, 9999, 0, 1, 1, 0, NULL, NULL, NULL)"),
    ),
    "in use and freed": Damage("freed", of_chunk("new", 0, "INSERT INTO local_freed VALUES ({chunk})")),
    "generation": Damage("generations", sql("UPDATE volume SET generation = 1")),
    "next numbers": Damage(
        "numbers", sql("UPDATE volume SET next_ino = 2, next_chunk = 2, next_segment = 1")
    ),
    "row of the volume is gone": Damage("volume", sql("DELETE FROM volume")),
    "row of the volume is another's": Damage("volume", sql("UPDATE volume SET uuid = zeroblob(16)")),
}


async def lost_index(patient: Patient) -> None:
    """A row that was written while its index was out of sight."""
    where, columns = "WHERE name = 'entry_cookie'", "type, name, tbl_name, rootpage, sql"
    with closing(sqlite3.connect(patient.home.database_path, isolation_level=None)) as connection:
        row = connection.execute(f"SELECT {columns} FROM sqlite_master {where}").fetchone()
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"DELETE FROM sqlite_master {where}")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("UPDATE entry SET cookie = 90 WHERE name = x'626967'")
        connection.execute("UPDATE inode SET next_cookie = 91 WHERE ino = 1")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"INSERT INTO sqlite_master ({columns}) VALUES (?, ?, ?, ?, ?)", row)


def overwrite(where: Callable[[Patient], Path], at: float, data: bytes) -> Do:
    """Bytes of a local file, at a part of its length."""

    async def do(patient: Patient) -> None:
        path = where(patient)
        content = bytearray(path.read_bytes())
        start = int(len(content) * at)
        content[start : start + len(data)] = data
        path.write_bytes(content)

    return do


def write(name: str, content: bytes) -> Do:
    async def do(patient: Patient) -> None:
        (patient.home.path / name).write_bytes(content)

    return do


def unlink(name: str) -> Do:
    async def do(patient: Patient) -> None:
        (patient.home.path / name).unlink()

    return do


def database(patient: Patient) -> Path:
    return patient.home.database_path


async def rotten_row(patient: Patient) -> None:
    """A sound database that says something else; nothing in it breaks a rule."""
    path = patient.home.database_path
    data = path.read_bytes()
    assert data.count(b"target") >= 1
    path.write_bytes(data.replace(b"target", b"tarGet"))


async def broken_database(patient: Patient) -> None:
    """Of a crashed process: the log is moved into the file first."""
    patient.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    await overwrite(database, 0.3, bytes([0xA5]) * 20_000)(patient)


STATE: dict[str, Damage] = {
    "an index of the database": Damage("pages", lost_index),
    "pages of the database, clean": Damage(
        "pages", overwrite(database, 0.3, bytes([0xA5]) * 20_000), crashed=False
    ),
    "pages of the database, crashed": Damage(
        "pages",
        broken_database,
        gone=(b"/new",),
        new={b"/big": BIG},
        lost=True,
    ),
    "a row of the database, clean": Damage("table-file", rotten_row, crashed=False),
    "the database is gone, clean": Damage("table-missing", unlink("meta.db"), crashed=False),
    "the database is no database": Damage("pages", write("meta.db", b"?" * 9000), crashed=False),
    "the replica's pages": Damage("replica", overwrite(lambda p: p.home.replica_path / "image", 0.5, b"rot")),
    "the replica's hashes": Damage("replica", overwrite(lambda p: p.home.replica_path / "sums", 0.5, b"rot")),
    "the replica's note": Damage("state-file", write("pages/image.json", b"{")),
    "checkpoint.json": Damage("state-file", write("checkpoint.json", b"{")),
    "state.json": Damage("state-file", write("state.json", b"[]")),
    "lease.json, clean": Damage("state-file", write("lease.json", b"?"), crashed=False),
}


# --- the cache -----------------------------------------------------------------------------


async def no_cache_file(patient: Patient) -> None:
    patient.cache_file(patient.chunk("new")).unlink()


async def short_cache_file(patient: Patient) -> None:
    path = patient.cache_file(patient.chunk("new"))
    path.write_bytes(path.read_bytes()[:400])


async def no_cache_file_over_a_base(patient: Patient) -> None:
    patient.cache_file(patient.chunk("big", 1)).unlink()


async def rotten_copy(patient: Patient) -> None:
    """Of a stored chunk that the cache still holds."""
    path = patient.cache_file(patient.chunk("big", 2))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


NEW_LOST = {b"/new": b"?" * 1000}

CACHE: dict[str, Damage] = {
    "a file of what was not uploaded is gone": Damage(
        "unreadable", no_cache_file, new=NEW_LOST, lost=True, stays=True
    ),
    "a file of what was not uploaded is short": Damage(
        "unreadable",
        short_cache_file,
        new=NEW_LOST | {LF: b"/", LF + b"/#1026.chunks": b"n" * 400},
        lost=True,
        stays=True,
    ),
    "a file over a stored chunk is gone": Damage(
        "unreadable",
        no_cache_file_over_a_base,
        new={b"/big": lost(BIG, 1)},
        lost=True,
        stays=True,
    ),
    "a copy of what is stored": Damage("cache-copy", rotten_copy, data=True),
}


# --- buckets -------------------------------------------------------------------------------


def shards(name: str, index: int, *numbers: int) -> Do:
    """Shards of the segment of a chunk are deleted."""

    async def do(patient: Patient) -> None:
        for number in numbers:
            slot, key = patient.shard(patient.segment(name, index)[1], number)
            await patient.bucket(slot).delete(key)

    return do


def changed_shard(change: Callable[[bytes], bytes]) -> Do:
    async def do(patient: Patient) -> None:
        slot, key = patient.shard(patient.segment("big")[1], 1)
        await patient.change(slot, key, change)

    return do


def flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def moved_shards(patient: Patient) -> None:
    """Two shards lie in the wrong bucket: too few are left where they should be."""
    segment = patient.segment("big")[1]
    for number in (0, 1):
        slot, key = patient.shard(segment, number)
        other = patient.bucket(segment.placement[2])
        await other.put(key, await patient.bucket(slot).get(key))
        await patient.bucket(slot).delete(key)


async def lost_segment(patient: Patient) -> None:
    """Both data shards of a segment, and the cache has nothing of it.  The end of the longer one comes back
    from parity alone, and with it the smallest file."""
    keep = {patient.cache_file(patient.chunk(name, index)) for name, index in (("big", 1), ("new", 0))}
    for path in patient.home.cache_path.glob("*/*"):
        if path not in keep:
            path.unlink()
    await shards("big", 0, 0, 1)(patient)


async def blob_of_newest(patient: Patient, lose: int) -> None:
    """Shards of a blob of the inode table's pages."""
    manifest = await patient.newest_manifest()
    for number in range(lose):
        slot, key = patient.shard(manifest.base[0].segment, number)
        await patient.bucket(slot).delete(key)


def blob(lose: int) -> Do:
    async def do(patient: Patient) -> None:
        await blob_of_newest(patient, lose)

    return do


def manifest(change: Callable[[bytes], bytes] | None, *slots: int) -> Do:
    """The newest manifest in some buckets is changed, or deleted."""

    async def do(patient: Patient) -> None:
        key = await patient.newest()
        for slot in slots:
            if change is None:
                await patient.bucket(slot).delete(key)
            else:
                await patient.change(slot, key, change)

    return do


def cut(data: bytes) -> bytes:
    return data[:-1]


def put(slot: int, key: str, data: bytes) -> Do:
    async def do(patient: Patient) -> None:
        await patient.bucket(slot).put(key, data)

    return do


def delete(slot: int, key: str) -> Do:
    async def do(patient: Patient) -> None:
        await patient.bucket(slot).delete(key)

    return do


BUCKETS: dict[str, Damage] = {
    "a shard is gone": Damage("shard-missing", shards("big", 0, 1)),
    "a copy of a small segment is gone": Damage("shard-missing", shards("inner", 0, 1)),
    "a shard is short": Damage("shard-length", changed_shard(cut)),
    "a shard is long": Damage("shard-length", changed_shard(lambda data: data + b"?")),
    "a shard lies": Damage("shard-damaged", changed_shard(flipped), data=True),
    "shards are in another bucket": Damage("shard-moved", moved_shards),
    "both copies are gone, the cache has the chunks": Damage("unreadable", shards("inner", 0, 0, 1)),
    "two shards are gone": Damage(
        "unreadable",
        lost_segment,
        new={
            b"/big": b"?" * len(BIG),
            b"/twin": b"?" * CHUNK,
            LF: b"/",
            LF + b"/#2.chunks": bytes(70_000) + OVER,
        },
        lost=True,
        stays=True,
    ),
    "a shard of the table's pages is gone": Damage("shard-missing", blob(1)),
    "the table's pages are gone": Damage("shard-missing", blob(2)),
    "a manifest's copy is gone": Damage("manifest-copy", manifest(None, 1), reduced=True),
    "a manifest's copy is damaged": Damage("manifest-copy", manifest(flipped, 1)),
    "the newest manifest is damaged everywhere": Damage("moment", manifest(cut, 0, 1, 2)),
    "the newest manifest is gone everywhere": Damage("rollback", manifest(None, 0, 1, 2)),
    "a header is gone": Damage("header", delete(2, layout.HEADER)),
    "a header is damaged": Damage("header", put(0, layout.HEADER, b"?" * 500)),
    "a label is gone": Damage("label", delete(1, layout.LABEL)),
    "a label is damaged": Damage("label", put(1, layout.LABEL, b"?" * 100)),
}

DAMAGES = TABLE | STATE | CACHE | BUCKETS


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage(templates: dict[bool, Template], tmp_path: Path, name: str) -> None:
    damage = DAMAGES[name]
    sick = await patient(templates, tmp_path, crashed=damage.crashed)
    before = CRASHED_TREE if damage.crashed else CLEAN_TREE
    await damage.do(sick)
    found = await sick.check(data=damage.data)
    grades = (Grade.REDUCED,) if damage.reduced else (Grade.DAMAGE, Grade.LOSS)
    assert damage.rule in found.rules(*grades), [one.line for one in found.findings]
    assert found.exit_code is (ExitCode.DEGRADED if damage.reduced else ExitCode.DAMAGE_FOUND)
    mended = await sick.repair(data=damage.data)
    lines = [one.line for one in mended.findings] + mended.done
    expected = {path: data for path, data in before.items() if path not in damage.gone} | damage.new
    assert await sick.tree() == expected, lines
    assert await sick.tree(await sick.fresh()) == expected, lines
    assert mended.exit_code is (ExitCode.DAMAGE_FOUND if damage.lost else ExitCode.DAMAGE_HEALED), lines
    again = await sick.check(data=damage.data)
    assert again.exit_code is (ExitCode.DAMAGE_FOUND if damage.stays else ExitCode.OK), lines


@pytest.mark.parametrize("crashed", [False, True])
async def test_a_sound_volume_is_clean(
    templates: dict[bool, Template], tmp_path: Path, crashed: bool
) -> None:
    well = await patient(templates, tmp_path, crashed=crashed)
    before = {path.name: path.stat().st_mtime_ns for path in well.home.path.iterdir()}
    for data in (False, True):
        report = await well.check(data=data)
        assert ([one.line for one in report.findings], report.exit_code) == ([], ExitCode.OK)
        assert (await well.repair(data=data)).exit_code is ExitCode.OK
    after = {path.name: path.stat().st_mtime_ns for path in well.home.path.iterdir()}
    assert {name: after[name] for name in before if name != "lock"} == {
        name: before[name] for name in before if name != "lock"
    }
    assert await well.tree() == (CRASHED_TREE if crashed else CLEAN_TREE)
