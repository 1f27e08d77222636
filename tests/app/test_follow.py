"""A mount that follows: requests see whole moments, the kernel hears what to forget, the pin goes along."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.follow import Following
from objfs.app.options import MountOptions
from objfs.backends.registry import open_bucket
from objfs.errors import NotFound, NotMounted, ObjfsError, ReadOnly, StaleHandle
from objfs.fs import Caller
from objfs.meta.compare import Comparison
from objfs.model import ROOT, Ino
from objfs.volume.attach import Offered, attach, learn
from objfs.volume.local import VolumeHome
from tests.app.test_readonly import SECRET, objects, volume

CALLER = Caller(0, 0)


class Memory:
    """A kernel that notes what it is told to forget; ``fails`` counts refusals to come."""

    def __init__(self) -> None:
        self.inodes: set[Ino] = set()
        self.names: set[bytes] = set()
        self.fails = 0

    async def forget(self, changes: Comparison) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError(12, "no memory")
        await trio.lowlevel.checkpoint()
        self.inodes |= set(changes.inodes())
        self.names |= {name for _, name in changes.names()}


def say_nothing(_text: str) -> None:
    """What takes long is of no interest here."""


async def second_machine(tmp_path: Path) -> VolumeHome:
    (tmp_path / "second").mkdir()
    home = VolumeHome(tmp_path / "second", "vol")
    urls = [f"file://{tmp_path}/b{number}" for number in range(3)]
    attach(home, await learn([Offered(url, {}, open_bucket(url, {})) for url in urls], SECRET))
    return home


class Pair:
    """An engine that writes and one that follows, with the kernel that the latter tells."""

    def __init__(self, writer: Engine, reader: Engine) -> None:
        self.writer = writer
        self.reader = reader
        self.kernel = Memory()

    @property
    def following(self) -> Following:
        assert self.reader.following is not None
        return self.reader.following

    async def write(self, name: bytes, data: bytes) -> None:
        handle, _ = self.writer.fs.create(ROOT, name, 0o644, os.O_RDWR, CALLER)
        await self.writer.fs.write(handle.fh, 0, data)
        self.writer.fs.release(handle.fh)

    async def shown(self) -> None:
        await self.writer.flush()
        await self.reader.catch_up()


@asynccontextmanager
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    small = {"cache_reserve": 0, "follow_interval": 1000, "checkpoint_interval": 1000}
    writing, reading = MountOptions(settings=small), MountOptions(read_only=True, follow=True, settings=small)
    order = Order(await volume(tmp_path), SECRET, writing)
    async with opened_engine(order, say_nothing) as writer, trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        await writer.flush()
        home = await second_machine(tmp_path)
        async with opened_engine(Order(home, SECRET, reading), say_nothing) as reader:
            both = Pair(writer, reader)
            await nursery.start(reader.run)
            nursery.start_soon(both.following.run, both.kernel)
            yield both
            await writer.finish()
            nursery.cancel_scope.cancel()


async def test_open_handles_see_the_new_moment_or_that_the_file_is_gone(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        await both.write(b"kept", b"old")
        await both.write(b"gone", b"old")
        await both.shown()
        fs = both.reader.fs
        kept, gone = fs.lookup(ROOT, b"kept").ino, fs.lookup(ROOT, b"gone").ino
        handles = [await fs.open(ino, os.O_RDONLY, CALLER) for ino in (kept, gone)]
        listing = fs.opendir(ROOT)
        assert [await fs.read(handle.fh, 0, 10) for handle in handles] == [b"old", b"old"]
        both.writer.fs.unlink(ROOT, b"gone")
        await both.writer.fs.orphans.wait_idle()
        handle = await both.writer.fs.open(kept, os.O_RDWR, CALLER)
        await both.writer.fs.write(handle.fh, 0, b"newer")
        assert await fs.read(handles[0].fh, 0, 10) == b"old"
        await both.shown()
        assert await fs.read(handles[0].fh, 0, 10) == b"newer"
        with pytest.raises(StaleHandle):
            await fs.read(handles[1].fh, 0, 10)
        assert [entry.name for entry in fs.readdir(listing.ino, 0, 10)] == [b"kept"]
        with pytest.raises(ReadOnly):
            fs.mkdir(ROOT, b"d", 0o755, CALLER)


async def test_the_kernel_hears_of_what_it_knows_and_of_nothing_else(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        for name in (b"known", b"unknown", b"quiet"):
            await both.write(name, b"old")
        await both.shown()
        fs, kernel = both.reader.fs, both.kernel
        known, quiet = fs.lookup(ROOT, b"known").ino, fs.lookup(ROOT, b"quiet").ino
        fs.looked_up(known)
        fs.looked_up(quiet)
        kernel.inodes.clear()
        kernel.names.clear()
        for name in (b"known", b"unknown"):
            handle = await both.writer.fs.open(both.writer.fs.lookup(ROOT, name).ino, os.O_RDWR, CALLER)
            await both.writer.fs.write(handle.fh, 3, b" and new")
        await both.shown()
        assert (kernel.inodes, kernel.names) == ({known}, set())
        await both.write(b"appears", b"")
        with pytest.raises(NotFound):
            fs.lookup(ROOT, b"appears")
        await both.shown()
        assert (kernel.inodes, kernel.names) == ({known, ROOT}, {b"appears"})


async def test_the_kernel_is_told_however_often_it_fails(tmp_path: Path) -> None:
    """Else it would show the former moment for a day."""
    async with pair(tmp_path) as both:
        both.kernel.fails = 1
        await both.write(b"new", b"")
        await both.shown()
        assert both.kernel.names == {b"new"}
        assert both.following.status()["last_error"] == ""


async def test_the_pin_goes_along(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        assert both.reader.pin is not None
        await both.write(b"new", b"")
        await both.shown()
        sequence = both.reader.volume.moment.manifest.sequence
        assert both.reader.pin.pin.sequence == sequence
        assert len(objects(tmp_path, "readers/*")) == 3
        assert both.following.status()["moments"] == 1
        await both.reader.catch_up()
        assert both.following.status()["moments"] == 1


async def test_what_stands_in_the_way_is_told_and_tried_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        await both.write(b"new", b"content")
        await both.writer.flush()
        for number in range(3):
            (tmp_path / f"b{number}").rename(tmp_path / f"away{number}")
        with pytest.raises(ObjfsError):
            await both.reader.catch_up()
        assert both.following.status()["last_error"] != ""
        with pytest.raises(NotFound):
            both.reader.fs.lookup(ROOT, b"new")
        for number in range(3):
            (tmp_path / f"away{number}").rename(tmp_path / f"b{number}")
        await both.reader.catch_up()
        assert both.reader.fs.lookup(ROOT, b"new").size == 7
        assert both.following.status()["last_error"] == ""


async def test_after_the_end_nobody_waits_for_newer_moments(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        pass
    with pytest.raises(NotMounted):
        await both.following.catch_up()
