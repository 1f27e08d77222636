"""Claims, looks and sweeps of the lease, request by request: who holds which epoch, and who can tell.

Each bucket keeps the objects ``lease/<epoch>``.  Every request is under way until it takes effect, at any
later time or never, and its answer may get lost: so a host that is stopped, a bucket that is away, and a
failure before or after the effect are all among the worlds.  There is no clock.  Whatever a clock decides in
the code (that a holder was silent for long enough, that a renewal is young) may happen here at any time: so
may every clock lie.

| step | stands for |
|---|---|
| ``_claim`` | ``lease.acquire``: ``observe``, perhaps long ago, judge the holder silent, ``_put_claim`` |
| ``_land`` | the effect of ``put_if_absent`` at one bucket, with its answer or without |
| ``_win`` | ``acquire`` counts a strict majority |
| ``_withdraw`` | ``lease._withdraw``, and every other put of a host's own object: a renewal, a release |
| ``_look`` | ``Lease.check``: ``read_highest`` of a majority |
| ``_sweep`` | ``Lease.sweep`` after a look: one delete, lowest epoch first |

A look is one step here and several requests in the code.  That is no more: a look that passes, passed for
what was won before its first request.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from objfs.volume.lease import KEPT_EPOCHS
from objfs.volume.quorum import BucketSet
from tests.volume.support import entries

NOBODY = -1


class Host(NamedTuple):
    """``epoch`` is that of the present claim (0: none).  ``sure``: its last look passed, and what it looked
    for may still be done."""

    epoch: int = 0
    holds: bool = False
    sure: bool = False
    claims: int = 0


class Column(NamedTuple):
    """One bucket.  ``leases[epoch - 1]`` is the host whose object stands there; ``flying`` are the hosts
    whose claim may still arrive, ``told`` those that know theirs did, ``own`` the (host, epoch) ever put
    here."""

    leases: tuple[int, ...]
    flying: frozenset[int] = frozenset()
    told: frozenset[int] = frozenset()
    own: frozenset[tuple[int, int]] = frozenset()

    def standing(self, epoch: int, number: int) -> Column:
        return self._replace(leases=(*self.leases[: epoch - 1], number, *self.leases[epoch:]))

    @property
    def highest(self) -> int:
        """The highest epoch of which an object stands here, 0 where there is none."""
        return max((epoch for epoch, number in enumerate(self.leases, 1) if number != NOBODY), default=0)


class World(NamedTuple):
    """``won`` is the highest epoch ever won.  No step prefers a bucket: their order is always the same
    one."""

    columns: tuple[Column, ...]
    hosts: tuple[Host, ...]
    won: int = 0

    def with_host(self, number: int, host: Host) -> World:
        return self._replace(hosts=(*self.hosts[:number], host, *self.hosts[number + 1 :]))

    def with_column(self, bucket: int, column: Column) -> World:
        columns = (*self.columns[:bucket], column, *self.columns[bucket + 1 :])
        return self._replace(columns=tuple(sorted(columns, key=_order)))


def _order(column: Column) -> tuple[object, ...]:
    return column.leases, sorted(column.flying), sorted(column.told), sorted(column.own)


class Claims:
    """``claims`` bounds how often each host tries, ``epochs`` how many there are."""

    kept = KEPT_EPOCHS

    def __init__(self, buckets: int, claims: tuple[int, ...], epochs: int) -> None:
        self.claims = claims
        self.epochs = epochs
        self.first = World((Column((NOBODY,) * epochs),) * buckets, (Host(),) * len(claims))
        self.quorum = BucketSet(entries(buckets), {}).quorum
        self.majorities = list(combinations(range(buckets), self.quorum))

    def start(self) -> World:
        return self.first

    def check(self, world: World) -> None:
        """Whoever asks a majority sees the highest epoch that was ever won, or a higher one; and no two hosts
        are sure of the same."""
        for asked in self.majorities:
            assert self.highest(world, asked) >= world.won, (asked, world)
        sure = [host.epoch for host in world.hosts if host.sure]
        assert len(sure) == len(set(sure)), world

    def highest(self, world: World, asked: tuple[int, ...]) -> int:
        return max(world.columns[bucket].highest for bucket in asked)

    # --- what may happen next --------------------------------------------------------------

    def steps(self, world: World) -> Iterator[World]:
        for number, host in enumerate(world.hosts):
            yield from self._claim(world, number, host)
            yield from self._win(world, number, host)
            yield from self._look(world, number, host)
            for bucket, column in enumerate(world.columns):
                for changed in self._land(column, number, host):
                    yield world.with_column(bucket, changed)
                for changed in self._withdraw(column, number):
                    yield world.with_column(bucket, changed)
                for changed in self._sweep(column, host):
                    yield world.with_column(bucket, changed)

    def _claim(self, world: World, number: int, host: Host) -> Iterator[World]:
        """The next epoch, or one that was next when the host looked, however long ago that is."""
        if host.claims == self.claims[number]:
            return
        newest = max(column.highest for column in world.columns)
        columns = tuple(
            column._replace(flying=column.flying | {number}, told=column.told - {number})
            for column in world.columns
        )
        for epoch in range(host.epoch + 1, min(newest + 1, self.epochs) + 1):
            begun = world._replace(columns=tuple(sorted(columns, key=_order)))
            yield begun.with_host(number, Host(epoch, claims=host.claims + 1))

    def _land(self, column: Column, number: int, host: Host) -> Iterator[Column]:
        if number not in column.flying:
            return
        landed = column._replace(flying=column.flying - {number})
        if self.admits(column, host.epoch):
            landed = landed.standing(host.epoch, number)._replace(own=column.own | {(number, host.epoch)})
            yield landed._replace(told=column.told | {number})
        yield landed

    def admits(self, column: Column, epoch: int) -> bool:
        """put-if-absent."""
        return column.leases[epoch - 1] == NOBODY

    def _win(self, world: World, number: int, host: Host) -> Iterator[World]:
        if not host.holds and sum(number in column.told for column in world.columns) >= self.quorum:
            held = world.with_host(number, host._replace(holds=True))
            yield held._replace(won=max(world.won, host.epoch))

    def _withdraw(self, column: Column, number: int) -> Iterator[Column]:
        for writer, epoch in column.own:
            if writer == number and column.leases[epoch - 1] != number:
                yield column.standing(epoch, number)

    def _look(self, world: World, number: int, host: Host) -> Iterator[World]:
        """What was looked for may be done at any later time; a sweep stands for all of it."""
        if host.holds and not host.sure and any(self.passes(world, host, q) for q in self.majorities):
            assert host.epoch >= world.won, "a host that was overtaken does not notice"
            yield world.with_host(number, host._replace(sure=True))

    def passes(self, world: World, host: Host, asked: tuple[int, ...]) -> bool:
        """No higher epoch is listed."""
        return self.highest(world, asked) <= host.epoch

    def _sweep(self, column: Column, host: Host) -> Iterator[Column]:
        """Also long after the look: by then the host may be overtaken."""
        if not host.sure:
            return
        for epoch in range(1, host.epoch - self.kept + 1):
            if column.leases[epoch - 1] != NOBODY:
                yield column.standing(epoch, NOBODY)
                return
