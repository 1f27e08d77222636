"""Which snapshots a policy keeps: pure, with the meaning that restic gave to the same words.

Of the newest first, ``last`` keeps so many; ``hourly`` the newest of each of the newest so many hours that
have one, and so do days, ISO weeks, months and years.  Where a rule has counts left, it keeps the oldest of
all, too.  ``within`` keeps what is younger than a span before the newest.  What is held is kept, and
counts like any other.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from objfs.errors import UsageError
from objfs.model import NS, Snapshot

ALL = -1
"""As a count: without end."""
HELD = "held"
_SPAN = re.compile(r"(?:(\d{1,4})y)?(?:(\d{1,5})m)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?")


class Span(NamedTuple):
    """A length of the calendar."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def before(self, moment: datetime) -> datetime:
        """A month back from the 31st is the last day of the month before.  Nothing is before the year 1."""
        months = moment.year * 12 + moment.month - 1 - self.years * 12 - self.months
        year, month = divmod(months, 12)
        if year < 1:
            return datetime.min.replace(tzinfo=moment.tzinfo)
        day = min(moment.day, monthrange(year, month + 1)[1])
        start = moment.replace(year=year, month=month + 1, day=day)
        try:
            return start - timedelta(days=self.days, hours=self.hours)
        except OverflowError:
            return datetime.min.replace(tzinfo=moment.tzinfo)


NO_SPAN = Span()


def parse_span(text: str) -> Span:
    """``1y5m7d3h``: years, months, days, hours.  Raises UsageError."""
    match = _SPAN.fullmatch(text)
    if match is None or not text:
        raise UsageError(f"{text!r} is no span of time: write it like 1y5m7d3h (years, months, days, hours)")
    return Span(*(int(number or 0) for number in match.groups()))


@dataclass(frozen=True, slots=True)
class Policy:
    """How many to keep by each rule; 0 is none, ``ALL`` is all."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span = NO_SPAN

    @property
    def empty(self) -> bool:
        """Whether it keeps nothing."""
        return self == Policy()


class Verdict(NamedTuple):
    """Why a snapshot is kept; without a reason it goes."""

    snapshot: Snapshot
    reasons: tuple[str, ...]


_Key = Callable[[datetime, int], object]
_RULES: tuple[tuple[str, _Key], ...] = (
    ("last", lambda _when, number: number),
    ("hourly", lambda when, _number: (when.year, when.month, when.day, when.hour)),
    ("daily", lambda when, _number: (when.year, when.month, when.day)),
    ("weekly", lambda when, _number: when.isocalendar()[:2]),
    ("monthly", lambda when, _number: (when.year, when.month)),
    ("yearly", lambda when, _number: when.year),
)


class _Rule:
    """One rule on its way from the newest to the oldest."""

    def __init__(self, name: str, key: _Key, left: int) -> None:
        self.name = name
        self._key = key
        self._left = left
        self._seen: object = None

    def keeps(self, when: datetime, number: int, *, oldest: bool) -> bool:
        if self._left == 0:
            return False
        key = self._key(when, number)
        if key == self._seen and not oldest:
            return False
        self._seen = key
        if self._left > 0:
            self._left -= 1
        return True


def judge(snapshots: Iterable[Snapshot], policy: Policy, zone: tzinfo | None = None) -> list[Verdict]:
    """What a policy decides on each, newest first.  Days and weeks are those of ``zone``, by default of this
    machine."""
    found = sorted(snapshots, key=lambda one: one.generation, reverse=True)
    rules = [_Rule(name, key, getattr(policy, name)) for name, key in _RULES]
    since = policy.within.before(_when(found[0], zone)) if found and policy.within != NO_SPAN else None
    verdicts = []
    for number, one in enumerate(found):
        when, oldest = _when(one, zone), number == len(found) - 1
        reasons = [HELD] if one.held else []
        if since is not None and when > since:
            reasons.append("within")
        reasons += [rule.name for rule in rules if rule.keeps(when, number, oldest=oldest)]
        verdicts.append(Verdict(one, tuple(reasons)))
    return verdicts


def _when(snapshot: Snapshot, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(snapshot.created_ns // NS, UTC).astimezone(zone)
