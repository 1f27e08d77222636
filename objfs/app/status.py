"""What a running mount says about itself: the records behind ``objfs status``.

Owns the shape of the status document.  Sizes are bytes, ages seconds.  Knows neither where the
figures come from nor how they are shown.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

from objfs.model import Code
from objfs.store.pace import Quantiles
from objfs.volume.fields import JSON


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """One bucket; ``health`` is healthy, full, read-only, suspect, down or absent (no URL on this machine).
    One without ``shards`` is a witness: it votes and holds no data."""

    slot: int
    uuid: str
    url: str
    voter: bool
    health: str
    shards: bool = True
    last_error: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    errors: int = 0
    errors_by_kind: dict[str, int] = field(default_factory=dict)
    slow: bool = False
    """Answers much later than the others: reads go around it."""
    latency: dict[str, Quantiles] = field(default_factory=dict)
    """Of the last gets and puts of shards, as those who asked saw them."""
    bytes_in: int = 0
    bytes_out: int = 0
    remarks: tuple[str, ...] = ()
    """Promises that it breaks, and what it does behind one's back."""
    domain: str = ""
    leaving: bool = False
    """Its shards are being moved to others, and then it is no part of the volume any more."""

    @property
    def usable(self) -> bool:
        """Whether what it holds can be read."""
        return self.health not in ("down", "absent")

    @property
    def takes(self) -> bool:
        """Whether it takes new objects, votes among them."""
        return self.health in ("healthy", "suspect")


@dataclass(frozen=True, slots=True)
class Redundancy:
    """The code, how many buckets may be lost in full health, and one honest sentence about now.
    ``waiting`` segments have shards that could not be placed when they were written."""

    code: str
    tolerance: int
    missing: tuple[str, ...]
    sentence: str
    waiting: int = 0
    closed: tuple[str, ...] = ()
    """Buckets that answer and take nothing: what is written now is not on them."""

    @property
    def degraded(self) -> bool:
        return bool(self.missing or self.waiting or self.closed)


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
    lost: tuple[JSON, ...]
    """Chunks that were written here and can never be read again: path, inode, offset and length."""
    checkpoint: dict[str, JSON]
    follow: dict[str, JSON]
    """How a mount goes on to newer moments; empty where it does not."""
    redundancy: Redundancy
    at_risk: dict[str, JSON]
    """What is stored with fewer shards than its code has; sizes are payload, before coding."""
    buckets: tuple[BucketStatus, ...]
    cache: dict[str, JSON]
    store: dict[str, JSON]
    loop: dict[str, JSON]
    memory_bytes: int
    snapshots: dict[str, JSON] = field(default_factory=dict)
    """How many, the newest, those of the trash and the days it is kept, and why the last scheduled one
    failed."""
    recode: dict[str, JSON] = field(default_factory=dict)
    """What has still another code than the volume's; empty where nothing has."""

    def to_json(self) -> dict[str, JSON]:
        return cast("dict[str, JSON]", asdict(self))


def judge(
    code: Code,
    tolerance: int,
    buckets: tuple[BucketStatus, ...],
    waiting: tuple[int, int] = (0, 0),
    domains: tuple[int, int] = (0, 0),
) -> Redundancy:
    """What may still be lost, in one sentence that promises nothing which is not so.  A witness holds no
    data: without it nothing less can be read.  ``waiting``: how many segments lack shards, and the most
    that one of them lacks.  ``domains``: how many may be lost, of how many; of 0 where none is named."""
    missing = tuple(bucket for bucket in buckets if not bucket.usable)
    names = tuple(_name(bucket) for bucket in missing)
    data = [bucket for bucket in buckets if bucket.shards]
    away = [bucket for bucket in data if not bucket.usable]
    said = _reduced(tolerance, away) if away else _whole(tolerance, len(data)) + _of_domains(*domains)
    said += _waiting(tolerance, *waiting)
    for witness in (bucket for bucket in missing if not bucket.shards):
        said += f"; witness {_name(witness)} is missing"
    closed = [bucket for bucket in buckets if bucket.usable and not bucket.takes]
    for bucket in closed:
        said += f"; bucket {_name(bucket)} is {bucket.health}: what is written now is not on it"
    said += _votes(tolerance, buckets)
    return Redundancy(str(code), tolerance, names, said, waiting[0], tuple(map(_name, closed)))


def _name(bucket: BucketStatus) -> str:
    return f"slot {bucket.slot} ({bucket.url})"


def _reduced(tolerance: int, away: Sequence[BucketStatus]) -> str:
    verb, left = "is" if len(away) == 1 else "are", tolerance - len(away)
    if left > 0:
        tail = f"{_number(left)} more may be lost"
    elif left == 0:
        tail = "no further loss is covered"
    else:
        tail = f"parts of the volume cannot be read until {'it' if len(away) == 1 else 'one'} is back"
    return f"bucket {_join([_name(bucket) for bucket in away])} {verb} missing: {tail}"


def _waiting(tolerance: int, segments: int, shards: int) -> str:
    """What was written while a bucket took nothing is not covered as the rest is."""
    if not segments:
        return ""
    left = max(tolerance - shards, 0)
    covered = f"only the loss of {_number(left)} is" if left else "no loss is"
    what = "1 segment waits" if segments == 1 else f"{segments} segments wait"
    return f"; {what} for repair, as a bucket did not take its shard: there {covered} covered"


def _votes(tolerance: int, buckets: Sequence[BucketStatus]) -> str:
    """Where a mount that writes could not begin again after a loss that reading bears."""
    voters = [bucket for bucket in buckets if bucket.voter]
    needed, there = len(voters) // 2 + 1, sum(bucket.takes for bucket in voters)
    if there < needed:
        return f"; a new mount that writes needs {needed} of {len(voters)} voting buckets"
    if len(voters) - needed < tolerance and there == len(voters):
        return f"; after that a new mount that writes needs --force: {needed} of {len(voters)} must vote"
    return ""


def _whole(tolerance: int, buckets: int) -> str:
    if tolerance == 0:
        return "survives the loss of no bucket: the code and the number of buckets leave no reserve"
    return f"survives the loss of any {_number(tolerance)} of {buckets} buckets"


def _of_domains(borne: int, count: int) -> str:
    if not count:
        return ""
    return f"; any {_number(borne)} of {count} domains" if borne else "; not that of a whole domain"


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
