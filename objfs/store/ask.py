"""One shard, one ranged request, one verdict.

Owns how a bucket's answer is judged: sound, damaged, unavailable or not worth waiting for.
Promises never to raise for what a bucket does, and to tell the boards of health and pace of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import trio

from objfs.backends.base import Bucket
from objfs.codec import BLOCK, ByteRange, KeyRing, Layout, block_range
from objfs.errors import BucketError, NoSuchObject, RangeError, TimedOut
from objfs.model import Segment, Slot
from objfs.store.blocks import Blocks, blocks_of, nothing, verify
from objfs.store.counters import Counters
from objfs.store.health import HealthBoard
from objfs.store.layout import shard_name
from objfs.store.pace import PaceBoard
from objfs.store.places import Places
from objfs.store.workers import Workers


@dataclass(frozen=True, slots=True)
class AskSettings:
    """A shard is waited for ``patience_s``, and the time that all bytes asked of its bucket take at
    ``slowest_bytes_per_s``; then other shards are asked instead.

    All bytes, also those asked for later, as requests queue and share the line: a busy bucket is
    not a silent one, and asking others for the same bytes would make a busy line worse.
    """

    patience_s: float = 5.0
    slowest_bytes_per_s: float = 128 * 1024

    def patience(self, nbytes: int) -> float:
        """Seconds for one request while so many bytes are under way."""
        return self.patience_s + self.transfer(nbytes)

    def transfer(self, nbytes: int) -> float:
        """Seconds that so many bytes may take."""
        return nbytes / self.slowest_bytes_per_s


@dataclass(frozen=True, slots=True)
class Answer:
    """What asking for blocks of one shard brought.

    ``cause`` says why some are bad, ``level`` how loudly to log that; ``again`` is set where asking once
    more may help: the bucket was not waited for, or failed, or the bytes may have been spoilt on their way.
    """

    blocks: Blocks
    cause: str = ""
    level: int = logging.DEBUG
    again: bool = False
    damaged: bool = False
    """The bucket answered, with something else than what was put there."""
    absent: bool = False
    """The bucket answered that it has no such object."""


@dataclass(frozen=True, slots=True)
class Question:
    """Blocks [first, last) of one shard.  ``insist``: whatever its health, however long it takes."""

    segment: Segment
    layout: Layout
    shard: int
    first: int
    last: int
    insist: bool = False

    @property
    def slot(self) -> Slot:
        return self.segment.placement[self.shard]

    @property
    def object_name(self) -> str:
        return shard_name(self.segment.uuid, self.shard)

    @property
    def span(self) -> ByteRange:
        return block_range(self.layout, self.shard, self.first * BLOCK, self.last * BLOCK)


class Asker:
    """Asks buckets for blocks."""

    def __init__(
        self,
        places: Places,
        health: HealthBoard,
        counters: Counters,
        workers: Workers,
        settings: AskSettings,
        pace: PaceBoard,
    ) -> None:
        self._places = places
        self._health = health
        self._pace = pace
        self._counters = counters
        self._workers = workers
        self._settings = settings
        self._waiting: dict[Slot, dict[trio.CancelScope, int]] = {}

    async def ask(self, ring: KeyRing, question: Question) -> Answer:
        """At most one GET; none where the answer is known."""
        ask = question
        if not blocks_of(ask.layout, ask.shard, ask.first, ask.last):
            return Answer(nothing(ask.layout, ask.shard, ask.first, ask.last))
        bucket = self._places.bucket(ask.slot)
        if bucket is None:
            return failed(ask, "this machine has no URL for the bucket: see objfs attach --add")
        if ask.shard in ask.segment.missing and not (ask.insist and not ask.segment.nowhere):
            # Who names the segment may be older than its repair: the bucket is asked where nothing else is
            # left.
            return failed(ask, "never placed", again=not ask.segment.nowhere)
        if not ask.insist and not self._health.admit(ask.slot):
            return failed(ask, "bucket is down", again=True)
        return await self._get(ring, ask, bucket)

    async def _get(self, ring: KeyRing, ask: Question, bucket: Bucket) -> Answer:
        """Turns each way to fail into an answer."""
        try:
            data = await self._request(ask, bucket)
        except (NoSuchObject, RangeError) as error:
            self._counters.add(damaged=1)
            absent = isinstance(error, NoSuchObject)
            return replace(self._note(ask, error), damaged=True, absent=absent)
        except BucketError as error:
            self._counters.add(unavailable=1)
            if isinstance(error, TimedOut):
                self._pace.lost(ask.slot)
            return replace(self._note(ask, error), again=True)
        self._health.succeeded(ask.slot)
        blocks = await self._workers.read(len(data), self._verifying(ring, ask, data))
        if not blocks.bad:
            return Answer(blocks)
        self._counters.add(damaged=1)
        short = len(data) < ask.span.end - ask.span.start
        cause = "cut short" if short else "tags do not match"
        return Answer(blocks, cause, logging.WARNING, again=True, damaged=True)

    async def _request(self, ask: Question, bucket: Bucket) -> bytes:
        start, end, _ = ask.span
        began, waiting = trio.current_time(), self._waiting.setdefault(ask.slot, {})
        self._counters.add(gets=1)
        with self._patience(ask, end - start, waiting) as scope:
            waiting[scope] = end - start
            try:
                data = await bucket.get(ask.object_name, start, end)
            except trio.Cancelled:
                if not scope.cancel_called:
                    self._pace.unwanted(ask.slot, end - start, trio.current_time() - began)
                raise
            finally:
                del waiting[scope]
            self._pace.got(ask.slot, end - start, trio.current_time() - began)
            self._counters.add(bytes_read=len(data))
            return data
        self._counters.add(slow=1)
        raise _Impatient(f"no answer within {trio.current_time() - began:.1f} s")

    def _patience(
        self, ask: Question, nbytes: int, waiting: Mapping[trio.CancelScope, int]
    ) -> trio.CancelScope:
        """Ends when patience with the bucket runs out; grants those who wait already more of it."""
        for other in waiting:
            other.deadline += self._settings.transfer(nbytes)
        if ask.insist:
            return trio.CancelScope()
        return trio.move_on_after(self._settings.patience(nbytes + sum(waiting.values())))

    def _note(self, ask: Question, error: BucketError) -> Answer:
        self._health.failed(ask.slot, error)
        return failed(ask, _describe(error), logging.WARNING)

    @staticmethod
    def _verifying(ring: KeyRing, ask: Question, data: bytes) -> Callable[[], Blocks]:
        key = ring.get(ask.segment.key_id)
        return partial(verify, key, ask.layout, ask.shard, ask.first, ask.last, data)


class _Impatient(TimedOut):
    """We gave up, not the bucket."""


def _describe(error: BucketError) -> str:
    return str(error) if isinstance(error, _Impatient) else f"{type(error).__name__}: {error}"


def failed(ask: Question, cause: str, level: int = logging.DEBUG, *, again: bool = False) -> Answer:
    """Nothing was had, for this cause."""
    return Answer(nothing(ask.layout, ask.shard, ask.first, ask.last), cause, level, again)
