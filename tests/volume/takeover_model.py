"""Publishing, takeover, fences and deletes by writers that follow each other, request by request.

``claim_model`` shows what is taken for granted here: an epoch that was won is seen by every later look.  Each
bucket keeps ``manifest/<sequence>``; a put is under way until it lands, at any later time or never, with its
answer or without.  So a host that is stopped anywhere and goes on, a bucket that is away, and a request that
fails before or after its effect are all among the worlds.

There is no clock.  A takeover may come at any time, as if every clock lied to whoever waits for silence;
manifests and segments go as soon as the order of things allows, as if no window or grace were left.  One
thing only is taken from a clock: a manifest that retention removes is older than a young renewal (``aged``).

| step | stands for |
|---|---|
| ``_claim`` | ``lease.acquire`` |
| ``_read`` | ``published.read_newest`` of any majority; puts of ``adopt``, or a look and puts of ``settle`` |
| ``_adopted`` | ``_Opening._newest`` after a release that was settled |
| ``_fence`` | the end of ``settle``, ``Lease.check``, and the puts of the fence |
| ``_fenced`` | ``published.fence`` counts its answers |
| ``_publish`` | ``Checkpointer._put``: ``Lease.check``, and the puts of ``publish`` |
| ``_again`` | the same attempt put once more, after ``NoQuorum`` |
| ``_published`` | ``published.publish`` counts its answers and asks ``Lease.confirm`` |
| ``_release`` | ``Lease.release`` with ``settled`` |
| ``_land`` | the effect of one ``put_if_absent`` |
| ``_remove`` | ``Debts.pay`` of what ``Reaper`` owes, by whoever once held the lease, also long after that |

Worlds that differ in nothing that anybody will look at are one (``_plain``), and retention removes only what
a put under way is about to find: nobody else looks below the newest.  Deleting a segment is no step: each
content needs one segment, condemns that of the content before, and this one is gone once its reaper may
delete it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import NamedTuple

from objfs.model import Slot
from objfs.volume.manifest import Manifest
from objfs.volume.published import Published, choose
from objfs.volume.quorum import BucketSet
from tests.volume.support import VOLUME, entries

ABSENT = -1
WAITING = ("adopting", "settling", "fencing", "publishing")


class Value(NamedTuple):
    """A manifest: its writer's epoch, whether it is a fence, and the contents that it descends from."""

    epoch: int
    fence: bool
    lineage: tuple[str, ...]


class Writer(NamedTuple):
    """One epoch's holder: the value of that number is put, or stands, at ``sequence``."""

    phase: str = "waiting"
    sequence: int = 0
    value: int = ABSENT
    fences: int = 0
    publishes: int = 0
    aged: bool = False


class Column(NamedTuple):
    """One bucket.  ``manifests[sequence - 1]`` is the number of a value; ``flying`` are (writer, sequence,
    value) that may still land, ``won`` and ``lost`` the writers that had such an answer to their present
    put."""

    manifests: tuple[int, ...]
    flying: frozenset[tuple[int, int, int]] = frozenset()
    won: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()

    def standing(self, sequence: int, value: int) -> Column:
        return self._replace(manifests=(*self.manifests[: sequence - 1], value, *self.manifests[sequence:]))


class World(NamedTuple):
    """``newest``: the highest sequence that a holder went on from.  No step prefers a bucket, so their order
    is always the same one."""

    columns: tuple[Column, ...]
    writers: tuple[Writer, ...]
    epoch: int
    settled: bool
    newest: int
    acknowledged: frozenset[str]
    gone: frozenset[str]

    def with_writer(self, number: int, writer: Writer) -> World:
        return self._replace(writers=(*self.writers[: number - 1], writer, *self.writers[number:]))

    def with_columns(self, columns: Iterable[Column]) -> World:
        return self._replace(columns=tuple(sorted(columns, key=_order)))

    def with_column(self, bucket: int, column: Column) -> World:
        return self.with_columns((*self.columns[:bucket], column, *self.columns[bucket + 1 :]))


def _order(column: Column) -> tuple[object, ...]:
    return column.manifests, sorted(column.flying), sorted(column.won), sorted(column.lost)


