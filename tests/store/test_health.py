"""The state machine of a bucket's health."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from objfs.errors import BucketFull, NoSuchBucket, NoSuchObject, Refused, TimedOut
from objfs.model import Slot
from objfs.store.health import Health, HealthBoard, HealthSettings, HealthState

SLOT, OTHER = Slot(1), Slot(2)


class HeldClock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def now_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def board(clock: HeldClock) -> HealthBoard:
    return HealthBoard(clock, HealthSettings(threshold=3, first_cooldown_s=5, last_cooldown_s=15))


def fail(board: HealthBoard, times: int) -> None:
    for _ in range(times):
        board.failed(SLOT, TimedOut("no answer"))


def test_unheard_of_is_healthy(board: HealthBoard) -> None:
    assert board.of(SLOT).state is HealthState.HEALTHY
    assert board.admit(SLOT)
    board.succeeded(SLOT)
    assert board.statistics() == {}


def test_silence_makes_suspect_then_down(board: HealthBoard) -> None:
    fail(board, 1)
    assert board.of(SLOT).state is HealthState.SUSPECT
    assert board.admit(SLOT)
    fail(board, 2)
    assert board.down(SLOT)
    assert not board.admit(SLOT)
    assert board.of(SLOT).last_error == "TimedOut: no answer"
    assert board.of(OTHER).state is HealthState.HEALTHY


def test_success_begins_the_count_anew(board: HealthBoard) -> None:
    for _ in range(5):
        fail(board, 2)
        board.succeeded(SLOT)
    assert board.of(SLOT).state is HealthState.HEALTHY


def test_one_trial_after_the_cooldown(board: HealthBoard, clock: HeldClock) -> None:
    fail(board, 3)
    clock.now += 4.9
    assert not board.admit(SLOT)
    clock.now += 0.2
    assert [board.admit(SLOT) for _ in range(3)] == [True, False, False]
    board.succeeded(SLOT)
    assert board.of(SLOT).state is HealthState.HEALTHY
    assert board.admit(SLOT)


def test_failed_trials_double_the_cooldown_up_to_the_last(board: HealthBoard, clock: HeldClock) -> None:
    fail(board, 3)
    waits = []
    for _ in range(4):
        waits.append(board.of(SLOT).retry_at - clock.now)
        clock.now = board.of(SLOT).retry_at
        assert board.admit(SLOT)
        fail(board, 1)
        assert not board.admit(SLOT)
    assert waits == [5, 10, 15, 15]


def test_a_trial_whose_outcome_is_never_told_is_followed_by_another(
    board: HealthBoard, clock: HeldClock
) -> None:
    fail(board, 3)
    clock.now += 5
    assert board.admit(SLOT)
    clock.now += 5
    assert board.admit(SLOT)


def test_late_failures_of_what_was_under_way_change_nothing(board: HealthBoard) -> None:
    fail(board, 3)
    before = board.of(SLOT).retry_at
    fail(board, 10)
    assert board.of(SLOT).retry_at == before


@pytest.mark.parametrize("error", [Refused("denied"), BucketFull("no room")])
def test_a_bucket_that_answers_is_never_down(board: HealthBoard, error: Refused | BucketFull) -> None:
    for _ in range(10):
        board.failed(SLOT, error)
        board.not_stored(SLOT, error)
    assert not board.down(SLOT)
    assert board.admit(SLOT)


def test_reads_that_are_refused_make_a_bucket_suspect_at_most(board: HealthBoard) -> None:
    for _ in range(10):
        board.failed(SLOT, Refused("denied"))
    assert board.of(SLOT).state is HealthState.SUSPECT
    assert board.admit_put(SLOT)


def test_refusals_to_store_make_it_read_only_whatever_it_answers_to_reads(board: HealthBoard) -> None:
    states = []
    for _ in range(3):
        board.not_stored(SLOT, Refused("read-only credentials"))
        states.append(board.of(SLOT).state.word)
        board.succeeded(SLOT)
    assert states == ["suspect", "suspect", "read-only"]
    assert board.of(SLOT).state is HealthState.READ_ONLY
    assert board.admit(SLOT)
    assert not board.admit_put(SLOT)


def test_one_refusal_that_is_followed_by_a_put_counts_for_nothing(board: HealthBoard) -> None:
    for _ in range(5):
        board.not_stored(SLOT, Refused("a moment without credentials"))
        board.not_stored(SLOT, Refused("a moment without credentials"))
        board.stored(SLOT)
    assert board.of(SLOT).state is HealthState.HEALTHY


@pytest.mark.parametrize("error", [Refused("denied"), BucketFull("no room")])
def test_what_takes_nothing_is_tried_by_one_put_a_cooldown(
    board: HealthBoard, clock: HeldClock, error: Refused | BucketFull
) -> None:
    for _ in range(3):
        board.not_stored(SLOT, error)
    waits = []
    for _ in range(3):
        waits.append(board.of(SLOT).retry_at - clock.now)
        clock.now = board.of(SLOT).retry_at
        assert [board.admit_put(SLOT) for _ in range(3)] == [True, False, False]
        board.not_stored(SLOT, error)
        board.not_stored(SLOT, error)
    assert waits == [5, 10, 15]
    clock.now = board.of(SLOT).retry_at
    assert board.admit_put(SLOT)
    board.stored(SLOT)
    assert board.of(SLOT).state is HealthState.HEALTHY
    assert board.admit_put(SLOT)


def test_a_full_bucket_is_read_like_a_healthy_one(board: HealthBoard) -> None:
    board.not_stored(SLOT, BucketFull("no room"))
    board.failed(OTHER, TimedOut("once"))
    board.succeeded(SLOT)
    assert board.of(SLOT).state is HealthState.FULL
    assert board.order([OTHER, SLOT, Slot(3)]) == [SLOT, Slot(3), OTHER]


def test_a_full_bucket_that_falls_silent_is_down(board: HealthBoard) -> None:
    board.not_stored(SLOT, BucketFull("no room"))
    fail(board, 2)
    assert board.of(SLOT).state is HealthState.FULL
    fail(board, 1)
    assert board.down(SLOT)
    assert board.of(SLOT).cooldown_s == 5


def test_the_machine_is_total(board: HealthBoard, clock: HeldClock) -> None:
    """Every event in every state leads to a state; a put that is stored leads to healthy from anywhere."""
    settings = HealthSettings(threshold=1)
    events: list[Callable[[Health], Health]] = [
        lambda health: health.answered(1.0),
        lambda health: health.stored(1.0),
        lambda health: health.refused(1.0, "x"),
        lambda health: health.refused_to_store(1.0, "x", settings),
        lambda health: health.full(1.0, "x", settings),
        lambda health: health.silent(1.0, "x", settings),
        lambda health: health.trial(1.0),
    ]
    seen, new = set[Health](), {Health()}
    while new:
        seen |= new
        new = {event(health) for health in seen for event in events} - seen
        assert len(seen) < 5000
    assert {health.state for health in seen} == set(HealthState)
    assert {health.stored(1.0).state for health in seen} == {HealthState.HEALTHY}
    closed = [health for health in seen if health.cooldown_s]
    assert all(health.state.takes_nothing or health.state is HealthState.DOWN for health in closed)


def test_an_answer_begins_the_cooldown_anew(board: HealthBoard, clock: HeldClock) -> None:
    fail(board, 3)
    clock.now += 5
    assert board.admit(SLOT)
    board.failed(SLOT, Refused("denied"))
    fail(board, 3)
    assert board.of(SLOT).cooldown_s == 5


def test_no_such_object_is_a_good_answer(board: HealthBoard) -> None:
    fail(board, 1)
    board.failed(SLOT, NoSuchObject("gone"))
    assert board.of(SLOT).state is HealthState.HEALTHY


def test_a_place_that_is_gone_is_down(board: HealthBoard) -> None:
    for _ in range(3):
        board.failed(SLOT, NoSuchBucket("unmounted"))
    assert board.down(SLOT)


def test_best_first(board: HealthBoard) -> None:
    fail(board, 3)
    board.failed(OTHER, TimedOut("once"))
    assert board.order([SLOT, OTHER, Slot(3)]) == [Slot(3), OTHER, SLOT]
    board.forget(SLOT)
    assert board.of(SLOT).state is HealthState.HEALTHY


def test_turns_are_logged_once(board: HealthBoard, caplog: pytest.LogCaptureFixture) -> None:
    fail(board, 6)
    board.succeeded(SLOT)
    assert [record.getMessage() for record in caplog.records] == [
        "bucket down slot=1 cooldown_s=5 cause='TimedOut: no answer'",
        "bucket answers again slot=1 state=healthy",
    ]


def test_a_bucket_that_takes_nothing_is_logged_once(
    board: HealthBoard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(5):
        board.not_stored(SLOT, BucketFull("no room"))
        board.succeeded(SLOT)
    board.stored(SLOT)
    assert [record.getMessage() for record in caplog.records] == [
        "bucket full slot=1 cooldown_s=5 cause='BucketFull: no room'",
        "bucket takes objects again slot=1 state=healthy",
    ]
