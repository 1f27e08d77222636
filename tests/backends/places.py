"""What every kind of bucket in the cloud must get right about where it is."""

from __future__ import annotations

import pytest

from objfs.backends.base import Bucket
from objfs.errors import NoSuchBucket


async def is_said_not_to_be_there(bucket: Bucket, name: str) -> None:
    """Every request to a bucket that nobody made ends with its name."""
    for request in (
        lambda: bucket.get("label"),
        lambda: bucket.put("label", b"x"),
        lambda: bucket.put_if_absent("label", b"x"),
        lambda: bucket.stat("label"),
        lambda: bucket.list(""),
    ):
        with pytest.raises(NoSuchBucket, match=name):
            await request()
    await bucket.aclose()


async def are_apart(one: Bucket, two: Bucket) -> None:
    """Two prefixes of one bucket know nothing of each other."""
    await one.put("label", b"1")
    await two.put_if_absent("label", b"2")
    assert (await one.get("label"), await two.get("label")) == (b"1", b"2")
    assert len(await one.list("")) == len(await two.list("")) == 1
    await one.aclose()
    await two.aclose()
