"""The contract of ``objfs.backends.base.Bucket`` as cases that any bucket must pass.

Each case gets an empty bucket.  ``test_contract`` runs all of them over every backend and every
composition of wrappers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from objfs.backends.base import KEY_MAX, Bucket
from objfs.errors import NoSuchObject, ObjectExists, RangeError, UsageError
from objfs.model import NS

MIB = 1024 * 1024
Case = Callable[[Bucket], Awaitable[None]]
CASES: list[Case] = []


def case(function: Case) -> Case:
    """Adds a function to the suite."""
    CASES.append(function)
    return function


@case
async def what_was_put_is_read(bucket: Bucket) -> None:
    await bucket.put("segment/0a/first.00", b"some bytes")
    assert await bucket.get("segment/0a/first.00") == b"some bytes"


@case
async def a_put_replaces(bucket: Bucket) -> None:
    await bucket.put("lease", b"a long first object")
    await bucket.put("lease", b"short")
    assert await bucket.get("lease") == b"short"


@case
async def an_empty_object_is_an_object(bucket: Bucket) -> None:
    await bucket.put("empty", b"")
    assert await bucket.get("empty") == b""
    assert await bucket.get("empty", 0, 10) == b""
    assert (await bucket.stat("empty")).size == 0
    with pytest.raises(RangeError):
        await bucket.get("empty", 1)


@case
async def nine_mebibytes_come_back_whole(bucket: Bucket) -> None:
    data = random.Random(9).randbytes(9 * MIB)
    await bucket.put("segment/ff/large.01", data)
    assert await bucket.get("segment/ff/large.01") == data
    assert (
        await bucket.get("segment/ff/large.01", 5 * MIB - 1, 5 * MIB + 2) == data[5 * MIB - 1 : 5 * MIB + 2]
    )


@case
async def ranges_are_exact_and_cut_at_the_end(bucket: Bucket) -> None:
    data = bytes(range(256)) * 4
    await bucket.put("object", data)
    for start, end in ((0, 1), (0, 1024), (10, 20), (1023, 1024), (1000, 5000), (0, None), (7, None)):
        assert await bucket.get("object", start, end) == data[start:end]


@case
async def a_range_outside_is_an_error(bucket: Bucket) -> None:
    await bucket.put("object", b"0123456789")
    for start, end in ((10, None), (10, 12), (4096, 5000), (5, 5), (6, 5), (0, 0), (-1, 5)):
        with pytest.raises(RangeError):
            await bucket.get("object", start, end)


@case
async def what_is_not_there_is_said_so(bucket: Bucket) -> None:
    with pytest.raises(NoSuchObject):
        await bucket.get("absent")
    with pytest.raises(NoSuchObject):
        await bucket.get("absent", 5, 10)
    with pytest.raises(NoSuchObject):
        await bucket.stat("manifest/0000000000000000")
    await bucket.put("manifest/0000000000000001", b"x")
    with pytest.raises(NoSuchObject):
        await bucket.get("manifest")


@case
async def stat_tells_size_and_time(bucket: Bucket) -> None:
    before = time.time_ns()
    await bucket.put("object", bytes(12345))
    info = await bucket.stat("object")
    assert (info.key, info.size) == ("object", 12345)
    assert abs(info.mtime_ns - before) < 60 * NS


@case
async def put_if_absent_makes_one_object(bucket: Bucket) -> None:
    await bucket.put_if_absent("manifest/0000000000000001", b"first")
    with pytest.raises(ObjectExists):
        await bucket.put_if_absent("manifest/0000000000000001", b"second")
    assert await bucket.get("manifest/0000000000000001") == b"first"
    await bucket.put("label", b"put")
    with pytest.raises(ObjectExists):
        await bucket.put_if_absent("label", b"other")


@case
async def put_if_absent_has_one_winner(bucket: Bucket) -> None:
    won: list[int] = []

    async def race(number: int) -> None:
        try:
            await bucket.put_if_absent("lease/0000000000000001", b"racer %d" % number)
        except ObjectExists:
            return
        won.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(race, number)
    assert len(won) == 1
    assert await bucket.get("lease/0000000000000001") == b"racer %d" % won[0]


@case
async def delete_removes_and_may_be_repeated(bucket: Bucket) -> None:
    await bucket.put("a/object", b"x")
    await bucket.delete("a/object")
    await bucket.delete("a/object")
    await bucket.delete("never/was")
    with pytest.raises(NoSuchObject):
        await bucket.get("a/object")
    assert await bucket.list("") == []
    await bucket.put_if_absent("a/object", b"again")
    assert await bucket.get("a/object") == b"again"


@case
async def a_listing_is_sorted_and_whole(bucket: Bucket) -> None:
    keys = ["header", "label", *(f"segment/{n % 16:02x}/{n:032x}.{n % 6:02x}" for n in range(40))]
    for number, key in enumerate(keys):
        await bucket.put(key, bytes(number))
    found = await bucket.list("")
    assert [info.key for info in found] == sorted(keys)
    assert {info.key: info.size for info in found} == {key: number for number, key in enumerate(keys)}


@case
async def a_prefix_is_the_start_of_a_key(bucket: Bucket) -> None:
    for key in ("lease/01", "lease/02", "leases", "label", "segment/aa/x.00", "segment/ab/y.00", "segment/b"):
        await bucket.put(key, b"x")

    async def keys(prefix: str) -> list[str]:
        return [info.key for info in await bucket.list(prefix)]

    assert await keys("lease/") == ["lease/01", "lease/02"]
    assert await keys("lease") == ["lease/01", "lease/02", "leases"]
    assert await keys("segment/a") == ["segment/aa/x.00", "segment/ab/y.00"]
    assert await keys("segment/aa/x.00") == ["segment/aa/x.00"]
    assert await keys("segment/aa/x.00/") == []
    assert await keys("nothing/") == []


@case
async def keys_may_have_200_bytes(bucket: Bucket) -> None:
    longest = "segment/" + "k" * (KEY_MAX - len("segment/"))
    await bucket.put(longest, b"x")
    assert await bucket.get(longest) == b"x"
    assert [info.key for info in await bucket.list("segment/")] == [longest]
    with pytest.raises(UsageError):
        await bucket.put(longest + "k", b"x")


@case
async def what_is_no_key_is_refused(bucket: Bucket) -> None:
    for key in ("", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a/.tmp", "A", "a b", "a\0", "ä"):
        with pytest.raises(UsageError):
            await bucket.put(key, b"x")
        with pytest.raises(UsageError):
            await bucket.get(key)
        with pytest.raises(UsageError):
            await bucket.delete(key)
    with pytest.raises(UsageError):
        await bucket.list("Segment/")


@case
async def readers_see_old_or_new_and_never_a_mixture(bucket: Bucket) -> None:
    versions = [bytes([n]) * 300_000 for n in range(8)]
    await bucket.put("header", versions[0])
    writing = trio.Event()

    async def read() -> None:
        while not writing.is_set():
            assert await bucket.get("header") in versions

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for data in versions[1:]:
            await bucket.put("header", data)
        writing.set()
    assert await bucket.get("header") == versions[-1]


@case
async def many_requests_at_once_do_not_mix(bucket: Bucket) -> None:
    async def one(number: int) -> None:
        key, data = f"probe/{number:02x}", bytes([number]) * (number * 100)
        await bucket.put(key, data)
        assert await bucket.get(key) == data
        assert (await bucket.stat(key)).size == len(data)

    async with trio.open_nursery() as nursery:
        for number in range(24):
            nursery.start_soon(one, number)
    assert len(await bucket.list("probe/")) == 24


@case
async def it_has_a_name_and_may_be_closed_twice(bucket: Bucket) -> None:
    assert "://" in bucket.url
    await bucket.put("object", b"x")
    await bucket.aclose()
    await bucket.aclose()
