"""A slice of ``make model``'s histories with snapshots, and that the model sees what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.moments.machine import Moments
from tests.moments.search import search


def test_snapshots_restores_and_ends_of_machines_leave_moments_that_were() -> None:
    assert search(examples=20, steps=40)


@pytest.fixture
def machine() -> Iterator[Moments]:
    made = Moments()
    made.create(0, b"a", 0o644, 0, True)
    made.write(0, 0, 100)
    made.take(wait=True)
    yield made
    made.volume.close()


def test_a_snapshot_that_changed_is_seen(machine: Moments) -> None:
    machine.look_at_snapshot(0)
    thing = machine.snapshots[b"s1"][b"/a"]
    machine.snapshots[b"s1"][b"/a"] = thing._replace(content=thing.content[:-1] + b"?")
    with pytest.raises(AssertionError):
        machine.look_at_snapshot(0)


def test_a_difference_that_is_not_told_is_seen(machine: Moments) -> None:
    machine.chmod(0, b"a", 0o600)
    machine.compare_moments(0, 0, True, 0)
    machine.snapshots[b"s1"][b"/b"] = machine.snapshots[b"s1"][b"/a"]
    with pytest.raises(AssertionError):
        machine.compare_moments(0, 0, True, 0)


def test_a_moment_that_lacks_an_acknowledged_flush_is_seen(machine: Moments) -> None:
    machine.flush()
    machine.write(0, 0, 7)
    machine.recoverable = [machine.state()]
    with pytest.raises(AssertionError, match="never was"):
        machine.lose_machine()
