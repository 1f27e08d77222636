"""The page log and the replica: what is shipped is the database as it stood at the mark."""

from __future__ import annotations

import errno
import itertools
import os
import queue
import random
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from objfs.errors import Corrupt, NotFound, ObjfsError, Unclean
from objfs.meta import PAGE_SIZE, MetaDatabase, PageSet, Replica, pages
from objfs.meta import replica as replica_module
from objfs.model import ROOT, AttrChange, Ino, WalMark
from tests.meta.support import BOOT, hasher, make, regular


@pytest.fixture
def table(tmp_path: Path) -> Iterator[MetaDatabase]:
    with make(tmp_path / "meta.db") as table:
        yield table


def dump(path: Path) -> list[str]:
    """Everything in a database, as SQL.  Of a copy: looking at a database writes beside it."""
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


class PageHistory(RuleBasedStateMachine):
    """Random transactions, marks, takes, backfills, restarts, rollbacks and large transactions.

    After each take the replica must be the database as of the mark, which is kept as a dump.
    """

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="objfs-pages-"))
        self.table = make(self.home / "meta.db")
        # A small page cache makes large transactions spill into the log before they commit.
        self.table._db.connection.execute("PRAGMA cache_size = 20")
        self.replica = Replica(self.home / "pages", hasher)
        self.marks: list[tuple[WalMark, list[str]]] = []
        self.names = 0

    def teardown(self) -> None:
        self.replica.close()
        self.table.close()
        shutil.rmtree(self.home)

    def write(self, count: int) -> None:
        for _ in range(count):
            self.names += 1
            self.table.create(ROOT, b"%d" % self.names + b"x" * 60, regular())

    @initialize()
    def begin(self) -> None:
        self.write(1)

    @rule(count=st.integers(1, 5))
    def small_transactions(self, count: int) -> None:
        self.write(count)

    @rule(count=st.integers(100, 400))
    def large_transaction(self, count: int) -> None:
        with self.table.transaction():
            self.write(count)

    @rule(count=st.integers(1, 400))
    def rolled_back(self, count: int) -> None:
        def fail() -> None:
            with self.table.transaction():
                self.write(count)
                raise NotFound("on purpose")

        with pytest.raises(NotFound):
            fail()

    @rule(data=st.data())
    def change(self, data: st.DataObject) -> None:
        ino = Ino(data.draw(st.integers(1, 2 + self.names // 2)))
        try:
            self.table.set_attr(ino, AttrChange(mtime_ns=data.draw(st.integers(0, 10**18))))
        except ObjfsError:
            return  # a number that a rolled back transaction used up

    @rule()
    def remove(self) -> None:
        for entry in self.table.readdir(ROOT, 0, 100):
            self.table.unlink(ROOT, entry.name, 5)
            self.table.purge(entry.attr.ino, 10)

    @rule()
    def mark(self) -> None:
        mark = self.table.log.mark()
        connection = self.table._db.connection
        self.marks.append((mark, list(connection.iterdump())))

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.marks) - 1))
        mark, expected = self.marks[at]
        del self.marks[: at + 1]
        self.replica.apply(self.table.log.take(mark))
        restored = self.home / "restored.db"
        self.replica.restore(restored)
        assert dump(restored) == expected
        assert self.replica.digest == self.replica.compute_digest()

    @rule()
    def backfill(self) -> None:
        done = self.table.log.backfill()
        assert done.complete

    @rule()
    def restart(self) -> None:
        self.table.log.backfill()
        assert self.table.log.restart()

    @invariant()
    def pending_is_told(self) -> None:
        assert self.table.log.pending >= 0


PageHistory.TestCase.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPageHistory = PageHistory.TestCase


def ship(table: MetaDatabase, replica: Replica) -> PageSet:
    pages = table.log.take(table.log.mark())
    replica.apply(pages)
    return pages


def image_of(replica: Replica) -> bytes:
    return b"".join(replica.page(number) for number in range(1, replica.page_count + 1))


