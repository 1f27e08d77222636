"""Scrub: each kind of damage found by its name and mended, and how a scrub goes about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import trio
import trio.testing

from objfs.backends.base import Bucket
from objfs.backends.wrappers.faults import Fault, FaultyBucket, Hang
from objfs.codec import Layout, encode_shard, open_shard
from objfs.errors import ExitCode
from objfs.model import Code, Segment, SegmentKind, SegmentNo, Slot
from objfs.store import layout
from objfs.volume.fsck import FsckOptions, at_hand
from objfs.volume.fsck_map import shard_faults
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.maintain import Alone, Ground
from objfs.volume.scrub import Scrub, ScrubOrder
from objfs.volume.scrub_book import NAME, Book
from objfs.volume.survey import UNLISTED, Found, listing_faults
from tests.volume.patients import CLEAN_TREE, HOST, Patient
from tests.volume.rigs import running
from tests.volume.support import PASSPHRASE, TrioClock

LOOK = ScrubOrder()
REPAIR = ScrubOrder(repair=True)
Damage = Callable[[Patient, Segment], Awaitable[None]]


async def scrub(
    patient: Patient, order: ScrubOrder = LOOK, buckets: dict[bytes, FaultyBucket] | None = None
) -> Report:
    home = patient.home

    async def work(ground: Ground) -> None:
        book = Book.open(home.path / NAME, order.kind, 0)
        await Scrub(ground.subject, ground.report, ground.survey, order, book, ground.mender).run()

    raw: dict[bytes, Bucket] = dict(buckets or patient.buckets(home))
    lock = home.lock()
    try:
        options = FsckOptions(host=HOST)
        alone = Alone(home, PASSPHRASE, raw, TrioClock(), options, lambda _text: None)
        return await alone.run(work, change=order.repair)
    finally:
        lock.release()


def said(report: Report) -> str:
    return "\n".join(one.line for one in report.findings)


async def objects(patient: Patient) -> dict[tuple[int, str], bytes]:
    """Every shard of every bucket."""
    return {
        (slot, info.key): await bucket.get(info.key)
        for slot, bucket in enumerate(await patient.each())
        for info in await bucket.list(layout.SEGMENT_PREFIX)
    }


# --- one damage of each kind ---------------------------------------------------------------


async def missing(patient: Patient, segment: Segment) -> None:
    slot, key = patient.shard(segment, 1)
    await patient.bucket(slot).delete(key)


async def short(patient: Patient, segment: Segment) -> None:
    slot, key = patient.shard(segment, 1)
    await patient.change(slot, key, lambda data: data[:-100])


def flipped(at: int, data: bytes) -> bytes:
    """With one bit of byte ``at`` turned."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def altered(patient: Patient, segment: Segment) -> None:
    await patient.change(*patient.shard(segment, 1), partial(flipped, 5000))


async def altered_header(patient: Patient, segment: Segment) -> None:
    await patient.change(*patient.shard(segment, 1), partial(flipped, 40))


async def under_anothers_name(patient: Patient, segment: Segment) -> None:
    """The parity shard, which is as long as the longest data shard, under the name of that one."""
    sizes = [segment.cuts[at + 1] - segment.cuts[at] for at in range(2)]
    longest = sizes.index(max(sizes))
    slot, key = patient.shard(segment, longest)
    other, name = patient.shard(segment, 2)
    await patient.bucket(slot).put(key, await patient.bucket(other).get(name))


async def in_another_bucket(patient: Patient, segment: Segment) -> None:
    slot, key = patient.shard(segment, 1)
    other = segment.placement[0]
    await patient.bucket(other).put(key, await patient.bucket(slot).get(key))
    await patient.bucket(slot).delete(key)


async def replayed(patient: Patient, segment: Segment) -> None:
    """An authentic object of this name and length, of another layout: as it was before a re-encoding."""
    options = patient.options()
    buckets = patient.cloud.buckets(patient.home)
    async with at_hand(patient.home, PASSPHRASE, buckets, clock=TrioClock(), options=options) as look:
        ring = look.subject.ring

    def older(data: bytes) -> bytes:
        layout, shard, stored = open_shard(ring, data)
        cuts = (0, layout.cuts[1] + 10, layout.length + 10)
        before = replace(layout, length=layout.length + 10, cuts=cuts, index=None)
        return encode_shard(ring.get(layout.key_id), before, shard, stored)

    await patient.change(*patient.shard(segment, 1), older)


async def counted_missing(patient: Patient, segment: Segment) -> None:
    number = SegmentNo(patient.segment("big")[0])
    async with running(await patient.cloud.open(patient.home)) as rig:
        rig.table.update_segment(number, replace(segment, missing=frozenset({1})))
        await rig.leave()


@dataclass(frozen=True)
class Kind:
    rule: str
    do: Damage
    identical: bool = True
    """The buckets hold what they held before after the repair."""


