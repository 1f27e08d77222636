"""Whether a bucket is worth waiting for.

Owns the state machine healthy -> suspect -> down and the board that holds one per slot.  Promises
that a bucket known to be down is asked again by one request per cool-down, not by all of them,
and that a lost trial does not keep it down.  Makes no request and knows no bucket, only slots.

    healthy --failure--> suspect --failures in a row--> down --cool-down--> one trial
       ^                    |                             ^                   |   |
       +------success-------+                             +-----failure-------+   |
       +----------------------------------success---------------------------------+

Only silence counts as failure: no answer, no connection, no place.  A bucket that answers "no such
object", "refused" or "full" costs no time, so it becomes suspect at most.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from objfs.errors import BucketError, NoSuchBucket, NoSuchObject, ObjectExists, RangeError, Temporary
from objfs.model import Clock, Slot

log = logging.getLogger(__name__)


class HealthState(IntEnum):
    """Ordered from best to worst."""

    HEALTHY = 0
    SUSPECT = 1
    DOWN = 2


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """``threshold`` failures in a row make a bucket down; cool-downs double from first to last."""

    threshold: int = 3
    first_cooldown_s: float = 5.0
    last_cooldown_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Health:
    """One bucket's health; times are seconds of the monotonic clock.

    ``failures`` counts silences in a row, ``retry_at`` is when a down bucket is next tried,
    ``last_error`` stays after a recovery, for people.
    """

    state: HealthState = HealthState.HEALTHY
    since: float = 0.0
    failures: int = 0
    cooldown_s: float = 0.0
    retry_at: float = 0.0
    last_error: str = ""
    last_error_at: float = 0.0

    def succeeded(self, now: float) -> Health:
        """It answered as asked."""
        if self.state is HealthState.HEALTHY:
            return self
        return replace(
            self, state=HealthState.HEALTHY, since=now, failures=0, cooldown_s=0.0, retry_at=0.0
        )  # fmt: skip

    def refused(self, now: float, error: str) -> Health:
        """It answered, but not as asked."""
        noted = replace(self, failures=0, last_error=error, last_error_at=now)
        return replace(noted, cooldown_s=0.0)._become(HealthState.SUSPECT, now)

    def silent(self, now: float, error: str, settings: HealthSettings) -> Health:
        """It did not answer.  A failed trial doubles the cool-down; what was under way already
        when the bucket went down changes nothing."""
        noted = replace(self, failures=self.failures + 1, last_error=error, last_error_at=now)
        if self.state is HealthState.DOWN and self.failures >= settings.threshold:
            return noted
        if noted.failures < settings.threshold:
            return noted._become(HealthState.SUSPECT, now)
        doubled = max(self.cooldown_s * 2, settings.first_cooldown_s)
        cooldown = min(doubled, settings.last_cooldown_s)
        return replace(noted, cooldown_s=cooldown, retry_at=now + cooldown)._become(HealthState.DOWN, now)

    def trial(self, settings: HealthSettings, now: float) -> Health:
        """The cool-down is over and one request goes out: its failure counts, and so that a trial
        whose outcome is never told does not keep the bucket down, another may follow in time."""
        return replace(self, failures=settings.threshold - 1, retry_at=now + self.cooldown_s)

    def _become(self, state: HealthState, now: float) -> Health:
        return self if state is self.state else replace(self, state=state, since=now)


class HealthBoard:
    """The health of all buckets of a volume; used on the event loop's thread only."""

    def __init__(self, clock: Clock, settings: HealthSettings | None = None) -> None:
        self._clock = clock
        self._settings = settings or HealthSettings()
        self._slots: dict[Slot, Health] = {}

    def admit(self, slot: Slot) -> bool:
        """Whether to ask this bucket now; True for a down one makes the caller's request its trial."""
        health, now = self.of(slot), self._clock.monotonic()
        if health.state is not HealthState.DOWN:
            return True
        if now < health.retry_at:
            return False
        self._slots[slot] = health.trial(self._settings, now)
        return True

    def of(self, slot: Slot) -> Health:
        """A bucket nobody has heard of is healthy."""
        return self._slots.get(slot, Health())

    def down(self, slot: Slot) -> bool:
        """Whether the bucket is down; unlike ``admit`` this takes no trial."""
        return self.of(slot).state is HealthState.DOWN

    def order(self, slots: Iterable[Slot]) -> list[Slot]:
        """Best first; equals stay in the order given."""
        return sorted(slots, key=lambda slot: self.of(slot).state)

    def succeeded(self, slot: Slot) -> None:
        """A request was answered as asked."""
        if slot not in self._slots:
            return
        self._set(slot, self._slots[slot].succeeded(self._clock.monotonic()))

    def failed(self, slot: Slot, error: BucketError) -> None:
        """A request failed; the kind of error says what that means for the bucket."""
        if isinstance(error, NoSuchObject | RangeError | ObjectExists):
            self.succeeded(slot)
            return
        now, text = self._clock.monotonic(), f"{type(error).__name__}: {error}"
        if isinstance(error, Temporary | NoSuchBucket):
            self._set(slot, self.of(slot).silent(now, text, self._settings))
        else:
            self._set(slot, self.of(slot).refused(now, text))

    def forget(self, slot: Slot) -> None:
        """The slot was removed from the volume."""
        self._slots.pop(slot, None)

    def statistics(self) -> dict[Slot, Health]:
        """The buckets that ever failed, as they stand."""
        return dict(self._slots)

    def _set(self, slot: Slot, health: Health) -> None:
        before = self.of(slot).state
        self._slots[slot] = health
        if HealthState.DOWN not in (before, health.state) or before is health.state:
            return
        if health.state is HealthState.DOWN:
            log.warning(
                "bucket down slot=%d cooldown_s=%.0f cause=%r", slot, health.cooldown_s, health.last_error
            )
        else:
            log.warning("bucket answers again slot=%d state=%s", slot, health.state.name.lower())
