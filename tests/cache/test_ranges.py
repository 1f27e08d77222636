"""RangeSet against a set of integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from objfs.cache.ranges import RangeSet

POINT = st.integers(0, 40)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["add", "remove", "clip"]), POINT, POINT), max_size=20)


def both(operations: list[tuple[str, int, int]]) -> tuple[RangeSet, set[int]]:
    ranges, model = RangeSet(), set[int]()
    for name, first, second in operations:
        start, end = min(first, second), max(first, second)
        if name == "add":
            ranges.add(start, end)
            model |= set(range(start, end))
        elif name == "remove":
            ranges.remove(start, end)
            model -= set(range(start, end))
        else:
            ranges.clip(start)
            model = {point for point in model if point < start}
    return ranges, model


def points(ranges: RangeSet | list[tuple[int, int]]) -> set[int]:
    return {point for start, end in ranges for point in range(start, end)}


@given(OPERATIONS)
def test_holds_what_a_set_holds(operations: list[tuple[str, int, int]]) -> None:
    ranges, model = both(operations)
    assert points(ranges) == model
    assert ranges.total == len(model)
    assert ranges.end == max(model, default=-1) + 1
    assert bool(ranges) == bool(model)


@given(OPERATIONS)
def test_is_always_normal(operations: list[tuple[str, int, int]]) -> None:
    bounds = [bound for pair in both(operations)[0] for bound in pair]
    assert all(low < high for low, high in pairwise(bounds))


@given(OPERATIONS, POINT, POINT)
def test_answers_about_a_window(operations: list[tuple[str, int, int]], first: int, second: int) -> None:
    ranges, model = both(operations)
    start, end = min(first, second), max(first, second)
    window = set(range(start, end))
    assert points(ranges.within(start, end)) == model & window
    assert points(ranges.gaps(start, end)) == window - model
    assert ranges.covers(start, end) == (window <= model)


@given(OPERATIONS, OPERATIONS)
def test_combines(left: list[tuple[str, int, int]], right: list[tuple[str, int, int]]) -> None:
    (one, model_one), (two, model_two) = both(left), both(right)
    assert points(one.minus(two)) == model_one - model_two
    assert one.common(two) == RangeSet((p, p + 1) for p in model_one & model_two)
