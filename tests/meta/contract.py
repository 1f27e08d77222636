"""What every implementation of ``ports.InodeTable`` and ``ports.ChunkTable`` must do.

Not collected by itself: ``test_contract.py`` runs it over the SQLite table and over the double in memory.
Times in it are small numbers, so that a failure can be read.
"""

from __future__ import annotations

import random
import stat
from dataclasses import replace
from typing import Protocol

import pytest

from objfs.errors import (
    AttributeTooBig,
    Exists,
    FileTooBig,
    InvalidArgument,
    IsDirectory,
    NameTooLong,
    NoAttribute,
    NotDirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    ObjfsError,
    PosixError,
    StaleHandle,
    StoreError,
)
from objfs.model import (
    FILE_SIZE_MAX,
    NS,
    ROOT,
    Attr,
    AttrChange,
    Chunk,
    ChunkId,
    ChunkState,
    DirtyRange,
    Ino,
    RenameFlag,
    SegmentNo,
)
from objfs.ports import ChunkTable, InodeTable
from tests.meta.support import BOOT, CHUNK, directory, placed, regular, segment, symlink

MOVE, NOREPLACE, EXCHANGE = RenameFlag.REPLACE, RenameFlag.NOREPLACE, RenameFlag.EXCHANGE


class Table(InodeTable, ChunkTable, Protocol):
    """Both ports over one transaction, and what the cache asks after a power cut."""


def names(table: Table, parent: Ino = ROOT) -> list[bytes]:
    return [entry.name for entry in table.readdir(parent, 0, 1000)]


def mkdir(table: Table, parent: Ino, name: bytes, now: int = 10) -> Ino:
    return table.create(parent, name, directory(now)).ino


def mkfile(table: Table, parent: Ino, name: bytes, now: int = 10) -> Ino:
    return table.create(parent, name, regular(now)).ino


def write(table: Table, ino: Ino, index: int = 0, length: int = CHUNK) -> Chunk:
    """A new dirty version without a base."""
    with table.transaction():
        chunk = table.begin_chunk(ino, index, None, 0)
        written = DirtyRange(chunk.chunk, 0, length, 7, grown=length)
        table.record_write(ino, index * CHUNK + length, 20, [written])
    return chunk


def store(table: Table, chunk: Chunk, size: int = CHUNK) -> None:
    table.place(segment(), [placed(chunk, size)])


