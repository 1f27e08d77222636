"""Which reads set access times, and when the rows follow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from objfs.errors import NoSpace
from objfs.fs import AtimeRule, Caller, FileSystem, FsSettings
from objfs.fs.atime import BATCH, DAY_NS, WAITING_MAX, WRITE_INTERVAL_S
from objfs.model import ROOT, AttrChange, Ino
from tests.fs.memory import CHUNK, MemoryTables, World

USER = Caller(1000, 100)
RULES = {rule: FsSettings(CHUNK, atime=rule) for rule in AtimeRule}


class Subject:
    """A file with something in it, and a mount of the volume by some rule."""

    def __init__(self, settings: FsSettings, table: MemoryTables | None = None) -> None:
        self.world = World(settings, table)
        self.fs: FileSystem = self.world.fs
        handle, attr = self.fs.create(ROOT, b"f", 0o644, os.O_RDWR, USER)
        self.ino = attr.ino
        self.fs.release(handle.fh)

    @property
    def atime(self) -> int:
        return self.fs.getattr(self.ino).atime_ns

    @property
    def row(self) -> int:
        return self.world.table.inodes[self.ino].atime_ns

    async def open(self, flags: int = os.O_RDONLY) -> int:
        return (await self.fs.open(self.ino, flags, USER)).fh

    async def read(self, flags: int = os.O_RDONLY) -> bool:
        """Opens, reads and closes; whether that set the access time."""
        before = self.atime
        fh = await self.open(flags)
        await self.fs.read(fh, 0, 10)
        self.fs.release(fh)
        return self.atime > before

    async def change(self) -> None:
        fh = await self.open(os.O_WRONLY)
        await self.fs.write(fh, 0, b"x")
        self.fs.release(fh)


async def test_while_paused_reading_sets_no_time_and_what_was_set_is_written() -> None:
    subject = Subject(RULES[AtimeRule.STRICTATIME])
    await subject.change()
    assert await subject.read()
    await subject.fs.pause()
    assert subject.row == subject.atime
    assert not await subject.read()
    subject.fs.resume()
    assert await subject.read()


# --- the rules -----------------------------------------------------------------------------


async def test_relatime_follows_changes_and_days() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    assert await subject.read()
    assert not await subject.read()
    await subject.change()
    assert await subject.read()
    await subject.fs.setattr(subject.ino, AttrChange(mode=0o600), None, USER)
    assert await subject.read()
    assert not await subject.read()
    subject.world.clock.now += DAY_NS - 10**9  # type: ignore[union-attr]
    assert not await subject.read()
    subject.world.clock.now += 10**9  # type: ignore[union-attr]
    assert await subject.read()


async def test_strictatime_sets_it_each_time() -> None:
    subject = Subject(RULES[AtimeRule.STRICTATIME])
    assert await subject.read()
    fh = await subject.open()
    before = subject.atime
    await subject.fs.read(fh, 0, 1)
    assert subject.atime > before


async def test_noatime_never_does() -> None:
    subject = Subject(RULES[AtimeRule.NOATIME])
    await subject.change()
    assert not await subject.read()


async def test_reading_sets_the_access_time_and_nothing_else() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    before = subject.fs.getattr(subject.ino)
    await subject.read()
    assert subject.fs.getattr(subject.ino) == before._replace(atime_ns=subject.atime)


async def test_who_asks_for_noatime_leaves_no_trace() -> None:
    assert not await Subject(RULES[AtimeRule.STRICTATIME]).read(os.O_RDONLY | os.O_NOATIME)


async def test_opening_to_read_counts_as_reading() -> None:
    """Pages that the kernel has are read without asking us; the kernel is told at the close."""
    subject = Subject(RULES[AtimeRule.RELATIME])
    before = subject.atime
    fh = await subject.open()
    assert subject.atime > before
    assert subject.fs.release(fh).marked


async def test_a_read_that_arrives_is_known_to_the_kernel() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    fh = await subject.open()
    await subject.fs.read(fh, 0, 1)
    assert not subject.fs.release(fh).marked


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY])
async def test_opening_to_write_does_not(flags: int) -> None:
    subject = Subject(RULES[AtimeRule.STRICTATIME])
    before = subject.atime
    fh = await subject.open(flags)
    assert subject.atime == before
    await subject.fs.read(fh, 0, 10)  # of a handle for writing: the kernel completes a page
    assert (subject.atime > before) == (flags == os.O_RDWR)


@pytest.mark.parametrize("diratime", [True, False])
async def test_directories_and_symbolic_links(diratime: bool) -> None:
    fs = Subject(FsSettings(CHUNK, diratime=diratime)).fs
    directory, link = fs.mkdir(ROOT, b"d", 0o755, USER), fs.symlink(ROOT, b"l", b"t", USER)
    fs.release(fs.opendir(directory.ino).fh)
    fs.readlink(link.ino)
    assert (fs.getattr(directory.ino).atime_ns > directory.atime_ns) == diratime
    assert fs.getattr(link.ino).atime_ns > link.atime_ns


async def test_a_read_only_mount_leaves_no_trace() -> None:
    subject = Subject(RULES[AtimeRule.STRICTATIME])
    subject.fs = subject.world.mount(replace(subject.world.settings, read_only=True))
    assert not await subject.read()
    await subject.fs.aclose()


async def test_a_closed_gate_lets_everybody_read() -> None:
    subject = Subject(RULES[AtimeRule.STRICTATIME])
    fh = await subject.open()
    before = subject.row
    subject.world.gate.close("the lease was lost")
    assert not await subject.read()
    subject.fs.release(fh)
    await subject.fs.aclose()
    assert subject.row == before


# --- shown at once, written later ----------------------------------------------------------


async def test_every_answer_has_the_time_before_it_is_written() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    fs, ino = subject.fs, subject.ino
    old = subject.row
    assert await subject.read()
    new = subject.atime
    answers = [
        fs.getattr(ino),
        fs.lookup(ROOT, b"f"),
        fs.readdir(ROOT, 2, 10)[0].attr,
        fs.link(ino, ROOT, b"g"),
        await fs.setattr(ino, AttrChange(mtime_ns=5), None, USER),
        await fs.setattr(ino, AttrChange(), 7, USER),
    ]
    assert [attr.atime_ns for attr in answers] == [new] * len(answers)
    assert subject.row == old
    await fs.aclose()
    assert subject.row == new


async def test_a_time_that_was_given_wins_over_one_that_waits() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    await subject.read()
    attr = await subject.fs.setattr(subject.ino, AttrChange(atime_ns=-7), None, USER)
    await subject.fs.aclose()
    assert attr.atime_ns == subject.atime == subject.row == -7


async def test_rows_follow_within_seconds(autojump_clock: MockClock) -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    await subject.read()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(subject.fs.run)
        await trio.sleep(WRITE_INTERVAL_S + 0.1)
        assert subject.row == subject.atime
        nursery.cancel_scope.cancel()


async def test_an_inode_that_is_gone_is_passed_over() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME])
    fh = await subject.open()
    subject.fs.unlink(ROOT, b"f")
    subject.fs.release(fh)
    while subject.fs.orphans.waiting:
        subject.fs.orphans.purge_batch()
    await subject.fs.aclose()
    assert subject.ino not in subject.world.table.inodes


async def test_what_waits_is_bounded() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME], MemoryTables(rollback=False))
    links = [subject.fs.symlink(ROOT, b"%d" % number, b"t", USER) for number in range(WAITING_MAX + 1)]
    for link in links:
        subject.fs.readlink(link.ino)
    inodes = subject.world.table.inodes
    assert sum(inodes[link.ino].atime_ns > link.atime_ns for link in links) == BATCH


class Full(MemoryTables):
    """A table whose disk has no room for access times."""

    def set_atimes(self, times: Sequence[tuple[Ino, int]]) -> None:
        raise NoSpace("the disk is full")


async def test_a_full_disk_lets_everybody_read() -> None:
    subject = Subject(RULES[AtimeRule.RELATIME], Full())
    before = subject.row
    assert await subject.read()
    await subject.fs.aclose()
    assert subject.row == before
