"""Whether a bucket is worth asking.

Owns the state machine of a bucket and the board that holds one per slot.  Promises that a bucket known
to be down is asked again by one request per cool-down, not by all of them (a circuit breaker: that one
request is its half-open state), that one known to take nothing is read from as ever, and that a lost
trial keeps neither closed.  Makes no request and knows no bucket, only slots.

    state       | becomes      | when
    healthy     | suspect      | no answer, or an answer that is not what was asked for
    suspect     | healthy      | an answer
    any         | down         | ``threshold`` silences in a row
    any         | read-only    | ``threshold`` refusals in a row to store
    any         | full         | one answer that there is no room
    down        | healthy      | an answer to a trial
    read-only   | healthy      | a trial that was stored
    full        | healthy      | a trial that was stored

Only silence makes a bucket down: no answer, no connection, no place.  A bucket that answers "refused"
costs a read no time, so it becomes suspect at most.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from objfs.errors import (
    BucketError,
    BucketFull,
    NoSuchBucket,
    NoSuchObject,
    ObjectExists,
    RangeError,
    Refused,
    Temporary,
)
from objfs.model import Slot
from objfs.ports import Clock

log = logging.getLogger(__name__)


class HealthState(IntEnum):
    """Ordered from best to worst for a reader, who does not mind what a bucket does not take."""

    HEALTHY = 0
    FULL = 1
    READ_ONLY = 2
    SUSPECT = 3
    DOWN = 4

    @property
    def word(self) -> str:
        """What people and ``status`` call it."""
        return self.name.lower().replace("_", "-")

    @property
    def reading(self) -> int:
        """How it ranks among those that could be read from: 0 is best."""
        return max(self - HealthState.READ_ONLY, 0)

    @property
    def takes_nothing(self) -> bool:
        """Answers, and stores nothing."""
        return self in (HealthState.FULL, HealthState.READ_ONLY)


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """``threshold`` failures in a row count; cool-downs double from first to last."""

    threshold: int = 3
    first_cooldown_s: float = 5.0
    last_cooldown_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Health:
    """One bucket's health; times are seconds of the monotonic clock.

    ``failures`` counts silences in a row, ``refusals`` refusals in a row to store, both up to the
    threshold; ``retry_at`` is when a bucket that is closed (down, read-only, full) is next tried,
    ``trying`` that it is being tried now.  ``last_error`` stays after a recovery, for people.
    """

    state: HealthState = HealthState.HEALTHY
    since: float = 0.0
    failures: int = 0
    refusals: int = 0
    cooldown_s: float = 0.0
    retry_at: float = 0.0
    trying: bool = False
    last_error: str = ""
    last_error_at: float = 0.0

    def answered(self, now: float) -> Health:
        """It answered as asked, which says nothing about what it stores."""
        if self.state.takes_nothing:
            return replace(self, failures=0)
        return replace(self, failures=0)._open(HealthState.HEALTHY, now)

    def stored(self, now: float) -> Health:
        """It took an object."""
        return replace(self, failures=0, refusals=0)._open(HealthState.HEALTHY, now)

    def refused(self, now: float, error: str) -> Health:
        """It answered a read, but not as asked."""
        noted = replace(self._noted(now, error), failures=0)
        return noted if self.state.takes_nothing else noted._open(HealthState.SUSPECT, now)

    def refused_to_store(self, now: float, error: str, settings: HealthSettings) -> Health:
        """It answers, and takes no object: it may be read-only."""
        refusals = min(self.refusals + 1, settings.threshold)
        noted = replace(self._noted(now, error), failures=0, refusals=refusals)
        if noted.refusals >= settings.threshold:
            return noted._close(HealthState.READ_ONLY, now, settings)
        return noted if self.state.takes_nothing else noted._open(HealthState.SUSPECT, now)

    def full(self, now: float, error: str, settings: HealthSettings) -> Health:
        """It says that it has no room: no reason to ask twice."""
        return replace(self._noted(now, error), failures=0)._close(HealthState.FULL, now, settings)

    def silent(self, now: float, error: str, settings: HealthSettings) -> Health:
        """It did not answer."""
        failures = min(self.failures + 1, settings.threshold)
        noted = replace(self._noted(now, error), failures=failures)
        if self.state is HealthState.DOWN or noted.failures >= settings.threshold:
            return noted._close(HealthState.DOWN, now, settings)
        return noted if self.state.takes_nothing else noted._open(HealthState.SUSPECT, now)

    def trial(self, now: float) -> Health:
        """The cool-down is over and one request goes out.  So that one whose outcome is never told does not
        keep the bucket closed, another may follow in time."""
        return replace(self, trying=True, retry_at=now + self.cooldown_s)

    def _noted(self, now: float, error: str) -> Health:
        return replace(self, last_error=error, last_error_at=now)

    def _open(self, state: HealthState, now: float) -> Health:
        """Asked like any other."""
        return replace(self, cooldown_s=0.0, retry_at=0.0, trying=False)._become(state, now)

    def _close(self, state: HealthState, now: float, settings: HealthSettings) -> Health:
        """Not asked until a cool-down is over.  A failed trial doubles that; what was under way already
        when the bucket was closed changes nothing."""
        again = self.state is state
        if again and not self.trying:
            return self
        longer = self.cooldown_s * 2 if again else 0.0
        cooldown = min(max(longer, settings.first_cooldown_s), settings.last_cooldown_s)
        closed = replace(self, cooldown_s=cooldown, retry_at=now + cooldown, trying=False)
        return closed._become(state, now)

    def _become(self, state: HealthState, now: float) -> Health:
        return self if state is self.state else replace(self, state=state, since=now)


_HEALTHY = Health()


class HealthBoard:
    """The health of all buckets of a volume; used on the event loop's thread only."""

    def __init__(self, clock: Clock, settings: HealthSettings | None = None) -> None:
        self._clock = clock
        self._settings = settings or HealthSettings()
        self._slots: dict[Slot, Health] = {}

    def admit(self, slot: Slot) -> bool:
        """Whether to ask this bucket now; True for a down one makes the caller's request its trial."""
        return self.of(slot).state is not HealthState.DOWN or self._try(slot)

    def admit_put(self, slot: Slot) -> bool:
        """Whether to put something there; what ``admit`` is for a bucket that is read-only or full too."""
        state = self.of(slot).state
        closed = state is HealthState.DOWN or state.takes_nothing
        return not closed or self._try(slot)

    def _try(self, slot: Slot) -> bool:
        health, now = self.of(slot), self._clock.monotonic()
        if now < health.retry_at:
            return False
        self._slots[slot] = health.trial(now)
        return True

    def of(self, slot: Slot) -> Health:
        """A bucket nobody has heard of is healthy."""
        return self._slots.get(slot, _HEALTHY)

    def down(self, slot: Slot) -> bool:
        """Whether the bucket is down; unlike ``admit`` this takes no trial."""
        return self.of(slot).state is HealthState.DOWN

    def order(self, slots: Iterable[Slot]) -> list[Slot]:
        """Best to read from first; equals stay in the order given."""
        return sorted(slots, key=lambda slot: self.of(slot).state.reading)

    def succeeded(self, slot: Slot) -> None:
        """A request was answered as asked, and stored nothing."""
        if slot in self._slots:
            self._set(slot, self._slots[slot].answered(self._clock.monotonic()))

    def stored(self, slot: Slot) -> None:
        """A put took effect."""
        if slot in self._slots:
            self._set(slot, self._slots[slot].stored(self._clock.monotonic()))

    def failed(self, slot: Slot, error: BucketError) -> None:
        """A request failed; the kind of error says what that means for the bucket."""
        if isinstance(error, NoSuchObject | RangeError | ObjectExists):
            self.succeeded(slot)
            return
        health, now, text = self.of(slot), self._clock.monotonic(), f"{type(error).__name__}: {error}"
        if isinstance(error, Temporary | NoSuchBucket):
            self._set(slot, health.silent(now, text, self._settings))
        elif isinstance(error, BucketFull):
            self._set(slot, health.full(now, text, self._settings))
        else:
            self._set(slot, health.refused(now, text))

    def not_stored(self, slot: Slot, error: BucketError) -> None:
        """A put failed: as ``failed``, but a refusal is one to store."""
        if not isinstance(error, Refused):
            self.failed(slot, error)
            return
        now, text = self._clock.monotonic(), f"{type(error).__name__}: {error}"
        self._set(slot, self.of(slot).refused_to_store(now, text, self._settings))

    def forget(self, slot: Slot) -> None:
        """The slot was removed from the volume."""
        self._slots.pop(slot, None)

    def statistics(self) -> dict[Slot, Health]:
        """The buckets that ever failed, as they stand."""
        return dict(self._slots)

    def _set(self, slot: Slot, health: Health) -> None:
        before = self.of(slot).state
        self._slots[slot] = health
        if before is not health.state:
            _tell(slot, before, health)


def _tell(slot: Slot, before: HealthState, health: Health) -> None:
    """One line for each turn; a bucket that was closed or opened again is for people to see."""
    state = health.state
    if state is HealthState.DOWN or state.takes_nothing:
        log.warning(
            "bucket %s slot=%d cooldown_s=%.0f cause=%r",
            *(state.word, slot, health.cooldown_s, health.last_error),
        )
    elif before is HealthState.DOWN:
        log.warning("bucket answers again slot=%d state=%s", slot, state.word)
    elif before.takes_nothing:
        log.warning("bucket takes objects again slot=%d state=%s", slot, state.word)
    else:
        cause = "" if state is HealthState.HEALTHY else f" cause={health.last_error!r}"
        log.info("bucket %s slot=%d%s", state.word, slot, cause)
