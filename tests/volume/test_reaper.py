"""The reaper: nothing that a kept moment needs goes, what nobody needs does, in a safe order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.errors import LeaseLost, NoQuorum, Unreachable
from objfs.model import ChunkId, Ino, Segment, SegmentNo
from objfs.ports import Sealable
from objfs.store import layout
from objfs.volume.manifest import Manifest
from objfs.volume.reaper import Retention, expired
from tests.volume.support import Machine, Site
from tests.volume.wards import mounted, ward
from tests.volume.writers import Writer, recovered, writer

COPIES = 2
"""Small segments of a 2+1 volume."""


def manifests(*wall_s: int) -> list[Manifest]:
    one = Manifest(bytes(16), 1, 1, bytes(32), bytes(16), 0, 4096, 1, 0, ())
    return [replace(one, sequence=n + 1, wall_ns=at * 10**9) for n, at in enumerate(wall_s)]


@pytest.mark.parametrize(
    ("now", "keep", "gone"),
    [
        (300, 1, [1, 2]),  # 3 was the newest until 200: still within the last 100 s
        (301, 1, [1, 2, 3]),
        (10_000, 1, [1, 2, 3]),
        (10_000, 2, [1, 2]),
        (10_000, 9, []),
    ],
)
def test_what_was_newest_within_the_window_is_kept(now: int, keep: int, gone: list[int]) -> None:
    found = expired(manifests(0, 50, 100, 200), Retention(100, keep), now * 10**9)
    assert [manifest.sequence for manifest in found] == gone


async def data_segment(one: Writer, number: int) -> Segment:
    segment, _ = await one.store.write_segment([Sealable(ChunkId(number), Ino(1), 0, b"data")])
    one.segments.rows[SegmentNo(number)] = segment
    one.segments.used.add(SegmentNo(number))
    return segment


async def shards(site: Site, segment: Segment) -> int:
    names = [key for slot in range(3) for key in await site.keys(slot, "segment/")]
    return sum(name.startswith(layout.shard_prefix(segment.uuid)) for name in names)


async def change(one: Writer, text: bytes) -> None:
    one.table.commit({2: text})
    await one.flush()


async def test_old_manifests_and_their_blobs_go_and_the_volume_stays(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    one.table.commit(dict.fromkeys(range(2, 300), b"filling"))
    await one.flush()
    for number in range(12):
        await trio.sleep(40)
        await change(one, str(number).encode())
        await one.reaper.round()
    names = await site.keys(0, "manifest/")
    assert 3 <= len(names) <= 6
    needed = {blob.segment.uuid for blob in one.checkpointer.moment.manifest.blobs}  # type: ignore[union-attr]
    keys = [key for slot in range(3) for key in await site.keys(slot, "segment/")]
    held = {layout.parse_shard(key).uuid for key in keys}  # type: ignore[union-attr]
    assert needed <= held
    assert len(held) <= len(needed) + 2 * len(names)
    assert await recovered(site) == one.table.now


async def test_a_condemned_segment_goes_after_grace_and_window(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    segment = await data_segment(one, 5)
    await change(one, b"with")
    one.segments.used.clear()
    assert one.reaper.search() == 1
    await one.reaper.round()
    assert await shards(site, segment) == COPIES  # not condemned in a published manifest yet
    await change(one, b"without")
    await trio.sleep(60)
    await one.reaper.round()
    assert await shards(site, segment) == COPIES  # the manifest before still names it
    await trio.sleep(100)
    await change(one, b"later")
    await change(one, b"and later")
    await one.reaper.round()
    assert await shards(site, segment) == 0
    assert one.segments.rows == {}
    assert one.reaper.search() == 0


async def test_more_segments_than_a_manifest_lists_go_when_the_grace_is_over(
    tmp_path: Path, patient_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large tree was deleted: all of it goes, not a bounded part a day; what the next mount cannot know the
    age of goes a grace later."""
    monkeypatch.setattr("objfs.volume.reaper.CONDEMNED_MAX", 3)
    monkeypatch.setattr("objfs.volume.reaper.SEARCH_BATCH", 2)
    site = Site(3)
    one = await writer(site, tmp_path)
    segments = [await data_segment(one, number) for number in range(5, 13)]
    await change(one, b"with")
    one.segments.used.clear()
    while one.reaper.search():
        pass
    await change(one, b"without")
    moment = one.checkpointer.moment
    assert moment is not None
    assert len(moment.manifest.condemned) == 3
    await trio.sleep(90)
    again = await remounted(one)
    await change(again, b"remounted")
    await trio.sleep(60)
    await change(again, b"later")
    await trio.sleep(40)
    await again.reaper.round()
    listed = {item.uuid for item in moment.manifest.condemned}
    left = [segment.uuid for segment in segments if await shards(site, segment)]
    assert set(left) == {segment.uuid for segment in segments} - listed
    await trio.sleep(60)
    await again.reaper.round()
    assert [await shards(site, segment) for segment in segments] == [0] * 8
    assert again.segments.rows == {}


