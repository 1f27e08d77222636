"""Compaction: what is alive moves together, nothing is lost, and nothing becomes less safe."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket, Hang
from objfs.errors import Unreachable
from objfs.meta.segment_usage import Usage, UsageView
from objfs.model import ROOT, ChunkId, Code, Segment, SegmentKind, SegmentNo, Slot
from objfs.store import layout
from objfs.volume.compact import Terms, plan
from tests.volume.houses import House
from tests.volume.rigs import CHUNK, Cloud, Rig, running

TERMS = Terms(below=0.5, key_id=2, target_bytes=1000)


def usage(number: int, length: int, stored: int, plain: int | None = None, **more: object) -> Usage:
    segment = Segment(
        number.to_bytes(16, "big"), SegmentKind.DATA, 2, Code(2, 1), length, (0, length), (Slot(0),) * 3
    )
    whole = stored if plain is None else plain
    return Usage(SegmentNo(number), segment, False, 1, 1, stored, whole)._replace(**more)  # type: ignore[arg-type]


def test_the_emptiest_are_rewritten_first_and_together_up_to_a_segment() -> None:
    found = [usage(1, 2000, 700), usage(2, 2000, 100), usage(3, 2000, 1500), usage(4, 2000, 300)]
    assert plan(found, TERMS) == [(2, 4), (1,)]


def test_nothing_is_rewritten_where_compaction_is_off() -> None:
    tiny = [usage(number, 200, 90) for number in range(1, 20)]
    assert plan([usage(99, 2000, 100), *tiny], Terms(0.0, 2, 1000)) == []


def test_a_fresh_segment_of_tiny_chunks_is_not_rewritten_for_its_index() -> None:
    """More than half of it is its index, and would be again."""
    assert plan([usage(1, 15_000, 5000, places=100, frames=100)], TERMS) == []


def test_small_ones_wait_until_there_are_eight_of_about_their_size() -> None:
    alike = [usage(number, 200, 90, 10) for number in range(1, 8)]
    other = usage(50, 300, 120, 80)
    assert plan([*alike, other], TERMS) == []
    assert plan([*alike, other, usage(8, 200, 90, 12)], TERMS) == [tuple(range(1, 9))]


def test_what_is_condemned_empty_or_lost_for_good_is_left_alone() -> None:
    segment = usage(3, 2000, 100).segment
    lost = replace(segment, missing=frozenset({0, 1, 2}))
    found = [usage(1, 2000, 100, condemned=True), usage(2, 2000, 0, places=0, frames=0)]
    assert plan([*found, usage(3, 2000, 100, segment=lost)], TERMS) == []


def test_older_keys_are_drained_only_where_it_is_asked_for() -> None:
    found = [usage(1, 2000, 1900)]
    assert plan(found, TERMS) == []
    assert plan(found, Terms(0.5, 3, 1000, old_keys=True)) == [(1,)]


# --- on a whole machine --------------------------------------------------------------------

FILES = 20


async def filled(rig: Rig, count: int = FILES, first: int = 0) -> dict[bytes, bytes]:
    """Files of one chunk each, in the buckets."""
    numbers = range(first, first + count)
    content = {b"f%d" % number: random.Random(number).randbytes(CHUNK) for number in numbers}
    for name, data in content.items():
        rig.create(name)
        rig.write(name, 0, data)
    await rig.drain()
    return content


async def thinned(rig: Rig, keep: int = 2) -> dict[bytes, bytes]:
    """The same after most of them were deleted."""
    content = await filled(rig)
    for name in list(content)[keep:]:
        rig.unlink(name)
        del content[name]
    await rig.drain()
    return content


def data_segments(rig: Rig) -> dict[bytes, Usage]:
    with UsageView(rig.table.path) as view:
        return {one.segment.uuid: one for one in view.all_usage()}


async def objects(memory: MemoryBuckets, names: list[str], prefix: str = "segment/") -> dict[str, int]:
    """Object of any bucket -> bytes."""
    found: dict[str, int] = {}
    for name in names:
        found |= {f"{name}/{info.key}": info.size for info in await memory.open(name).list(prefix)}
    return found


def shard_of(name: str) -> bytes:
    """The segment of an object of ``objects``."""
    shard = layout.parse_shard(name.split("/", 1)[1])
    assert shard is not None
    return shard.uuid


def blobs(rig: Rig) -> set[bytes]:
    """What kept manifests name besides the table's segments."""
    moment = rig.checkpointer.moment
    assert moment is not None
    kept = [*rig.reaper.kept, moment.manifest]
    return {blob.segment.uuid for manifest in kept for blob in manifest.blobs}


