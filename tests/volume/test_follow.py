"""A read-only machine goes from one published moment to the next (I2)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket
from objfs.errors import NoQuorum, ObjfsError, StaleHandle, Unclean, UnknownKey, Unreachable
from objfs.model import ROOT
from objfs.volume.follow import Follower
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions
from objfs.volume.progress import read_progress
from objfs.volume.reconcile import Verdict
from objfs.volume.rotate import rotate
from tests.volume.rigs import Cloud, Rig, running
from tests.volume.support import PASSPHRASE, TrioClock

FOLLOWING = OpenOptions(read_only=True, follow=True, host="reader")
OTHER = OpenOptions(host="other", force=True)


class Pair:
    """A machine that writes, and one that follows it."""

    def __init__(self, cloud: Cloud, writer: Rig, reader: Rig) -> None:
        self.cloud = cloud
        self.writer = writer
        self.reader = reader
        self.follower = Follower(reader.volume)
        self.lost: list[Rig] = []

    @property
    def home(self) -> VolumeHome:
        return self.reader.volume.home

    @property
    def buckets(self) -> list[FaultyBucket]:
        """As the reader reaches them."""
        found = self.reader.volume.buckets.buckets.values()
        return [bucket for bucket in found if isinstance(bucket, FaultyBucket)]

    def lose(self, rig: Rig) -> None:
        rig.vanish()
        self.lost.append(rig)

    async def publish(self) -> int:
        await self.writer.checkpointer.flush()
        assert self.writer.checkpointer.moment is not None
        return self.writer.checkpointer.moment.manifest.sequence

    async def go_on(self) -> bool:
        """Whether there was something to go on to."""
        newest = await self.follower.look()
        if newest is not None:
            self.follower.adopt(newest, await self.follower.build(newest))
        return newest is not None


@asynccontextmanager
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Both at work; then an orderly end of those that are not lost."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as writer:
        writer.create(b"file")
        writer.write(b"file", 0, b"first " * 10_000)
        await writer.checkpointer.flush()
        volume = await cloud.open(await cloud.attach(), FOLLOWING)
        async with running(volume) as reader:
            made = Pair(cloud, writer, reader)
            yield made
            made.follower.close()
        if writer not in made.lost:
            await writer.drain()
    for rig in (reader, writer):
        if rig not in made.lost:
            await rig.close()


async def test_it_shows_each_moment_as_a_whole(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        assert not await both.go_on()
        before = await both.reader.tree()
        for number in range(4):
            both.writer.create(b"new%d" % number)
            both.writer.write(b"file", 5_000 * number, b"CHANGED")
            assert await both.reader.tree() == before
            sequence = await both.publish()
            both.writer.create(b"later%d" % number)
            assert await both.go_on()
            before = await both.reader.tree()
            assert both.reader.volume.moment.manifest.sequence == sequence
            assert set(before) == set(await both.writer.tree()) - {b"later%d" % number}
            assert before[b"file"] == (await both.writer.tree())[b"file"]
            assert both.reader.table.check() == []


async def test_what_is_gone_is_stale_and_what_stays_keeps_its_number(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        both.writer.create(b"gone")
        await both.publish()
        await both.go_on()
        gone = both.reader.table.lookup(ROOT, b"gone").ino
        kept = both.reader.table.lookup(ROOT, b"file").ino
        both.writer.unlink(b"gone")
        both.writer.rename(b"file", b"renamed")
        await both.publish()
        await both.go_on()
        with pytest.raises(StaleHandle):
            both.reader.table.get(gone)
        assert both.reader.table.lookup(ROOT, b"renamed").ino == kept


async def test_only_new_deltas_are_fetched_until_there_is_a_new_base(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(tmp_path) as both:
        with caplog.at_level(logging.INFO, logger="objfs.volume.recover"):
            both.writer.create(b"small")
            await both.publish()
            await both.go_on()
            assert "replica advanced" in caplog.text
            assert "replayed" not in caplog.text
            base = both.reader.volume.moment.manifest.base
            for number in range(9000):
                both.writer.create(b"a rather long name for many files %d" % number)
            await both.publish()
            await both.go_on()
            assert both.reader.volume.moment.manifest.base != base
            assert "replayed" in caplog.text
        assert both.reader.table.count() == both.writer.table.count()


async def test_a_failure_leaves_the_moment_that_is_shown(tmp_path: Path) -> None:
    """Also one in the middle, after which nobody knows what the replica holds."""
    async with pair(tmp_path) as both:
        before = await both.reader.tree()
        volume = both.reader.volume
        for number in range(3):
            both.writer.create(b"new%d" % number)
            await both.publish()
            newest = await both.follower.look()
            assert newest is not None
            faults = [
                bucket.add(Fault(FailBefore(Unreachable), op="get", key="segment/"))
                for bucket in both.buckets
            ]
            with pytest.raises(ObjfsError):
                await both.follower.build(newest)
            assert await both.reader.tree() == before
            for fault, bucket in zip(faults, both.buckets, strict=True):
                bucket.remove(fault)
            assert await both.go_on()
            before = await both.reader.tree()
            assert set(before) == set(await both.writer.tree())
            assert volume.meta.path in both.home.follow_paths


async def test_a_bucket_that_is_away_is_passed_over(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        buckets = both.buckets
        faults = [bucket.add(Fault(FailBefore(Unreachable))) for bucket in buckets[:2]]
        both.writer.create(b"new")
        await both.publish()
        for _ in buckets:
            asked = [len(bucket.requests) for bucket in buckets]
            assert await both.follower.look() is not None
            assert [len(bucket.requests) for bucket in buckets] != asked
        buckets[2].add(Fault(FailBefore(Unreachable)))
        with pytest.raises(NoQuorum):
            await both.follower.look()
        for bucket, fault in zip(buckets, faults, strict=False):
            bucket.remove(fault)


async def test_a_look_at_an_idle_volume_is_one_request_to_one_bucket(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        buckets = both.buckets
        before = [len(bucket.requests) for bucket in buckets]
        for _ in range(6):
            assert await both.follower.look() is None
        assert [len(bucket.requests) - seen for bucket, seen in zip(buckets, before, strict=True)] == [
            2,
            2,
            2,
        ]


async def test_a_fence_is_the_same_moment_under_a_new_number(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        both.lose(both.writer)
        visit = await both.cloud.open(await both.cloud.attach(), OTHER)
        table = both.reader.table.path
        assert await both.go_on()
        assert both.reader.volume.moment.manifest.fence
        assert both.reader.table.path == table
        await visit.close(clean=False, settled=True)


async def test_after_a_rotation_it_says_that_it_must_be_mounted_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as both:
        before = await both.reader.tree()
        both.lose(both.writer)
        async with running(await both.cloud.open(await both.cloud.attach(), OTHER)) as taker:
            await taker.drain()
        await taker.close()
        volume = taker.volume
        await rotate(volume.buckets, volume.ring, volume.header, [PASSPHRASE], TrioClock(), drop=True)
        async with running(await both.cloud.open(volume.home, OTHER)) as later:
            later.create(b"under the new key")
            await later.drain()
        await later.close()
        with pytest.raises(UnknownKey, match="rotated"):
            await both.go_on()
        assert await both.reader.tree() == before


async def test_local_changes_are_not_thrown_away(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        rig.create(b"only here")
    rig.vanish()
    with pytest.raises(Unclean, match="mount the volume for writing"):
        await cloud.open(home, FOLLOWING)
    async with running(await cloud.open(home)) as again:
        assert await again.tree() == {b"only here": b""}
        await again.leave()
    volume = await cloud.open(home, FOLLOWING)
    await volume.close(clean=True, settled=True)


@pytest.mark.parametrize("orderly", [True, False])
async def test_what_it_leaves_on_the_disk_is_the_moment_it_began_with(tmp_path: Path, orderly: bool) -> None:
    """So no later mount takes an old table for newer changes; the replica may have run ahead."""
    async with pair(tmp_path) as both:
        began = read_progress(both.home)
        both.writer.create(b"new")
        both.writer.write(b"file", 0, b"CHANGED")
        await both.publish()
        await both.go_on()
        assert read_progress(both.home) == began
        home = both.home
        if not orderly:
            both.lose(both.reader)
    assert home.is_mirror()
    async with running(await both.cloud.open(home)) as rig:
        assert (rig.volume.verdict, rig.volume.salvage) == (Verdict.BEHIND, None)
        assert not any(path.exists() for path in home.follow_paths)
        expected = await rig.tree()
        assert expected[b"file"].startswith(b"CHANGED")
        rig.create(b"written here")
        await rig.leave()
    async with running(await both.cloud.open(await both.cloud.attach(), FOLLOWING)) as fresh:
        assert await fresh.tree() == expected | {b"written here": b""}
    fresh.vanish()
