"""A writer that is stopped in the middle of a request and wakes after a takeover damages nothing (I5).

The requests of the stopped machine hang as under SIGSTOP; another host takes the volume over, works and
goes on; then the old one's requests are let go.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.backends.wrappers.faults import Fault
from objfs.errors import LeaseLost, ReadOnly
from objfs.model import ChunkId, Ino, SegmentNo
from objfs.ports import Sealable
from objfs.volume.checkpoint import Moment
from objfs.volume.local import VolumeHome
from objfs.volume.published import fence
from objfs.volume.recover import replay
from tests.volume.support import Site, release
from tests.volume.writers import Writer, recovered, writer


async def succeed(site: Site, tmp_path: Path) -> Writer:
    """Another host: takes over after three silent intervals, fences, recovers, writes and publishes."""
    home = VolumeHome(tmp_path / "other", "v")
    home.create()
    new = Writer(site.machine(), home)
    lease = await new.machine.acquire(take_over=True)
    newest = await fence(new.machine.buckets, site.ring, lease, new.machine.clock)
    assert newest is not None
    stack = await replay(new.store, newest.manifest, new.replica)
    await new.start(moment=Moment.of(newest, stack), force=True)
    new.table.commit(new.replica.pages)
    new.table.taken = 1
    new.table.commit({2: b"from the new host"})
    await new.flush()
    return new


async def all_keys(site: Site) -> list[list[str]]:
    return [await site.keys(slot) for slot in range(len(site.entries))]


async def wake(faults: list[Fault]) -> None:
    release(faults)
    await trio.testing.wait_all_tasks_blocked(0.05)


async def assert_whole_and_the_new_hosts(site: Site, old: Writer, new: Writer) -> None:
    """The old writer is read-only, and a fresh machine gets exactly what the new host published."""
    assert not old.machine.gate.open
    old.table.commit({9: b"too late"})
    with pytest.raises(LeaseLost):  # for a shell another exit code than that of a mount made read-only
        await old.flush()
    assert new.machine.gate.open
    assert await recovered(site) == new.table.now
    new.table.commit({3: b"still going"})
    await new.flush()
    assert await recovered(site) == new.table.now


async def test_stopped_inside_a_manifest_put(tmp_path: Path, patient_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    old = await writer(site, tmp_path)
    old.table.commit({2: b"acknowledged"})
    await old.flush()
    hung = old.machine.hang("put_if_absent", "manifest/")
    old.table.commit({2: b"never acknowledged"})
    async with trio.open_nursery() as nursery:

        async def flush() -> None:
            with pytest.raises(LeaseLost):
                await old.flush()

        nursery.start_soon(flush)
        for fault in hung:
            await fault.reached.wait()
        new = await succeed(site, tmp_path)
        assert new.table.at(1)[2].startswith(b"acknowledged")
        await wake(hung)
    before = await all_keys(site)
    await assert_whole_and_the_new_hosts(site, old, new)
    assert all(set(keys) <= set(after) for keys, after in zip(before, await all_keys(site), strict=True))


async def test_stopped_inside_a_segment_delete(tmp_path: Path, patient_clock: trio.testing.MockClock) -> None:
    """The delete under way at each bucket is of a segment that nothing needs; the ones queued behind it do
    not happen, though no renewal has told the old host yet."""
    site = Site(3)
    old = await writer(site, tmp_path)
    for number in (1, 2, 3):
        segment, _ = await old.store.write_segment([Sealable(ChunkId(number), Ino(1), 0, b"data")])
        old.segments.rows[SegmentNo(number)] = segment
    assert old.reaper.search() == 3
    for text in (b"condemned", b"1", b"2"):
        old.table.commit({2: text})
        await old.flush()
        await trio.sleep(1000)
    hung = old.machine.hang("delete", "segment/")
    async with trio.open_nursery() as nursery:

        async def reap() -> None:
            with pytest.raises((LeaseLost, ReadOnly)):
                await old.reaper.round()

        nursery.start_soon(reap)
        while not any(fault.hits for fault in hung):
            await trio.testing.wait_all_tasks_blocked(0.01)
        new = await succeed(site, tmp_path)
        before = await all_keys(site)
        await wake(hung)
    after = await all_keys(site)
    assert all(len(set(was) - set(left)) <= 1 for was, left in zip(before, after, strict=True))
    await assert_whole_and_the_new_hosts(site, old, new)


async def test_stopped_inside_a_lease_renewal(tmp_path: Path, patient_clock: trio.testing.MockClock) -> None:
    site = Site(3)
    old = await writer(site, tmp_path)
    hung = old.machine.hang("put", "lease/")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(old.lease.renew)
        for fault in hung:
            await fault.reached.wait()
        for fault in hung:
            fault.times = fault.hits
        # The renewal gives up after its interval; on the old host the requests stay in the kernel.
        new = await succeed(site, tmp_path)
        await wake(hung)
    old.table.commit({2: b"from the old host"})
    with pytest.raises(LeaseLost):
        await old.flush()
    await assert_whole_and_the_new_hosts(site, old, new)


async def test_a_renewal_that_arrives_late_does_not_shake_the_new_lease(
    tmp_path: Path, patient_clock: trio.testing.MockClock
) -> None:
    site = Site(3)
    old = await writer(site, tmp_path)
    late = [(name, await site.memory.open("b0").get(name)) for name in await site.keys(0, "lease/")]
    new = await succeed(site, tmp_path)
    for slot in range(3):
        for name, data in late:
            await site.memory.open(f"b{slot}").put(name, data)
    await new.lease.check()
    await assert_lost(old)
    await assert_whole_and_the_new_hosts(site, old, new)


async def assert_lost(old: Writer) -> None:
    with pytest.raises(LeaseLost):
        await old.lease.check()
