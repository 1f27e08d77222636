"""Who may write: the lease in the buckets and its epochs.

Owns the objects ``lease/<epoch>`` and the one decision they carry.  Promises that an epoch has at most
one holder, and that a holder learns of a higher epoch before it publishes or deletes anything: then
the gate is closed and nothing more leaves this mount.  Does not know what is written under it.

Claiming epoch e+1 is one put-if-absent at every voter; whoever has a strict majority holds it.  Claims
that failed are marked released, so that they hold nobody up.  The holder overwrites only its own
``lease/<epoch>`` with a counter that grows; no clock of another machine is ever read.  Whether a holder is
still alive is judged by that counter standing still on the observer's monotonic clock.

A higher epoch is looked for by listing ``lease/`` wherever it must not be missed (old objects are removed,
so the next number alone proves nothing after a long pause), and by one GET of the next number in the
renewal, where missing it costs nothing.

A process may be stopped anywhere, and wake after a takeover.  What it had on its way then cannot be called
back, so it must be harmless; before whatever comes next the holder looks again (``confirm``).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import trio

from objfs.backends.base import Bucket
from objfs.codec.keys import KeyRing
from objfs.errors import HeldElsewhere, LeaseLost, NoQuorum, ReadOnly
from objfs.model import Slot
from objfs.ports import Clock, WriteGate
from objfs.store import layout
from objfs.volume.epochs import (
    Holder,
    KnownLease,
    LeaseRecord,
    Seen,
    encode,
    observe,
    read_epoch,
    read_higher,
)
from objfs.volume.quorum import Answers, BucketSet

log = logging.getLogger(__name__)

TAKE_OVER_INTERVALS = 3
"""How many of its own intervals a holder's counter must stand still before it counts as dead."""
SURE_INTERVALS = 2
"""How many intervals after a renewal began its holder needs not look again: fewer than a takeover waits."""
WHO_S = 5.0
"""How long a holder that was overtaken asks by whom."""
CLAIM_ATTEMPTS = 6
KEPT_EPOCHS = 2


# --- claiming ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """How a mount asks for the lease."""

    holder: Holder
    interval_s: float
    known: KnownLease | None = None
    take_over: bool = False
    force: bool = False


async def acquire(
    buckets: BucketSet,
    ring: KeyRing,
    claim: Claim,
    gate: WriteGate,
    clock: Clock,
    remember: Callable[[KnownLease], None],
) -> Lease:
    """Becomes the writer.  ``remember`` persists what was written, before it is written.

    Raises HeldElsewhere (naming host, process and age), NoQuorum where a majority of the voters does
    not answer.  ``take_over`` waits three intervals for a silent holder, ``force`` waits for nobody
    and decides with the voters that answer.
    """
    for attempt in range(CLAIM_ATTEMPTS):
        seen = await _observe_quorum(buckets, ring, claim)
        if not _is_free(seen, claim):
            await _wait_for_silence(buckets, ring, claim, seen, clock)
        record = LeaseRecord(seen.epoch + 1, claim.holder, clock.now_ns(), claim.interval_s)
        claim = replace(claim, known=KnownLease(record.epoch, record.counter))
        remember(KnownLease(record.epoch, record.counter))
        answers = await _put_claim(buckets, ring, record)
        if answers.count(buckets.voters) >= buckets.quorum:
            log.info("lease acquired epoch=%d voters=%d", record.epoch, answers.count(buckets.voters))
            return Lease(record, seen.record, buckets, ring, gate, clock, remember)
        await _withdraw(buckets, ring, record, answers)
        await trio.sleep(random.uniform(0.1, 0.5) * (attempt + 1))
    raise NoQuorum(
        f"the lease could not be won at {buckets.quorum} of {len(buckets.voters)} voting buckets; "
        "is another mount starting, or are buckets not answering? (see objfs status)"
    )


async def _observe_quorum(buckets: BucketSet, ring: KeyRing, claim: Claim) -> Seen:
    seen = await observe(buckets, ring)
    if seen.answered >= buckets.quorum:
        return seen
    if not claim.force or seen.answered == 0:
        raise NoQuorum(
            f"{seen.answered} of {len(buckets.voters)} voting buckets answer, {buckets.quorum} are needed to "
            "write; repair the others, mount read-only, or use --force where no other machine can be writing"
        )
    log.warning("lease forced voters=%d answered=%d", len(buckets.voters), seen.answered)
    buckets.lower_to(seen.answered)
    return seen


