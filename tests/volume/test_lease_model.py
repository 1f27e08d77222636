"""Interleavings of publishing, takeover and fencing by two or three writers over write-once buckets (I5).

A small explicit model: each bucket is a register per sequence, every PUT may land at any later time, also
long after its writer was succeeded, and a reader sees any majority.  The rule under test is the real one,
``published.choose``.  Invariant: whatever majority a reader asks, what it chooses descends from everything
that was ever acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import pytest

from objfs.model import Slot
from objfs.volume.manifest import Manifest
from objfs.volume.published import Published, choose
from objfs.volume.quorum import BucketSet
from tests.volume.support import VOLUME, entries

FENCES = 2
"""How often a writer tries to fence."""


@dataclass(frozen=True)
class Value:
    """A manifest: its writer's epoch, whether it is a fence, and the contents that it descends from."""

    epoch: int
    fence: bool
    lineage: tuple[str, ...]


@dataclass(frozen=True)
class Writer:
    """One epoch's holder: ``value`` is put at ``sequence``; ``won``, ``lost``: the answers."""

    phase: str = "waiting"
    sequence: int = 1
    value: Value | None = None
    won: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    fences: int = 0
    publishes: int = 0


@dataclass(frozen=True)
class World:
    """``registers`` and ``flying`` are (bucket, sequence, value): what stands, and what may land any time."""

    registers: frozenset[tuple[int, int, Value]]
    flying: frozenset[tuple[int, int, int, Value]]
    writers: tuple[Writer, ...]
    epoch: int
    acknowledged: frozenset[str]

    def at(self, bucket: int, sequence: int) -> Value | None:
        return next((item[2] for item in self.registers if item[:2] == (bucket, sequence)), None)

    def with_writer(self, number: int, writer: Writer) -> World:
        writers = (*self.writers[: number - 1], writer, *self.writers[number:])
        return replace(self, writers=writers)


