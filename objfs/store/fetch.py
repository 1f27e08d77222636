"""Ranges of shards, each byte verified, and rebuilt from other shards where it must be.

Owns the way of a cold read: one ranged GET of the shard that matters; when that is gone, short,
damaged, failing or slow, the same range of as many others as it takes.  Promises that damage fails
only the blocks for which fewer than k sound shards are left, and that each object that lied is
named in the log.  Does not know what the bytes mean.

Two rounds: first all runs of a call at once, then what is missing is rebuilt, with what the first
round brought.  A bucket that is down, or slower than the patience, is asked once more only where
the others do not suffice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import trio

from objfs.codec import KeyRing, Layout
from objfs.errors import NotEnoughShards, SegmentGone
from objfs.store.ask import Answer, Asker, Question
from objfs.store.blocks import Blocks, beyond_help, blocks_of, lacking, rebuild_blocks
from objfs.store.counters import Counters
from objfs.store.health import HealthBoard
from objfs.store.places import Places
from objfs.store.ranges import Run, merge
from objfs.store.workers import Workers, gather

log = logging.getLogger("objfs.store")

ADVICE = "bring the buckets back, or restore the file from a snapshot"

Known = Mapping[tuple[bytes, int], Sequence[Answer]]
"""(segment uuid, shard) -> what the first round brought of it."""


@dataclass(slots=True)
class _Healing:
    """Blocks ``wanted`` of the shard of ``ask``, whose own answer was not good enough."""

    ask: Question
    answer: Answer
    wanted: list[int]
    sources: dict[int, Blocks] = field(default_factory=dict)
    causes: dict[int, str] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)

    @property
    def lacking(self) -> int:
        return lacking(self.ask.layout.code.k, self.ask.shard, self.wanted, self.sources)

    def take(self, shard: int, answer: Answer) -> None:
        """Counts in what another shard (or, asked again, the same) brought."""
        self.sources[shard] = answer.blocks
        self.causes.pop(shard, None)
        if answer.cause:
            self.causes[shard] = answer.cause
        if answer.absent:
            self.absent.add(shard)
        if answer.again:
            self.again.append(shard)


class Fetcher:
    """Fetches runs; holds no state of its own between calls."""

    def __init__(
        self, asker: Asker, places: Places, health: HealthBoard, counters: Counters, workers: Workers
    ) -> None:
        self._asker = asker
        self._places = places
        self._health = health
        self._counters = counters
        self._workers = workers

    async def fetch(self, ring: KeyRing, wanted: Sequence[Run]) -> list[Blocks]:
        """For each run its blocks, of which all the wanted ones are sound.

        Raises NotEnoughShards, which names segment, blocks and what failed (SegmentGone where that is that
        there is none); UnknownKey.
        """
        asks = [self._first_question(ring, run) for run in wanted]

        async def ask(question: Question) -> Answer:
            return await self._asker.ask(ring, question)

        answers = await gather(ask, asks)
        found = [answer.blocks for answer in answers]
        healings = [
            (number, healing)
            for number, run in enumerate(wanted)
            for healing in _healings(asks[number], answers[number], run)
        ]
        if not healings:
            return found
        known = _known(asks, answers)

        async def heal(item: tuple[int, _Healing]) -> dict[int, bytes] | NotEnoughShards:
            return await self._heal(ring, item[1], known)

        for (number, _), healed in zip(healings, await gather(heal, healings), strict=True):
            if isinstance(healed, NotEnoughShards):
                raise healed
            found[number] = found[number].replaced(healed)
        return found

    def _first_question(self, ring: KeyRing, run: Run) -> Question:
        """The data shard itself; of copies the one in the best bucket."""
        segment, shard = run.segment, run.shard
        ring.get(segment.key_id)
        if segment.code.k == 1:
            copies = [number for number in range(segment.code.n) if number not in segment.missing]
            shard = min(copies or [0], key=lambda number: self._health.of(segment.placement[number]).state)
        return Question(segment, Layout.from_segment(segment), shard, run.first, run.last)

    # --- healing ---------------------------------------------------------------------------

    async def _heal(
        self, ring: KeyRing, healing: _Healing, known: Known
    ) -> dict[int, bytes] | NotEnoughShards:
        """The wanted blocks, rebuilt; an error as a value, as several are healed at once."""
        ask = healing.ask
        healing.take(ask.shard, healing.answer)
        await self._ask_others(ring, healing, self._candidates(healing, known))
        if healing.lacking:
            await self._ask_at_once(ring, healing, tuple(healing.again), insist=True)
        hopeless = beyond_help(ask.layout.code.k, ask.shard, healing.wanted, healing.sources)
        if hopeless:
            return self._give_up(healing, hopeless)
        nbytes = sum(len(blocks.data) for blocks in healing.sources.values())
        rebuilt = await self._workers.read(
            nbytes, lambda: rebuild_blocks(ask.layout, ask.shard, healing.wanted, healing.sources)
        )
        if not all(map(healing.sources[ask.shard].sound, healing.wanted)):
            self._counters.add(reconstructed=1)
            self._report(healing)
        return rebuilt

    def _candidates(self, healing: _Healing, known: Known) -> list[int]:
        """The other shards in the order to ask them; those already fetched are taken at once."""
        ask = healing.ask
        others = [number for number in range(ask.layout.code.n) if number != ask.shard]
        for shard in others:
            answer = _covering(known.get((ask.segment.uuid, shard), ()), replace(ask, shard=shard))
            if answer is not None:
                healing.take(shard, answer)
        rest = [shard for shard in others if shard not in healing.sources]
        return sorted(rest, key=lambda shard: (_costs(ask, shard), self._state(ask, shard)))

    def _state(self, ask: Question, shard: int) -> int:
        return self._health.of(ask.segment.placement[shard]).state

    async def _ask_others(self, ring: KeyRing, healing: _Healing, queue: Sequence[int]) -> None:
        """Asks as many at once as are lacking, until nothing is or nobody is left."""
        queue = list(queue)
        while queue and (lacking := healing.lacking):
            batch, queue = queue[:lacking], queue[lacking:]
            healing.asked += batch
            await self._ask_at_once(ring, healing, batch, insist=False)

    async def _ask_at_once(
        self, ring: KeyRing, healing: _Healing, shards: Sequence[int], *, insist: bool
    ) -> None:
        """Returns when nothing is lacking any more, or all have answered."""

        async def ask(shard: int) -> None:
            healing.take(shard, await self._asker.ask(ring, replace(healing.ask, shard=shard, insist=insist)))
            if not healing.lacking:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for shard in shards:
                nursery.start_soon(ask, shard)

    # --- telling ---------------------------------------------------------------------------

    def _report(self, healing: _Healing) -> None:
        """The shard that was asked for, and others that turned out bad while it was healed."""
        ask, answer = healing.ask, healing.answer
        means = "another copy" if ask.layout.code.k == 1 else "parity"
        log.log(
            answer.level,
            f"shard %s; healed from {means} bucket=%s object=%s blocks=%s cause=%r",
            *("damaged" if answer.damaged else "not read", self._places.url(ask.slot), ask.object_name),
            *(_numbers(healing.wanted), answer.cause),
        )
        for other in (replace(ask, shard=shard) for shard in healing.asked if shard in healing.causes):
            log.log(
                logging.DEBUG if other.shard in healing.again else logging.WARNING,
                "shard not usable for healing bucket=%s object=%s blocks=%s cause=%r",
                *(self._places.url(other.slot), other.object_name, _numbers(healing.wanted)),
                healing.causes[other.shard],
            )

    def _give_up(self, healing: _Healing, hopeless: Sequence[int]) -> NotEnoughShards:
        ask = healing.ask
        self._counters.add(unreadable=1)
        failed = "; ".join(
            f"{other.object_name} in {self._places.url(other.slot)}: {healing.causes[other.shard]}"
            for other in (replace(ask, shard=shard) for shard in sorted(healing.causes))
        )
        gone = len(healing.absent) > ask.layout.code.n - ask.layout.code.k
        kind, advice = (SegmentGone, "it was deleted, or lost") if gone else (NotEnoughShards, ADVICE)
        error = kind(
            f"segment {ask.segment.uuid.hex()} shard {ask.shard} blocks {_numbers(hopeless)}: fewer than "
            f"{ask.layout.code.k} of {ask.layout.code.n} shards are sound there ({failed}); {advice}"
        )
        log.error("%s", error)
        return error


def _healings(ask: Question, answer: Answer, run: Run) -> list[_Healing]:
    """What is bad and wanted, in stretches that are worth one request to each other shard."""
    bad = answer.blocks.bad & run.wanted
    stretches = merge(sorted(bad))
    return [
        _Healing(replace(ask, first=first, last=last), answer, sorted(bad & set(range(first, last))))
        for first, last in stretches
    ]


def _known(asks: Sequence[Question], answers: Sequence[Answer]) -> Known:
    known: dict[tuple[bytes, int], list[Answer]] = {}
    for ask, answer in zip(asks, answers, strict=True):
        known.setdefault((ask.segment.uuid, ask.shard), []).append(answer)
    return known


def _covering(answers: Iterable[Answer], ask: Question) -> Answer | None:
    """What was answered already to a question like this one, be it good or bad."""
    needed = blocks_of(ask.layout, ask.shard, ask.first, ask.last)
    return next((answer for answer in answers if needed and answer.blocks.covers(needed)), None)


def _costs(ask: Question, shard: int) -> bool:
    """A data shard that ends before the range is known to be zeros there: it costs no request."""
    return bool(blocks_of(ask.layout, shard, ask.first, ask.last))


def _numbers(blocks: Sequence[int]) -> str:
    first, last = blocks[0], blocks[-1]
    return f"{first}" if first == last else f"{first}-{last}"
