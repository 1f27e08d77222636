"""The probe: good buckets pass, and each broken promise is noticed by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from objfs.backends.base import Bucket
from objfs.backends.probe import brief_probe, probe
from objfs.backends.registry import open_bucket
from objfs.backends.wrappers.faults import FailBefore, Fault, FaultyBucket
from objfs.errors import ContractBroken, Refused, Unreachable
from tests.doubles.buckets import (
    CheckThenPutBucket,
    OverwritingBucket,
    ReadOnlyBucket,
    StaleListingBucket,
    StaleReadBucket,
    UndeletingBucket,
    WholeObjectBucket,
    memory_bucket,
)
from tests.servers.moto import MotoServer


async def assert_sound(bucket: Bucket) -> None:
    report = await probe(bucket)
    report.require()
    assert report.voter
    assert report.broken == ()
    assert await bucket.list("") == []  # it cleans up


async def test_good_buckets_pass(tmp_path: Path, moto_server: MotoServer) -> None:
    s3 = moto_server.open()
    for bucket in (memory_bucket(), open_bucket(str(tmp_path), {}), s3):
        await assert_sound(bucket)
    await s3.aclose()


@pytest.mark.parametrize(
    ("broken", "names"),
    [
        (CheckThenPutBucket, {"put_if_absent_race"}),
        (OverwritingBucket, {"put_if_absent", "put_if_absent_race"}),
        (WholeObjectBucket, {"ranged_read"}),
        (StaleListingBucket, {"listing"}),
        (StaleReadBucket, {"read_after_write", "ranged_read"}),
        (UndeletingBucket, {"delete"}),
    ],
)
async def test_a_broken_promise_is_named(broken: Callable[[Bucket], Bucket], names: set[str]) -> None:
    report = await probe(broken(memory_bucket()))
    assert set(report.broken) <= names
    assert report.broken
    with pytest.raises(ContractBroken, match=rf"mem://bucket: .*\({report.broken[0]}\)"):
        report.require()


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (OverwritingBucket, "put_if_absent"),
        (WholeObjectBucket, "ranged_read"),
        (StaleListingBucket, "listing"),
        (StaleReadBucket, "read_after_write"),
        (UndeletingBucket, "delete"),
    ],
)
async def test_one_object_shows_the_same_but_for_races(broken: Callable[[Bucket], Bucket], name: str) -> None:
    report = await brief_probe(broken(memory_bucket()))
    assert name in report.broken
    assert any(name in sentence for sentence in report.complaints())
    assert len(report.complaints(voter=False)) == len(report.broken) - (name == "put_if_absent")


async def test_one_object_in_eight_requests(tmp_path: Path, moto_server: MotoServer) -> None:
    s3 = moto_server.open()
    for inner in (memory_bucket(), open_bucket(str(tmp_path), {}), s3):
        counted = FaultyBucket(inner)
        report = await brief_probe(counted)
        assert (report.broken, report.complaints()) == ((), ())
        assert len(counted.requests) == 8
        assert await inner.list("") == []
    await s3.aclose()


@pytest.mark.parametrize("broken", [CheckThenPutBucket, OverwritingBucket])
async def test_who_cannot_decide_a_race_holds_shards_and_has_no_vote(
    broken: Callable[[Bucket], Bucket],
) -> None:
    report = await probe(broken(memory_bucket()))
    assert not report.voter
    report.require(voter=False)


async def test_a_bucket_that_may_not_be_written_is_refused() -> None:
    with pytest.raises(Refused, match="may not write"):
        await probe(ReadOnlyBucket(memory_bucket()))


async def test_what_keeps_the_bucket_from_being_tried_is_raised_as_it_is() -> None:
    inner = memory_bucket()
    for skip in (0, 5, 20, 40):
        faulty = FaultyBucket(inner)
        faulty.add(Fault(op=("put", "put_if_absent"), skip=skip, action=FailBefore(Unreachable)))
        with pytest.raises(Unreachable):
            await probe(faulty)
        assert await inner.list("") == []


async def test_notes_are_what_the_backend_remarks(tmp_path: Path) -> None:
    assert (await probe(open_bucket(str(tmp_path), {}))).notes == ()