class Takeovers:
    """``publishes`` of each writer, in the order of their epochs; ``length`` is the highest sequence."""

    def __init__(self, buckets: int, publishes: tuple[int, ...], length: int = 4, fences: int = 1) -> None:
        self.buckets = BucketSet(entries(buckets), {})
        self.publishes = publishes
        self.length = length
        self.fences = fences
        self.majorities = list(combinations(range(buckets), self.buckets.quorum))
        self.values: list[Value] = []
        self.numbers: dict[Value, int] = {}
        self.chosen: dict[tuple[int, ...], int] = {}

    def start(self) -> World:
        first = self.number(Value(1, False, ("first",)))
        column = Column((first, *(ABSENT,) * (self.length - 1)))
        waiting = (Writer(),) * (len(self.publishes) - 1)
        writers = (Writer("idle", 1, first), *waiting)
        empty: frozenset[str] = frozenset()
        return World((column,) * len(self.buckets.slots), writers, 1, False, 1, frozenset({"first"}), empty)

    def number(self, value: Value) -> int:
        if value not in self.numbers:
            self.numbers[value] = len(self.values)
            self.values.append(value)
        return self.numbers[value]

    # --- what must hold --------------------------------------------------------------------

    def check(self, world: World) -> None:
        for asked in self.majorities:
            columns = [world.columns[bucket] for bucket in asked]
            _, number = self.newest(columns)
            value = self.values[number]
            lost = world.acknowledged - set(value.lineage)
            assert not lost, f"acknowledged, and not what a reader finds: {lost} {value} {world}"
            assert value.lineage[-1] not in world.gone, f"needed and deleted: {value} {world}"
        counted = [self.values[number].epoch for number in self.counted(world)]
        assert counted == sorted(counted), f"epochs that fall: {counted} {world}"

    def counted(self, world: World) -> Iterator[int]:
        """The values that stand on a strict majority, by their sequence."""
        for row in zip(*(column.manifests for column in world.columns), strict=True):
            for number in set(row) - {ABSENT}:
                if row.count(number) >= self.buckets.quorum:
                    yield number

    # --- what a reader sees ----------------------------------------------------------------

    def newest(self, columns: list[Column]) -> tuple[int, int]:
        """The highest sequence on some buckets, and what stands there by the real rule."""
        filled = (
            sequence
            for sequence in range(self.length, 0, -1)
            if any(column.manifests[sequence - 1] != ABSENT for column in columns)
        )
        sequence = next(filled)
        return sequence, self.read_at(sequence, columns)

    def read_at(self, sequence: int, columns: list[Column]) -> int:
        """ABSENT where nothing stands there any more."""
        row = tuple(column.manifests[sequence - 1] for column in columns)
        if row not in self.chosen:
            self.chosen[row] = self._choose(row)
        return self.chosen[row]

    def _choose(self, row: tuple[int, ...]) -> int:
        found = [
            Published(
                as_manifest(self.values[number]),
                b"%d" % number,
                tuple(Slot(slot) for slot, other in enumerate(row) if other == number),
            )
            for number in sorted(set(row) - {ABSENT})
        ]
        chosen = choose(self.buckets, found)
        return ABSENT if chosen is None else int(chosen.data)

    # --- what may happen next --------------------------------------------------------------

    def steps(self, world: World) -> Iterator[World]:
        for after in self._all_steps(world):
            yield _plain(after)

    def _all_steps(self, world: World) -> Iterator[World]:
        for number, writer in enumerate(world.writers, 1):
            yield from self._step(world, number, writer)
        for bucket, column in enumerate(world.columns):
            for put in column.flying:
                for landed in self._land(world, column, put):
                    yield world.with_column(bucket, landed)
            yield from self._remove(world, bucket, column)

    def _step(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        match writer.phase:
            case "waiting":
                yield from self._claim(world, number, writer)
            case "reading":
                yield from self._read(world, number, writer)
            case "adopting":
                yield from self._adopted(world, number, writer)
            case "settling":
                yield from self._fence(world, number, writer)
            case "fencing":
                yield from self._fenced(world, number, writer)
            case "idle":
                yield from self._publish(world, number, writer)
                yield from self._release(world, number, writer)
            case "publishing":
                yield from self._again(world, number, writer)
                yield from self._published(world, number, writer)

    def _claim(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        if world.epoch == number - 1:
            yield world.with_writer(number, writer._replace(phase="reading"))._replace(epoch=number)

    def _read(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        for asked in self.majorities:
            sequence, value = self.newest([world.columns[bucket] for bucket in asked])
            if world.settled and world.epoch == number:
                yield self._send(world, number, writer._replace(phase="adopting"), sequence, value)
            elif self.look(world, number) and writer.fences < self.fences:
                begun = writer._replace(phase="settling", fences=writer.fences + 1)
                yield self._send(world, number, begun, sequence, value)

    def _adopted(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        if any(number in column.lost for column in world.columns):
            yield world.with_writer(number, writer._replace(phase="reading"))._replace(settled=False)
        elif any(number in column.won for column in world.columns):
            yield self._goes_on(world, number, writer)._replace(settled=False)

    def _fence(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        filled = [column for column in world.columns if number in column.won | column.lost]
        if len(filled) < self.buckets.quorum or not self.look(world, number):
            return
        value = self.read_at(writer.sequence, filled)
        stands = self.values[writer.value if value == ABSENT else value]
        yield from self._bar(world, number, writer, writer.sequence, stands)

    def _bar(
        self, world: World, number: int, writer: Writer, sequence: int, before: Value
    ) -> Iterator[World]:
        if sequence < self.length:
            bar = self.number(Value(number, True, before.lineage))
            yield self._send(world, number, writer._replace(phase="fencing"), sequence + 1, bar)

    def _fenced(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        if sum(number in column.won for column in world.columns) >= self.buckets.quorum:
            yield self._goes_on(world, number, writer)
        elif any(number in column.lost for column in world.columns):
            yield world.with_writer(number, writer._replace(phase="reading"))

    def _publish(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        done = writer.publishes == self.publishes[number - 1] or writer.sequence == self.length
        if done or not self.look(world, number):
            return
        lineage = (*self.values[writer.value].lineage, f"{number}.{writer.publishes}")
        begun = writer._replace(phase="publishing", publishes=writer.publishes + 1)
        yield self._send(
            world, number, begun, writer.sequence + 1, self.number(Value(number, False, lineage))
        )

    def _again(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        put = (number, writer.sequence, writer.value)
        silent = any(
            put not in column.flying and number not in column.won | column.lost for column in world.columns
        )
        if silent and self.look(world, number):
            yield self._send(world, number, writer, writer.sequence, writer.value)

    def _published(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        value = self.values[writer.value]
        if any(number in column.lost for column in world.columns):
            # A rival of a later epoch, or it is asked who has the volume now.
            yield world.with_writer(number, Writer("over"))
        elif sum(number in column.won for column in world.columns) >= self.buckets.publish_quorum:
            if self.confirmed(world, number, writer):
                told = world._replace(
                    acknowledged=world.acknowledged | {value.lineage[-1]},
                    gone=world.gone | set(value.lineage[:-1]),
                )
                yield self._goes_on(told, number, writer)
            else:
                yield world.with_writer(number, Writer("over"))

    def _goes_on(self, world: World, number: int, writer: Writer) -> World:
        idle = world.with_writer(number, writer._replace(phase="idle", aged=False))
        return idle._replace(newest=max(world.newest, writer.sequence))

    def look(self, world: World, number: int) -> bool:
        """``Lease.check``."""
        return world.epoch == number

    def confirmed(self, world: World, number: int, writer: Writer) -> bool:
        """``Lease.confirm``: a young renewal is believed."""
        return not writer.aged or self.look(world, number)

    def _release(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        if world.epoch == number < len(self.publishes):
            yield world.with_writer(number, Writer("over"))._replace(settled=True)

    def _remove(self, world: World, bucket: int, column: Column) -> Iterator[World]:
        """One manifest below the newest, on one bucket."""
        for sequence in {put[1] for put in column.flying if put[0]}:
            if sequence < world.newest and column.manifests[sequence - 1] != ABSENT:
                yield self._aged(world.with_column(bucket, column.standing(sequence, ABSENT)))

    def _aged(self, world: World) -> World:
        aged = (
            writer._replace(aged=True) if writer.phase == "publishing" else writer for writer in world.writers
        )
        return world._replace(writers=tuple(aged))

    # --- puts ------------------------------------------------------------------------------

    def _send(self, world: World, number: int, writer: Writer, sequence: int, value: int) -> World:
        put = (number, sequence, value)
        sent = world.with_columns(
            Column(column.manifests, column.flying | {put}, column.won - {number}, column.lost - {number})
            for column in world.columns
        )
        return sent.with_writer(number, writer._replace(sequence=sequence, value=value, aged=False))

    def _land(self, world: World, column: Column, put: tuple[int, int, int]) -> Iterator[Column]:
        """With its answer, or, where that gets lost or nobody waits for it, without."""
        number, sequence, value = put
        there = column.manifests[sequence - 1]
        landed = column._replace(flying=column.flying - {put})
        if self.admits(there):
            landed = landed.standing(sequence, value)
        yield landed
        if number and (self.admits(there) or there == value):
            yield landed._replace(won=landed.won | {number})
        elif number:
            yield landed._replace(lost=landed.lost | {number})

    def admits(self, there: int) -> bool:
        """put-if-absent."""
        return there == ABSENT


def _plain(world: World) -> World:
    """Forgets what nobody waits for: answers to a put that is over, whose a late put was, and what became of
    a writer that does nothing more."""
    writers = tuple(
        Writer("over") if writer.phase == "idle" and number < world.epoch else writer
        for number, writer in enumerate(world.writers, 1)
    )
    waits = {
        number: (writer.sequence, writer.value)
        for number, writer in enumerate(writers, 1)
        if writer.phase in WAITING
    }
    return world._replace(writers=writers).with_columns(
        _plain_column(column, waits) for column in world.columns
    )


def _plain_column(column: Column, waits: dict[int, tuple[int, int]]) -> Column:
    flying = set()
    for number, sequence, value in column.flying:
        if waits.get(number) == (sequence, value):
            flying.add((number, sequence, value))
        elif column.manifests[sequence - 1] == ABSENT:
            flying.add((0, sequence, value))
    waiting = frozenset(waits)
    return Column(column.manifests, frozenset(flying), column.won & waiting, column.lost & waiting)


def as_manifest(value: Value) -> Manifest:
    copied = b"c" * 32 if value.fence else bytes(32)
    return Manifest(VOLUME, value.epoch, 1, bytes(32), bytes(16), 0, 4096, 1, 0, (), copy_of=copied)