async def test_no_more_wait_than_may_and_the_rest_comes_after_them(
    tmp_path: Path, patient_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("objfs.volume.reaper.WAITING_MAX", 2)
    site = Site(3)
    one = await writer(site, tmp_path)
    for number in range(5, 9):
        await data_segment(one, number)
    one.segments.used.clear()
    found = []
    while one.segments.rows:
        found.append(one.reaper.search())
        await change(one, b"%d" % len(found))
        await trio.sleep(150)
        await change(one, b"later %d" % len(found))
        await trio.sleep(10)
        await one.reaper.round()
    assert found == [2, 2]


async def test_grace_counts_over_remounts(tmp_path: Path, patient_clock: trio.testing.MockClock) -> None:
    """Only what a published manifest condemns counts; its time stands in the manifest."""
    site = Site(3)
    one = await writer(site, tmp_path)
    published, unpublished = await data_segment(one, 5), await data_segment(one, 6)
    one.segments.used = {SegmentNo(6)}
    one.reaper.search()
    for text in (b"1", b"2"):
        await change(one, text)
    one.segments.used.clear()
    one.reaper.search()
    await trio.sleep(1000)
    again = await remounted(one)
    await change(again, b"3")
    await change(again, b"4")
    await trio.sleep(10)
    await again.reaper.round()
    assert (await shards(site, published), await shards(site, unpublished)) == (0, COPIES)


async def remounted(one: Writer) -> Writer:
    """The same machine after a crash of the process."""
    machine = Machine(one.machine.site, one.machine.faulty)
    again = Writer(machine, one.home)
    again.table, again.replica.pages, again.segments = one.table, one.replica.pages, one.segments
    await again.start(moment=one.checkpointer.moment, force=True)
    return again


async def test_a_new_mount_knows_the_moments_of_the_one_before(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    for number in range(10):
        await change(one, str(number).encode())
    await trio.sleep(1000)
    again = await remounted(one)
    reaped = await again.reaper.round()
    assert reaped.manifests == 9
    assert await recovered(site) == one.table.now


async def test_nothing_is_deleted_after_a_takeover(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    for number in range(10):
        await change(one, str(number).encode())
    await trio.sleep(1000)
    before = [await site.keys(slot) for slot in range(3)]
    await site.machine().acquire(force=True)
    with pytest.raises(LeaseLost):
        await one.reaper.round()
    assert [
        [key for key in await site.keys(slot) if key != layout.lease_name(2)] for slot in range(3)
    ] == before


async def test_what_too_few_buckets_tell_is_not_taken_for_all_there_is(tmp_path: Path) -> None:
    """A round that failed had learned from one bucket which manifests there are, for as long as the mount was
    there: what the others had was not kept, and what only that named was free to be deleted."""
    async with ward(tmp_path) as it:
        cloud, home = it.cloud, it.rig.volume.home
        it.away(0)
        for name in (b"one", b"two", b"three"):
            await it.write(name)
    async with mounted(cloud, home) as it:
        away = it.away(1, 2)
        with pytest.raises(NoQuorum):
            await it.rig.reaper.round()
        it.back(away)
        await it.rig.reaper.learn()
        assert {manifest.sequence for manifest in it.rig.reaper.kept} >= await it.manifests(1)


async def test_a_manifest_that_cannot_be_read_now_is_not_one_that_nobody_can_read(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        cloud, home = it.cloud, it.rig.volume.home
        for name in (b"one", b"two", b"three"):
            await it.write(name)
    old = sorted(await it.manifests(0))[-2]
    async with mounted(cloud, home) as it:
        fault = Fault(FailBefore(Unreachable), op="get", key=layout.manifest_name(old))
        for bucket in it.faulty.values():
            bucket.add(fault)
        with pytest.raises(NoQuorum, match=f"manifest {old}"):
            await it.rig.reaper.learn()
        for bucket in it.faulty.values():
            bucket.clear()
        await it.rig.reaper.learn()
        assert {manifest.sequence for manifest in it.rig.reaper.kept} == await it.manifests(0)
