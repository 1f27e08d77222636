"""Repair: a plan that says what it costs, the most endangered first, and nothing lost when it is cut off."""

from __future__ import annotations

from collections.abc import Callable

import trio

from objfs.backends.base import Bucket
from objfs.backends.wrappers.faults import Fault, FaultyBucket, Hang
from objfs.errors import ExitCode, Unreachable
from objfs.model import Segment, Slot
from objfs.store import layout
from objfs.volume.fsck import FsckOptions
from objfs.volume.fsck_report import Report
from objfs.volume.maintain import Alone, Ground
from objfs.volume.repair import Plan, carry_out, make_plan, say
from tests.volume.patients import CLEAN_TREE, HOST, Patient
from tests.volume.support import PASSPHRASE, TrioClock


async def repair(
    patient: Patient,
    *,
    dry: bool = False,
    buckets: dict[bytes, FaultyBucket] | None = None,
    before: Callable[[Ground], None] = lambda _ground: None,
) -> tuple[Report, Plan]:
    plans: list[Plan] = []

    async def work(ground: Ground) -> None:
        before(ground)
        plans.append(await make_plan(ground.subject, ground.survey))
        if ground.mender is None:
            say(ground.subject, ground.report, plans[0], {})
        else:
            await carry_out(ground.subject, ground.survey, ground.report, plans[0], ground.mender)

    raw: dict[bytes, Bucket] = dict(buckets or patient.buckets(patient.home))
    lock = patient.home.lock()
    try:
        options = FsckOptions(host=HOST)
        alone = Alone(patient.home, PASSPHRASE, raw, TrioClock(), options, lambda _text: None)
        return await alone.run(work, change=not dry), plans[0]
    finally:
        lock.release()


async def shards_of(patient: Patient, slot: int) -> set[str]:
    return {info.key for info in await patient.bucket(slot).list(layout.SEGMENT_PREFIX)}


async def empty(patient: Patient, slot: int) -> set[str]:
    """Somebody deletes all that a bucket held but its label; the shards that it held."""
    bucket = patient.bucket(slot)
    held = await shards_of(patient, slot)
    for info in await bucket.list(""):
        if info.key != layout.LABEL:
            await bucket.delete(info.key)
    return held


async def test_a_bucket_that_was_emptied_gets_everything_back(patient: Patient) -> None:
    held = await empty(patient, 1)
    report, plan = await repair(patient)
    assert report.exit_code is ExitCode.DAMAGE_HEALED, "\n".join(one.line for one in report.findings)
    assert {*held} <= await shards_of(patient, 1)
    assert plan.reserve == 0
    report, plan = await repair(patient)
    assert (report.exit_code, plan.needs, plan.reserve) == (ExitCode.OK, [], None)
    for slot in (0, 2):
        patient.silent = frozenset({f"b{slot}"})
        assert await patient.tree(await patient.fresh()) == CLEAN_TREE


async def test_a_bucket_that_was_down_a_moment_ago_is_put_to_as_it_answers(patient: Patient) -> None:
    """A mount that runs asks it again after a pause; who repairs need not wait for that."""

    def down(ground: Ground) -> None:
        health = ground.subject.store.health
        while not health.down(Slot(1)):
            health.failed(Slot(1), Unreachable("no answer"))

    held = await empty(patient, 1)
    report, _ = await repair(patient, before=down)
    assert report.exit_code is ExitCode.DAMAGE_HEALED, "\n".join(one.line for one in report.findings)
    assert {*held} <= await shards_of(patient, 1)


async def test_a_dry_run_says_what_it_would_cost_and_moves_nothing(patient: Patient) -> None:
    segment = patient.segment("big")[1]
    slot, key = patient.shard(segment, 1)
    size = len(await patient.bucket(slot).get(key))
    await patient.bucket(slot).delete(key)
    report, plan = await repair(patient, dry=True)
    assert report.exit_code is ExitCode.DAMAGE_FOUND
    figures = plan.to_json()
    assert (figures["segments"], figures["shards"], figures["bytes_written"]) == (1, 1, size)
    assert figures["requests"] == segment.code.k + 2
    assert key not in await shards_of(patient, slot)


async def test_a_repair_that_is_cut_off_is_gone_on_with(patient: Patient) -> None:
    rows = [patient.segment(name)[1] for name in ("big", "inner")]
    for segment in rows:
        await patient.bucket(segment.placement[0]).delete(patient.shard(segment, 0)[1])
    buckets = patient.buckets(patient.home)
    plan = (await repair(patient, dry=True))[1].due
    last = plan[-1].found.segment
    slot = last.placement[min(plan[-1].shards)]
    bucket = next(each for each in buckets.values() if each.url == f"mem://b{slot}")
    hung = bucket.add(Fault(Hang(), op="put", key=layout.shard_prefix(last.uuid)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_ended, patient, buckets)
        await hung.reached.wait()
        nursery.cancel_scope.cancel()
    assert await _whole(patient, [segment for segment in rows if segment.uuid != last.uuid])
    report, rest = await repair(patient)
    assert [need.found.segment.uuid for need in rest.due] == [last.uuid]
    assert report.exit_code is ExitCode.DAMAGE_HEALED
    assert await _whole(patient, rows)
    assert await patient.tree() == CLEAN_TREE


async def _ended(patient: Patient, buckets: dict[bytes, FaultyBucket]) -> None:
    await repair(patient, buckets=buckets)


async def _whole(patient: Patient, rows: list[Segment]) -> bool:
    found = [
        patient.shard(segment, 0)[1] in await shards_of(patient, segment.placement[0]) for segment in rows
    ]
    return all(found)
