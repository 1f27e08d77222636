"""A history as it was lived: marks in the journal of when each operation began and ended, and what was
promised.

Owns the marks and how a witness is made of those before a death.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import trio

from tests.doubles.journal import Journal, Marked, Record
from tests.system.history import History
from tests.system.oracle import Verdict, Witness

TICK_S = 0.02
LONGEST_TICK_S = 0.05
LOCAL_AGE_S = 5.0
"""What I1 says of data that nobody fsynced."""

Promise: TypeAlias = Literal["file", "rows", "everything", "buckets"]
"""``rows``: names, attributes, snapshots, and which bytes a file shows, but not the bytes."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Operation ``number``, counted from 1, is under way."""

    number: int
    verb: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """Operation ``number`` has returned; ``durable`` is the file that it promises, all of it until now."""

    number: int
    durable: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """For a promise about a file, all rows, everything on this machine, or the buckets; ``ended`` operations
    had."""

    question: int
    promise: Promise
    ended: int
    file: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """The promise is given."""

    question: int


@dataclass(slots=True)
class Uptime:
    """Seconds in which the machine was awake: a loop that got no processor has broken no promise."""

    now: float = 0.0

    async def run(self) -> None:
        last = time.monotonic()
        while True:
            await trio.sleep(TICK_S)
            self.now += min(time.monotonic() - last, LONGEST_TICK_S)
            last = time.monotonic()


@dataclass(slots=True)
class Story:
    """The history of one volume, over the lives of several machines."""

    history: History
    uptime: Uptime = field(default_factory=Uptime)
    questions: int = 0

    @property
    def length(self) -> int:
        return len(self.history.operations)

    def mark(self, journal: Journal, what: object) -> None:
        journal.mark(what, self.uptime.now)

    def ask(self, journal: Journal, promise: Promise, ended: int, file: int = 0) -> int:
        """The question, whose answer is to be marked."""
        self.questions += 1
        self.mark(journal, Asked(self.questions, promise, ended, file))
        return self.questions

    def answer(self, journal: Journal, question: int) -> None:
        self.mark(journal, Answered(question))


def witness(records: Iterable[Record], died: float) -> Witness:
    """What had been acknowledged by records; ``died`` is the uptime at the death.

    A restore brings back bytes that may be on no disk yet: what was vouched for of one file before it says
    nothing of it any more.
    """
    found = Witness()
    asked: dict[int, Asked] = {}
    restored = 0
    for record in records:
        if not isinstance(record, Marked):
            continue
        match record.what:
            case Begun(number, verb):
                found.begun = number
                if verb == "restore":
                    found.durable.clear()
                    restored = number
            case Ended(number, durable):
                found.ended = number
                found.old = number if record.at <= died - LOCAL_AGE_S else found.old
                if durable is not None:
                    found.durable[durable] = found.local = number
            case Asked(question):
                asked[question] = record.what
            case Answered(question):
                _promised(found, asked[question], restored)
    found.begun = max(found.begun, found.ended)
    return found


def _promised(found: Witness, asked: Asked, restored: int) -> None:
    """What is in the buckets is on this machine, too: it never falls behind them."""
    found.local = max(found.local, asked.ended)
    if asked.promise == "file" and asked.ended >= restored:
        found.durable[asked.file] = max(found.durable.get(asked.file, 0), asked.ended)
    if asked.promise in ("everything", "buckets"):
        found.old = max(found.old, asked.ended)
    if asked.promise == "buckets":
        found.flushed = max(found.flushed, asked.ended)


def uptime_at(records: Iterable[Record]) -> float:
    """Of the last mark."""
    return max((record.at for record in records if isinstance(record, Marked)), default=0.0)


def age_of_loss(records: Sequence[Record], verdict: Verdict) -> float:
    """By how many seconds the moment that was recovered is behind the death: since the first operation that
    is missing had returned."""
    assert verdict.prefix is not None
    for record in records:
        if (
            isinstance(record, Marked)
            and isinstance(record.what, Ended)
            and record.what.number > verdict.prefix
        ):
            return uptime_at(records) - record.at
    return 0.0