def test_the_replica_of_a_closed_table_is_its_file(table: MetaDatabase, tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        for number in range(300):
            table.create(ROOT, b"%d" % number, regular())
            if number % 50 == 0:
                ship(table, replica)
                table.log.backfill()
        ship(table, replica)
        assert table.log.pending == 0
        table.close()
        assert image_of(replica) == (tmp_path / "meta.db").read_bytes()
        assert len(replica.diff(tmp_path / "meta.db")) == 0


def test_a_writer_beside_a_worker_that_takes_and_backfills(table: MetaDatabase, tmp_path: Path) -> None:
    done = threading.Event()
    marks: queue.SimpleQueue[WalMark] = queue.SimpleQueue()
    failures: list[Exception] = []

    def work(replica: Replica) -> None:
        try:
            while not done.is_set():
                table.log.backfill()
                if not marks.empty():
                    replica.apply(table.log.take(marks.get()))
        except Exception as error:
            failures.append(error)

    with Replica(tmp_path / "pages", hasher) as replica:
        worker = threading.Thread(target=work, args=(replica,))
        worker.start()
        for number in range(3000):
            table.create(ROOT, b"%d" % number, regular())
            if number % 300 == 0:
                marks.put(table.log.mark())
            table.log.restart()
        done.set()
        worker.join()
        assert not failures
        ship(table, replica)
        table.close()
        assert image_of(replica) == (tmp_path / "meta.db").read_bytes()


def test_a_commit_between_spooling_and_moving_is_not_lost(
    table: MetaDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the pin is for, step by step."""
    spool = table.log._spool_all

    def spool_then_commit() -> None:
        spool()
        table.create(ROOT, b"between", regular())

    monkeypatch.setattr(table.log, "_spool_all", spool_then_commit)
    assert not table.log.backfill().complete
    monkeypatch.undo()
    for number in range(20):
        table.create(ROOT, b"%d" % number, regular())
    with Replica(tmp_path / "pages", hasher) as replica:
        ship(table, replica)
        table.close()
        assert image_of(replica) == (tmp_path / "meta.db").read_bytes()


def test_the_log_starts_over_and_stays_small(table: MetaDatabase) -> None:
    for number in range(400):
        table.create(ROOT, b"%d" % number, regular())
        if number % 20 == 0:
            assert table.log.backfill().complete
    assert table.log.size < 200 * PAGE_SIZE


def test_restart_leaves_a_long_rest_to_the_worker(table: MetaDatabase) -> None:
    with table.transaction():
        for number in range(2000):
            table.create(ROOT, b"%d" % number, regular())
    assert not table.log.restart(limit=5)
    assert table.log.backfill().complete
    assert table.log.restart(limit=5)


def test_a_clean_table_has_nothing_to_take(table: MetaDatabase) -> None:
    table.log.take(table.log.mark())
    table.readdir(ROOT, 0, 10)
    assert table.log.pending == 0
    assert len(table.log.take(table.log.mark())) == 0


def test_an_empty_set_knows_the_size_of_the_table(table: MetaDatabase) -> None:
    """Also right after opening, when the log is empty."""
    count = table.statistics().pages
    table.close()
    with MetaDatabase.open(table.path, boot_id=BOOT) as again:
        taken = again.log.take(again.log.mark())
        assert (len(taken), taken.page_count) == (0, count)
        again.create(ROOT, b"f", regular())
        assert again.log.take(again.log.mark()).page_count == count
        assert again.log.take(again.log.mark()).page_count == count


def test_a_mark_of_another_log_is_refused(table: MetaDatabase) -> None:
    with pytest.raises(ObjfsError, match="another log"):
        table.log.take(WalMark(12345, 1))


def test_a_take_that_fails_can_be_repeated(
    table: MetaDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.create(ROOT, b"a", regular())
    mark = table.log.mark()

    def full(*_: object) -> int:
        raise OSError(28, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(pages.Spool, "put", full)
        with pytest.raises(OSError, match="no space"):
            table.log.take(mark)
        with pytest.raises(OSError, match="no space"):
            table.log.backfill()
    table.create(ROOT, b"b", regular())
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(table.log.take(mark))
        replica.restore(tmp_path / "restored.db")
        with MetaDatabase.open(tmp_path / "restored.db", boot_id=BOOT) as restored:
            assert [entry.name for entry in restored.readdir(ROOT, 0, 9)] == [b"a"]
            assert restored.check() == []


def test_synced_log_survives_a_crash(table: MetaDatabase, tmp_path: Path) -> None:
    """kill -9: the files as they are, without closing (the index is made anew)."""
    table.create(ROOT, b"kept", regular())
    table.sync_log()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for name in ("meta.db", "meta.db-wal"):
        shutil.copy(tmp_path / name, crashed / name)
    with MetaDatabase.open(crashed / "meta.db", boot_id=BOOT) as after:
        assert after.lookup(ROOT, b"kept").is_regular
        assert after.check() == []
        ino = after.create(ROOT, b"new", regular()).ino
    assert ino > table.lookup(ROOT, b"kept").ino, "a number is not used twice, also after a crash"


# --- the replica by itself -----------------------------------------------------------------


def pages_of(count: int, **images: bytes) -> PageSet:
    """``p3=b"x"`` is page 3, filled."""
    return PageSet(PAGE_SIZE, count, {int(k[1:]): v.ljust(PAGE_SIZE, b"\0") for k, v in images.items()})


def database(path: Path, *contents: bytes) -> Path:
    path.write_bytes(b"".join(content.ljust(PAGE_SIZE, b"\0") for content in contents))
    return path


def test_pages_that_nobody_gave_are_zeros_and_count(tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(4, p1=b"a", p4=b"d"))
        assert replica.page(2) == bytes(PAGE_SIZE)
        assert replica.digest == replica.compute_digest()
        replica.apply(pages_of(2, p1=b"b"))
        assert (replica.page_count, replica.digest) == (2, replica.compute_digest())
        replica.apply(pages_of(4))
        assert replica.page(4) == bytes(PAGE_SIZE), "a page that was cut off comes back empty"
        assert replica.digest == replica.compute_digest()


def test_digest_with_is_the_digest_after(tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        for pages in (pages_of(3, p1=b"a", p2=b"b"), pages_of(5, p2=b"c", p5=b"e"), pages_of(2, p1=b"x")):
            expected = replica.digest_with(pages)
            assert replica.digest != expected
            replica.apply(pages)
            assert replica.digest == expected


def test_a_replica_is_the_same_when_opened_again(tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(2, p1=b"a", p2=b"b"))
        digest = replica.digest
    with Replica(tmp_path / "pages", hasher) as again:
        assert (again.page_count, again.digest, again.page(2)[:1]) == (2, digest, b"b")


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_crash_within_apply_hides_no_page_from_diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Published is either what was before or what was applied; ``diff`` must cover both."""
    before, after = (b"a", b"b", b"c"), (b"A", b"B", b"C")
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(3, p1=b"a", p2=b"b", p3=b"c"))
        left = [writes]

        write = replica_module._write_all

        def crash(*_: object) -> None:
            raise KeyboardInterrupt

        def write_or_crash(descriptor: int, data: bytes, offset: int) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            write(descriptor, data, offset)

        monkeypatch.setattr(replica_module, "_write_all", write_or_crash)
        monkeypatch.setattr(os, "fdatasync", crash)
        with pytest.raises(KeyboardInterrupt):
            replica.apply(pages_of(3, p1=b"A", p2=b"B", p3=b"C"))
        monkeypatch.undo()
    for now in itertools.product(*zip(before, after, strict=True)):
        with Replica(tmp_path / "pages", hasher) as replica:
            assert replica.digest == replica.compute_digest()
            found = set(replica.diff(database(tmp_path / "db", *now)).pages)
        for published in (before, after):
            assert found >= {n for n in (1, 2, 3) if now[n - 1] != published[n - 1]}
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(3, p1=b"A", p2=b"B", p3=b"C"))
        assert not replica.suspect
        assert len(replica.diff(database(tmp_path / "db", *after))) == 0


