"""How quick each bucket is, and which one is too slow to wait for.

Owns the latencies of gets and puts by slot, bounded, and the verdict that a bucket is slow beside the
others.  Promises that at most ``threshold`` slow answers in a row, or one answer that never came, make a
bucket slow; that a slow one is tried again now and then by one read; and that quick answers to such trials
take it back.  Makes no request and knows no bucket, only slots.

    quick --slow answers, or one lost--> slow --cool-down--> one trial
      ^                                   ^                   |    |
      |                                   +------slow---------+    |
      +------------------quick, several in a row-------------------+

What is slow is told by the other buckets, not by a figure: the limit is a multiple of the 95th percentile of
the middle one among them.  Where all are slow, none is.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass, replace

from objfs.model import Slot
from objfs.ports import Clock

log = logging.getLogger(__name__)

RING = 128
"""Answers of a kind that are remembered of a bucket."""

REFRESH = 8
"""Answers after which the order of the remembered ones is made anew."""

SMALL = 256 * 1024
"""Bytes of a read whose time is the request's, not the line's: one frame with its blocks, or a few."""


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """When a bucket counts as slow, and when another is asked beside it.

    An answer is slow that takes longer than ``factor`` times what the others need, and ``floor_s`` at least.
    ``threshold`` slow answers more than quick ones (of which two weigh as much as one) make the bucket slow,
    ``quick_trials`` quick ones in a row take it back; cool-downs double from first to last.  Others are
    asked besides at ``margin`` times the 95th percentile (where answers hardly vary, half of them would be
    late else), not before ``least_s``, and not while fewer than ``samples`` answers of a bucket are known.
    A bucket whose 95th percentile is under ``instant_s`` mostly answers at once, and is given ``floor_s``:
    in less than that it is this machine that is late.
    """

    factor: float = 4.0
    floor_s: float = 0.05
    threshold: int = 8
    quick_trials: int = 3
    first_cooldown_s: float = 5.0
    last_cooldown_s: float = 120.0
    margin: float = 1.1
    least_s: float = 0.01
    instant_s: float = 0.002
    samples: int = 20


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Seconds within which half, 95 and 99 of 100 answers came; ``count`` answers are known."""

    count: int = 0
    p50_s: float = 0.0
    p95_s: float = 0.0
    p99_s: float = 0.0