KINDS = {
    "missing": Kind("shard-missing", missing),
    "short": Kind("shard-length", short),
    "altered": Kind("shard-damaged", altered),
    "altered header": Kind("shard-damaged", altered_header),
    "misplaced: another's object": Kind("shard-misplaced", under_anothers_name),
    "misplaced: another bucket": Kind("shard-moved", in_another_bucket, identical=False),
    "stale": Kind("shard-stale", replayed),
    "counted missing": Kind("shard-found", counted_missing, identical=False),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_damage_is_found_and_mended(patient: Patient, kind: str) -> None:
    damage, segment = KINDS[kind], patient.segment("big")[1]
    assert segment.code.k == 2
    before = await objects(patient)
    await damage.do(patient, segment)
    if not damage.identical:
        before = await objects(patient)
    report = await scrub(patient)
    assert report.rules(Grade.DAMAGE) == {damage.rule}, said(report)
    assert report.exit_code is ExitCode.DAMAGE_FOUND
    assert segment.uuid.hex() in said(report)
    report = await scrub(patient, REPAIR)
    assert report.exit_code is ExitCode.DAMAGE_HEALED, said(report)
    report = await scrub(patient)
    assert report.exit_code is ExitCode.OK, said(report)
    left = await objects(patient)
    assert {name: left[name] for name in before if name in left} == {
        name: before[name] for name in before if name in left
    }
    assert left.keys() >= before.keys()
    assert await patient.tree() == CLEAN_TREE
    for slot in range(3):
        patient.silent = frozenset({f"b{slot}"})
        assert await patient.tree(await patient.fresh()) == CLEAN_TREE


# --- other damage --------------------------------------------------------------------------


async def test_objects_that_nothing_names_are_remarked_and_stay(patient: Patient) -> None:
    segment = patient.segment("big")[1]
    slot, key = patient.shard(segment, 1)
    copy = await patient.bucket(slot).get(key)
    await patient.bucket(segment.placement[0]).put(key, copy)
    nobody = layout.shard_name(bytes(16), 0)
    await patient.bucket(0).put(nobody, b"left by a crash")
    for report in (await scrub(patient), await scrub(patient, REPAIR)):
        assert report.rules(Grade.REMARK) == {"stray", "unknown"}, said(report)
        assert report.exit_code is ExitCode.OK
    assert await patient.bucket(segment.placement[0]).get(key) == copy
    assert await patient.bucket(0).get(nobody) == b"left by a crash"


async def test_a_damaged_blob_of_a_manifest_is_found_and_mended(patient: Patient) -> None:
    manifest = await patient.newest_manifest()
    segment = manifest.base[0].segment
    slot, key = patient.shard(segment, 0)
    before = await patient.bucket(slot).get(key)
    await patient.change(slot, key, lambda data: data[:1000] + bytes(100) + data[1100:])
    report = await scrub(patient)
    assert key in said(report)
    assert report.exit_code is ExitCode.DAMAGE_FOUND
    assert (await scrub(patient, REPAIR)).exit_code is ExitCode.DAMAGE_HEALED
    assert await patient.bucket(slot).get(key) == before


async def test_different_blocks_altered_in_more_than_m_shards_are_mended(patient: Patient) -> None:
    """No shard of three is whole, and each block has two that are."""
    segment = patient.segment("big")[1]
    before = await objects(patient)
    for shard in (0, 1, 2):
        at = 288 + shard * (32768 + 16) + 100
        await patient.change(*patient.shard(segment, shard), partial(flipped, at))
    report = await scrub(patient)
    assert report.rules(Grade.LOSS) == set(), said(report)
    assert (await scrub(patient, REPAIR)).exit_code is ExitCode.DAMAGE_HEALED
    assert (await objects(patient)).items() >= before.items()


async def test_too_few_shards_are_a_loss_until_the_bucket_is_back(patient: Patient) -> None:
    segment = patient.segment("big")[1]
    kept = {}
    for shard in (0, 1):
        slot, key = patient.shard(segment, shard)
        kept[slot, key] = await patient.bucket(slot).get(key)
        await patient.bucket(slot).delete(key)
    for order in (LOOK, REPAIR):
        report = await scrub(patient, order)
        assert report.exit_code is ExitCode.DAMAGE_FOUND
        assert report.rules(Grade.LOSS) == {"shard-missing"}
        assert "bring the bucket back" in said(report)
    for (slot, key), data in kept.items():
        await patient.bucket(slot).put(key, data)
    assert (await scrub(patient)).exit_code is ExitCode.OK
    assert await patient.tree() == CLEAN_TREE


async def test_a_silent_bucket_is_unseen_and_the_rest_is_mended(patient: Patient) -> None:
    segment = patient.segment("inner")[1]
    assert segment.code.k == 1, "two copies"
    silent = next(slot for slot in range(3) if slot not in segment.placement)
    await patient.bucket(segment.placement[0]).delete(patient.shard(segment, 0)[1])
    patient.silent = frozenset({f"b{silent}"})
    assert (await scrub(patient)).exit_code is ExitCode.DAMAGE_FOUND
    report = await scrub(patient, REPAIR)
    assert report.exit_code is ExitCode.DEGRADED, said(report)
    assert report.mended == 1
    patient.silent = frozenset()
    assert (await scrub(patient)).exit_code is ExitCode.OK


# --- how it goes about it ------------------------------------------------------------------


async def test_a_scrub_that_is_cut_off_goes_on_where_it_was_and_keeps_what_it_found(patient: Patient) -> None:
    rows = [patient.segment(name)[1] for name in ("big", "inner")]
    first, *_, last = sorted(rows, key=lambda segment: segment.uuid)
    await patient.bucket(first.placement[1]).delete(patient.shard(first, 1)[1])
    buckets = patient.buckets(patient.home)
    slot = last.placement[0]
    bucket = next(each for each in buckets.values() if each.url == f"mem://b{slot}")
    hung = bucket.add(Fault(Hang(), op="get", key=layout.shard_prefix(last.uuid)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scrub, patient, LOOK, buckets)
        await hung.reached.wait()
        nursery.cancel_scope.cancel()
    assert first.uuid <= Book.open(patient.home.path / NAME, "all", 0).cursor < last.uuid
    again = patient.buckets(patient.home)
    report = await scrub(patient, LOOK, again)
    asked = [request.key for bucket in again.values() for request in bucket.requests]
    assert not any(key.startswith(layout.shard_prefix(first.uuid)) for key in asked)
    assert any(key.startswith(layout.shard_prefix(last.uuid)) for key in asked)
    assert report.rules(Grade.DAMAGE) == {"shard-missing"}, "found by the first half"
    assert not (patient.home.path / NAME).exists()


async def test_a_scrub_of_another_kind_begins_anew(patient: Patient) -> None:
    book = Book(patient.home.path / NAME, "all", cursor=b"\xff" * 16)
    book.save()
    assert (await scrub(patient, ScrubOrder("since 7d"))).seen["segments"] > 0
    book.save()
    assert (await scrub(patient)).seen["segments"] == 0
    (patient.home.path / NAME).write_bytes(b"no book")
    assert (await scrub(patient)).seen["segments"] > 0


async def test_a_sample_is_a_part_and_another_one_each_time(patient: Patient) -> None:
    whole = (await scrub(patient)).seen["segments"]
    counts = [(await scrub(patient, ScrubOrder("sample 50", 50.0))).seen["segments"] for _ in range(12)]
    assert 0 < sum(counts) < 12 * whole
    assert len(set(counts)) > 1


async def test_only_what_was_put_since_is_read(patient: Patient) -> None:
    assert (await scrub(patient, ScrubOrder("since", 100.0, 2**62))).seen["objects"] == 0
    assert (await scrub(patient, ScrubOrder("since", 100.0, 1))).seen["objects"] > 0


async def test_no_more_bytes_are_read_than_the_rate_allows(
    patient: Patient, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    report = await scrub(patient, ScrubOrder(bytes_per_s=50_000))
    assert trio.current_time() - began > 0.8 * report.seen["bytes"] / 50_000


async def test_a_look_changes_nothing(patient: Patient) -> None:
    await missing(patient, patient.segment("big")[1])
    before = await objects(patient)
    await scrub(patient)
    assert await objects(patient) == before


@pytest.mark.parametrize(("number", "rule"), [(None, UNLISTED), (SegmentNo(3), "shard-unplaced")])
def test_a_shard_meant_for_a_bucket_that_left_the_volume_is_no_damage_of_an_older_moment(
    number: SegmentNo | None, rule: str
) -> None:
    """After ``bucket replace`` of a bucket that was gone every scrub found damage that nothing could mend,
    until the moments of the time between were too old to be kept.  A row can be changed, and is."""
    slots = (Slot(0), Slot(1), Slot(2))
    code, cuts = Code(2, 1), (0, 100_000, 200_000)
    segment = Segment(bytes(16), SegmentKind.PAGES, 1, code, 200_000, cuts, slots, frozenset({1}))
    sizes = {shard: Layout.from_segment(segment).object_size(shard) for shard in range(3)}
    listed = {Slot(0): {0: sizes[0]}, Slot(2): {2: sizes[2]}, Slot(3): {}}
    found = Found(segment, number, False, listed, 1)
    there = [Slot(0), Slot(2), Slot(3)]
    faults = listing_faults(found, shard_faults(segment, listed, there), there)
    assert {shard: fault.rule for shard, fault in faults.items()} == {1: rule}
    assert faults[1].unseen == (rule == UNLISTED)
