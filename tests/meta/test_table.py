"""What the SQLite table does beyond the ports: numbers, recovery, segments, power cuts, damage."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from objfs.errors import Corrupt, NoSpace, ObjfsError, StoreError, Unclean, VolumeExists
from objfs.meta import MetaDatabase, settle
from objfs.meta.segments import FIRST, AtRisk, rank
from objfs.model import FILE_SIZE_MAX, ROOT, ChunkState, DirtyRange, NewInode, SegmentNo
from objfs.ports import ChunkTable, InodeTable
from tests.meta.contract import mkfile, store, write
from tests.meta.support import BOOT, CHUNK, make, placed, regular, segment


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meta.db"


@pytest.fixture
def table(path: Path) -> Iterator[MetaDatabase]:
    with make(path) as table:
        yield table


def reopen(table: MetaDatabase, boot: bytes = BOOT) -> MetaDatabase:
    table.close()
    return MetaDatabase.open(table.path, boot_id=boot)


def test_it_satisfies_the_ports(table: MetaDatabase) -> None:
    inodes: InodeTable = table
    chunks: ChunkTable = table
    assert inodes.get(ROOT).ino == ROOT
    assert chunks.dirty_chunks() == []


def test_everything_is_there_again(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    chunk = write(table, ino)
    with reopen(table) as again:
        assert (again.uuid, again.chunk_size, again.generation) == (b"volume" + bytes(10), CHUNK, 1)
        assert again.count() == (2, CHUNK)
        assert again.lookup(ROOT, b"f").ino == ino
        assert again.dirty_chunks() == [chunk]
        assert again.dirty_ranges(chunk.chunk) == [
            DirtyRange(chunk.chunk, 0, CHUNK, 7, boot=BOOT, size_before=0)
        ]


def test_making_and_opening(table: MetaDatabase, tmp_path: Path) -> None:
    with pytest.raises(VolumeExists):
        make(table.path)
    with pytest.raises(Unclean):
        MetaDatabase.open(tmp_path / "none.db", boot_id=BOOT)


def test_settle_brings_the_log_into_the_file(table: MetaDatabase) -> None:
    mkfile(table, ROOT, b"f")
    table.close()
    settle(table.path)
    assert [each.name for each in table.path.parent.iterdir()] == ["meta.db"]


# --- transactions --------------------------------------------------------------------------


def test_an_error_that_was_swallowed_inside_still_rolls_back(table: MetaDatabase) -> None:
    def swallow() -> None:
        with table.transaction():
            mkfile(table, ROOT, b"f")
            try:
                with table.transaction():
                    raise KeyError("half of something")
            except KeyError:
                pass

    with pytest.raises(ObjfsError, match="rolled back"):
        swallow()
    assert table.readdir(ROOT, 0, 9) == []
    mkfile(table, ROOT, b"g")


def test_a_full_disk_is_no_space_and_changes_nothing(table: MetaDatabase) -> None:
    connection = table._db.connection
    mkfile(table, ROOT, b"before")
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    def fill() -> None:
        with table.transaction():
            for number in range(10_000):
                table.create(ROOT, b"%d" % number + b"x" * 200, regular())

    count = table.count()
    with pytest.raises(NoSpace):
        fill()
    assert table.count() == count
    assert [entry.name for entry in table.readdir(ROOT, 0, 9)] == [b"before"]
    connection.execute("PRAGMA max_page_count = 100000")
    mkfile(table, ROOT, b"after")
    assert table.check() == []


def test_numbers_of_a_rolled_back_transaction_are_not_used_again(table: MetaDatabase) -> None:
    made = []

    def fail() -> None:
        with table.transaction():
            for number in range(1500):  # beyond a block of numbers
                made.append(mkfile(table, ROOT, b"%d" % number))
            raise KeyError("on purpose")

    with pytest.raises(KeyError):
        fail()
    made.append(mkfile(table, ROOT, b"f"))
    with reopen(table) as again:
        made.append(mkfile(again, ROOT, b"g"))
        assert made == sorted(set(made))
        assert again.check() == []


# --- recovery ------------------------------------------------------------------------------


def test_a_patch_places_what_was_dirty_at_the_cut(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    base = write(table, ino, 0)
    store(table, base)
    top = table.begin_chunk(ino, 0, base.chunk, CHUNK)
    other, gone = write(table, ino, 1), write(table, ino, 2)
    known = SegmentNo(1)
    table.truncate(ino, 2 * CHUNK, 30, 9)
    new = segment()
    number = SegmentNo(5000)
    with table.transaction():
        table.clear_local()
        table.apply_patch(
            {number: new, known: table.segment(known)},
            [placed(top, number=number), placed(other, number=known), placed(gone, number=number)],
        )
    assert table.dirty_chunks() == []
    assert table.segment(number) == new
    assert table.chunk(base.chunk) is None
    found = table.chunk_at(ino, 0)
    assert found is not None
    assert found.state is ChunkState.STORED
    assert table.dirty_ranges(other.chunk) == []
    fresh = write(table, ino, 5)
    assert table.place(segment(), [placed(fresh)]) > number  # type: ignore[operator]
    assert table.check() == []


def test_a_patch_that_contradicts_the_table_is_refused(table: MetaDatabase) -> None:
    store(table, write(table, mkfile(table, ROOT, b"f")))
    with pytest.raises(Corrupt):
        table.apply_patch({SegmentNo(1): segment()}, [])


def test_clear_local_forgets_and_leaves_a_gap(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    old, new = write(table, ino), write(table, ino)
    assert table.freed(9) == [old.chunk]
    table.clear_local()
    assert table.freed(9) == []
    assert table.dirty_ranges(new.chunk) == []
    assert write(table, ino).chunk > new.chunk + 1_000_000
    assert mkfile(table, ROOT, b"g") > ino + 1_000_000
    assert table.dirty_ranges(write(table, ino).chunk)[0].boot == BOOT


# --- power cuts ----------------------------------------------------------------------------


def test_ranges_keep_the_boot_they_were_written_in(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    chunk = write(table, ino).chunk
    assert not table.foreign_boot(chunk)
    with reopen(table, b"second-boot") as again:
        assert again.foreign_boot(chunk)
        again.record_write(ino, CHUNK, 1, [DirtyRange(chunk, 0, 5, 1)])
        assert [one.boot for one in again.dirty_ranges(chunk)] == [BOOT, b"second-boot"]
        again.mark_synced(chunk, [(0, CHUNK)])
        assert not again.foreign_boot(chunk)
        assert again.check() == []
    with MetaDatabase.open(table.path, boot_id=b"third-boot") as third:
        assert not third.foreign_boot(chunk), "what is synced is safe whatever happens"


def test_the_size_after_a_power_cut(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    kept = write(table, ino, 0)
    for index in range(1, 6):
        write(table, ino, index)
    before = table.get(ino)
    table.set_size_after_power_cut(ino, CHUNK)
    assert table.get(ino) == before._replace(size=CHUNK, held=CHUNK)
    assert table.chunks_between(ino, 0, 99, 99) == [kept]
    table.set_size_after_power_cut(ino, 2 * CHUNK)
    assert table.get(ino).size == CHUNK
    assert table.count() == (2, CHUNK)
    assert table.check() == []


def test_what_a_file_holds_after_ranges_were_lost(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    chunk = write(table, ino).chunk
    write(table, ino, 1, 5)
    table.mark_synced(chunk, [(0, 10)])
    assert table.check() == [f"inode {ino}: holds {CHUNK + 5} bytes, but 15 in 2 chunks"]
    table.count_held(ino)
    assert table.get(ino).held == 15
    assert table.count() == (2, 15)
    assert table.check() == []


def test_huge_sparse_files_are_counted_and_opened(table: MetaDatabase) -> None:
    """The sum of their sizes would not fit into 64 bits."""
    for number in range(4):
        table.truncate(mkfile(table, ROOT, b"%d" % number), FILE_SIZE_MAX, 1, 1)
    assert table.count() == (5, 0)
    with reopen(table) as again:
        assert again.count() == (5, 0)


# --- segments ------------------------------------------------------------------------------


def test_segments_that_nothing_needs(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    for index in range(4):
        store(table, write(table, ino, index))
    assert table.segments_without_chunks(9) == []
    table.truncate(ino, CHUNK, 30, 9)
    empty = table.segments_without_chunks(9)
    assert [number for number, _ in empty] == [2, 3, 4]
    assert table.segments_without_chunks(1) == empty[:1]
    assert table.condemn([SegmentNo(n) for n in (1, 2, 3)], 17) == [2, 3]
    assert table.condemned() == [(*item, 17) for item in empty[:2]]
    assert table.segments_without_chunks(9) == empty[2:]
    with pytest.raises(StoreError):
        table.place(None, [placed(write(table, ino, 1), number=2)])
    dropped = table.drop_segments([SegmentNo(n) for n in (1, 2, 4, 99)])
    assert dropped == [empty[0][1], empty[2][1]]
    assert [number for number, _, _ in table.condemned()] == [3]
    assert table.check() == []


def test_those_that_bear_the_fewest_losses_are_named_first(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    code = segment().code
    lacks = [1, 2, 1, code.n, 2]
    torn = [replace(segment(), missing=frozenset(range(count))) for count in lacks]
    numbers = [table.place(each, [placed(write(table, ino, at))]) for at, each in enumerate(torn)]
    order = [numbers[at] for at in (1, 4, 0, 2)]
    assert [number for number, _ in table.endangered(FIRST, 9)] == order
    walked, after = [], FIRST
    while found := table.endangered(after, 1):
        walked += [number for number, _ in found]
        after = rank(*found[0])
    assert walked == order
    assert table.at_risk().segments == 4  # what is lost for good waits for nothing


def test_missing_shards_wait_for_repair(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    torn = replace(segment(), missing=frozenset({2, 0}))
    number = table.place(torn, [placed(write(table, ino))])
    store(table, write(table, ino, 1))
    assert number is not None
    assert table.endangered(FIRST, 9) == [(number, torn)]
    assert table.at_risk() == AtRisk(1, 2, torn.length, number)
    repaired = replace(torn, missing=frozenset(), generation=1)
    table.update_segment(number, repaired)
    assert (table.endangered(FIRST, 9), table.segment(number)) == ([], repaired)
    assert table.at_risk() == AtRisk()
    with pytest.raises(StoreError):
        table.update_segment(SegmentNo(99), repaired)


def test_recent_identities_are_those_of_stored_versions(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    made = [write(table, ino, index) for index in range(4)]
    for chunk in made[:3]:
        store(table, chunk)
    identities = [(placed(chunk).location.identity, chunk.chunk) for chunk in made]
    assert table.recent_identities(2) == [identities[2], identities[1]]


def test_statistics(table: MetaDatabase) -> None:
    ino = mkfile(table, ROOT, b"f")
    store(table, write(table, ino, 0))
    write(table, ino, 1)
    write(table, ino, 1)
    mkfile(table, ROOT, b"g")
    table.unlink(ROOT, b"g", 1)
    found = table.statistics()
    assert (found.inodes, found.content_bytes, found.dirty_chunks, found.segments) == (3, 2 * CHUNK, 1, 1)
    assert (found.orphans, found.freed_chunks, found.generation) == (1, 1, 1)
    assert found.pages > 20
    assert found.log_bytes > 0


# --- the audit -----------------------------------------------------------------------------


def test_a_damaged_file_is_told_as_such(table: MetaDatabase) -> None:
    for number in range(2000):
        mkfile(table, ROOT, b"%d" % number)
    table.close()
    data = bytearray(table.path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 40960] = bytes([0xA5]) * 40960
    table.path.write_bytes(data)

    def read_all() -> None:
        with MetaDatabase.open(table.path, boot_id=BOOT) as damaged:
            assert damaged.check()
            for entry in damaged.readdir(ROOT, 0, 3000):
                damaged.get(entry.attr.ino)

    with pytest.raises(Corrupt):
        read_all()


def test_times_and_ids_of_the_root(path: Path) -> None:
    with MetaDatabase.make(
        path, uuid=bytes(16), chunk_size=CHUNK, root=NewInode(0o40750, 7, 8, -5), boot_id=BOOT
    ) as table:
        root = table.get(ROOT)
        assert (root.mode, root.uid, root.gid, root.btime_ns) == (0o40750, 7, 8, -5)


def test_one_thread_only(table: MetaDatabase) -> None:
    """The connection itself refuses others: no lock is needed because nobody else can come."""
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            table.get(ROOT)
        except ObjfsError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert isinstance(errors[0].__cause__, sqlite3.ProgrammingError)
