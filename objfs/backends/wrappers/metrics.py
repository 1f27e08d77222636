"""What was really asked of a bucket, counted.

Owns the counters of one bucket.  Innermost of all wrappers: a retry counts as a request of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

import trio

from objfs.backends.base import OPERATIONS, Bucket, Operation, Request
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import ObjfsError

T = TypeVar("T")

CANCELLED = "Cancelled"
"""The name under which a request counts that was given up (a timeout, or nobody wanted it)."""


@dataclass(frozen=True, slots=True)
class OperationCount:
    """One operation: how many requests, bytes sent and received, seconds spent in all of them,
    and the errors by class name."""

    requests: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """All operations at one moment."""

    operations: Mapping[Operation, OperationCount]

    def __getitem__(self, operation: Operation) -> OperationCount:
        return self.operations[operation]

    @property
    def requests(self) -> int:
        return sum(count.requests for count in self.operations.values())

    @property
    def bytes_out(self) -> int:
        return sum(count.bytes_out for count in self.operations.values())

    @property
    def bytes_in(self) -> int:
        return sum(count.bytes_in for count in self.operations.values())

    @property
    def errors(self) -> int:
        return sum(self.errors_by_kind.values())

    @property
    def errors_by_kind(self) -> dict[str, int]:
        """By class name, over all operations; given-up requests are among them."""
        kinds: Counter[str] = Counter()
        for count in self.operations.values():
            kinds.update(count.errors)
        return dict(kinds)


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)

    def frozen(self) -> OperationCount:
        errors = MappingProxyType(dict(self.errors))
        return OperationCount(self.requests, self.bytes_out, self.bytes_in, self.seconds, errors)


class Metrics:
    """The counters; several buckets may share one."""

    def __init__(self) -> None:
        self._tallies: dict[Operation, _Tally] = {operation: _Tally() for operation in OPERATIONS}

    def count(self, request: Request, seconds: float, *, received: int = 0, error: str | None = None) -> None:
        """Adds one request that has ended."""
        tally = self._tallies[request.operation]
        tally.requests += 1
        tally.bytes_out += request.size
        tally.bytes_in += received
        tally.seconds += seconds
        if error is not None:
            tally.errors[error] += 1

    def snapshot(self) -> MetricsSnapshot:
        """The counts now; does not change afterwards."""
        return MetricsSnapshot({operation: tally.frozen() for operation, tally in self._tallies.items()})


class MetricsBucket(Wrapper):
    """Counts into ``metrics``."""

    def __init__(self, inner: Bucket, metrics: Metrics) -> None:
        super().__init__(inner)
        self.metrics = metrics

    async def around(self, request: Request, call: Call[T]) -> T:
        begun, error, received = trio.current_time(), None, 0
        try:
            answer = await call()
            received = len(answer) if isinstance(answer, bytes) else 0
            return answer
        except trio.Cancelled:
            error = CANCELLED
            raise
        except ObjfsError as failure:
            error = type(failure).__name__
            raise
        finally:
            self.metrics.count(request, trio.current_time() - begun, received=received, error=error)
