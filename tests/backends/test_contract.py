"""Every backend and every composition of wrappers passes ``contract.py``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from objfs.backends.base import Bucket
from objfs.backends.compose import BucketSettings, compose
from objfs.backends.registry import open_bucket
from objfs.backends.wrappers.concurrency import ConcurrencyBucket
from objfs.backends.wrappers.faults import FaultyBucket
from objfs.backends.wrappers.metrics import Metrics, MetricsBucket
from objfs.backends.wrappers.retry import RetryBucket
from objfs.backends.wrappers.throttle import ThrottleBucket
from objfs.backends.wrappers.timeout import TimeoutBucket
from tests.backends.contract import CASES, Case
from tests.doubles.buckets import memory_bucket
from tests.servers.azurite import Azurite
from tests.servers.gcs import GCSServer
from tests.servers.moto import MotoServer

WRAPPERS: dict[str, Callable[[Bucket], Bucket]] = {
    "retry": lambda inner: RetryBucket(inner, retries=3, total_s=60),
    "timeout": lambda inner: TimeoutBucket(inner, 60),
    "concurrency": lambda inner: ConcurrencyBucket(inner, 4),
    "throttle": lambda inner: ThrottleBucket(inner, 1e9),
    "metrics": lambda inner: MetricsBucket(inner, Metrics()),
    "faults": FaultyBucket,
    "composed": lambda inner: compose(inner, BucketSettings(bytes_per_s=1e9), Metrics()),
}
SERVERS = {"s3": "moto_server", "gs": "gcs_server", "az": "azurite"}
KINDS = ["mem", "file", "s3", "gs", "az", *(f"mem+{name}" for name in WRAPPERS), "file+composed"]


@pytest.fixture(params=KINDS)
async def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bucket]:
    kind, _, wrapper = str(request.param).partition("+")
    if kind == "mem":
        inner: Bucket = memory_bucket()
    elif kind == "file":
        inner = open_bucket(str(tmp_path), {})
    else:
        server: MotoServer | GCSServer | Azurite = request.getfixturevalue(SERVERS[kind])
        inner = server.open(prefix="a/prefix")
    yield WRAPPERS[wrapper](inner) if wrapper else inner
    await inner.aclose()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_keeps_the_contract(bucket: Bucket, case: Case) -> None:
    await case(bucket)