class NamespaceContract:
    """Names, links, attributes."""

    def test_the_root_is_its_own_parent(self, table: Table) -> None:
        root = table.get(ROOT)
        assert (root.is_dir, root.nlink, root.parent) == (True, 2, ROOT)
        assert table.count() == (1, 0)

    def test_create_then_lookup_and_get(self, table: Table) -> None:
        made = table.create(ROOT, b"f", regular(now_ns=5 * NS + 7))
        assert made == table.lookup(ROOT, b"f") == table.get(made.ino)
        assert (made.nlink, made.size, made.uid, made.gid, made.parent) == (1, 0, 1000, 100, 0)
        assert {made.atime_ns, made.mtime_ns, made.ctime_ns, made.btime_ns} == {5 * NS + 7}

    def test_creating_changes_the_directory(self, table: Table) -> None:
        mkfile(table, ROOT, b"f", 11)
        root = table.get(ROOT)
        assert (root.mtime_ns, root.ctime_ns, root.nlink) == (11, 11, 2)
        mkdir(table, ROOT, b"d", 12)
        root = table.get(ROOT)
        assert (root.mtime_ns, root.nlink) == (12, 3)
        assert table.lookup(ROOT, b"d").parent == ROOT

    def test_special_files_and_symlinks(self, table: Table) -> None:
        link = table.create(ROOT, b"l", symlink(b"target\xff"))
        assert (link.target, link.size) == (b"target\xff", 7)
        device = replace(regular(), mode=stat.S_IFCHR | 0o600, rdev=2**40 + 5)
        assert table.create(ROOT, b"c", device).rdev == 2**40 + 5 == table.lookup(ROOT, b"c").rdev
        with pytest.raises(NameTooLong):
            table.create(ROOT, b"m", symlink(b"x" * 4096))

    def test_numbers_are_not_used_again(self, table: Table) -> None:
        seen = set()
        for _ in range(5):
            ino = mkfile(table, ROOT, b"f")
            assert ino not in seen
            seen.add(ino)
            table.unlink(ROOT, b"f", 1)
            table.purge(ino, 10)

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            (b"", NotFound),
            (b"x" * 256, NameTooLong),
            (b".", InvalidArgument),
            (b"..", InvalidArgument),
            (b"a/b", InvalidArgument),
            (b"a\0b", InvalidArgument),
        ],
    )
    def test_names_that_no_entry_can_have(self, table: Table, name: bytes, error: type[PosixError]) -> None:
        ino = mkfile(table, ROOT, b"f")
        for attempt in (
            lambda: table.create(ROOT, name, regular()),
            lambda: table.link(ino, ROOT, name, 1),
            lambda: table.unlink(ROOT, name, 1),
            lambda: table.rename(ROOT, b"f", ROOT, name, MOVE, 1),
            lambda: table.rename(ROOT, name, ROOT, b"g", MOVE, 1),
        ):
            with pytest.raises(error):
                attempt()
        assert names(table) == [b"f"]

    def test_the_longest_name(self, table: Table) -> None:
        mkfile(table, ROOT, b"\xff" * 255)
        assert names(table) == [b"\xff" * 255]
        with pytest.raises(NameTooLong):
            table.lookup(ROOT, b"x" * 256)

    def test_what_is_not_there(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        with pytest.raises(NotFound):
            table.lookup(ROOT, b"g")
        with pytest.raises(NotDirectory):
            table.lookup(ino, b"g")
        with pytest.raises(NotDirectory):
            table.readdir(ino, 0, 1)
        with pytest.raises(StaleHandle):
            table.get(Ino(999))
        with pytest.raises(StaleHandle):
            table.lookup(Ino(999), b"f")
        with pytest.raises(NotDirectory):
            table.create(ino, b"g", regular())
        with pytest.raises(Exists):
            table.create(ROOT, b"f", directory())
        assert table.get(ROOT).nlink == 2
        assert table.count()[0] == 2

    def test_nothing_is_made_in_a_removed_directory(self, table: Table) -> None:
        held = mkdir(table, ROOT, b"d")
        ino = mkfile(table, ROOT, b"f")
        assert table.rmdir(ROOT, b"d", 1).nlink == 0
        for attempt in (
            lambda: table.create(held, b"x", regular()),
            lambda: table.link(ino, held, b"x", 1),
            lambda: table.rename(ROOT, b"f", held, b"x", MOVE, 1),
        ):
            with pytest.raises(NotFound):
                attempt()
        assert table.readdir(held, 0, 1) == []

    def test_links(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"a")
        sub = mkdir(table, ROOT, b"d")
        linked = table.link(ino, sub, b"b", 30)
        assert (linked.nlink, linked.ctime_ns, linked.mtime_ns) == (2, 30, 10)
        assert linked == table.get(ino) == table.lookup(sub, b"b")
        assert table.get(sub).mtime_ns == 30
        with pytest.raises(Exists):
            table.link(ino, ROOT, b"a", 31)
        with pytest.raises(NotPermitted):
            table.link(sub, ROOT, b"e", 31)

    def test_the_last_name_makes_an_orphan(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"a")
        table.link(ino, ROOT, b"b", 11)
        assert table.unlink(ROOT, b"a", 12).nlink == 1
        assert table.orphans(9) == []
        last = table.unlink(ROOT, b"b", 13)
        assert (last.nlink, last.ctime_ns) == (0, 13)
        assert table.orphans(9) == [ino]
        assert table.get(ino) == last, "whoever holds it still sees it"
        with pytest.raises(NotFound):
            table.link(ino, ROOT, b"c", 14)
        assert table.purge(ino, 1)
        assert table.orphans(9) == []
        with pytest.raises(StaleHandle):
            table.get(ino)
        assert table.purge(ino, 1), "there is nothing left to do"

    def test_unlink_and_rmdir_know_their_kind(self, table: Table) -> None:
        mkfile(table, ROOT, b"f")
        sub = mkdir(table, ROOT, b"d")
        mkfile(table, sub, b"x")
        with pytest.raises(IsDirectory):
            table.unlink(ROOT, b"d", 1)
        with pytest.raises(NotDirectory):
            table.rmdir(ROOT, b"f", 1)
        with pytest.raises(NotEmpty):
            table.rmdir(ROOT, b"d", 1)
        table.unlink(sub, b"x", 20)
        assert table.get(sub).mtime_ns == 20
        assert table.rmdir(ROOT, b"d", 21).nlink == 0
        root = table.get(ROOT)
        assert (root.nlink, root.mtime_ns) == (2, 21)

    def test_count_follows(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        write(table, ino, 1, 50)
        table.create(ROOT, b"l", symlink(b"abc"))
        assert table.count() == (3, 50)
        table.truncate(ino, FILE_SIZE_MAX, 1, 10)
        assert table.count() == (3, 50)
        table.truncate(ino, 100, 1, 10)
        assert table.count() == (3, 0)
        write(table, ino, 2, 7)
        table.unlink(ROOT, b"f", 1)
        table.purge(ino, 10)
        assert table.count() == (2, 0)

    def test_set_attr(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        change = AttrChange(mode=0o4711, uid=7, gid=8, atime_ns=1, mtime_ns=2, ctime_ns=3)
        attr = table.set_attr(ino, change)
        assert attr == table.get(ino)
        assert (attr.mode, attr.uid, attr.gid) == (stat.S_IFREG | 0o4711, 7, 8)
        assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns, attr.btime_ns) == (1, 2, 3, 10)
        assert table.set_attr(ino, AttrChange(uid=9)) == attr._replace(uid=9)
        assert table.set_attr(ino, AttrChange()) == attr._replace(uid=9)
        with pytest.raises(StaleHandle):
            table.set_attr(Ino(999), AttrChange(atime_ns=1))

    def test_set_atimes_sets_nothing_else_and_passes_over_what_is_gone(self, table: Table) -> None:
        one, two = mkfile(table, ROOT, b"1"), mkfile(table, ROOT, b"2")
        before = [table.get(ino) for ino in (one, two)]
        table.set_atimes([(one, -5), (Ino(999), 7), (two, 3 * NS + 1)])
        table.set_atimes([(one, 4 * NS)])
        assert table.get(one) == before[0]._replace(atime_ns=4 * NS)
        assert table.get(two) == before[1]._replace(atime_ns=3 * NS + 1)
        table.unlink(ROOT, b"1", 20)
        while not table.purge(one, 10):
            pass
        table.set_atimes([(one, 5)])
        with pytest.raises(StaleHandle):
            table.get(one)

    @pytest.mark.parametrize("ns", [-(2**31) * NS, -1, 0, 1, (2**34) * NS + NS - 1])
    def test_times_from_1901_to_2446(self, table: Table, ns: int) -> None:
        ino = mkfile(table, ROOT, b"f")
        attr = table.set_attr(ino, AttrChange(atime_ns=ns, mtime_ns=ns, ctime_ns=ns))
        assert (attr.atime_ns, attr.mtime_ns, attr.ctime_ns) == (ns, ns, ns)
        assert (
            table.create(ROOT, b"g", regular(now_ns=ns)).btime_ns == ns == table.lookup(ROOT, b"g").atime_ns
        )

    # --- directory offsets -------------------------------------------------------------

    def test_readdir_pages_by_cookie(self, table: Table) -> None:
        made = {b"%d" % n: mkfile(table, ROOT, b"%d" % n) for n in range(25)}
        found, after = [], 0
        while entries := table.readdir(ROOT, after, 7):
            assert all(entry.attr.ino == made[entry.name] for entry in entries)
            found += entries
            after = entries[-1].cookie
        assert [entry.name for entry in found] == list(made)
        cookies = [entry.cookie for entry in found]
        assert cookies == sorted(set(cookies))
        assert cookies[0] >= 3

    def test_cookies_stay_and_are_not_used_again(self, table: Table) -> None:
        for name in (b"a", b"b", b"c"):
            mkfile(table, ROOT, name)
        before = {entry.name: entry.cookie for entry in table.readdir(ROOT, 0, 9)}
        table.unlink(ROOT, b"c", 1)
        mkfile(table, ROOT, b"d")
        table.rename(ROOT, b"a", ROOT, b"e", MOVE, 1)
        after = {entry.name: entry.cookie for entry in table.readdir(ROOT, 0, 9)}
        assert after[b"b"] == before[b"b"]
        assert min(after[b"d"], after[b"e"]) > max(before.values())

    def test_replacing_a_name_keeps_its_place(self, table: Table) -> None:
        """Whoever lists while a file is saved over another sees the name once."""
        for name in (b"a", b"b", b"new"):
            mkfile(table, ROOT, name)
        table.rename(ROOT, b"new", ROOT, b"a", MOVE, 1)
        assert names(table) == [b"a", b"b"]

    # --- rename ------------------------------------------------------------------------

    def test_rename_moves(self, table: Table) -> None:
        one, two = mkdir(table, ROOT, b"1"), mkdir(table, ROOT, b"2")
        ino = mkfile(table, one, b"f")
        renamed = table.rename(one, b"f", two, b"g", MOVE, 50)
        assert (renamed.moved, renamed.displaced) == (ino, None)
        assert (names(table, one), names(table, two)) == ([], [b"g"])
        assert {table.get(n).mtime_ns for n in (one, two)} == {50}
        attr = table.get(ino)
        assert (attr.ctime_ns, attr.mtime_ns) == (50, 10)

    def test_rename_of_a_directory_moves_its_link(self, table: Table) -> None:
        one, two = mkdir(table, ROOT, b"1"), mkdir(table, ROOT, b"2")
        sub = mkdir(table, one, b"s")
        table.rename(one, b"s", two, b"t", MOVE, 50)
        assert [table.get(n).nlink for n in (ROOT, one, two, sub)] == [4, 2, 3, 2]
        assert table.get(sub).parent == two

    def test_rename_replaces_a_file(self, table: Table) -> None:
        a, b = mkfile(table, ROOT, b"a"), mkfile(table, ROOT, b"b")
        table.link(b, ROOT, b"other", 11)
        renamed = table.rename(ROOT, b"a", ROOT, b"b", MOVE, 50)
        assert renamed.displaced == table.get(b)
        assert table.get(b).nlink == 1
        renamed = table.rename(ROOT, b"b", ROOT, b"other", MOVE, 51)
        assert renamed.displaced is not None
        assert (renamed.displaced.nlink, renamed.displaced.ctime_ns) == (0, 51)
        assert table.orphans(9) == [b]
        assert table.lookup(ROOT, b"other").ino == a

    def test_rename_replaces_an_empty_directory(self, table: Table) -> None:
        one, two = mkdir(table, ROOT, b"1"), mkdir(table, ROOT, b"2")
        inner, gone = mkdir(table, one, b"s"), mkdir(table, two, b"s")
        mkfile(table, inner, b"x")
        renamed = table.rename(one, b"s", two, b"s", MOVE, 50)
        assert renamed.displaced is not None
        assert (renamed.displaced.ino, renamed.displaced.nlink) == (gone, 0)
        assert [table.get(n).nlink for n in (ROOT, one, two)] == [4, 2, 3]
        with pytest.raises(NotEmpty):
            table.rename(ROOT, b"1", two, b"s", MOVE, 51)

    def test_rename_within_one_directory_over_a_directory(self, table: Table) -> None:
        mkdir(table, ROOT, b"a")
        mkdir(table, ROOT, b"b")
        table.rename(ROOT, b"a", ROOT, b"b", MOVE, 50)
        assert (names(table), table.get(ROOT).nlink) == ([b"b"], 3)

    def test_rename_knows_kinds(self, table: Table) -> None:
        mkfile(table, ROOT, b"f")
        mkdir(table, ROOT, b"d")
        with pytest.raises(NotDirectory):
            table.rename(ROOT, b"d", ROOT, b"f", MOVE, 1)
        with pytest.raises(IsDirectory):
            table.rename(ROOT, b"f", ROOT, b"d", MOVE, 1)
        with pytest.raises(NotFound):
            table.rename(ROOT, b"x", ROOT, b"d", MOVE, 1)

    def test_rename_of_two_names_of_one_inode_does_nothing(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"a")
        table.link(ino, ROOT, b"b", 11)
        before = table.get(ROOT)
        for flag in (MOVE, EXCHANGE):
            assert table.rename(ROOT, b"a", ROOT, b"b", flag, 50).displaced is None
        assert table.rename(ROOT, b"a", ROOT, b"a", MOVE, 50).moved == ino
        assert names(table) == [b"a", b"b"]
        assert table.get(ROOT) == before
        with pytest.raises(Exists):
            table.rename(ROOT, b"a", ROOT, b"b", NOREPLACE, 50)

    def test_rename_into_its_own_subtree(self, table: Table) -> None:
        top = mkdir(table, ROOT, b"t")
        inner = mkdir(table, top, b"i")
        mkfile(table, ROOT, b"f")
        for flag in (MOVE, NOREPLACE):
            for parent in (top, inner):
                with pytest.raises(InvalidArgument):
                    table.rename(ROOT, b"t", parent, b"x", flag, 1)
        mkfile(table, inner, b"deep")
        with pytest.raises(InvalidArgument):
            table.rename(ROOT, b"t", inner, b"deep", EXCHANGE, 1)
        with pytest.raises(InvalidArgument):
            table.rename(inner, b"deep", ROOT, b"t", EXCHANGE, 1)
        with pytest.raises(NotEmpty):
            table.rename(top, b"i", ROOT, b"t", MOVE, 1)

    def test_rename_noreplace(self, table: Table) -> None:
        mkfile(table, ROOT, b"a")
        mkfile(table, ROOT, b"b")
        with pytest.raises(Exists):
            table.rename(ROOT, b"a", ROOT, b"b", NOREPLACE, 1)
        table.rename(ROOT, b"a", ROOT, b"c", NOREPLACE, 1)
        assert sorted(names(table)) == [b"b", b"c"]

    def test_rename_exchange(self, table: Table) -> None:
        one, two = mkdir(table, ROOT, b"1"), mkdir(table, ROOT, b"2")
        ino, sub = mkfile(table, one, b"f"), mkdir(table, two, b"d")
        mkfile(table, sub, b"x")
        assert table.rename(one, b"f", two, b"d", EXCHANGE, 50).displaced is None
        assert (table.lookup(one, b"f").ino, table.lookup(two, b"d").ino) == (sub, ino)
        assert [table.get(n).nlink for n in (one, two, sub, ino)] == [3, 2, 2, 1]
        assert (table.get(sub).parent, table.get(ino).parent) == (one, 0)
        assert {table.get(n).ctime_ns for n in (one, two, sub, ino)} == {50}
        with pytest.raises(NotFound):
            table.rename(one, b"f", two, b"none", EXCHANGE, 51)

    # --- extended attributes -----------------------------------------------------------

    def test_xattrs(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        table.set_xattr(ino, b"user.b", b"", 0, 20)
        table.set_xattr(ino, b"user.a", b"x" * 65536, 1, 21)
        assert table.get(ino).ctime_ns == 21
        assert table.list_xattr(ino) == [b"user.a", b"user.b"]
        table.set_xattr(ino, b"user.b", b"\0v", 2, 22)
        assert table.get_xattr(ino, b"user.b") == b"\0v"
        table.remove_xattr(ino, b"user.a", 23)
        assert (table.list_xattr(ino), table.get(ino).ctime_ns) == ([b"user.b"], 23)

    def test_xattr_errors(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        table.set_xattr(ino, b"user.a", b"1", 0, 20)
        for error, attempt in (
            (Exists, lambda: table.set_xattr(ino, b"user.a", b"2", 1, 21)),
            (NoAttribute, lambda: table.set_xattr(ino, b"user.b", b"2", 2, 21)),
            (AttributeTooBig, lambda: table.set_xattr(ino, b"user.b", bytes(65537), 0, 21)),
            (NameTooLong, lambda: table.set_xattr(ino, b"u" * 256, b"", 0, 21)),
            (InvalidArgument, lambda: table.set_xattr(ino, b"", b"", 0, 21)),
            (NoAttribute, lambda: table.get_xattr(ino, b"user.b")),
            (NoAttribute, lambda: table.remove_xattr(ino, b"user.b", 21)),
            (StaleHandle, lambda: table.set_xattr(Ino(999), b"user.a", b"", 0, 21)),
            (StaleHandle, lambda: table.get_xattr(Ino(999), b"user.a")),
            (StaleHandle, lambda: table.list_xattr(Ino(999))),
        ):
            with pytest.raises(error):
                attempt()
        assert (table.get_xattr(ino, b"user.a"), table.get(ino).ctime_ns) == (b"1", 20)

    # --- transactions ------------------------------------------------------------------

    def test_a_transaction_is_all_or_nothing(self, table: Table) -> None:
        kept = mkfile(table, ROOT, b"kept")

        def fail() -> None:
            with table.transaction():
                mkdir(table, ROOT, b"d")
                write(table, kept)
                with table.transaction():
                    table.unlink(ROOT, b"kept", 1)
                raise NotFound("on purpose")

        before = table.get(ROOT), table.get(kept), table.count()
        with pytest.raises(NotFound):
            fail()
        assert (table.get(ROOT), table.get(kept), table.count()) == before
        assert (names(table), table.orphans(9), table.chunk_at(kept, 0)) == ([b"kept"], [], None)

    def test_a_posix_error_inside_does_not_end_the_outer(self, table: Table) -> None:
        with table.transaction():
            mkfile(table, ROOT, b"a")
            with pytest.raises(Exists):
                mkfile(table, ROOT, b"a")
            mkfile(table, ROOT, b"b")
        assert names(table) == [b"a", b"b"]


class ChunkContract:
    """The block map."""

    def test_a_hole_and_a_chunk(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        assert table.chunk_at(ino, 0) is None
        chunk = write(table, ino, 3)
        assert chunk == Chunk(chunk.chunk, ino, 3, ChunkState.DIRTY)
        assert table.chunk_at(ino, 3) == chunk == table.chunk(chunk.chunk)
        assert table.chunk_at(ino, 2) is None
        attr = table.get(ino)
        assert (attr.size, attr.mtime_ns, attr.ctime_ns, attr.atime_ns) == (4 * CHUNK, 20, 20, 10)

    def test_chunks_between(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        made = {index: write(table, ino, index) for index in (7, 0, 3, 9)}
        assert table.chunks_between(ino, 0, 8, 9) == [made[0], made[3], made[7]]
        assert table.chunks_between(ino, 1, 9, 2) == [made[3], made[7]]

    def test_a_version_stays_as_long_as_it_is_a_base(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        first = write(table, ino)
        store(table, first)
        second = table.begin_chunk(ino, 0, first.chunk, 100)
        assert table.chunk_at(ino, 0) == second
        assert (second.base, second.base_size) == (first.chunk, 100)
        assert table.chunk(first.chunk) is not None
        assert table.freed(9) == []
        store(table, second)
        assert table.chunk(first.chunk) is None
        assert table.freed(9) == [first.chunk]
        found = table.chunk_at(ino, 0)
        assert found is not None
        assert (found.state, found.base, found.base_size) == (ChunkState.STORED, None, 0)

    def test_a_version_that_is_written_over_whole_is_freed(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        first, second = write(table, ino), write(table, ino)
        assert (table.chunk(first.chunk), table.freed(9)) == (None, [first.chunk])
        assert table.dirty_ranges(first.chunk) == []
        table.forget_freed([first.chunk])
        assert table.freed(9) == []
        assert table.dirty_chunks() == [second]

    def test_a_chain_of_versions_goes_with_its_top(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        chain = [write(table, ino)]
        for _ in range(5):
            chain.append(table.begin_chunk(ino, 0, chain[-1].chunk, CHUNK))
        top = write(table, ino)
        assert table.freed(99) == [chunk.chunk for chunk in chain]
        assert table.dirty_chunks() == [top]

    def test_a_base_must_exist(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        with pytest.raises(ObjfsError):
            table.begin_chunk(ino, 0, ChunkId(12345), 5)
        assert table.chunk_at(ino, 0) is None

    def test_record_write_of_nothing_that_is_there(self, table: Table) -> None:
        with pytest.raises(StaleHandle):
            table.record_write(Ino(999), 5, 1, [])
        ino = mkfile(table, ROOT, b"f")
        with pytest.raises(FileTooBig):
            table.record_write(ino, FILE_SIZE_MAX + 1, 1, [])

    @pytest.mark.parametrize(
        ("mode", "left"), [(0o6755, 0o755), (0o6745, 0o2745), (0o4644, 0o644), (0o1777, 0o1777)]
    )
    def test_a_write_may_clear_suid(self, table: Table, mode: int, left: int) -> None:
        ino = table.create(ROOT, b"f", regular(mode=mode)).ino
        table.record_write(ino, 1, 1, [])
        assert stat.S_IMODE(table.get(ino).mode) == mode
        table.record_write(ino, 1, 1, [], clear_suid=True)
        assert stat.S_IMODE(table.get(ino).mode) == left

    # --- dirty ranges ------------------------------------------------------------------

    def test_ranges_come_back_in_order(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        chunk = table.begin_chunk(ino, 0, None, 0).chunk
        ranges = [
            DirtyRange(chunk, 500, 10, 2**64 - 1, grown=510),
            DirtyRange(chunk, 0, 10, 0),
            DirtyRange(chunk, 5, 10, None, synced=True),
        ]
        table.record_write(ino, 510, 1, ranges[:2])
        table.record_write(ino, 510, 1, ranges[2:])
        table.commit_inline(chunk, [(3, b"abc")])
        grew = [one._replace(size_before=0) for one in ranges[:2]]
        expected = [*grew, *ranges[2:], DirtyRange(chunk, 3, 3, None, data=b"abc")]
        assert table.dirty_ranges(chunk) == [one._replace(boot=BOOT, grown=0) for one in expected]

    def test_mark_synced_replaces(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        chunk = write(table, ino).chunk
        table.commit_inline(chunk, [(3, b"abc")])
        table.mark_synced(chunk, [(0, 5), (9, CHUNK)])
        assert table.dirty_ranges(chunk) == [
            DirtyRange(chunk, 0, 5, None, synced=True, boot=BOOT),
            DirtyRange(chunk, 9, CHUNK - 9, None, synced=True, boot=BOOT),
        ]

    def test_clip(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        base = write(table, ino, 0, 50)
        chunk = table.begin_chunk(ino, 0, base.chunk, 50).chunk
        table.record_write(ino, 60, 1, [DirtyRange(chunk, 0, 20, 1), DirtyRange(chunk, 10, 20, 2)])
        table.record_write(ino, 60, 1, [DirtyRange(chunk, 40, 20, 3, grown=10)])
        table.commit_inline(chunk, [(20, b"0123456789")])
        assert table.get(ino).held == 60
        table.clip_chunk(chunk, 25)
        assert table.get(ino).held == 25
        assert [(one.offset, one.length, one.checksum, one.data) for one in table.dirty_ranges(chunk)] == [
            (0, 20, 1, None),
            (10, 15, None, None),
            (20, 5, None, b"01234"),
        ]
        row = table.chunk(chunk)
        assert row is not None
        assert row.base_size == 25
        table.clip_chunk(chunk, 400)
        row = table.chunk(chunk)
        assert row is not None
        assert row.base_size == 25

    def test_dirty_chunks_oldest_first(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        made = [write(table, ino, index) for index in (5, 1, 3)]
        assert table.dirty_chunks() == made
        store(table, made[1])
        assert table.dirty_chunks() == [made[0], made[2]]
        assert table.dirty_ids() == [made[0].chunk, made[2].chunk]

    # --- sizes before ------------------------------------------------------------------

    def test_a_range_with_which_a_file_grew_knows_the_size_before(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        chunk = write(table, ino, 0, 100)
        table.record_write(ino, 90, 1, [DirtyRange(chunk.chunk, 50, 40, 1)])
        table.record_write(ino, 150, 1, [DirtyRange(chunk.chunk, 80, 70, 1, grown=50)])
        table.clip_chunk(chunk.chunk, 120)
        table.truncate(ino, 120, 1, 9)
        table.commit_inline(chunk.chunk, [(0, b"inline")])
        found = [(one.offset, one.length, one.size_before) for one in table.dirty_ranges(chunk.chunk)]
        assert found == [(0, 100, 0), (50, 40, None), (80, 40, 100), (0, 6, None)]
        table.mark_synced(chunk.chunk, [(0, 120)])
        assert [one.size_before for one in table.dirty_ranges(chunk.chunk)] == [None]

    # --- truncate and purge ------------------------------------------------------------

    def test_truncate(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        made = [write(table, ino, index) for index in range(4)]
        assert table.truncate(ino, CHUNK + 1, 33, 10)
        attr = table.get(ino)
        assert (attr.size, attr.mtime_ns, attr.ctime_ns) == (CHUNK + 1, 33, 33)
        assert table.chunks_between(ino, 0, 9, 9) == made[:2]
        assert table.freed(9) == [made[2].chunk, made[3].chunk]
        assert table.truncate(ino, 0, 34, 10)
        assert table.chunks_between(ino, 0, 9, 9) == []
        assert table.truncate(ino, FILE_SIZE_MAX, 35, 1)
        assert table.get(ino).size == FILE_SIZE_MAX
        for size, error in ((FILE_SIZE_MAX + 1, FileTooBig), (-1, InvalidArgument)):
            with pytest.raises(error):
                table.truncate(ino, size, 36, 1)
        with pytest.raises(StaleHandle):
            table.truncate(Ino(999), 0, 36, 1)

    def test_truncate_in_steps(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        for index in range(10):
            write(table, ino, index)
        steps = 1
        while not table.truncate(ino, CHUNK, 33, 4):
            assert table.chunks_between(ino, 1, 99, 99) == [], "no reader sees what is left"
            assert table.orphans(9) == [ino]
            assert table.get(ino).held == (10 - 4 * steps) * CHUNK
            steps += 1
        assert (steps, table.get(ino).held) == (3, CHUNK)
        assert (table.orphans(9), len(table.freed(99))) == ([], 9)

    def test_an_interrupted_truncate_stays_out_of_sight_and_is_finished(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        for index in range(10):
            write(table, ino, index)
        assert not table.truncate(ino, 0, 33, 2)
        fresh = write(table, ino, 7)
        assert table.chunks_between(ino, 0, 99, 99) == [fresh]
        assert table.chunk_at(ino, 8) is None
        while not table.purge(ino, 3):
            assert table.chunk_at(ino, 7) == fresh
        assert table.chunks_between(ino, 0, 99, 99) == [fresh]
        assert (table.orphans(9), len(table.freed(99))) == ([], 10)
        assert table.get(ino).size == 8 * CHUNK

    def test_a_file_holds_what_its_chunks_do(self, table: Table) -> None:
        """Holes between chunks are nothing, holes before a chunk's bytes are part of it."""
        ino = mkfile(table, ROOT, b"f")
        assert table.get(ino).held == 0
        dense, sparse = write(table, ino, 0), table.begin_chunk(ino, 9, None, 0)
        table.record_write(ino, 10 * CHUNK, 1, [DirtyRange(sparse.chunk, 100, 50, 1, grown=150)])
        assert table.get(ino).held == table.lookup(ROOT, b"f").held == CHUNK + 150
        assert table.readdir(ROOT, 0, 9)[0].attr.held == CHUNK + 150
        store(table, dense)
        store(table, sparse, 150)
        table.begin_chunk(ino, 9, sparse.chunk, 150)
        assert table.get(ino).held == CHUNK + 150
        table.truncate(ino, FILE_SIZE_MAX, 1, 9)
        assert table.get(ino).held == CHUNK + 150
        clipped = table.begin_chunk(ino, 9, sparse.chunk, 150)
        table.record_write(ino, 10 * CHUNK, 2, [DirtyRange(clipped.chunk, 140, 60, 1, grown=50)])
        assert table.get(ino).held == CHUNK + 200
        table.clip_chunk(clipped.chunk, 145)
        assert table.get(ino).held == CHUNK + 145
        assert table.truncate(ino, CHUNK, 3, 9)
        assert table.get(ino).held == CHUNK

    def test_a_chunk_that_is_clipped_before_its_first_byte_is_a_hole(self, table: Table) -> None:
        """Stored, it would be one byte, which the file does not count as held."""
        ino = mkfile(table, ROOT, b"f")
        chunk = table.begin_chunk(ino, 0, None, 0).chunk
        table.record_write(ino, 60, 1, [DirtyRange(chunk, 40, 20, 3, grown=60)])
        table.clip_chunk(chunk, 30)
        assert table.get(ino).held == 0
        assert table.chunk_at(ino, 0) is None
        assert table.freed(9) == [chunk]

    def test_truncates_within_a_truncate(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        for index in range(10):
            write(table, ino, index)
        assert not table.truncate(ino, 2 * CHUNK, 33, 1)
        kept, cut = write(table, ino, 4), write(table, ino, 9)
        assert not table.truncate(ino, 5 * CHUNK, 34, 1)
        assert [chunk.index for chunk in table.chunks_between(ino, 0, 99, 99)] == [0, 1, 4]
        while not table.purge(ino, 2):
            pass
        assert [chunk.index for chunk in table.chunks_between(ino, 0, 99, 99)] == [0, 1, 4]
        assert table.chunk(kept.chunk) == kept
        assert table.chunk(cut.chunk) is None

    def test_purge_in_steps(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        made = [write(table, ino, index) for index in range(10)]
        table.set_xattr(ino, b"user.a", b"1", 0, 1)
        table.unlink(ROOT, b"f", 30)
        assert table.chunk_at(ino, 5) == made[5], "an open file without a name is whole"
        steps = 1
        while not table.purge(ino, 4):
            steps += 1
        assert steps == 3
        assert table.freed(99) == [chunk.chunk for chunk in made]
        assert table.count() == (1, 0)

    def test_an_orphan_that_is_being_truncated_is_purged_whole(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        for index in range(6):
            write(table, ino, index)
        table.truncate(ino, 0, 31, 1)
        table.unlink(ROOT, b"f", 30)
        fresh = write(table, ino, 2)
        assert table.chunks_between(ino, 0, 99, 99) == [fresh]
        assert table.orphans(9) == [ino]
        while not table.purge(ino, 2):
            pass
        assert (table.orphans(9), len(table.freed(99)), table.dirty_chunks()) == ([], 7, [])

    # --- placing -----------------------------------------------------------------------

    def test_place(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        one, two = write(table, ino, 0), write(table, ino, 1)
        new = segment()
        items = [placed(two, position=500), placed(one, frames=(10, 20, 2**32 - 1))]
        number = table.place(new, items)
        assert number is not None
        assert table.segment(number) == new
        found = table.chunk_at(ino, 0)
        assert found is not None
        assert found.state is ChunkState.STORED
        assert found.location == items[1].location._replace(segment=number)
        assert table.dirty_ranges(one.chunk) == []
        assert [chunk.index for chunk in table.chunks_in_segment(number)] == [0, 1]

    def test_place_passes_over_what_was_freed(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        gone, kept = write(table, ino), write(table, ino)
        number = table.place(segment(), [placed(gone), placed(kept)])
        assert number is not None
        assert [chunk.chunk for chunk in table.chunks_in_segment(number)] == [kept.chunk]
        assert table.chunk(gone.chunk) is None

    def test_place_into_a_segment_that_is_there(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        one, two = write(table, ino, 0), write(table, ino, 1)
        number = table.place(segment(), [placed(one)])
        assert number is not None
        assert table.place(None, [placed(two, number=number)]) is None
        assert len(table.chunks_in_segment(number)) == 2

    def test_place_into_a_segment_that_is_not(self, table: Table) -> None:
        ino = mkfile(table, ROOT, b"f")
        one, two = write(table, ino, 0), write(table, ino, 1)
        with pytest.raises(StoreError):
            table.place(segment(), [placed(one), placed(two, number=12345)])
        assert table.dirty_chunks() == [one, two]
        with pytest.raises(StoreError):
            table.segment(SegmentNo(12345))


class HistoryContract:
    """Random histories keep what must always hold."""

    @pytest.mark.parametrize("seed", range(4))
    def test_links_and_parents_agree_after_anything(self, table: Table, seed: int) -> None:
        dice = random.Random(seed)
        for step in range(300):
            try:
                random_step(table, dice, step)
            except PosixError:
                continue
        check_tree(table)


def random_step(table: Table, dice: random.Random, step: int) -> None:
    """One operation on a small tree, often a senseless one."""
    dirs = [ino for ino, attr in walk(table).items() if attr.is_dir]
    parent, other = dice.choice(dirs), dice.choice(dirs)
    name, new = (b"%d" % dice.randrange(4) for _ in range(2))
    kind = dice.randrange(7)
    if kind == 0:
        table.create(parent, name, dice.choice((directory, regular))(step))
    elif kind == 1:
        table.link(table.lookup(parent, name).ino, other, new, step)
    elif kind == 2:
        table.unlink(parent, name, step)
    elif kind == 3:
        table.rmdir(parent, name, step)
    elif kind < 6:
        table.rename(parent, name, other, new, dice.choice(list(RenameFlag)), step)
    else:
        for ino in table.orphans(3):
            table.purge(ino, 5)


def walk(table: Table) -> dict[Ino, Attr]:
    """Every inode that can be reached."""
    found, todo = {ROOT: table.get(ROOT)}, [ROOT]
    while todo:
        for entry in table.readdir(todo.pop(), 0, 100):
            if entry.attr.is_dir:
                todo.append(entry.attr.ino)
            found[entry.attr.ino] = entry.attr
    return found


def check_tree(table: Table) -> None:
    found = walk(table)
    held: dict[Ino, list[Ino]] = {ino: [] for ino in found}
    for ino, attr in found.items():
        for entry in table.readdir(ino, 0, 100) if attr.is_dir else []:
            held[entry.attr.ino].append(ino)
    for ino, attr in found.items():
        if attr.is_dir:
            children = sum(1 for child in found if found[child].is_dir and held[child] == [ino])
            assert attr.nlink == 2 + children
            assert ([attr.parent] == held[ino]) or ino == ROOT
        else:
            assert attr.nlink == len(held[ino])
    assert len(found) + len(table.orphans(1000)) == table.count()[0]
