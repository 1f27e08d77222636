"""A read-only mount beyond the grace of its pin: stale, not damaged, and it says what to do."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.options import MountOptions
from objfs.errors import MomentGone, NotEnoughShards, SegmentGone
from objfs.fs import Caller
from objfs.model import ROOT
from tests.app.test_follow import say_nothing, second_machine
from tests.app.test_readonly import SECRET, volume

CALLER = Caller(0, 0)
CONTENT = os.urandom(300_000)
QUIET = {"cache_reserve": 0, "checkpoint_interval": 1000}


@asynccontextmanager
async def writer_and_reader(tmp_path: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """The reader shows a moment with one file ``f`` of which it has read nothing yet."""
    order = Order(await volume(tmp_path), SECRET, MountOptions(settings=QUIET))
    async with opened_engine(order, say_nothing) as writer, trio.open_nursery() as nursery:
        await nursery.start(writer.run)
        await write(writer, b"f", CONTENT)
        reading = MountOptions(read_only=True, settings=QUIET)
        async with opened_engine(
            Order(await second_machine(tmp_path), SECRET, reading), say_nothing
        ) as reader:
            yield writer, reader
        nursery.cancel_scope.cancel()


async def write(engine: Engine, name: bytes, data: bytes) -> None:
    handle, _ = engine.fs.create(ROOT, name, 0o644, os.O_RDWR, CALLER)
    await engine.fs.write(handle.fh, 0, data)
    engine.fs.release(handle.fh)
    await engine.flush()


async def read(engine: Engine) -> bytes:
    handle = await engine.fs.open(engine.fs.lookup(ROOT, b"f").ino, os.O_RDONLY, CALLER)
    try:
        return await engine.fs.read(handle.fh, 0, len(CONTENT))
    finally:
        engine.fs.release(handle.fh)


def delete_segments(tmp_path: Path, buckets: str = "b?") -> None:
    """As the writer does once nobody pins what needs them and the grace is over."""
    for place in tmp_path.glob(f"{buckets}/segment"):
        shutil.rmtree(place)


async def test_what_was_deleted_since_is_stale_and_the_log_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was EIO, with advice to bring buckets back that were all there."""
    async with writer_and_reader(tmp_path) as (writer, reader):
        await write(writer, b"newer", b"content")
        delete_segments(tmp_path)
        for _ in range(2):
            with pytest.raises(MomentGone, match="mount again") as caught:
                await read(reader)
        assert caught.value.errno == errno.ESTALE
        assert "is not kept any more" in reader.reason
    told = [record for record in caplog.records if "is not kept any more" in record.message]
    assert [record.levelname for record in told] == ["ERROR"]


async def test_what_is_lost_while_the_moment_is_the_newest_is_an_error(tmp_path: Path) -> None:
    async with writer_and_reader(tmp_path) as (_writer, reader):
        delete_segments(tmp_path)
        with pytest.raises(SegmentGone) as caught:
            await read(reader)
        assert caught.value.errno == errno.EIO
        assert reader.reason == ""


async def test_buckets_that_are_away_make_nothing_stale(tmp_path: Path) -> None:
    async with writer_and_reader(tmp_path) as (writer, reader):
        await write(writer, b"newer", b"content")
        for name in ("b0", "b1"):
            (tmp_path / name).rename(tmp_path / f"{name}.away")
        with pytest.raises(NotEnoughShards) as caught:
            await read(reader)
        assert not isinstance(caught.value, SegmentGone)
        for name in ("b0", "b1"):
            (tmp_path / f"{name}.away").rename(tmp_path / name)


async def test_one_bucket_that_lost_all_is_healed(tmp_path: Path) -> None:
    async with writer_and_reader(tmp_path) as (writer, reader):
        await write(writer, b"newer", b"content")
        delete_segments(tmp_path, "b0")
        assert await read(reader) == CONTENT
