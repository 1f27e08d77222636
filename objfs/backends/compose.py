"""The one place that fixes which wrappers a bucket wears, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from objfs.backends.base import Bucket
from objfs.backends.wrappers.concurrency import ConcurrencyBucket
from objfs.backends.wrappers.metrics import Metrics, MetricsBucket
from objfs.backends.wrappers.retry import RetryBucket
from objfs.backends.wrappers.throttle import ThrottleBucket
from objfs.backends.wrappers.timeout import TimeoutBucket


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """How a bucket is used.

    ``request_timeout_s``: seconds that one request, or one page of a listing, may take.
    ``retries``: repetitions after the first try.  ``connections``: requests at once.
    ``bytes_per_s``: sent and received together; None is no limit.
    """

    request_timeout_s: float = 20.0
    retries: int = 4
    connections: int = 8
    bytes_per_s: float | None = None

    @property
    def total_s(self) -> float:
        """Seconds after which a request is not tried again: two hung tries are enough."""
        return 2 * self.request_timeout_s


def compose(bucket: Bucket, settings: BucketSettings, metrics: Metrics) -> Bucket:
    """The bucket as a volume uses it.

    From the inside out: metrics see each request that is really made; the time limit holds for
    one try and not for waiting; the throttle and the queue wait before a try's clock starts; the
    retry sleeps without holding a connection.
    """
    wrapped: Bucket = MetricsBucket(bucket, metrics)
    wrapped = TimeoutBucket(wrapped, settings.request_timeout_s)
    if settings.bytes_per_s is not None:
        wrapped = ThrottleBucket(wrapped, settings.bytes_per_s)
    wrapped = ConcurrencyBucket(wrapped, settings.connections, patience_s=settings.total_s)
    return RetryBucket(wrapped, settings.retries, settings.total_s)
