"""Repair: redundancy back after losses, the most endangered segments first.

Owns the plan, made from rows and listings without reading a shard, what it will cost, and its order.
Promises that nothing is moved before the plan is known, and that all it needs to go on after a crash is in
the buckets and the rows: the next plan is what is left.  What lies is not found here, but by scrub.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

import trio

from objfs.errors import CodecError, StoreError
from objfs.store import layout
from objfs.volume.fields import JSON
from objfs.volume.fsck_map import ShardFaults, shard_faults
from objfs.volume.fsck_report import Finding, Grade, Report
from objfs.volume.fsck_subject import Subject
from objfs.volume.mend import Mender, reads, writes
from objfs.volume.scrub_shard import Fault, beyond_mending
from objfs.volume.survey import UNLISTED, Found, Survey, listing_faults

REMEDY = "objfs repair mends it"


@dataclass(frozen=True, slots=True)
class Need:
    """One segment that lacks shards; ``lost``: too few are left to have it back."""

    found: Found
    listed: ShardFaults
    faults: Mapping[int, Fault]
    lost: bool

    @property
    def shards(self) -> set[int]:
        """Those that can be put."""
        return {shard for shard, fault in self.faults.items() if not fault.unseen}

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """Lower is more urgent: how many further losses it bears, blobs of the newest moment first."""
        whole = self.found.segment.code.m - len(self.faults)
        return whole, self.found.number is not None or not self.found.newest, self.found.segment.uuid


@dataclass(slots=True)
class Plan:
    """What a repair will do, and what that costs."""

    needs: list[Need] = field(default_factory=list)
    reserve: int | None = None
    """How many further losses the most endangered segment bears; None where all are whole."""
    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def add(self, need: Need) -> None:
        segment = need.found.segment
        bears = segment.code.m - len(need.faults)
        self.needs.append(need)
        self.reserve = bears if self.reserve is None else min(self.reserve, bears)
        if need.lost or not need.shards:
            return
        requests, nbytes = reads(segment)
        self.requests += requests + len(need.shards)
        self.bytes_read += nbytes
        self.bytes_written += writes(segment, need.shards)

    @property
    def due(self) -> list[Need]:
        """What can be done, the most endangered first."""
        return sorted(
            (need for need in self.needs if need.shards and not need.lost), key=lambda one: one.rank
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "segments": len(self.due),
            "shards": sum(len(need.shards) for need in self.due),
            "reserve": self.reserve,
            "requests": self.requests,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
        }


async def make_plan(subject: Subject, survey: Survey) -> Plan:
    """One look at rows and listings; no shard is read."""
    plan = Plan()
    async with aclosing(survey.walk()) as walk:
        async for found in walk:
            listed = shard_faults(found.segment, found.listed, survey.seen)
            faults = listing_faults(found, listed, subject.buckets.slots)
            if faults and await survey.still(found):
                plan.add(_need(found, listed, faults))
    subject.note(f"repair: {len(plan.due)} segments, {plan.requests} requests")
    return plan


def _need(found: Found, listed: ShardFaults, faults: Mapping[int, Fault]) -> Need:
    """Shards in another bucket count as left."""
    rest = found.segment.code.n - len(faults) + len(listed.moved)
    return Need(found, listed, faults, beyond_mending(found.segment, faults) and rest < found.segment.code.k)


async def carry_out(subject: Subject, survey: Survey, report: Report, plan: Plan, mender: Mender) -> None:
    """Every need, the most endangered first.  Raises ReadOnly when the volume is another machine's."""
    began, due = trio.current_time(), plan.due
    done: dict[bytes, set[int]] = {}
    for number, need in enumerate(due):
        subject.note(_progress(number, len(due), plan, mender, trio.current_time() - began))
        if not await survey.still(need.found):
            continue
        sound = {shard for shard, fault in need.faults.items() if fault.rule == "shard-found"}
        uuid = need.found.segment.uuid
        try:
            done[uuid] = await mender.mend(need.found, need.listed, need.shards, sound)
        except (StoreError, CodecError) as error:
            report.done.append(f"segment {uuid.hex()} could not be made whole: {error}")
    say(subject, report, plan, done)


def say(subject: Subject, report: Report, plan: Plan, done: Mapping[bytes, set[int]]) -> None:
    """A finding for each shard that lacks; ``done`` are those that were put, by segment."""
    for need in sorted(plan.needs, key=lambda one: one.rank):
        segment = need.found.segment
        mended = done.get(segment.uuid, set())
        if mended:
            numbers = ", ".join(map(str, sorted(mended)))
            report.done.append(f"segment {segment.uuid.hex()}: shards {numbers} are there again")
        for shard, fault in sorted(need.faults.items()):
            if fault.rule != UNLISTED:
                report.findings.append(_finding(subject, need, shard, fault, mended=shard in mended))


def _finding(subject: Subject, need: Need, shard: int, fault: Fault, *, mended: bool) -> Finding:
    segment = need.found.segment
    grade = Grade.DAMAGE
    if need.lost:
        grade = Grade.LOSS if need.found.newest else Grade.REMARK
    todo = "bring the bucket back; too few shards are left" if need.lost else REMEDY
    name, where = layout.shard_name(segment.uuid, shard), subject.name(segment.placement[shard])
    return Finding(fault.rule, grade, name, fault.what, where, todo, mended)


def _progress(number: int, count: int, plan: Plan, mender: Mender, elapsed: float) -> str:
    rate = mender.restored_bytes / max(elapsed, 1e-3)
    left = max(plan.bytes_written - mender.restored_bytes, 0) / rate if rate else 0.0
    return (
        f"repair: {number} of {count} segments, {mender.restored_bytes / 2**20:,.0f} of "
        f"{plan.bytes_written / 2**20:,.0f} MiB put, {left / 60:,.0f} min left"
    )