def _is_free(seen: Seen, claim: Claim) -> bool:
    """Free: never held, released, or left behind by our own process, which the flock proves dead."""
    record = seen.record
    if record is None or record.released or claim.force:
        return True
    own = record.holder.state_id == claim.holder.state_id and record.holder.host == claim.holder.host
    # A copy of this state directory that runs elsewhere has written more than we remember.
    return own and claim.known is not None and _written(record) <= (claim.known.epoch, claim.known.counter)


def _written(record: LeaseRecord) -> tuple[int, int]:
    return record.epoch, record.counter


async def _wait_for_silence(
    buckets: BucketSet, ring: KeyRing, claim: Claim, seen: Seen, clock: Clock
) -> None:
    """Returns when the holder's counter stood still for long enough; raises HeldElsewhere otherwise."""
    first = seen.record
    assert first is not None
    held = f"the volume is in use by {first.describe(clock.now_ns())}"
    if first.holder.state_id == claim.holder.state_id:
        held += ", which runs on a copy of this machine's state directory"
    if not claim.take_over:
        raise HeldElsewhere(f"{held}; unmount it there, or use --take-over if that machine is gone")
    interval = max(first.interval_s, claim.interval_s)
    started = clock.monotonic()
    while clock.monotonic() - started < TAKE_OVER_INTERVALS * interval:
        await trio.sleep(interval / 2)
        now = (await observe(buckets, ring)).record
        if now is not None and now.released and now.epoch == first.epoch:
            return
        if now is not None and _written(now) > _written(first):
            raise HeldElsewhere(f"{held}, and it is alive")
    log.warning("lease taken over from=%s epoch=%d", first.holder.host, first.epoch)


async def _put_claim(buckets: BucketSet, ring: KeyRing, record: LeaseRecord) -> Answers[None]:
    data = encode(record, ring)

    async def put(_slot: Slot, bucket: Bucket) -> None:
        await bucket.put_if_absent(layout.lease_name(record.epoch), data)

    def enough(answers: Answers[None]) -> bool:
        return answers.count(buckets.voters) >= buckets.quorum

    return await buckets.each(put, slots=buckets.voters, enough=enough)


async def _withdraw(buckets: BucketSet, ring: KeyRing, record: LeaseRecord, answers: Answers[None]) -> None:
    """Marks a claim that did not win as released where it stands."""
    # Not settled: the holder before this claim may still have something under way.
    data = encode(replace(record, counter=1, released=True), ring)

    async def put(_slot: Slot, bucket: Bucket) -> None:
        await bucket.put(layout.lease_name(record.epoch), data)

    log.info("lease claim lost epoch=%d won=%d", record.epoch, len(answers.values))
    await buckets.each(put, slots=tuple(answers.values), limit_s=30)


