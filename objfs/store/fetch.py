"""Ranges of shards, each byte verified, and rebuilt from other shards where it must be.

Owns the way of a cold read: one ranged GET of the shard that matters; when that is gone, short,
damaged, failing or slow, the same range of as many others as it takes.  Promises that damage fails
only the blocks for which fewer than k sound shards are left, that each object that lied is
named in the log, and that no more is spent on quickness than the budget has.  Does not know what the
bytes mean.

Two rounds: first all runs of a call at once, then what is missing is rebuilt, with what the first
round brought, and each other shard is asked once for what several lack.  Where a shard is late in the first
round, others are asked besides (a hedge), and the first that suffice win.  A bucket known to be slow is read
around.  Who failed, was late or was not waited for is asked once more only where the others do not suffice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import trio

from objfs.codec import KeyRing, Layout
from objfs.errors import NotEnoughShards
from objfs.model import Slot
from objfs.store.ask import Answer, Asker, Question, failed
from objfs.store.blocks import Blocks, blocks_of, nothing
from objfs.store.call import Budget, Call, Try, nbytes
from objfs.store.counters import Counters
from objfs.store.healing import Healing, give_up, join, report, report_others, report_second
from objfs.store.health import HealthBoard
from objfs.store.pace import PaceBoard
from objfs.store.places import Places
from objfs.store.ranges import Run, merge
from objfs.store.workers import Workers, gather


class Fetcher:
    """Fetches runs; holds no state of its own between calls but the budget."""

    def __init__(
        self,
        asker: Asker,
        places: Places,
        health: HealthBoard,
        counters: Counters,
        workers: Workers,
        pace: PaceBoard,
        budget: Budget,
    ) -> None:
        self._asker = asker
        self._places = places
        self._health = health
        self._counters = counters
        self._workers = workers
        self._pace = pace
        self._budget = budget

    async def fetch(self, ring: KeyRing, wanted: Sequence[Run]) -> list[Blocks]:
        """For each run its blocks, of which all the wanted ones are sound.

        Raises NotEnoughShards, which names segment, blocks and what failed (SegmentGone where that is that
        there is none); UnknownKey.
        """
        call, asks = Call(), [self._first_question(ring, run) for run in wanted]

        async def ask(number: int) -> Answer:
            return await self._ask_first(ring, call, wanted[number], asks[number])

        answers = await gather(ask, range(len(asks)))
        found = [answer.blocks for answer in answers]
        bad = [
            (number, healing)
            for number, run in enumerate(wanted)
            for healing in _healings(asks[number], answers[number], run)
        ]
        if not bad:
            return found
        numbers = [number for number, _ in bad]
        healings = join(call, [healing for _, healing in bad])

        async def heal(item: tuple[int, Healing]) -> dict[int, bytes] | NotEnoughShards:
            return await self._heal(ring, call, item[1], answers[item[0]])

        done = await gather(heal, list(zip(numbers, healings, strict=True)))
        for number, healed in zip(numbers, done, strict=True):
            if isinstance(healed, NotEnoughShards):
                raise healed
            found[number] = found[number].replaced(healed)
        return found

    # --- the first round -------------------------------------------------------------------

    def _first_question(self, ring: KeyRing, run: Run) -> Question:
        """The data shard itself; of copies the one in the best bucket."""
        segment, shard = run.segment, run.shard
        ring.get(segment.key_id)
        if segment.code.k == 1:
            copies = [number for number in range(segment.code.n) if number not in segment.missing]
            shard = min(copies or [0], key=lambda number: self._rank(segment.placement[number]))
        return Question(segment, Layout.from_segment(segment), shard, run.first, run.last)

    async def _ask_first(self, ring: KeyRing, call: Call, run: Run, ask: Question) -> Answer:
        """The shard itself, or as many others as suffice where they are sooner."""
        one = call.begin(ask)
        if self._avoids(ask):
            self._counters.add(avoided=1)
            call.settle(one, failed(ask, "bucket is slow", again=True))
            return call.last(ask)
        self._budget.earn()
        delay = self._hedge_after_s(ask)
        if delay is None:
            await self._try(ring, call, one)
        elif self._pace.instant(ask.slot, nbytes(ask)) and not self._in_doubt(ask):
            await self._ask_instant(ring, call, run, one, delay)
        else:
            await self._ask_watched(ring, call, run, one, delay)
        return call.last(ask)

    async def _ask_watched(self, ring: KeyRing, call: Call, run: Run, one: Try, delay: float) -> None:
        """Others are asked beside a request that is late."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hedge, ring, call, run, one, delay, nursery.cancel_scope)
            await self._try(ring, call, one)
            nursery.cancel_scope.cancel()

    async def _ask_instant(self, ring: KeyRing, call: Call, run: Run, one: Try, delay: float) -> None:
        """The same for a bucket that mostly answers at once: a late request is ended and made anew beside
        those to others, if that can be paid, as a task that watches each request would cost more.  Measured
        on 2 busy cores: 100 us for such a task, 20 us for a limit of time, 250 us for a read from memory."""
        affordable = self._budget.has(1 + one.ask.layout.code.k)
        deadline = trio.current_time() + delay if affordable else math.inf
        with trio.CancelScope(deadline=deadline):
            await self._try(ring, call, one)
            return
        self._budget.take(1)
        await self._ask_watched(ring, call, run, call.begin(one.ask), 0.0)

    def _avoids(self, ask: Question) -> bool:
        """Whether to read around a slow bucket: enough others are well, and it is not time for a trial."""
        if not self._pace.slow(ask.slot):
            return False
        others = sum(self._well(ask, shard) for shard in range(ask.layout.code.n) if shard != ask.shard)
        return others >= ask.layout.code.k and not self._pace.admit(ask.slot)

    def _hedge_after_s(self, ask: Question) -> float | None:
        """None where nobody else is asked besides."""
        if not ask.layout.code.m:
            return None
        if self._in_doubt(ask):
            return self._pace.trial_s(ask.slot, nbytes(ask))
        return self._pace.hedge_after_s(ask.slot, nbytes(ask)) if self._budget.share else None

    async def _hedge(
        self, ring: KeyRing, call: Call, run: Run, late: Try, delay: float, scope: trio.CancelScope
    ) -> None:
        """Waits until the shard is late; then whoever suffices first ends the wait."""
        await trio.sleep(delay)
        call.mark_late(late)
        healing = Healing(late.ask, sorted(run.wanted))
        await self._collect(ring, call, healing)
        report_others(healing, self._places)
        if healing.lacking:
            return  # The shard itself may still answer.
        ask = late.ask
        missing = nothing(ask.layout, ask.shard, ask.first, ask.last)
        call.settle(late, Answer(missing.replaced(await self._rebuilt(healing))))
        self._counters.add(hedges_won=1)
        scope.cancel()

    # --- healing ---------------------------------------------------------------------------

    async def _heal(
        self, ring: KeyRing, call: Call, healing: Healing, own: Answer
    ) -> dict[int, bytes] | NotEnoughShards:
        """The wanted blocks, rebuilt; an error as a value, as several are healed at once."""
        healing.take(healing.ask.shard, own)
        await self._collect(ring, call, healing)
        if healing.lacking:
            await self._ask_again(ring, healing)
        if healing.hopeless:
            self._counters.add(unreadable=1)
            return give_up(healing, self._places)
        rebuilt = await self._rebuilt(healing)
        if not healing.own:
            self._counters.add(reconstructed=1)
            report(healing, own, self._places)
        return rebuilt

    async def _rebuilt(self, healing: Healing) -> dict[int, bytes]:
        size = sum(len(blocks.data) for blocks in healing.sources.values())
        return await self._workers.read(size, healing.rebuild)

    async def _collect(self, ring: KeyRing, call: Call, healing: Healing) -> None:
        """Asks others, until nothing is lacking or nobody is left to wait for."""
        async with trio.open_nursery() as nursery:
            while _take_answered(call, healing):
                for shard in self._next(call, healing):
                    one = call.begin(healing.of(shard))
                    healing.asked.append(shard)
                    nursery.start_soon(self._try, ring, call, one)
                    nursery.start_soon(self._watch, call, one)
                if not _coming(call, healing):
                    break
                await call.news()
            nursery.cancel_scope.cancel()

    def _next(self, call: Call, healing: Healing) -> list[int]:
        """Whom to ask now: as many as are lacking, and others for those that are late, if that is paid."""
        coming = _coming(call, healing)
        hedged = call.under_way(healing.ask) is not None
        needed = healing.lacking - sum(not one.late for one in coming)
        due = 0 if hedged else max(healing.lacking - len(coming), 0)
        queue = self._candidates(call, healing)
        if hedged and needed > 0:
            queue = [shard for shard in queue if self._well(healing.ask, shard)]
            if len(queue) < needed:
                return []
        chosen = queue[: max(needed, due)]
        extra = sum(_costs(healing.of(shard)) for shard in chosen[due:])
        return chosen if self._pays(healing.ask, hedged=hedged, requests=extra) else chosen[:due]

    def _candidates(self, call: Call, healing: Healing) -> list[int]:
        """The other shards that nobody has asked, in the order to ask them."""
        rest = [
            shard
            for shard in range(healing.ask.layout.code.n)
            if shard != healing.ask.shard
            and shard not in healing.sources
            and call.under_way(healing.of(shard)) is None
        ]
        return sorted(rest, key=lambda shard: (_costs(healing.of(shard)), self._rank(healing.of(shard).slot)))

    def _pays(self, ask: Question, *, hedged: bool, requests: int) -> bool:
        """Trials of a bucket in doubt are planned; everything else that is only quicker costs the budget."""
        if not requests or (hedged and self._in_doubt(ask)):
            return True
        if not self._budget.take(requests):
            return False
        self._counters.add(hedges=1, hedge_gets=requests)
        return True

    async def _ask_again(self, ring: KeyRing, healing: Healing) -> None:
        """Each shard that may answer better, once, whatever its bucket's health: a fault of the line is no
        rotten shard.  Returns when nothing is lacking any more, or all have answered."""
        before = dict(healing.failed)

        async def ask(shard: int) -> None:
            healing.take(shard, await self._asker.ask(ring, replace(healing.of(shard), insist=True)))
            if not healing.lacking:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for shard in healing.again:
                nursery.start_soon(ask, shard)
        report_second(healing, before, self._places)

    # --- one question ----------------------------------------------------------------------

    async def _try(self, ring: KeyRing, call: Call, one: Try) -> None:
        try:
            call.settle(one, await self._asker.ask(ring, one.ask))
        finally:
            if one.answer is None:
                call.drop(one)

    async def _watch(self, call: Call, one: Try) -> None:
        """Says when a try is late."""
        delay = self._hedge_after_s(one.ask)
        if delay is not None:
            await trio.sleep(delay)
            if one.answer is None:
                call.mark_late(one)

    def _rank(self, slot: Slot) -> tuple[int, bool]:
        """Best to read from first."""
        return self._health.of(slot).state.reading, not self._pace.due(slot)

    def _in_doubt(self, ask: Question) -> bool:
        return self._pace.slow(ask.slot) or self._health.down(ask.slot)

    def _well(self, ask: Question, shard: int) -> bool:
        """Whether a shard can be expected to answer soon."""
        slot = ask.segment.placement[shard]
        there = shard not in ask.segment.missing and self._places.bucket(slot) is not None
        return there and not self._health.down(slot) and not self._pace.slow(slot)


def _take_answered(call: Call, healing: Healing) -> int:
    """Counts in what other shards have brought; how many are lacking then."""
    for shard in range(healing.ask.layout.code.n):
        if shard != healing.ask.shard and shard not in healing.sources:
            answer = call.answered(healing.of(shard))
            if answer is not None:
                healing.take(shard, answer)
    return healing.lacking


def _coming(call: Call, healing: Healing) -> list[Try]:
    """Tries of other shards without an answer yet."""
    tries = (
        call.under_way(healing.of(shard))
        for shard in range(healing.ask.layout.code.n)
        if shard != healing.ask.shard and shard not in healing.sources
    )
    return [one for one in tries if one is not None]


def _healings(ask: Question, answer: Answer, run: Run) -> list[Healing]:
    """What is bad and wanted, in stretches that are worth one request to each other shard."""
    bad = answer.blocks.bad & run.wanted
    return [
        Healing(replace(ask, first=first, last=last), sorted(bad & set(range(first, last))))
        for first, last in merge(sorted(bad))
    ]


def _costs(ask: Question) -> bool:
    """A data shard that ends before the range is known to be zeros there: it costs no request."""
    return bool(blocks_of(ask.layout, ask.shard, ask.first, ask.last))