def test_rot_of_the_image_changes_no_later_digest(tmp_path: Path) -> None:
    """I4: the digest that is published is that of the pages that were shipped."""
    with Replica(tmp_path / "sound", hasher) as sound, Replica(tmp_path / "pages", hasher) as rotten:
        for replica in (sound, rotten):
            replica.apply(pages_of(3, p1=b"a", p2=b"b", p3=b"c"))
        (tmp_path / "pages" / "image").write_bytes(b"rot".ljust(3 * PAGE_SIZE, b"\0"))
        for pages in (pages_of(3, p1=b"A"), pages_of(2, p2=b"B"), pages_of(4, p4=b"D")):
            assert rotten.digest_with(pages) == sound.digest_with(pages)
            for replica in (sound, rotten):
                replica.apply(pages)
            assert rotten.digest == sound.digest


def test_damaged_hashes_are_taken_anew_from_the_image(tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(2, p1=b"a", p2=b"b"))
        digest = replica.digest
    damaged = tmp_path / "pages" / "sums"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    with Replica(tmp_path / "pages", hasher) as again:
        assert again.digest == digest == again.compute_digest()


def test_an_apply_that_failed_gives_the_right_digest_when_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    after = pages_of(3, p1=b"A", p2=b"B", p3=b"C")
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(2, p1=b"a", p2=b"b"))
        wanted = replica.digest_with(after)
        monkeypatch.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="No space"):
            replica.apply(after)
        monkeypatch.undo()
        replica.apply(after)
        assert replica.digest == wanted == replica.compute_digest()


