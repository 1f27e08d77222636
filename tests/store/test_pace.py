"""What counts as slow, by figures alone."""

from __future__ import annotations

import pytest

from objfs.model import Slot
from objfs.store.pace import RING, Pace, PaceBoard, PaceSettings, Quantiles, Ring
from tests.store.test_health import HeldClock

SLOW = Slot(1)
OTHERS = [Slot(2), Slot(3), Slot(4)]


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def board(clock: HeldClock) -> PaceBoard:
    made = PaceBoard(clock, PaceSettings())
    for slot in OTHERS:
        for _ in range(30):
            made.got(slot, 4096, 0.02)
    return made


def test_the_ring_is_bounded_and_forgets_the_oldest() -> None:
    ring = Ring()
    for number in range(1000):
        ring.add(float(number))
    assert len(ring) == RING
    assert ring.quantile(0.0) >= 1000 - RING - 8
    assert ring.quantile(1.0) >= 1000 - 8


def test_quantiles_are_answers_that_were_given(board: PaceBoard) -> None:
    for number in range(1, 101):
        board.got(SLOW, 4096, number / 1000)
    assert board.gets(SLOW) == Quantiles(100, 0.05, 0.095, 0.099)
    assert board.puts(SLOW) == Quantiles()
    board.put(SLOW, 0.5)
    assert board.puts(SLOW) == Quantiles(1, 0.5, 0.5, 0.5)


def test_nobody_else_is_asked_while_nothing_is_known(clock: HeldClock) -> None:
    board = PaceBoard(clock)
    for _ in range(19):
        board.got(SLOW, 4096, 0.02)
    assert board.hedge_after_s(SLOW, 4096) is None
    board.got(SLOW, 4096, 0.02)
    assert board.hedge_after_s(SLOW, 4096) == pytest.approx(0.022)


def test_reads_of_other_sizes_have_their_own_figures(board: PaceBoard) -> None:
    for _ in range(30):
        board.got(SLOW, 4096, 0.02)
        board.got(SLOW, 8 << 20, 3.0)
    assert board.hedge_after_s(SLOW, 4096) == pytest.approx(0.022)
    assert board.hedge_after_s(SLOW, 8 << 20) == pytest.approx(3.3)
    assert not board.slow(SLOW), "no other bucket was asked for as much"


def test_eight_slow_answers_make_it_slow_and_quick_ones_weigh_half(board: PaceBoard) -> None:
    for _ in range(7):
        board.got(SLOW, 4096, 2.0)
    assert not board.slow(SLOW)
    board.got(SLOW, 4096, 0.02)
    board.got(SLOW, 4096, 2.0)
    assert not board.slow(SLOW)
    board.got(SLOW, 4096, 2.0)
    assert board.slow(SLOW)


def test_an_answer_that_nobody_waits_for_says_something_only_when_it_is_late(board: PaceBoard) -> None:
    for _ in range(50):
        board.unwanted(SLOW, 4096, 0.05)
    assert not board.slow(SLOW)
    for _ in range(8):
        board.unwanted(SLOW, 4096, 0.09)
    assert board.slow(SLOW)


def test_one_that_never_came_is_enough(board: PaceBoard, clock: HeldClock) -> None:
    board.lost(SLOW)
    assert board.slow(SLOW)
    assert not board.admit(SLOW)
    waits = []
    for _ in range(7):
        waits.append(board.of(SLOW).retry_at - clock.now)
        clock.now = board.of(SLOW).retry_at
        assert [board.admit(SLOW) for _ in range(2)] == [True, False]
        board.lost(SLOW)
        board.lost(SLOW)
    assert waits == [5, 10, 20, 40, 80, 120, 120]


def test_quick_trials_in_a_row_take_it_back(board: PaceBoard, clock: HeldClock) -> None:
    board.lost(SLOW)
    clock.now += 5
    for _ in range(2):
        assert board.admit(SLOW)
        board.got(SLOW, 4096, 0.02)
    assert board.slow(SLOW)
    assert board.admit(SLOW)
    board.got(SLOW, 4096, 0.02)
    assert board.of(SLOW) == Pace()