class Model:
    def __init__(self, buckets: int, publishes: tuple[int, ...]) -> None:
        self.count = buckets
        self.buckets = BucketSet(entries(buckets), {})
        self.publishes = publishes
        self.readers = list(combinations(range(buckets), self.buckets.quorum))

    def start(self) -> World:
        first = Value(1, False, ("first",))
        registers = frozenset((bucket, 1, first) for bucket in range(self.count))
        waiting = tuple(Writer() for _ in self.publishes[1:])
        writers = (Writer(phase="idle", value=first), *waiting)
        return World(registers, frozenset(), writers, 1, frozenset({"first"}))

    # --- what a reader sees ----------------------------------------------------------------

    def read(self, world: World, asked: Iterable[int]) -> tuple[int, Value]:
        """The newest on some buckets, by the real rule."""
        buckets = set(asked)
        sequence = max(item[1] for item in world.registers if item[0] in buckets)
        return sequence, self.read_at(world, sequence, buckets)

    def read_at(self, world: World, sequence: int, asked: Iterable[int]) -> Value:
        holders: dict[Value, list[Slot]] = {}
        for bucket in asked:
            value = world.at(bucket, sequence)
            if value is not None:
                holders.setdefault(value, []).append(Slot(bucket))
        values = list(holders)
        found = [
            Published(as_manifest(value), b"%d" % number, tuple(holders[value]))
            for number, value in enumerate(values)
        ]
        chosen = choose(self.buckets, found)
        assert chosen is not None
        return values[int(chosen.data)]

    def check(self, world: World) -> None:
        for asked in self.readers:
            _, value = self.read(world, asked)
            lost = world.acknowledged - set(value.lineage)
            assert not lost, (lost, asked, world)

    # --- what may happen next --------------------------------------------------------------

    def steps(self, world: World) -> Iterator[World]:
        for put in world.flying:
            yield self._land(world, put)
        for number, writer in enumerate(world.writers, 1):
            match writer.phase:
                case "waiting" if world.epoch == number - 1:
                    yield replace(world.with_writer(number, replace(writer, phase="reading")), epoch=number)
                case "reading" if world.epoch == number and writer.fences < FENCES:
                    yield from self._settle(world, number, writer)
                case "settling":
                    yield from self._fence(world, number, writer)
                case "fencing":
                    yield from self._fenced(world, number, writer)
                case "idle" if world.epoch == number and writer.publishes < self.publishes[number - 1]:
                    yield self._publish(world, number, writer)
                case "publishing":
                    yield from self._published(world, number, writer)

    def _land(self, world: World, put: tuple[int, int, int, Value]) -> World:
        """A put under way reaches its bucket, whatever became of its writer."""
        number, bucket, sequence, value = put
        there = world.at(bucket, sequence)
        after = replace(world, flying=world.flying - {put})
        if there is None:
            after = replace(after, registers=after.registers | {(bucket, sequence, value)})
        writer = world.writers[number - 1]
        if writer.phase == "idle" or (writer.sequence, writer.value) != (sequence, value):
            return after
        if there is None or there == value:
            return after.with_writer(number, replace(writer, won=writer.won | {bucket}))
        return after.with_writer(number, replace(writer, lost=writer.lost | {bucket}))

    def _send(self, world: World, number: int, writer: Writer) -> World:
        """The lease was checked, and the puts are under way to every bucket."""
        assert writer.value is not None
        puts = {(number, bucket, writer.sequence, writer.value) for bucket in range(self.count)}
        sent = replace(world, flying=world.flying | puts)
        return sent.with_writer(number, replace(writer, won=frozenset(), lost=frozenset()))

    def _settle(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        for asked in self.readers:
            sequence, value = self.read(world, asked)
            begun = replace(
                writer, phase="settling", sequence=sequence, value=value, fences=writer.fences + 1
            )
            yield self._send(world, number, begun)

    def _fence(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        """Enough buckets hold something at that sequence: what stands there now is chosen for good."""
        filled = writer.won | writer.lost
        if len(filled) < self.buckets.quorum or world.epoch != number:
            return
        value = self.read_at(world, writer.sequence, filled)
        bar = Value(number, True, value.lineage)
        begun = replace(writer, phase="fencing", sequence=writer.sequence + 1, value=bar)
        yield self._send(world, number, begun)

    def _fenced(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        if len(writer.won) >= self.buckets.quorum:
            yield world.with_writer(number, replace(writer, phase="idle"))
        elif writer.lost:
            yield world.with_writer(number, replace(writer, phase="reading"))

    def _publish(self, world: World, number: int, writer: Writer) -> World:
        assert writer.value is not None
        lineage = (*writer.value.lineage, f"{number}.{writer.publishes}")
        value = Value(number, False, lineage)
        begun = replace(
            writer,
            phase="publishing",
            sequence=writer.sequence + 1,
            value=value,
            publishes=writer.publishes + 1,
        )
        return self._send(world, number, begun)

    def _published(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        assert writer.value is not None
        if len(writer.won) >= self.buckets.publish_quorum:
            told = replace(world, acknowledged=world.acknowledged | {writer.value.lineage[-1]})
            yield told.with_writer(number, replace(writer, phase="idle"))


def as_manifest(value: Value) -> Manifest:
    copied = b"c" * 32 if value.fence else bytes(32)
    return Manifest(VOLUME, value.epoch, 1, bytes(32), bytes(16), 0, 4096, 1, 0, (), copy_of=copied)


def explore(model: Model, limit: int) -> int:
    """Visits every reachable world; returns how many."""
    start = model.start()
    seen = {start}
    todo = [start]
    while todo:
        world = todo.pop()
        model.check(world)
        for after in model.steps(world):
            if after not in seen:
                seen.add(after)
                todo.append(after)
        assert len(seen) < limit
    return len(seen)


def wander(model: Model, seed: int, walks: int) -> None:
    """Random walks to the end, where there are too many worlds to visit."""
    generator = random.Random(seed)
    for _ in range(walks):
        world = model.start()
        while steps := list(model.steps(world)):
            world = generator.choice(steps)
            model.check(world)


@pytest.mark.parametrize(
    ("buckets", "publishes"), [(1, (2, 1, 1)), (2, (1, 1)), (2, (1, 0, 0)), (3, (0, 1)), (3, (2,))]
)
def test_what_was_acknowledged_is_never_lost(buckets: int, publishes: tuple[int, ...]) -> None:
    assert explore(Model(buckets, publishes), 400_000) > 20


@pytest.mark.parametrize(
    ("buckets", "publishes"), [(2, (2, 2, 2)), (3, (1, 0, 0)), (3, (2, 2, 2)), (4, (2, 1, 1)), (5, (1, 1))]
)
def test_random_walks_find_no_loss_either(buckets: int, publishes: tuple[int, ...]) -> None:
    wander(Model(buckets, publishes), buckets, 150)


def test_the_model_notices_a_fence_that_settles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settling before a fence is what keeps three writers apart: without it walks lose something."""

    def fence_at_once(self: Model, world: World, number: int, writer: Writer) -> Iterator[World]:
        for asked in self.readers:
            sequence, value = self.read(world, asked)
            bar = Value(number, True, value.lineage)
            begun = replace(writer, phase="fencing", sequence=sequence + 1, value=bar)
            yield self._send(world, number, replace(begun, fences=writer.fences + 1))

    monkeypatch.setattr(Model, "_settle", fence_at_once)
    with pytest.raises(AssertionError):
        wander(Model(3, (1, 0, 0)), 1, 20_000)
