"""Every kept manifest comes to every bucket, whenever that was away, and nothing else does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailBefore, Fault, Slow
from objfs.errors import Refused
from objfs.model import Code, Slot
from objfs.store import layout
from objfs.volume.heal import LOOK_S
from tests.volume.wards import Ward, mounted, ward


async def write_some(it: Ward, *names: bytes) -> None:
    """A manifest each."""
    for name in names:
        await it.write(name)


async def passed_over(tmp_path: Path) -> Ward:
    """A mount that has ended, and whose first bucket lacks two manifests."""
    async with ward(tmp_path) as it:
        it.away(0)
        await write_some(it, b"one", b"two")
    return it


async def test_a_bucket_that_was_away_gets_all_kept_manifests(tmp_path: Path) -> None:
    """Not the newest alone: the older ones can be lost with the buckets that have them, too."""
    async with ward(tmp_path) as it:
        away = it.away(1)
        await write_some(it, b"one", b"two", b"three")
        assert it.healer.statistics().buckets == 1
        assert len(await it.manifests(0) - await it.manifests(1)) == 3
        await it.healer.round()
        assert it.healer.statistics().buckets == 1, "it is still away"
        it.back(away)
        await it.healer.round()
        assert it.healer.statistics().buckets == 0
        assert await it.manifests(1) == await it.manifests(0)


async def test_what_was_published_without_it_is_known_after_a_mount(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        cloud, home = it.cloud, it.rig.volume.home
        it.away(1)
        await write_some(it, b"one", b"two")
    async with mounted(cloud, home) as it:
        assert await it.manifests(1) < await it.manifests(0)
        await it.healer.round()
        assert await it.manifests(1) == await it.manifests(0)
        before = [len(bucket.requests) for bucket in it.faulty.values()]
        await it.healer.round()
        assert [len(bucket.requests) for bucket in it.faulty.values()] == before


async def test_the_newest_is_copied_from_memory_where_those_that_have_it_went(tmp_path: Path) -> None:
    async with ward(tmp_path, Code(1, 1), 2) as it:
        away = it.away(1)
        await write_some(it, b"one", b"two")
        newest = max(await it.manifests(0))
        it.back(away)
        other = it.away(0)
        await it.healer.round()
        assert newest in await it.manifests(1)
        assert it.healer.statistics().buckets == 1, "it lacks the older ones"
        it.back(other)


async def test_what_cannot_be_copied_yet_is_tried_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with ward(tmp_path) as it:
        cloud, home = it.cloud, it.rig.volume.home
        it.away(1)
        await write_some(it, b"one", b"two")
    older = sorted(await it.manifests(0))[-2]
    async with mounted(cloud, home) as it:
        other = it.away(0)
        with trio.move_on_after(LOOK_S / 2):
            await it.healer.run()
        assert older not in await it.manifests(1)
        assert f"manifest {older} is on fewer buckets than count" in caplog.text
        it.back(other)
        with trio.move_on_after(60):
            await it.healer.run()
        assert await it.manifests(1) == await it.manifests(0)


async def test_a_bucket_that_was_looked_at_while_too_few_answered_is_looked_at_again(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It lacked nothing that the others could have shown."""
    before = await passed_over(tmp_path)
    async with mounted(before.cloud, before.rig.volume.home) as it:
        away = it.away(1, 2)
        await it.healer.round()
        it.back(away)
        with trio.move_on_after(60):
            await it.healer.run()
        assert await it.manifests(0) == await it.manifests(1)