async def settle(rig: Rig) -> None:
    """Checkpoints and rounds until nothing is condemned any more."""
    for number in range(4):
        rig.create(b"settle%d" % number)
        rig.unlink(b"settle%d" % number)
        await rig.drain()
        await rig.reaper.round()


def clear_cache(rig: Rig) -> None:
    """What is read from here on comes from the buckets."""
    for entry in list(rig.cache._shelf.entries.values()):
        rig.cache._shelf.drop(entry)


async def test_what_is_alive_moves_and_the_rest_goes(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await thinned(rig)
        before = data_segments(rig)
        done = await rig.compactor.round(rig.compactor.terms)
        assert (done.failed, done.stopped) == (0, "")
        assert done.emptied >= 1
        clear_cache(rig)
        assert await rig.tree() == content
        await settle(rig)
        after = data_segments(rig)
        assert not before.keys() & after.keys()
        assert sum(one.segment.length for one in after.values()) < 1.1 * len(content) * CHUNK
        assert rig.table.check() == []
        again = await rig.compactor.round(rig.compactor.terms)
        assert (again.written, again.failed) == (0, 0)
        await rig.leave()
    async with running(await cloud.open(await cloud.attach())) as other:
        assert await other.tree() == content
        await other.leave()


async def test_stored_bytes_fall_to_what_is_alive(tmp_path: Path) -> None:
    """Nine of ten files go; 1.3 times what is alive, coded, and the metadata of the recovery window."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await filled(rig, 60)
        for number, name in enumerate(list(content)):
            if number % 10:
                rig.unlink(name)
                del content[name]
        await rig.drain()
        await rig.compactor.round(rig.compactor.terms)
        await settle(rig)
        held = await objects(cloud.memory, cloud.names)
        metadata = sum(size for name, size in held.items() if shard_of(name) in blobs(rig))
        alive = sum(map(len, content.values())) * rig.volume.header.code.n / rig.volume.header.code.k
        assert sum(held.values()) - metadata <= 1.3 * alive
        await rig.leave()


async def test_a_snapshot_is_read_from_where_its_versions_moved(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await filled(rig)
        chunks = {name: rig.table.chunk_at(rig.table.lookup(ROOT, name).ino, 0) for name in content}
        doomed = list(content)[2:]
        for name in doomed[2:]:
            rig.unlink(name)
        rig.table.create_snapshot(b"before", 1)
        for name in doomed[:2]:
            rig.unlink(name)
        await rig.drain()
        assert (await rig.compactor.round(rig.compactor.terms)).emptied
        await settle(rig)
        clear_cache(rig)
        for name in [*list(content)[:2], *doomed[:2]]:
            chunk = chunks[name]
            assert chunk is not None
            row = rig.table.chunk(chunk.chunk)
            assert row is not None
            assert await rig.cache.read(row, 0, CHUNK) == content[name]
        assert rig.table.check() == []
        await rig.leave()


def hang_puts(rig: Rig, times: int | None = None) -> list[Fault]:
    faults = []
    for bucket in rig.volume.buckets.buckets.values():
        assert isinstance(bucket, FaultyBucket)
        faults.append(bucket.add(Fault(Hang(), op="put", key="segment/", times=times)))
    return faults


def go_on(faults: list[Fault]) -> None:
    for fault in faults:
        assert isinstance(fault.action, Hang)
        fault.action.release.set()
        fault.times = fault.hits


async def test_what_is_deleted_or_shared_while_it_is_copied(tmp_path: Path) -> None:
    """The one is not brought back, the other moves along."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await thinned(rig)
        gone, shared = content
        faults = hang_puts(rig)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.compactor.round, rig.compactor.terms)
            with trio.fail_after(30):
                await faults[0].reached.wait()
            rig.unlink(gone)
            twin = rig.table.chunk_at(rig.table.lookup(ROOT, shared).ino, 0)
            assert twin is not None
            assert twin.location is not None
            rig.create(b"twin")
            rig.write(b"twin", 0, content[shared])
            made = rig.table.chunk_at(rig.table.lookup(ROOT, b"twin").ino, 0)
            assert made is not None
            await until_stored(rig, made.chunk)
            go_on(faults)
        del content[gone]
        content[b"twin"] = content[shared]
        await settle(rig)
        clear_cache(rig)
        assert await rig.tree() == content
        rows = [rig.table.chunk_at(rig.table.lookup(ROOT, name).ino, 0) for name in (shared, b"twin")]
        first, second = (row.location for row in rows if row is not None)
        assert first == second != twin.location
        await rig.leave()


