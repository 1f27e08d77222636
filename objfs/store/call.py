"""The questions of one call for blocks, and what may be spent on asking more than that.

Owns who is asked what, which answers are there, under way or late, so that no shard is asked twice for the
same; and the budget of requests that only make a read quicker.  Does not ask.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from objfs.codec import BLOCK
from objfs.store.ask import Answer, Question
from objfs.store.blocks import blocks_of

BUDGET_MOST = 32.0
"""Requests that a quiet time may save up for a bad one."""


@dataclass(slots=True, eq=False)
class Try:
    """One question; ``late`` where it took longer than it mostly does."""

    ask: Question
    answer: Answer | None = None
    late: bool = False


class Call:
    """All tries of one call, by segment and shard."""

    def __init__(self) -> None:
        self._tries: dict[tuple[bytes, int], list[Try]] = {}
        self._news = trio.Event()

    def begin(self, ask: Question) -> Try:
        one = Try(ask)
        self._tries.setdefault((ask.segment.uuid, ask.shard), []).append(one)
        return one

    def settle(self, one: Try, answer: Answer) -> None:
        """What it brought, be it good or bad."""
        one.answer = answer
        self._tell()

    def mark_late(self, one: Try) -> None:
        """Others are not to wait for it alone."""
        one.late = True
        self._tell()

    def drop(self, one: Try) -> None:
        """It was cancelled: nothing comes of it."""
        self._tries[one.ask.segment.uuid, one.ask.shard].remove(one)
        self._tell()

    async def news(self) -> None:
        """Until any try is settled, late or dropped."""
        await self._news.wait()

    def answered(self, ask: Question) -> Answer | None:
        """What was answered already to a question like this one."""
        return next((one.answer for one in self._of(ask) if one.answer is not None), None)

    def last(self, ask: Question) -> Answer:
        """The answer to a question that has one."""
        answer = self.answered(ask)
        assert answer is not None, "a question ended without an answer"
        return answer

    def under_way(self, ask: Question) -> Try | None:
        """A try without answer that will answer this question."""
        return next((one for one in self._of(ask) if one.answer is None), None)

    def _of(self, ask: Question) -> list[Try]:
        """The tries that ask for all of it, whatever else."""
        tries = self._tries.get((ask.segment.uuid, ask.shard), ())
        return [one for one in tries if _includes(one.ask, ask)]

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


class Budget:
    """So many requests for each that a read needs anyway, as a share; saved up to a few."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._left = 0.0

    def earn(self) -> None:
        """A read asks a bucket."""
        self._left = min(self._left + self.share, BUDGET_MOST)

    def has(self, requests: int) -> bool:
        """Whether so many more could be made."""
        return requests <= self._left

    def take(self, requests: int) -> bool:
        """Whether that many more may be made; all or none."""
        if not self.has(requests):
            return False
        self._left -= requests
        return True


def nbytes(ask: Question) -> int:
    """About how many bytes a question asks for."""
    return (ask.last - ask.first) * BLOCK


def _includes(wide: Question, narrow: Question) -> bool:
    if wide is narrow:
        return True
    held, needed = (blocks_of(ask.layout, ask.shard, ask.first, ask.last) for ask in (wide, narrow))
    return held.start <= needed.start and needed.stop <= held.stop
