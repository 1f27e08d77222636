"""What a running mount says about itself: the records behind ``objfs status``.

Owns the shape of the status document.  Sizes are bytes, ages seconds.  Knows neither where the
figures come from nor how they are shown.
"""

from __future__ import annotations

import mmap
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from objfs.model import Code
from objfs.volume.fields import JSON


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """One bucket; ``health`` is healthy, suspect, down or absent (no URL on this machine)."""

    slot: int
    uuid: str
    url: str
    voter: bool
    health: str
    last_error: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    remarks: tuple[str, ...] = ()
    """Promises that it breaks, and what it does behind one's back."""

    @property
    def usable(self) -> bool:
        return self.health in ("healthy", "suspect")


@dataclass(frozen=True, slots=True)
class Redundancy:
    """The code, how many buckets may be lost in full health, and one honest sentence about now."""

    code: str
    tolerance: int
    missing: tuple[str, ...]
    sentence: str

    @property
    def degraded(self) -> bool:
        return bool(self.missing)


@dataclass(frozen=True, slots=True)
class Status:
    """The whole document."""

    volume: str
    uuid: str
    version: str
    state: str
    """starting, mounted, unmounted (and still draining), stopping."""
    directory: str
    pid: int
    read_only: bool
    """Writes are refused: it was mounted so, or writing was stopped."""
    reason: str
    """Why nothing can be written; empty where it can, and where only reading was asked for."""
    lease_lost: bool
    """Another machine took the volume over: what is dirty here never reaches the buckets."""
    epoch: int
    inodes: int
    content_bytes: int
    safe: bool
    """Everything acknowledged is recoverable from the buckets."""
    dirty_bytes: int
    dirty_chunks: int
    oldest_dirty_s: float
    uploading_bytes: int
    upload_error: str
    checkpoint: dict[str, JSON]
    follow: dict[str, JSON]
    """How a mount goes on to newer moments; empty where it does not."""
    redundancy: Redundancy
    buckets: tuple[BucketStatus, ...]
    cache: dict[str, JSON]
    store: dict[str, JSON]
    loop: dict[str, JSON]
    memory_bytes: int

    def to_json(self) -> dict[str, JSON]:
        return cast("dict[str, JSON]", asdict(self))


def judge(code: Code, tolerance: int, buckets: tuple[BucketStatus, ...]) -> Redundancy:
    """What may still be lost, in one sentence that promises nothing which is not so."""
    missing = tuple(f"slot {bucket.slot} ({bucket.url})" for bucket in buckets if not bucket.usable)
    if not missing:
        return Redundancy(str(code), tolerance, missing, _whole(tolerance, len(buckets)))
    names = _join(missing)
    verb = "is" if len(missing) == 1 else "are"
    left = tolerance - len(missing)
    if left > 0:
        tail = f"{_number(left)} more may be lost"
    elif left == 0:
        tail = "no further loss is covered"
    else:
        tail = "parts of the volume cannot be read until it is back"
        if len(missing) > 1:
            tail = "parts of the volume cannot be read until one is back"
    return Redundancy(str(code), tolerance, missing, f"bucket {names} {verb} missing: {tail}")


def _whole(tolerance: int, buckets: int) -> str:
    if tolerance == 0:
        return "survives the loss of no bucket: the code and the number of buckets leave no reserve"
    return f"survives the loss of any {_number(tolerance)} of {buckets} buckets"


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))


def _join(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