async def test_a_base_that_moves_under_a_cut_is_read_where_it_lies_now(tmp_path: Path) -> None:
    """The cut remembers the segment in which it lay, and read the new place in that one, for ever."""
    house = await House.build(tmp_path)
    async with running(await house.cloud.open(house.home)) as rig:
        slow = [hang_puts(rig, times=1) for _ in range(2)]  # both hands of the uploader are full
        for number, faults in enumerate(slow):
            rig.create(b"slow%d" % number)
            rig.write(b"slow%d" % number, 0, random.Random(number).randbytes(70_000))
            with trio.fail_after(30):
                await faults[0].reached.wait()
        for entry in list(rig.cache._shelf._clean.values()):
            rig.cache._shelf.drop(entry)
        rig.write(b"f00", 10, b"changed")
        cut = rig.cache.cut()
        done = await rig.compactor.round(replace(rig.compactor.terms, old_keys=True, key_id=99))
        assert done.written
        changed = house.tree[b"f00"][:10] + b"changed" + house.tree[b"f00"][17:]
        assert await rig.read(b"f00") == changed
        for faults in slow:
            go_on(faults)
        with trio.fail_after(30):
            await cut.placed()
        await rig.checkpointer.flush()
        await rig.leave()
    assert (await house.shown())[b"f00"] == changed


async def until_stored(rig: Rig, chunk: ChunkId) -> None:
    """Deduplicated: no put is needed for it."""
    with trio.fail_after(30):
        await rig.cache.cut().placed()
    row = rig.table.chunk(chunk)
    assert row is not None
    assert row.location is not None


async def test_nothing_moves_to_where_it_is_less_safe(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await thinned(rig)
        before = data_segments(rig)
        bucket = rig.volume.buckets.buckets[Slot(1)]
        assert isinstance(bucket, FaultyBucket)
        fault = bucket.add(Fault(FailBefore(Unreachable), op="put", key="segment/"))
        done = await rig.compactor.round(rig.compactor.terms)
        assert (done.emptied, done.written) == (0, 0)
        assert done.failed
        assert {uuid: one.segment.length for uuid, one in data_segments(rig).items()} == {
            uuid: one.segment.length for uuid, one in before.items()
        }
        bucket.remove(fault)
        assert await rig.tree() == content
        assert {shard_of(name) for name in await objects(cloud.memory, cloud.names)} <= {*before, *blobs(rig)}
        await rig.leave()


async def test_a_round_ends_where_a_bucket_is_away(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        await thinned(rig)
        rig.unfit = "slot 1 is down"
        done = await rig.compactor.round(rig.compactor.terms)
        assert (done.emptied, done.stopped) == (0, "slot 1 is down")
        await rig.leave()


async def test_a_segment_that_cannot_be_read_does_not_keep_the_others(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        for first in range(0, 3 * FILES, FILES):
            await filled(rig, first=first)
        for number in range(3 * FILES):
            if number % 7:
                rig.unlink(b"f%d" % number)
        await rig.drain()
        alive = [one for one in data_segments(rig).values() if one.places]
        assert len(alive) > 1
        sick = alive[0].segment
        for slot, shard in zip(sick.placement, range(3), strict=True):
            await rig.volume.buckets.buckets[slot].delete(layout.shard_name(sick.uuid, shard))
        done = await rig.compactor.round(rig.compactor.terms)
        assert done.failed == 1
        assert done.emptied == len(alive) - 1
        assert sick.uuid in data_segments(rig)
        again = await rig.compactor.round(rig.compactor.terms)
        assert (again.failed, again.emptied) == (0, 0)  # it is left alone for a while
        await rig.leave()


@pytest.mark.parametrize("moved", [False, True])
async def test_a_machine_that_dies_in_the_middle_loses_nothing(tmp_path: Path, moved: bool) -> None:
    """Before the rows were moved, and after that before anything was published."""
    cloud = Cloud(tmp_path)
    home = cloud.home()
    await cloud.make(home)
    async with running(await cloud.open(home)) as rig:
        content = await thinned(rig)
        faults = hang_puts(rig)
        with trio.move_on_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(rig.compactor.round, rig.compactor.terms)
                await faults[0].reached.wait()
                if not moved:
                    nursery.cancel_scope.cancel()
                go_on(faults)
        rig.vanish()
    async with running(await cloud.open(home)) as again:
        assert await again.tree() == content
        await again.compactor.round(again.compactor.terms)
        await settle(again)
        clear_cache(again)
        assert await again.tree() == content
        assert again.table.check() == []
        await again.leave()
    async with running(await cloud.open(await cloud.attach())) as other:
        assert await other.tree() == content
        await other.leave()
