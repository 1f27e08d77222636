"""The contract against a real object store: Ceph's gateway, which checks signatures."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
import trio

from objfs.backends.base import Bucket
from objfs.backends.probe import probe
from objfs.backends.registry import open_bucket
from objfs.errors import Refused
from tests.backends.contract import CASES
from tests.servers import ceph

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(bool(ceph.missing_programs()), reason="needs Debian's radosgw, ceph-mon, ceph-osd"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ceph.S3Server]:
    with ceph.running() as found:
        yield found


def open_new(server: ceph.S3Server, name: str, secret_key: str | None = None) -> Bucket:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )
    client.create_bucket(Bucket=name)
    client.close()
    options = {"access_key": server.access_key, "secret_key": secret_key or server.secret_key}
    return open_bucket(f"s3://{name}/prefix?endpoint={server.endpoint}", options)


async def test_ceph_keeps_the_contract(server: ceph.S3Server) -> None:
    for number, case in enumerate(CASES):
        bucket = open_new(server, f"contract-{number}")
        with trio.fail_after(60):
            await case(bucket)
        await bucket.aclose()


async def test_ceph_may_vote(server: ceph.S3Server) -> None:
    bucket = open_new(server, "probe")
    report = await probe(bucket)
    report.require()
    assert report.voter
    await bucket.aclose()


async def test_a_wrong_secret_is_refused(server: ceph.S3Server) -> None:
    bucket = open_new(server, "refused", secret_key="wrong")
    with pytest.raises(Refused, match="SignatureDoesNotMatch"):
        await bucket.put("label", b"x")
    with pytest.raises(Refused):
        await bucket.stat("label")
    await bucket.aclose()
