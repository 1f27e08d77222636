"""What a policy keeps, with restic's meaning."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objfs.errors import UsageError
from objfs.model import NS, Snapshot, SnapshotFlag
from objfs.volume.retention import ALL, HELD, Policy, Span, judge, parse_span

START = datetime(2024, 2, 29, 12, tzinfo=UTC)


def taken(*hours: float, flags: int = 0) -> list[Snapshot]:
    """One each so many hours after the start, in that order."""
    return [
        Snapshot(b"s%d" % number, number, int((START.timestamp() + hour * 3600) * NS), flags=flags)
        for number, hour in enumerate(hours, 1)
    ]


def kept(snapshots: list[Snapshot], policy: Policy) -> list[int]:
    """The numbers of those that stay, oldest first."""
    return sorted(one.generation for one, reasons in judge(snapshots, policy, UTC) if reasons)


def test_the_last_ones() -> None:
    assert kept(taken(0, 1, 2, 3), Policy(last=2)) == [3, 4]
    assert kept(taken(0, 1), Policy(last=5)) == [1, 2]
    assert kept(taken(0, 1), Policy()) == []
    assert kept([], Policy(last=1)) == []


def test_the_newest_of_each_hour_that_has_one() -> None:
    """Hours without a snapshot do not count."""
    assert kept(taken(0.1, 0.2, 0.9, 7.1, 7.2), Policy(hourly=1)) == [5]
    assert kept(taken(-1, 0.1, 0.2, 0.9, 7.1, 7.2), Policy(hourly=2)) == [4, 6]


def test_days_weeks_months_and_years() -> None:
    daily = taken(*(24 * day for day in range(800)))
    assert kept(daily, Policy(daily=3)) == [798, 799, 800]
    weekly = kept(daily, Policy(weekly=3))
    assert [(START + timedelta(days=number - 1)).isoweekday() for number in weekly[:2]] == [7, 7]
    assert weekly[2] == 800
    monthly = kept(daily, Policy(monthly=3))
    assert [(START + timedelta(days=number - 1)).strftime("%m-%d") for number in monthly] == [
        "03-31",
        "04-30",
        "05-08",
    ]
    assert [(START + timedelta(days=number - 1)).year for number in kept(daily, Policy(yearly=2))] == [
        2025,
        2026,
    ]


def test_counts_that_are_left_keep_the_oldest() -> None:
    """So that history is as long as it can be while it is shorter than the policy."""
    assert kept(taken(0.1, 0.2, 0.3), Policy(daily=7)) == [1, 3]
    assert kept(taken(0.1, 0.2, 0.3), Policy(daily=1)) == [3]


def test_without_end() -> None:
    assert kept(taken(0, 0.1, 24, 48), Policy(daily=ALL)) == [1, 2, 3, 4]
    assert kept(taken(-24, 0, 0.1, 24, 48), Policy(daily=ALL)) == [1, 3, 4, 5]


def test_within_a_span_before_the_newest() -> None:
    assert kept(taken(0, 24, 48, 49), Policy(within=Span(days=1))) == [3, 4]
    assert kept(taken(0, 24, 48, 49), Policy(within=Span(years=9000))) == [1, 2, 3, 4]


def test_what_is_held_stays_and_counts() -> None:
    held = taken(0, flags=SnapshotFlag.HELD)
    others = [one._replace(generation=one.generation + 1) for one in taken(1, 2)]
    verdicts = judge([*held, *others], Policy(last=1), UTC)
    assert [(one.generation, reasons) for one, reasons in verdicts] == [(3, ("last",)), (2, ()), (1, (HELD,))]
    assert kept(taken(0, 1, flags=SnapshotFlag.HELD), Policy(last=1)) == [1, 2]


def test_days_are_those_of_a_place() -> None:
    evening = taken(0, 8, 13)  # 12:00, 20:00 and 01:00 of the next day in UTC
    assert [bool(reasons) for _, reasons in judge(evening, Policy(daily=1), UTC)] == [True, False, False]
    east = timezone(timedelta(hours=8))
    days = [one for one, reasons in judge(evening, Policy(daily=2), east) if reasons]
    assert [one.generation for one in days] == [3, 1]


@pytest.mark.parametrize(
    ("text", "span"),
    [("1y5m7d3h", Span(1, 5, 7, 3)), ("2d", Span(days=2)), ("12h", Span(hours=12)), ("0d", Span())],
)
def test_spans_are_read(text: str, span: Span) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "1", "d", "3h2d", "-1d", "1.5h", "1w"])
def test_other_texts_are_no_spans(text: str) -> None:
    with pytest.raises(UsageError, match="span"):
        parse_span(text)


def test_a_month_before_the_31st_ends_with_its_month() -> None:
    assert Span(months=1).before(datetime(2024, 3, 31, tzinfo=UTC)) == datetime(2024, 2, 29, tzinfo=UTC)
    assert Span(years=1).before(datetime(2024, 2, 29, tzinfo=UTC)) == datetime(2023, 2, 28, tzinfo=UTC)


COUNT = st.integers(ALL, 4)
POLICIES = st.builds(
    Policy, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, st.integers(0, 40).map(lambda days: Span(days=days))
)
HOURS = st.lists(st.floats(0, 20_000, width=32), max_size=40).map(sorted)


@given(HOURS, POLICIES)
def test_the_newest_stays_whenever_anything_is_to_be_kept(hours: list[float], policy: Policy) -> None:
    snapshots = taken(*hours)
    if snapshots:
        assert (snapshots[-1].generation in kept(snapshots, policy)) == (not policy.empty)


@given(HOURS, POLICIES)
def test_what_was_kept_is_kept_again(hours: list[float], policy: Policy) -> None:
    snapshots = taken(*hours)
    once = kept(snapshots, policy)
    assert kept([one for one in snapshots if one.generation in once], policy) == once


@given(HOURS, POLICIES, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]))
def test_each_rule_keeps_no_more_than_its_count(hours: list[float], policy: Policy, rule: str) -> None:
    count = getattr(policy, rule)
    by_rule = [one for one, reasons in judge(taken(*hours), policy, UTC) if rule in reasons]
    assert count == ALL or len(by_rule) <= count


@given(HOURS, POLICIES, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly"]))
def test_keeping_more_drops_nothing_but_the_oldest(hours: list[float], policy: Policy, rule: str) -> None:
    """A rule with counts left has kept the oldest; with a snapshot of its own for that count it may not."""
    count = getattr(policy, rule)
    more = Policy(**{name: getattr(policy, name) for name in policy.__slots__} | {rule: count + 1})
    snapshots = taken(*hours)
    if count != ALL:
        assert set(kept(snapshots, policy)) <= set(kept(snapshots, more))