class Ring:
    """The last answers' seconds."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RING)
        self._ordered: list[float] = []
        self._behind = 0

    def __len__(self) -> int:
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self._behind += 1

    def quantile(self, share: float) -> float:
        """The least time within which that share of the answers came; up to REFRESH answers old."""
        if self._behind >= min(REFRESH, len(self._seconds)):
            self._ordered, self._behind = sorted(self._seconds), 0
        return _rank(self._ordered, share) if self._ordered else 0.0

    def seconds(self) -> list[float]:
        """All of them, oldest first."""
        return list(self._seconds)


@dataclass(frozen=True, slots=True)
class Pace:
    """One bucket's pace.  ``score`` counts slow answers twice and takes off quick ones; of a slow bucket
    ``quick`` counts trials answered quickly in a row, and ``retry_at`` is when it is next tried."""

    slow: bool = False
    score: int = 0
    quick: int = 0
    cooldown_s: float = 0.0
    retry_at: float = 0.0
    trying: bool = False

    def in_time(self, now: float, settings: PaceSettings) -> Pace:
        """It answered as quickly as others would."""
        if not self.slow:
            return replace(self, score=self.score - 1) if self.score else self
        if self.quick + 1 >= settings.quick_trials:
            return Pace()
        return replace(self, quick=self.quick + 1, retry_at=now, trying=False)

    def late(self, now: float, settings: PaceSettings) -> Pace:
        """It did not.  Of a slow bucket only trials count, not what was under way already."""
        if self.slow:
            return self._doubt(now, settings) if self.trying else self
        noted = replace(self, score=self.score + 2)
        return noted._doubt(now, settings) if noted.score >= 2 * settings.threshold else noted

    def lost(self, now: float, settings: PaceSettings) -> Pace:
        """It did not answer at all while anybody waited: no reason to wait for it twice."""
        return self._doubt(now, settings) if self.trying or not self.slow else self

    def trial(self, now: float) -> Pace:
        """One read goes there; where its outcome is never told another may follow in time."""
        return replace(self, trying=True, retry_at=now + self.cooldown_s)

    def _doubt(self, now: float, settings: PaceSettings) -> Pace:
        longer = self.cooldown_s * 2 if self.slow else 0.0
        cooldown = min(max(longer, settings.first_cooldown_s), settings.last_cooldown_s)
        return Pace(slow=True, cooldown_s=cooldown, retry_at=now + cooldown)


_QUICK = Pace()


class PaceBoard:
    """The pace of all buckets of a volume; used on the event loop's thread only."""

    def __init__(self, clock: Clock, settings: PaceSettings | None = None) -> None:
        self._clock = clock
        self._settings = settings or PaceSettings()
        self._paces: dict[Slot, Pace] = {}
        self._small: dict[Slot, Ring] = {}
        self._large: dict[Slot, Ring] = {}
        self._puts: dict[Slot, Ring] = {}
        self._limits: dict[tuple[Slot, bool], tuple[int, float]] = {}
        self._answers = 0

    # --- what happens ----------------------------------------------------------------------

    def got(self, slot: Slot, nbytes: int, seconds: float) -> None:
        """A get of so many bytes was answered."""
        self._answers += 1
        self._gets(nbytes).setdefault(slot, Ring()).add(seconds)
        pace, now = self.of(slot), self._clock.monotonic()
        if seconds > self._settings.floor_s and seconds > self._limit(slot, nbytes):
            self._set(slot, pace.late(now, self._settings))
        elif pace.slow or pace.score:
            self._set(slot, pace.in_time(now, self._settings))

    def unwanted(self, slot: Slot, nbytes: int, seconds: float) -> None:
        """Nobody waits for an answer any more; says something where it is late already."""
        if seconds > self._limit(slot, nbytes):
            self._gets(nbytes).setdefault(slot, Ring()).add(seconds)
            self._set(slot, self.of(slot).late(self._clock.monotonic(), self._settings))

    def lost(self, slot: Slot) -> None:
        """A get was waited for as long as anybody does."""
        self._set(slot, self.of(slot).lost(self._clock.monotonic(), self._settings))

    def put(self, slot: Slot, seconds: float) -> None:
        """A put took effect."""
        self._puts.setdefault(slot, Ring()).add(seconds)

    # --- what follows ----------------------------------------------------------------------

    def of(self, slot: Slot) -> Pace:
        """A bucket nobody has heard of is quick."""
        return self._paces.get(slot, _QUICK)

    def slow(self, slot: Slot) -> bool:
        return self.of(slot).slow

    def due(self, slot: Slot) -> bool:
        """Whether a read may go there: it is quick, or its cool-down is over."""
        pace = self.of(slot)
        return not pace.slow or self._clock.monotonic() >= pace.retry_at

    def admit(self, slot: Slot) -> bool:
        """The same; True for a slow bucket makes the caller's read its trial."""
        if not self.due(slot):
            return False
        pace = self.of(slot)
        if pace.slow:
            self._paces[slot] = pace.trial(self._clock.monotonic())
        return True

    def hedge_after_s(self, slot: Slot, nbytes: int) -> float | None:
        """How long a get of so many bytes is waited for before others are asked besides: the bucket's own
        95th percentile and a little, or less where others are much quicker; None while little is known."""
        ring = self._gets(nbytes).get(slot)
        known = ring is not None and len(ring) >= self._settings.samples
        own = ring.quantile(0.95) * self._settings.margin if known and ring is not None else math.inf
        delay = min(own, self._limit(slot, nbytes))
        least = self._settings.floor_s if self.instant(slot, nbytes) else self._settings.least_s
        return max(delay, least) if delay < math.inf else None

    def instant(self, slot: Slot, nbytes: int) -> bool:
        """Whether the bucket mostly answers at once, as a local disk does."""
        ring = self._gets(nbytes).get(slot)
        return ring is not None and ring.quantile(0.95) < self._settings.instant_s

    def trial_s(self, slot: Slot, nbytes: int) -> float:
        """The same for a bucket in doubt."""
        limit = self._limit(slot, nbytes)
        return limit if limit < math.inf else self._settings.floor_s

    def gets(self, slot: Slot) -> Quantiles:
        """Of gets of all sizes."""
        return _quantiles([ring for table in (self._small, self._large) if (ring := table.get(slot))])

    def puts(self, slot: Slot) -> Quantiles:
        return _quantiles([ring for ring in (self._puts.get(slot),) if ring])

    # --- inside ----------------------------------------------------------------------------

    def _gets(self, nbytes: int) -> dict[Slot, Ring]:
        return self._small if nbytes <= SMALL else self._large

    def _limit(self, slot: Slot, nbytes: int) -> float:
        """Seconds from which on an answer is slow; endless while nothing is known of the others.  Up to
        REFRESH answers old, as each read asks."""
        key, now = (slot, nbytes <= SMALL), self._answers // REFRESH
        known = self._limits.get(key)
        if known is None or known[0] != now:
            known = self._limits[key] = now, self._new_limit(slot, nbytes)
        return known[1]

    def _new_limit(self, slot: Slot, nbytes: int) -> float:
        others = sorted(
            ring.quantile(0.95)
            for other, ring in self._gets(nbytes).items()
            if other != slot and 2 * len(ring) >= self._settings.samples
        )
        if not others:
            return math.inf
        return max(self._settings.floor_s, self._settings.factor * others[len(others) // 2])

    def _set(self, slot: Slot, pace: Pace) -> None:
        before = self.slow(slot)
        self._paces[slot] = pace
        if pace.slow and not before:
            log.warning(
                "bucket slow: read around it slot=%d p50_s=%.3f p95_s=%.3f cooldown_s=%.0f",
                *(slot, self.gets(slot).p50_s, self.gets(slot).p95_s, pace.cooldown_s),
            )
        elif before and not pace.slow:
            log.warning("bucket quick again slot=%d", slot)


def _quantiles(rings: list[Ring]) -> Quantiles:
    ordered = sorted(seconds for ring in rings for seconds in ring.seconds())
    if not ordered:
        return Quantiles()
    return Quantiles(len(ordered), *(_rank(ordered, share) for share in (0.5, 0.95, 0.99)))


def _rank(ordered: list[float], share: float) -> float:
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
