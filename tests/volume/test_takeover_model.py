"""Lease, publish, delete and takeover: every interleaving of small volumes, and that the models notice each
guard that is taken away (I5)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.volume.claim_model import Claims, Column, Host
from tests.volume.claim_model import World as Leases
from tests.volume.explorer import explore, leads_to
from tests.volume.takeover_model import Takeovers, World, Writer

# --- the lease -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("buckets", "claims", "epochs"), [(3, (1, 1), 2), (3, (2, 1), 3), (2, (1, 1, 1), 3), (2, (3, 1), 3)]
)
def test_an_epoch_that_was_won_is_seen_by_whoever_looks(
    buckets: int, claims: tuple[int, ...], epochs: int
) -> None:
    assert len(explore(Claims(buckets, claims, epochs), 50_000)) > 1000


class Overwriting(Claims):
    """A store whose put-if-absent is not atomic."""

    def admits(self, column: Column, epoch: int) -> bool:
        return True


class Sweeping(Claims):
    """A sweep that takes the holder's own lease too."""

    kept = 0


class NextOnly(Claims):
    """A look for the next number alone, as in the renewal, instead of a listing."""

    def passes(self, world: Leases, host: Host, asked: tuple[int, ...]) -> bool:
        return all(world.columns[bucket].leases[host.epoch :][:1] in ((), (-1,)) for bucket in asked)


@pytest.mark.parametrize(
    ("model", "claims", "epochs"),
    [(Overwriting, (1, 1), 2), (Sweeping, (1, 1), 2), (NextOnly, (1, 3), 4)],
)
def test_the_model_of_the_lease_notices_a_missing_guard(
    model: type[Claims], claims: tuple[int, ...], epochs: int
) -> None:
    with pytest.raises(AssertionError, match=r"World|does not notice"):
        explore(model(2, claims, epochs), 50_000)


# --- manifests, takeovers, deletes ---------------------------------------------------------


@pytest.mark.parametrize(("buckets", "publishes", "length"), [(2, (1, 1), 4), (3, (1, 0), 4), (3, (1, 1), 3)])
def test_nobody_publishes_beside_another_and_nothing_needed_is_deleted(
    buckets: int, publishes: tuple[int, ...], length: int
) -> None:
    assert len(explore(Takeovers(buckets, publishes, length), 50_000)) > 500


@pytest.mark.parametrize(
    ("buckets", "publishes", "length"),
    [(3, (1, 1, 1), 6), (3, (2, 0, 2), 7), (4, (1, 1, 1), 6), (5, (1, 1), 5)],
)
def test_long_walks_find_nothing_either(buckets: int, publishes: tuple[int, ...], length: int) -> None:
    walk(Takeovers(buckets, publishes, length, fences=2), 60)


def walk(model: Takeovers, walks: int) -> None:
    """Random walks to the end, where there are too many worlds to visit."""
    generator = random.Random(len(model.publishes))
    for _ in range(walks):
        world = model.start()
        while steps := list(model.steps(world)):
            world = generator.choice(steps)
            model.check(world)


def test_a_takeover_of_a_takeover_works_wherever_the_others_stopped() -> None:
    """From every world in which the third host has not begun, it can still become the one that publishes;
    and no world on the way is one that must not be."""
    before = explore(Takeovers(2, (1, 0, 0), 4), 50_000)
    done = leads_to(before, lambda world: world.writers[2].phase == "idle")
    untouched = [world for world in before if world.writers[2].phase == "waiting"]
    stuck = [world for world in untouched if world not in done]
    assert untouched
    assert not stuck, stuck[0]


class Unfenced(Takeovers):
    """A newcomer that goes on from what it read, although the former holder may have a put under way."""

    def _read(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        for asked in self.majorities:
            sequence, value = self.newest([world.columns[bucket] for bucket in asked])
            read = writer._replace(sequence=sequence, value=value)
            yield self._goes_on(world, number, read)


class Unsettled(Takeovers):
    """A fence above a sequence that was not filled on a majority first."""

    def _read(self, world: World, number: int, writer: Writer) -> Iterator[World]:
        for asked in self.majorities:
            sequence, value = self.newest([world.columns[bucket] for bucket in asked])
            if writer.fences < self.fences:
                begun = writer._replace(fences=writer.fences + 1)
                yield from self._bar(world, number, begun, sequence, self.values[value])


class Unconfirmed(Takeovers):
    """A manifest that counts as soon as enough buckets took it: also with a clock that stands still."""

    def confirmed(self, world: World, number: int, writer: Writer) -> bool:
        return True


class Hasty(Takeovers):
    """A reaper that does not wait until the manifest that condemns a segment counts."""

    def _send(self, world: World, number: int, writer: Writer, sequence: int, value: int) -> World:
        sent = super()._send(world, number, writer, sequence, value)
        return sent._replace(gone=sent.gone | set(self.values[value].lineage[:-1]))


class Replacing(Takeovers):
    """A store whose put-if-absent is not atomic."""

    def admits(self, there: int) -> bool:
        return True


@pytest.mark.parametrize(
    ("model", "buckets", "publishes", "length"),
    [
        (Unfenced, 2, (1, 1), 3),
        (Unconfirmed, 2, (1, 1), 4),
        (Hasty, 3, (1, 0), 3),
        (Replacing, 2, (1, 1), 4),
    ],
)
def test_the_model_of_takeovers_notices_a_missing_guard(
    model: type[Takeovers], buckets: int, publishes: tuple[int, ...], length: int
) -> None:
    with pytest.raises(AssertionError, match="World"):
        explore(model(buckets, publishes, length), 50_000)


def test_walks_notice_a_fence_that_settles_nothing() -> None:
    with pytest.raises(AssertionError, match="acknowledged"):
        walk(Unsettled(3, (1, 0, 0), 6, fences=2), 20_000)
