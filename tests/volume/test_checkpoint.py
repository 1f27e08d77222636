"""Checkpoints over toys of table and cache, with real store and buckets: whole, shared, retryable (I2)."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import FailAfter, FailBefore, Fault
from objfs.errors import BucketError, LeaseLost, NoQuorum, ObjfsError, ReadOnly, StoreError, Unreachable
from objfs.volume.progress import read_delta_pages, read_progress
from objfs.volume.published import read_newest
from objfs.volume.recover import catch_up
from objfs.volume.shipping import read_patch, read_stack
from tests.volume.support import Site, release
from tests.volume.writers import recovered, writer


async def test_what_was_flushed_is_recovered_by_a_fresh_machine(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    generator = random.Random(1)
    for _ in range(40):
        one.table.commit({generator.randint(1, 60): generator.randbytes(9) for _ in range(5)})
        await one.flush()
        assert one.replica.pages == one.table.now
    assert await recovered(site, without=1) == one.table.now


async def test_an_unchanged_volume_publishes_nothing(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    requests = [len(bucket.requests) for bucket in one.machine.faulty.values()]
    await one.flush()
    with trio.move_on_after(100):
        await one.checkpointer.run()
    assert requests == [len(bucket.requests) for bucket in one.machine.faulty.values()]
    assert one.sequence == 1


async def test_the_interval_publishes_what_changed(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    one = await writer(Site(3), tmp_path)
    one.table.commit({2: b"x"})
    with trio.move_on_after(15):
        await one.checkpointer.run()
    assert one.sequence == 2


async def test_chunks_of_the_cut_are_in_the_patch_and_later_ones_are_not(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    one.cache.hold = trio.Event()
    first = one.cache.write(b"first" * 100)
    one.table.commit({2: b"before"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.flush)
        await trio.testing.wait_all_tasks_blocked(0.01)
        one.table.commit({2: b"after"})
        one.cache.write(b"second")
        one.cache.hold.set()
    found = await read_newest(one.machine.buckets, site.ring)
    assert found is not None
    patch = await read_patch(one.store, found.manifest)
    assert [placed.chunk for placed in patch.placed] == [first]
    assert (await recovered(site))[2].startswith(b"before")
    (placed,) = patch.placed
    segment = patch.segments[placed.location.segment]
    assert await one.store.read_blob(segment, placed.location) == b"first" * 100


async def test_concurrent_flushes_share_and_cover_what_came_before(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    one = await writer(Site(3), tmp_path)
    one.cache.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        one.table.commit({2: b"a"})
        nursery.start_soon(one.flush)
        nursery.start_soon(one.flush)
        await trio.testing.wait_all_tasks_blocked(0.01)
        one.table.commit({3: b"b"})
        nursery.start_soon(one.flush)
        nursery.start_soon(one.flush)
        await trio.testing.wait_all_tasks_blocked(0.01)
        one.cache.hold.set()
    assert one.sequence == 3
    assert one.replica.pages == one.table.now


async def test_a_failed_checkpoint_leaves_everything_for_the_next(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    for prefix in ("segment/", "manifest/", "lease/"):
        faults = [
            bucket.add(Fault(FailBefore(Unreachable), key=prefix)) for bucket in one.machine.faulty.values()
        ]
        one.table.commit({2: prefix.encode()})
        with pytest.raises((NoQuorum, BucketError, StoreError)):
            await one.flush()
        assert one.checkpointer.statistics().failures >= 1
        for fault in faults:
            fault.times = fault.hits
        await trio.sleep(600)
        await one.flush()
        assert await recovered(site) == one.table.now
        assert one.checkpointer.statistics().failures == 0


@pytest.mark.parametrize("step", ["take", "apply"])
async def test_a_full_local_disk_does_not_end_the_checkpointer(
    tmp_path: Path, patient_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before and after the manifest is put: the mount goes on, and the next checkpoint has everything."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    site = Site(3)
    one = await writer(site, tmp_path)
    one.table.commit({2: b"x"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.checkpointer.run)
        with monkeypatch.context() as patched:
            patched.setattr(one.table if step == "take" else one.replica, step, full)
            with pytest.raises(ObjfsError, match="see to the disk"):
                await one.flush()
            await trio.sleep(35)
            assert one.checkpointer.statistics().failures == 4
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert one.checkpointer.statistics().failures == 0
    assert await recovered(site) == one.table.now


async def test_a_lost_answer_is_settled_with_the_same_bytes(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    """The manifest arrived, nobody said so, and more was written: its sequence must stay what it was."""
    site = Site(3)
    one = await writer(site, tmp_path)
    for bucket in one.machine.faulty.values():
        bucket.add(Fault(FailAfter(Unreachable), op="put_if_absent", key="manifest/", times=1))
    one.table.commit({2: b"a"})
    with pytest.raises(NoQuorum):
        await one.flush()
    assert not one.checkpointer.settled
    arrived = await recovered(site)
    one.table.commit({2: b"b"})
    await one.flush()
    assert arrived[2].startswith(b"a")
    assert one.sequence == 3
    assert await recovered(site) == one.table.now
    assert one.checkpointer.settled


async def test_a_cancelled_flush_leaves_everything_for_the_next(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    for op, key in (("put_if_absent", "manifest/"), ("put", "segment/"), ("list", "lease/")):
        hung = one.machine.hang(op, key)  # type: ignore[arg-type]
        one.table.commit({2: key.encode()})
        with trio.move_on_after(1):
            await one.flush()
        release(hung)
    await one.flush()
    assert await recovered(site) == one.table.now


async def test_a_crash_between_publishing_and_replica_is_mended(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    one.table.commit({2: b"two"})
    before = dict(one.replica.pages)
    await one.flush()
    one.replica.pages = before
    found = await read_newest(one.machine.buckets, site.ring)
    assert found is not None
    assert await catch_up(one.store, found.manifest, one.replica)
    assert one.replica.pages == one.table.now


async def test_the_intent_is_on_the_disk_before_the_manifest_is_put(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    hung = one.machine.hang("put_if_absent", "manifest/")
    one.table.commit({2: b"x"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.flush)
        await hung[0].reached.wait()
        progress = read_progress(one.home)
        assert progress is not None
        assert progress.intent is not None
        assert (progress.published.sequence, progress.intent.sequence) == (1, 2)
        assert one.synced == 2
        release(hung)
    settled = read_progress(one.home)
    found = await read_newest(one.machine.buckets, site.ring)
    assert settled is not None
    assert found is not None
    assert settled.intent is None
    assert (settled.published, settled.published.hash) == (progress.intent, found.hash)


async def test_page_numbers_of_deltas_come_from_the_file_or_from_the_buckets(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    one.table.commit(dict.fromkeys(range(2, 400), b"x"))
    await one.flush()
    for n in range(5):
        one.table.commit({n + 2: b"y", 300: bytes([n])})
        await one.flush()
    found = await read_newest(one.machine.buckets, site.ring)
    assert found is not None
    moment = one.checkpointer.moment
    assert moment is not None
    assert len(moment.stack.deltas) >= 2
    from_file = await read_stack(one.store, found.manifest, read_delta_pages(one.home))
    from_buckets = await read_stack(one.store, found.manifest, {})
    assert from_file == from_buckets == moment.stack


async def test_a_lost_lease_ends_the_checkpointer(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    one = await writer(site, tmp_path)
    await site.machine().acquire(force=True)
    one.table.commit({2: b"x"})
    await one.checkpointer.run()
    assert not one.machine.gate.open
    with pytest.raises((LeaseLost, ReadOnly)):
        await one.flush()
    assert one.sequence == 1


async def test_a_closed_gate_ends_a_checkpoint_that_waits_for_placements(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    one = await writer(Site(3), tmp_path)
    one.cache.hold = trio.Event()
    one.table.commit({2: b"x"})
    async with trio.open_nursery() as nursery:

        async def flush() -> None:
            with pytest.raises(ReadOnly, match="damage"):
                await one.flush()

        nursery.start_soon(flush)
        await trio.testing.wait_all_tasks_blocked(0.01)
        one.machine.gate.close("damage")


async def test_wall_time_never_goes_backwards(tmp_path: Path, patient_clock: trio.testing.MockClock) -> None:
    one = await writer(Site(3), tmp_path)
    moment = one.checkpointer.moment
    assert moment is not None
    before = moment.manifest.wall_ns
    one.machine.clock.now_ns = lambda: 5  # type: ignore[method-assign]
    one.table.commit({2: b"x"})
    await one.flush()
    moment = one.checkpointer.moment
    assert moment is not None
    assert moment.manifest.wall_ns == before


async def test_a_rotten_page_of_the_replica_does_not_travel(
    tmp_path: Path, patient_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """I4: a new base is taken from the replica only when its digest holds; else it is fetched again."""
    site = Site(3)
    one = await writer(site, tmp_path)
    one.table.commit(dict.fromkeys(range(2, 200), b"x"))
    await one.flush()
    sound = one.replica.digest
    one.replica.rot(150)
    assert one.replica.digest == sound
    for number in range(20):
        one.table.commit({page: bytes([number]) for page in range(2, 100)})
        await one.flush()
    assert await recovered(site) == one.table.now
    assert caplog.text.count("replica of the inode table is damaged") == 1
