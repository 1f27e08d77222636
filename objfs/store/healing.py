"""Blocks of one shard that are to be had from others: what was brought so far, and what that means.

Owns the count of sound blocks and the record of who failed and why, from which the log and the error are
made, and which of several ask for the same blocks of others.  Promises that a second answer never takes away
what a first one brought.  Asks nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from objfs.errors import NotEnoughShards, SegmentGone
from objfs.store.ask import Answer, Question
from objfs.store.blocks import Blocks, beyond_help, lacking, rebuild_blocks
from objfs.store.call import Call
from objfs.store.places import Places

log = logging.getLogger("objfs.store")

ADVICE = "bring the buckets back, or restore the file from a snapshot"


@dataclass(slots=True)
class Healing:
    """Blocks ``wanted`` of the shard of ``ask``, which its own bucket has not brought (yet)."""

    ask: Question
    wanted: list[int]
    sources: dict[int, Blocks] = field(default_factory=dict)
    failed: dict[int, Answer] = field(default_factory=dict)
    """The last answer of each shard that was not good enough."""
    asked: list[int] = field(default_factory=list)
    absent: set[int] = field(default_factory=set)

    @property
    def lacking(self) -> int:
        """How many more sound shards are needed at most."""
        return lacking(self.ask.layout.code.k, self.ask.shard, self.wanted, self.sources)

    @property
    def hopeless(self) -> list[int]:
        """The wanted blocks that cannot be rebuilt."""
        return beyond_help(self.ask.layout.code.k, self.ask.shard, self.wanted, self.sources)

    @property
    def again(self) -> list[int]:
        """Shards that may answer better when they are asked once more."""
        return [shard for shard, answer in self.failed.items() if answer.again]

    @property
    def own(self) -> bool:
        """Whether the shard itself has brought all, without the others."""
        return self.ask.shard in self.sources and all(map(self.sources[self.ask.shard].sound, self.wanted))

    def of(self, shard: int) -> Question:
        """The same blocks of another shard."""
        return replace(self.ask, shard=shard)

    def take(self, shard: int, answer: Answer) -> None:
        """Counts in what another shard (or, asked again, the same) brought."""
        blocks, before = answer.blocks, self.sources.get(shard)
        if before is not None:
            kept = [number for number in self.wanted if number in blocks.bad and before.sound(number)]
            blocks = blocks.replaced({number: before.block(number) for number in kept})
        self.sources[shard] = blocks
        self.failed.pop(shard, None)
        if answer.cause:
            self.failed[shard] = answer
        if answer.absent:
            self.absent.add(shard)

    def rebuild(self) -> dict[int, bytes]:
        """The wanted blocks; none of them is hopeless."""
        return rebuild_blocks(self.ask.layout, self.ask.shard, self.wanted, self.sources)


def join(call: Call, healings: Sequence[Healing]) -> list[Healing]:
    """The same, in their order; where blocks of several shards of one segment overlap they ask for the same
    blocks of the other shards, if that is no more in all: then one answer serves all of them."""
    joined = list(healings)
    for group in _overlapping(healings):
        first = min(healings[number].ask.first for number in group)
        last = max(healings[number].ask.last for number in group)
        wide = {number: _widened(healings[number], first, last) for number in group}
        apart = sum(_price(call, healings[number]) for number in _outermost(healings, group))
        if max(_price(call, healing) for healing in wide.values()) <= apart:
            for number, healing in wide.items():
                joined[number] = healing
    return joined


def _overlapping(healings: Sequence[Healing]) -> list[list[int]]:
    """Positions of those that have blocks in common, of two or more."""

    def place(number: int) -> tuple[bytes, int]:
        ask = healings[number].ask
        return ask.segment.uuid, ask.first

    groups: list[list[int]] = []
    reach = (b"", 0)
    for number in sorted(range(len(healings)), key=place):
        uuid, first = place(number)
        if groups and uuid == reach[0] and first < reach[1]:
            groups[-1].append(number)
        else:
            groups.append([number])
            reach = (uuid, 0)
        reach = (uuid, max(reach[1], healings[number].ask.last))
    return [group for group in groups if len(group) > 1]


def _outermost(healings: Sequence[Healing], group: Sequence[int]) -> list[int]:
    """Those of a group whose blocks are not all asked for by another one."""
    ranges: dict[tuple[int, int], int] = {}
    for number in group:
        ranges.setdefault((healings[number].ask.first, healings[number].ask.last), number)
    return [
        number
        for (first, last), number in ranges.items()
        if not any(one != (first, last) and one[0] <= first and last <= one[1] for one in ranges)
    ]


def _widened(healing: Healing, first: int, last: int) -> Healing:
    return replace(healing, ask=replace(healing.ask, first=first, last=last))


def _price(call: Call, healing: Healing) -> int:
    """Blocks that it takes of shards which have not brought them yet."""
    ask = healing.ask
    answers = [call.answered(healing.of(shard)) for shard in range(ask.layout.code.n) if shard != ask.shard]
    held = sum(answer is not None and not answer.blocks.bad for answer in answers)
    return max(0, ask.layout.code.k - held) * (ask.last - ask.first)


def report(healing: Healing, own: Answer, places: Places) -> None:
    """Names the shard that was asked for, and others that turned out bad while it was healed."""
    ask = healing.ask
    means = "another copy" if ask.layout.code.k == 1 else "parity"
    log.log(
        own.level,
        f"shard %s; healed from {means} bucket=%s object=%s blocks=%s cause=%r",
        *("damaged" if own.damaged else "not read", places.url(ask.slot), ask.object_name),
        *(numbers(healing.wanted), own.cause),
    )
    report_others(healing, places)


def report_others(healing: Healing, places: Places) -> None:
    """Names the shards that were asked in place of another one and were bad."""
    for other in (healing.of(shard) for shard in healing.asked if shard in healing.failed):
        answer = healing.failed[other.shard]
        log.log(
            answer.level,
            "shard not usable for healing bucket=%s object=%s blocks=%s cause=%r",
            *(places.url(other.slot), other.object_name, numbers(healing.wanted), answer.cause),
        )


def report_second(healing: Healing, before: dict[int, Answer], places: Places) -> None:
    """Names the shards that were bad first, and sound when they were read again."""
    for other in (healing.of(shard) for shard in before if shard not in healing.failed):
        log.log(
            before[other.shard].level,
            "shard read again, and sound: spoilt on its way bucket=%s object=%s blocks=%s cause=%r",
            *(places.url(other.slot), other.object_name, numbers(healing.wanted)),
            before[other.shard].cause,
        )


def give_up(healing: Healing, places: Places) -> NotEnoughShards:
    """The error that names segment, blocks and all that failed, logged."""
    ask = healing.ask
    causes = "; ".join(
        f"{other.object_name} in {places.url(other.slot)}: {healing.failed[other.shard].cause}"
        for other in map(healing.of, sorted(healing.failed))
    )
    gone = len(healing.absent) > ask.layout.code.n - ask.layout.code.k
    kind, advice = (SegmentGone, "it was deleted, or lost") if gone else (NotEnoughShards, ADVICE)
    error = kind(
        f"segment {ask.segment.uuid.hex()} shard {ask.shard} blocks {numbers(healing.hopeless)}: fewer than "
        f"{ask.layout.code.k} of {ask.layout.code.n} shards are sound there ({causes}); {advice}"
    )
    log.error("%s", error)
    return error


def numbers(blocks: Sequence[int]) -> str:
    """The first and the last."""
    first, last = blocks[0], blocks[-1]
    return f"{first}" if first == last else f"{first}-{last}"