# --- holding -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """Gauges.  ``renewed_age_s`` is the time since the last renewal that a majority took was begun;
    ``voters`` are all, ``answered`` those that took part in it."""

    epoch: int
    counter: int
    renewed_age_s: float
    voters: int
    answered: int


class Lease:
    """A held lease.  ``previous`` is the record of the epoch before, as it was seen at the claim."""

    def __init__(
        self,
        record: LeaseRecord,
        previous: LeaseRecord | None,
        buckets: BucketSet,
        ring: KeyRing,
        gate: WriteGate,
        clock: Clock,
        remember: Callable[[KnownLease], None],
    ) -> None:
        self.record = record
        self.previous = previous
        self._buckets = buckets
        self._ring = ring
        self._gate = gate
        self._clock = clock
        self._remember = remember
        self._renewed = clock.monotonic()
        self._answered = len(buckets.voters)
        self._lost: str | None = None

    def statistics(self) -> LeaseStatistics:
        return LeaseStatistics(
            self.epoch,
            self.record.counter,
            self._clock.monotonic() - self._renewed,
            len(self._buckets.voters),
            self._answered,
        )

    @property
    def epoch(self) -> int:
        return self.record.epoch

    @property
    def lost(self) -> bool:
        """Whether another machine is known to have the volume now."""
        return self._lost is not None

    def check_open(self) -> None:
        """Asks nobody.  Raises LeaseLost, and ReadOnly where the gate was closed for another reason."""
        if self._lost is not None:
            raise LeaseLost(self._lost)
        self._gate.check()

    async def confirm(self) -> None:
        """As ``check``, and asks nobody while the last renewal is so young that no takeover can be over.

        For each of many deletes in a row: whoever was stopped for long looks before the next.
        """
        self.check_open()
        if self._clock.monotonic() - self._renewed >= SURE_INTERVALS * self.record.interval_s:
            await self.check()

    async def check(self, *, needed: int | None = None) -> None:
        """Returns when ``needed`` voters (default: a strict majority) say that no higher epoch exists.

        Raises LeaseLost and closes the gate when one does, NoQuorum when too few answer, ReadOnly where
        the gate was closed for another reason.
        """
        self.check_open()
        needed = self._buckets.quorum if needed is None else needed

        async def look(slot: Slot, bucket: Bucket) -> LeaseRecord | None:
            return await read_higher(bucket, self._ring, self.epoch, self._buckets.name(slot))

        answers = await self._buckets.each(
            look, slots=self._buckets.voters, enough=lambda found: len(found.values) >= needed
        )
        self._judge(answers)
        if len(answers.values) < needed:
            raise NoQuorum(
                f"{len(answers.values)} of {len(self._buckets.voters)} voting buckets answer, "
                f"{needed} are needed"
            )

    def _judge(self, answers: Answers[LeaseRecord | None]) -> None:
        for slot, record in answers.values.items():
            if record is not None:
                where = self._buckets.name(slot)
                raise self.lose(f"taken over by {record.describe(self._clock.now_ns())}, seen at {where}")

    def lose(self, why: str) -> LeaseLost:
        """Closes the gate for good and gives the error to raise."""
        if self._lost is None:
            self._lost = f"the lease of epoch {self.epoch} is lost: {why}; this mount writes nothing more"
            log.error("lease lost epoch=%d: %s; the mount is read-only from now on", self.epoch, why)
        self._gate.close(self._lost)
        return LeaseLost(self._lost)

    async def give_way(self, why: str) -> LeaseLost:
        """As ``lose``, when something else than a lease shows it: asks first who has the volume now."""
        with trio.move_on_after(WHO_S):
            try:
                await self.check()
            except LeaseLost as error:
                return error
            except (NoQuorum, ReadOnly) as error:
                log.info("the holder of the lease cannot be named: %s", error)
        return self.lose(why)

    async def renew(self) -> None:
        """One renewal: counter up at every voter, and one look for the next epoch.  Raises LeaseLost.

        A voter that does not answer is logged and left: others are told by those that do.
        """
        self.record = replace(self.record, counter=self.record.counter + 1)
        began = self._clock.monotonic()
        answers = await self._write_own()
        for slot, error in answers.errors.items():
            log.warning("lease not renewed bucket=%s: %s", self._buckets.name(slot), error)
        self._judge(answers)
        self._answered = len(answers.values)
        if self._answered >= self._buckets.quorum:
            self._renewed = began

    async def _write_own(self) -> Answers[LeaseRecord | None]:
        record = self.record
        self._remember(KnownLease(record.epoch, record.counter))
        data = encode(record, self._ring)

        async def put(_slot: Slot, bucket: Bucket) -> LeaseRecord | None:
            higher = await read_epoch(bucket, self._ring, record.epoch + 1)
            if higher is None and self._gate.open:
                await bucket.put(layout.lease_name(record.epoch), data)
            return higher

        return await self._buckets.each(put, slots=self._buckets.voters, limit_s=record.interval_s)

    async def run(self) -> None:
        """Renews every interval until the lease is lost or the task is cancelled."""
        while self._gate.open:
            await trio.sleep(self.record.interval_s)
            try:
                await self.renew()
            except LeaseLost:
                return
            except OSError as error:
                log.error("lease not renewed, its counter cannot be kept on the local disk: %s", error)

    async def release(self, *, settled: bool) -> None:
        """Says that the holder is gone.  ``settled``: no manifest of it can still be under way."""
        if not self._gate.open:
            return
        counter = self.record.counter + 1
        self.record = replace(self.record, counter=counter, released=True, settled=settled)
        try:
            answers = await self._write_own()
        except OSError as error:
            log.error("lease not released, the local disk is full or fails: %s", error)
            return
        log.info("lease released epoch=%d voters=%d", self.epoch, len(answers.values))

    async def sweep(self) -> int:
        """Removes the objects of old epochs, lowest first, and keeps the last two.  Requests: one LIST
        per voter and one DELETE per object.  Returns how many went."""
        await self.check()
        removed = await self._buckets.each(self._sweep_one, slots=self._buckets.voters)
        return sum(removed.values.values())

    async def _sweep_one(self, _slot: Slot, bucket: Bucket) -> int:
        found = [layout.parse_lease(info.key) for info in await bucket.list(layout.LEASE_PREFIX)]
        old = sorted(epoch for epoch in found if epoch is not None and epoch <= self.epoch - KEPT_EPOCHS)
        for epoch in old:
            await self.confirm()
            await bucket.delete(layout.lease_name(epoch))
        return len(old)