def test_diff_finds_changed_new_and_no_other_pages(tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        replica.apply(pages_of(3, p1=b"a", p2=b"b", p3=b"c"))
        found = replica.diff(database(tmp_path / "db", b"a", b"B", b"c", b"", b"e"))
        assert (found.page_count, set(found.pages)) == (5, {2, 4, 5})
        assert found.pages[5] == b"e".ljust(PAGE_SIZE, b"\0")
        assert replica.diff(database(tmp_path / "db", b"a")).page_count == 1


def test_diff_refuses_a_database_with_a_log(tmp_path: Path) -> None:
    database(tmp_path / "db", b"a")
    (tmp_path / "db-wal").write_bytes(b"frames")
    with Replica(tmp_path / "pages", hasher) as replica, pytest.raises(Unclean):
        replica.diff(tmp_path / "db")


def test_foreign_pages_are_refused(tmp_path: Path) -> None:
    with Replica(tmp_path / "pages", hasher) as replica:
        for wrong in (PageSet(1024, 1, {1: bytes(1024)}), pages_of(1, p2=b"b"), pages_of(1, p0=b"b")):
            with pytest.raises(Corrupt):
                replica.apply(wrong)
        with pytest.raises(Unclean):
            replica.restore(tmp_path / "db")


def test_a_spool_beyond_its_memory_uses_a_file_and_gives_it_back(tmp_path: Path) -> None:
    spool = pages.Spool(tmp_path, PAGE_SIZE, memory_pages=4)
    images = [bytes([n]) * PAGE_SIZE for n in range(20)]
    slots = [spool.put(image) for image in images]
    order = list(range(20))
    random.Random(5).shuffle(order)
    assert [spool.get(slots[n]) for n in order] == [images[n] for n in order]
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    for slot in slots[:10]:
        spool.release(slot)
    again = {spool.put(image): image for image in images[:10]}
    assert {slot: spool.get(slot) for slot in again} == again
    assert spool.pages == 20


@pytest.mark.parametrize(
    "note",
    [
        b'{"format":1,"page_count":1e400,"digest":null,"suspect":[]}',
        b'{"format":1,"page_count":-1,"digest":null,"suspect":[]}',
        b'{"format":1,"page_count":1,"digest":"%s","suspect":[]}' % (b"f" * 65),
        b'{"format":1,"page_count":1,"digest":"-1","suspect":[]}',
        b"[" * 5000,
        b"\xff",
    ],
)
def test_a_note_of_the_replica_that_means_nothing_is_corrupt(note: bytes, tmp_path: Path) -> None:
    (tmp_path / "image.json").write_bytes(note)
    with pytest.raises(Corrupt, match="begin anew"):
        Replica(tmp_path, hasher)


def test_a_note_of_absurdly_many_pages_costs_no_time(tmp_path: Path) -> None:
    """Every page would be walked over: the files say how many there can be."""
    (tmp_path / "image").write_bytes(bytes(3 * PAGE_SIZE))
    (tmp_path / "image.json").write_text(
        '{"format":1,"page_count":4000000000000000,"digest":null,"suspect":[]}'
    )
    with Replica(tmp_path, hasher) as replica:
        assert replica.page_count == 3
