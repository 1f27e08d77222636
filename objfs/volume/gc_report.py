"""What a look for garbage found, and what was done about it: records and their JSON form.

Owns the shape of the report.  Sizes are bytes of objects in all buckets, where nothing else is said; ages and
times are seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import cast

from objfs.volume.fields import JSON

UNKNOWN_SHOWN = 1000
"""Segments that nothing names are listed one by one up to so many."""


@dataclass(slots=True)
class Pile:
    """Some segments, and what they take."""

    segments: int = 0
    nbytes: int = 0

    def add(self, nbytes: int) -> None:
        self.segments += 1
        self.nbytes += nbytes


@dataclass(frozen=True, slots=True)
class Unknown:
    """Objects of a segment that nothing names.  ``age_s`` is that of the youngest, by its bucket's clock;
    ``old``: nobody can be at work on it any more."""

    uuid: str
    objects: int
    nbytes: int
    age_s: float
    old: bool


@dataclass(slots=True)
class Done:
    """What was changed: segments condemned, emptied by compaction and written for it, checkpoints deleted,
    segments deleted, and objects deleted that nothing named."""

    condemned: int = 0
    emptied: int = 0
    written: int = 0
    unreadable: int = 0
    checkpoints: int = 0
    deleted: int = 0
    unknown_objects: int = 0


@dataclass(slots=True)
class GcReport:
    """One look.  ``alive_bytes`` and ``sparse_alive_bytes`` are payload that versions lie in.

    ``waiting`` has condemned segments by why they are still there: ``grace``, ``moments`` (a kept checkpoint
    may still need them), ``unpublished`` (no checkpoint says so yet), ``due``.
    """

    segments: Pile = field(default_factory=Pile)
    alive_bytes: int = 0
    empty: Pile = field(default_factory=Pile)
    waiting: dict[str, Pile] = field(default_factory=dict)
    grace_left_s: float = 0.0
    """Until the last of those that wait for the grace."""
    sparse: Pile = field(default_factory=Pile)
    sparse_alive_bytes: int = 0
    small: Pile = field(default_factory=Pile)
    old_keys: Pile = field(default_factory=Pile)
    units: int = 0
    """How many segments compaction would write."""
    reads: int = 0
    """About how many requests would read what is alive in the sparse ones."""
    checkpoints: int = 0
    owed: dict[str, int] = field(default_factory=dict)
    """Deletes that buckets have not taken yet: name of the bucket -> objects."""
    unknown: list[Unknown] = field(default_factory=list)
    unknown_pile: Pile = field(default_factory=Pile)
    unknown_old: Pile = field(default_factory=Pile)
    foreign: dict[str, int] = field(default_factory=dict)
    """Names below ``segment/`` that are not of objfs: bucket -> how many."""
    silent: dict[str, str] = field(default_factory=dict)
    """Buckets that could not be listed, and why."""
    unsure: str = ""
    """Why nothing unknown may be deleted; empty where it may."""
    unfit: str = ""
    """Why compaction does not run now."""
    doomed: dict[int, dict[int, int]] = field(default_factory=dict)
    """Slot -> age in days -> bytes of objects that are to go: what is deleted early costs in some places."""
    done: Done = field(default_factory=Done)

    def doom(self, slot: int, age_days: int, nbytes: int) -> None:
        ages = self.doomed.setdefault(slot, {})
        ages[age_days] = ages.get(age_days, 0) + nbytes

    def to_json(self) -> dict[str, JSON]:
        document = cast("dict[str, JSON]", asdict(self))
        document["unknown"] = cast("list[JSON]", [asdict(one) for one in self.unknown[:UNKNOWN_SHOWN]])
        document["doomed"] = {
            str(slot): {str(days): nbytes for days, nbytes in ages.items()}
            for slot, ages in self.doomed.items()
        }
        return document