@asynccontextmanager
async def while_publishing(it: Ward, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Inside, a manifest is put and the mount does not count it as its moment yet."""
    started, told = trio.Event(), trio.Event()
    run_sync, settle = trio.to_thread.run_sync, it.rig.checkpointer._settle_files

    async def halting(function: Any, *arguments: Any, **options: Any) -> Any:
        if function == settle:
            started.set()
            await told.wait()
        return await run_sync(function, *arguments, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", halting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(it.write, b"one")
        await started.wait()
        yield
        told.set()


async def test_one_that_is_being_published_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was struck off by a look that came after it was put and before it was known as kept."""
    async with ward(tmp_path) as it:
        await it.write(b"zero")
        await it.healer.round()
        await it.rig.reaper.learn()
        away = it.away(1)
        async with while_publishing(it, monkeypatch):
            it.back(away)
            await it.healer.round()
        await it.healer.round()
        assert await it.manifests(1) == await it.manifests(0)


async def test_one_that_is_being_published_is_not_taken_for_one_that_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        await it.write(b"zero")
        async with while_publishing(it, monkeypatch):
            it.back(away)
            others = it.away(0, 2)
            await it.healer.round()
            it.back(others)
        assert not it.rig.reaper.debts.owed
        assert max(await it.manifests(1)) == max(await it.manifests(0))


async def test_what_is_not_kept_is_not_copied(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        await write_some(it, b"one", b"two", b"three", b"four")
        # The bucket that is away keeps what others delete, and the others have what it never gets.
        gone = await it.manifests(1)
        await it.rig.reaper.round()
        kept = {manifest.sequence for manifest in it.rig.reaper.kept}
        assert not gone & kept
        it.back(away)
        await it.healer.round()
        assert kept <= await it.manifests(1)
        for slot in (0, 2):
            assert await it.manifests(slot) == kept


async def test_a_copy_that_comes_after_the_manifest_went_goes_as_well(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        await write_some(it, b"one")
        old = max(await it.manifests(0))
        it.back(away)
        newer = it.away(1)
        await write_some(it, b"two", b"three")
        it.back(newer)
        slow = it.faulty[Slot(1)].add(Fault(Slow(20), op="put_if_absent", key=layout.manifest_name(old)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.healer.round)
            await trio.sleep(5)
            assert slow.hits == 1
            await it.rig.reaper.round()
            assert old not in await it.manifests(0)
        await trio.sleep(60)  # the reaper leaves a bucket alone that failed
        await it.rig.reaper.round()
        assert old not in await it.manifests(1)
        assert await it.manifests(1) == await it.manifests(0)


async def test_what_too_few_buckets_have_is_not_believed_and_holds_up_nothing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """It may have lost a race for its number.  Where all buckets say so there is nothing to wait for."""
    async with ward(tmp_path) as it:
        cloud, home = it.cloud, it.rig.volume.home
        it.away(1)
        await write_some(it, b"one", b"two", b"three")
    oldest, lost = sorted(await it.manifests(0))[-3:-1]
    await cloud.memory.open("b2").delete(layout.manifest_name(lost))
    async with mounted(cloud, home) as it:
        with trio.move_on_after(60):
            await it.healer.run()
        assert oldest in await it.manifests(1)
        assert lost not in await it.manifests(1)
        looks = it.looks
        with trio.move_on_after(3600):
            await it.healer.run()
        assert it.looks == looks


async def test_what_is_deleted_already_from_one_of_two_buckets_does_not_come_back(tmp_path: Path) -> None:
    """With two voters one copy counts, and the other bucket had not deleted its own yet."""
    async with ward(tmp_path, Code(1, 1), 2) as it:
        cloud, home = it.cloud, it.rig.volume.home
        await write_some(it, b"one", b"two", b"three", b"four")
        it.faulty[Slot(1)].add(Fault(FailBefore(Refused), op="delete"))
        await it.rig.reaper.round()
        gone = await it.manifests(1) - await it.manifests(0)
        assert gone
    async with mounted(cloud, home) as it:
        await it.healer.round()
        assert not gone & await it.manifests(0)


@pytest.mark.parametrize(
    "fault",
    [Fault(FailBefore(Refused), op="put_if_absent", key="manifest/"), Fault(Slow(8), op="list")],
    ids=["refused", "slow"],
)
async def test_shards_do_not_wait_for_manifests_that_a_bucket_does_not_take(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, fault: Fault
) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        await write_some(it, b"one")
        it.back(away)
        it.faulty[Slot(1)].add(fault)
        assert it.short()
        with trio.move_on_after(900):
            await it.healer.run()
        assert it.short() == []
        assert it.healer.statistics().buckets == 1


@pytest.mark.parametrize("slot", [0, 1, 2])
async def test_a_copy_that_is_gone_when_the_volume_is_mounted_is_put_again(tmp_path: Path, slot: int) -> None:
    async with ward(tmp_path) as it:
        cloud, home = it.cloud, it.rig.volume.home
        await write_some(it, b"one", b"two", b"three")
    victim = cloud.memory.open(cloud.names[slot])
    for info in (await victim.list(layout.MANIFEST_PREFIX))[:-2]:
        await victim.delete(info.key)
    async with mounted(cloud, home) as it:
        await it.healer.round()
        for other in (0, 1, 2):
            assert await it.manifests(slot) == await it.manifests(other)


async def test_a_bucket_that_joined_as_something_was_published_gets_that_too(tmp_path: Path) -> None:
    """It got what the others had when it was asked in, and counted as one only some time later."""
    async with ward(tmp_path) as it:
        await write_some(it, b"one", b"two")
        await it.healer.round()
        entries, reach = await it.with_a_late_one()
        it.use(entries, reach)
        await it.healer.round()
        assert await it.manifests(3) == await it.manifests(0)


async def test_a_bucket_that_refuses_one_is_not_offered_the_others(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        away = it.away(1)
        await write_some(it, b"one", b"two", b"three")
        it.back(away)
        fault = it.faulty[Slot(1)].add(Fault(FailBefore(Refused), op="put_if_absent", key="manifest/"))
        await it.healer.round()
        assert fault.hits == 1


async def test_a_bucket_that_takes_no_shards_still_tells_its_manifests(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Their pauses fell into one another: whenever one of both was looked at, the other rested."""
    before = await passed_over(tmp_path)
    lost = await before.manifests(1) - await before.manifests(0)
    async with mounted(before.cloud, before.rig.volume.home) as it:
        away = it.away(1)
        it.away(2)
        with trio.move_on_after(12):
            await it.healer.run()  # too few list theirs
        it.back(away)
        it.faulty[Slot(1)].add(Fault(FailBefore(Refused), op="put", key="segment/"))
        it.faulty[Slot(2)].clear()
        it.faulty[Slot(2)].add(Fault(FailBefore(Refused), op="put", key="segment/"))
        with trio.move_on_after(2 * 3600):
            await it.healer.run()
        assert lost
        assert lost <= await it.manifests(0)


async def test_a_bucket_that_joined_at_the_second_try_is_looked_at_again(tmp_path: Path) -> None:
    async with ward(tmp_path) as it:
        await write_some(it, b"one")
        buckets = it.rig.volume.buckets
        before, after = (buckets.entries, dict(buckets.buckets)), await it.with_a_late_one()
        for entries, reach in (after, before, after):
            it.use(entries, reach)
            await it.healer.round()
            if len(reach) == 3:
                await write_some(it, b"two")
        assert await it.manifests(3) == await it.manifests(0)


async def test_a_look_while_the_table_changes_gives_nothing_up(tmp_path: Path) -> None:
    """More is asked of a manifest then, so that what counts did not seem to."""
    async with ward(tmp_path) as it:
        it.rig.volume.buckets.demand_majority()
        await it.healer.round()
        assert "changing" in it.healer.statistics().last_error
        assert it.healer._copies.unsure == {0, 1, 2}


async def test_shards_that_older_moments_lack_are_put_too(tmp_path: Path) -> None:
    """A kept moment is one that somebody may go back to, also after the loss of another bucket."""
    async with ward(tmp_path, Code(1, 1), 2) as it:
        away = it.away(1)
        await write_some(it, b"one")
        it.back(away)
        async with it.rig.checkpointer.quiet():
            it.rig.checkpointer.rebase()  # the next moment names none of the blobs before
        await write_some(it, b"two")
        older = it.rig.reaper.kept[0]
        assert any(blob.segment.missing for blob in older.blobs)
        assert it.healer.statistics().blobs
        await it.healer.round()
        assert it.healer.statistics().blobs == 0
        shards = await it.shards()
        for blob in older.blobs:
            for shard, slot in enumerate(blob.segment.placement):
                assert slot in shards[layout.shard_name(blob.segment.uuid, shard)]
