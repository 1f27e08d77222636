"""What happens later is never stamped earlier."""

from __future__ import annotations

import pytest

from objfs.fs.stamps import TICK_NS, Stamps


class StandingClock:
    """Both clocks stand where the test put them."""

    def __init__(self) -> None:
        self.now = 10**18

    def now_ns(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


def test_it_does_not_fall_behind_the_kernels_now(clock: StandingClock) -> None:
    stamps = Stamps(clock)
    ahead = clock.now + TICK_NS // 2
    stamps.given(ahead)
    assert stamps.now_ns() == ahead
    clock.now = ahead + 1
    assert stamps.now_ns() == ahead + 1


@pytest.mark.parametrize("offset", [-1, TICK_NS + 1, 10**15, None])
def test_a_time_that_a_program_chose_moves_nothing(clock: StandingClock, offset: int | None) -> None:
    stamps = Stamps(clock)
    stamps.given(None if offset is None else clock.now + offset)
    assert stamps.now_ns() == clock.now
