"""The faulty network does what it says, to a bucket as objfs opens it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket
from objfs.errors import BucketError, NoSuchObject, ObjectExists, Refused, Temporary, Unreachable
from tests.servers.moto import MotoServer
from tests.servers.network import (
    FORBIDDEN,
    SLOW_DOWN,
    Chance,
    Fault,
    Flipped,
    Latency,
    LostAnswer,
    Proxy,
    Reset,
    Truncated,
    network,
)

DATA = bytes(range(256)) * 40


@pytest.fixture
def proxy(moto_server: MotoServer) -> Iterator[Proxy]:
    with network(moto_server.endpoint, 1) as (only,):
        yield only


@pytest.fixture
def bucket(moto_server: MotoServer, proxy: Proxy) -> Bucket:
    return open_bucket(f"s3://{moto_server.make_bucket()}?endpoint={proxy.endpoint}", moto_server.options)


def strike(proxy: Proxy, fault: Fault) -> None:
    proxy.weather = (Chance(1, fault),)


@pytest.mark.parametrize("fault", [None, Latency(0.01)])
async def test_what_is_well(proxy: Proxy, bucket: Bucket, fault: Fault | None) -> None:
    if fault is not None:
        strike(proxy, fault)
    await bucket.put("segment/a", DATA)
    await bucket.put_if_absent("segment/b", DATA)
    with pytest.raises(ObjectExists):
        await bucket.put_if_absent("segment/b", DATA)
    assert await bucket.get("segment/a") == DATA
    assert await bucket.get("segment/a", 10, 20) == DATA[10:20]
    assert (await bucket.stat("segment/a")).size == len(DATA)
    assert [info.key for info in await bucket.list("")] == ["segment/a", "segment/b"]
    await bucket.delete("segment/a")
    with pytest.raises(NoSuchObject):
        await bucket.get("segment/a")
    await bucket.aclose()


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Reset(), Temporary), (SLOW_DOWN, Temporary), (FORBIDDEN, Refused), (Truncated(), Temporary)],
)
async def test_what_fails(proxy: Proxy, bucket: Bucket, fault: Fault, error: type[BucketError]) -> None:
    await bucket.put("segment/a", DATA)
    strike(proxy, fault)
    with pytest.raises(error):
        await bucket.get("segment/a")
    assert proxy.struck.total() == 1
    proxy.weather = ()
    assert await bucket.get("segment/a") == DATA
    await bucket.aclose()


async def test_a_wrong_byte(proxy: Proxy, bucket: Bucket) -> None:
    await bucket.put("segment/a", DATA)
    strike(proxy, Flipped())
    read = await bucket.get("segment/a")
    assert [at for at in range(len(DATA)) if read[at] != DATA[at]] == [len(DATA) // 2]
    await bucket.aclose()


async def test_a_lost_answer_is_of_a_request_that_took_effect(proxy: Proxy, bucket: Bucket) -> None:
    strike(proxy, LostAnswer())
    with pytest.raises(Temporary):
        await bucket.put("segment/a", DATA)
    proxy.weather = ()
    assert await bucket.get("segment/a") == DATA
    await bucket.aclose()


async def test_gone_and_back(proxy: Proxy, bucket: Bucket) -> None:
    await bucket.put("segment/a", DATA)
    proxy.go()
    with pytest.raises(Unreachable):
        await bucket.get("segment/a")
    proxy.come_back()
    assert await bucket.get("segment/a") == DATA
    await bucket.aclose()
