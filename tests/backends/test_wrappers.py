"""Each wrapper does its one thing; time is trio's mock clock and never waited for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from objfs.backends.base import ObjectInfo, Request, progress
from objfs.backends.compose import BucketSettings, compose
from objfs.backends.wrappers.concurrency import ConcurrencyBucket
from objfs.backends.wrappers.faults import (
    FailAfter,
    FailBefore,
    Fault,
    FaultyBucket,
    Gone,
    Hang,
    ShortBody,
    Slow,
    WrongBytes,
)
from objfs.backends.wrappers.metrics import Metrics, MetricsBucket
from objfs.backends.wrappers.retry import RetryBucket
from objfs.backends.wrappers.throttle import ThrottleBucket
from objfs.backends.wrappers.timeout import TimeoutBucket
from objfs.backends.wrappers.wrapper import Wrapper
from objfs.errors import (
    BucketError,
    NoSuchBucket,
    NoSuchObject,
    ObjectExists,
    Refused,
    Throttled,
    TimedOut,
    Unreachable,
)
from tests.doubles.buckets import HangingBucket, memory_bucket


@pytest.fixture
def faulty() -> FaultyBucket:
    return FaultyBucket(memory_bucket())


def no_jitter(_low: float, high: float) -> float:
    return high


# --- retry ---------------------------------------------------------------------------------


async def test_retry_repeats_what_is_temporary(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    bucket = RetryBucket(faulty, retries=4, total_s=60, jitter=no_jitter)
    for error in (Unreachable, Throttled, TimedOut):
        faulty.add(Fault(op="put", action=FailBefore(error), times=1))
    begun = trio.current_time()
    await bucket.put("object", b"data")
    assert await faulty.inner.get("object") == b"data"
    assert trio.current_time() - begun == pytest.approx(0.1 + 0.2 + 0.4)


async def test_retry_gives_up_after_its_number(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    fault = faulty.add(Fault(op="get", action=FailBefore(Unreachable)))
    with pytest.raises(Unreachable):
        await RetryBucket(faulty, retries=3, total_s=60).get("object")
    assert fault.hits == 4


async def test_retry_gives_up_after_its_time(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    hang = faulty.add(Fault(op="get", action=Hang()))
    bucket = RetryBucket(TimeoutBucket(faulty, 10), retries=100, total_s=20, jitter=no_jitter)
    begun = trio.current_time()
    with pytest.raises(TimedOut):
        await bucket.get("object")
    assert hang.hits == 2
    assert trio.current_time() - begun == pytest.approx(20.1)


@pytest.mark.parametrize("error", [NoSuchBucket, Refused, BucketError])
async def test_retry_leaves_what_will_not_change(faulty: FaultyBucket, error: type[BucketError]) -> None:
    fault = faulty.add(Fault(op="put", action=FailBefore(error)))
    with pytest.raises(error):
        await RetryBucket(faulty, retries=3, total_s=60).put("object", b"x")
    assert fault.hits == 1


async def test_retry_recognises_its_own_object_after_a_lost_answer(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    bucket = RetryBucket(faulty, retries=3, total_s=60)
    faulty.add(Fault(op="put_if_absent", action=FailAfter(Unreachable), times=1))
    faulty.add(Fault(op="get", action=FailBefore(Unreachable), times=1))
    await bucket.put_if_absent("lease", b"mine")
    assert await faulty.inner.get("lease") == b"mine"


async def test_retry_does_not_take_another_ones_object_for_its_own(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    bucket = RetryBucket(faulty, retries=3, total_s=60)
    await faulty.inner.put("lease", b"theirs")
    faulty.add(Fault(op="put_if_absent", action=FailBefore(Unreachable), times=1))
    with pytest.raises(ObjectExists):
        await bucket.put_if_absent("lease", b"mine")


async def test_retry_asks_nothing_where_the_first_try_was_answered(faulty: FaultyBucket) -> None:
    """Equal bytes are not enough: without a lost answer somebody else made that object."""
    await faulty.inner.put("lease", b"same")
    with pytest.raises(ObjectExists):
        await RetryBucket(faulty, retries=3, total_s=60).put_if_absent("lease", b"same")
    assert [request.operation for request in faulty.requests] == ["put_if_absent"]


# --- timeout -------------------------------------------------------------------------------


async def test_timeout_ends_a_request_whose_thread_hangs() -> None:
    hanging = HangingBucket(memory_bucket())
    with pytest.raises(TimedOut, match=r"get object within 0\.05 s"):
        await TimeoutBucket(hanging, 0.05).get("object")
    hanging.release.set()


async def test_timeout_leaves_a_request_that_answers(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    faulty.add(Fault(op="put", action=Slow(9.9)))
    await TimeoutBucket(faulty, 10).put("object", b"x")
    assert await faulty.inner.get("object") == b"x"


class PagedBucket(Wrapper):
    """A listing of so many pages, each of which takes a while."""

    pages = 10
    page_s = 8.0

    async def list(self, prefix: str) -> list[ObjectInfo]:
        for _ in range(self.pages):
            await trio.sleep(self.page_s)
            progress()
        return await self.inner.list(prefix)


async def test_timeout_of_a_listing_is_that_of_a_page(autojump_clock: trio.testing.MockClock) -> None:
    paged = PagedBucket(memory_bucket())
    bucket = TimeoutBucket(paged, 10)
    assert await bucket.list("") == []
    assert trio.current_time() > 79
    paged.page_s = 10.5
    with pytest.raises(TimedOut):
        await bucket.list("")


# --- concurrency ---------------------------------------------------------------------------


async def test_concurrency_is_bounded(faulty: FaultyBucket) -> None:
    gate = Hang()
    faulty.add(Fault(action=gate))
    bucket = ConcurrencyBucket(faulty, 3)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(bucket.put, f"object/{number}", b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert len(faulty.requests) == 3
        gate.release.set()
    assert len(faulty.requests) == 8


async def test_who_waits_for_a_place_gets_it_in_turn(faulty: FaultyBucket) -> None:
    bucket = ConcurrencyBucket(faulty, 1)
    gate = Hang()
    faulty.add(Fault(action=gate))
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(bucket.put, f"object/{number}", b"x")
            await trio.testing.wait_all_tasks_blocked()
        gate.release.set()
    assert [request.key for request in faulty.requests] == [f"object/{number}" for number in range(5)]


async def test_a_cancelled_request_gives_its_place_back_though_its_thread_hangs_on() -> None:
    hanging = HangingBucket(memory_bucket())
    bucket = ConcurrencyBucket(TimeoutBucket(hanging, 0.02), 1)
    for _ in range(3):
        with pytest.raises(TimedOut):
            await bucket.get("object")
    assert hanging.hanging == 3
    await bucket.put("object", b"x")
    hanging.release.set()


async def test_waiting_for_a_place_ends_in_time(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    gate = Hang()
    faulty.add(Fault(op="put", action=gate))
    bucket = ConcurrencyBucket(faulty, 1, patience_s=30)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bucket.put, "object", b"x")
        await faulty.reached.wait()
        with pytest.raises(TimedOut, match="no free connection within 30 s"):
            await bucket.get("object")
        gate.release.set()
    assert await bucket.get("object") == b"x"


# --- throttle ------------------------------------------------------------------------------


async def test_throttle_keeps_the_pace_in_both_directions(autojump_clock: trio.testing.MockClock) -> None:
    bucket = ThrottleBucket(memory_bucket(), bytes_per_s=1000)
    begun = trio.current_time()
    for number in range(10):
        await bucket.put(f"object/{number}", bytes(1000))
    for number in range(10):
        assert len(await bucket.get(f"object/{number}")) == 1000
    await bucket.delete("object/0")
    assert trio.current_time() - begun == pytest.approx(19, abs=1.01)  # one second's worth may burst


async def test_throttle_forgets_what_was_given_up(autojump_clock: trio.testing.MockClock) -> None:
    bucket = ThrottleBucket(memory_bucket(), bytes_per_s=1000)
    await bucket.put("object", bytes(2000))
    for _ in range(20):
        with trio.move_on_after(0.01):
            await bucket.put("object", bytes(10_000))
    begun = trio.current_time()
    await bucket.put("object", b"x")
    assert trio.current_time() - begun < 2


# --- metrics -------------------------------------------------------------------------------


async def test_metrics_count_requests_bytes_and_errors(faulty: FaultyBucket) -> None:
    metrics = Metrics()
    bucket = MetricsBucket(faulty, metrics)
    await bucket.put("object", bytes(1000))
    await bucket.get("object", 0, 10)
    await bucket.get("object")
    for _ in range(2):
        with pytest.raises(NoSuchObject):
            await bucket.get("absent")
    faulty.add(Fault(op="stat", action=Hang()))
    with trio.move_on_after(0):
        await bucket.stat("object")
    before = metrics.snapshot()
    assert (before["put"].requests, before["put"].bytes_out) == (1, 1000)
    assert (before["get"].requests, before["get"].bytes_in) == (4, 1010)
    assert before["get"].errors == {"NoSuchObject": 2}
    assert before["stat"].errors == {"Cancelled": 1}
    assert (before.requests, before.bytes_out, before.bytes_in, before.errors) == (6, 1000, 1010, 3)
    await bucket.list("")
    assert (before["list"].requests, metrics.snapshot()["list"].requests) == (0, 1)


# --- faults --------------------------------------------------------------------------------


async def test_a_fault_hits_what_it_matches_as_often_as_told(faulty: FaultyBucket) -> None:
    fault = faulty.add(Fault(op="put", key="segment/", action=FailBefore(Unreachable), skip=1, times=2))
    outcomes = []
    for key in ("label", "segment/a", "segment/b", "segment/c", "segment/d"):
        try:
            await faulty.put(key, b"x")
        except Unreachable:
            outcomes.append(key)
    assert outcomes == ["segment/b", "segment/c"]
    assert fault.hits == 2
    assert fault.reached.is_set()
    assert faulty.requests[0] == Request("put", "label", 1)


async def test_fail_before_has_no_effect_and_fail_after_has(faulty: FaultyBucket) -> None:
    before = faulty.add(Fault(op=("put", "delete"), action=FailBefore(TimedOut)))
    with pytest.raises(TimedOut):
        await faulty.put("object", b"x")
    assert await faulty.list("") == []
    faulty.remove(before)
    faulty.add(Fault(op="put", action=FailAfter(TimedOut)))
    with pytest.raises(TimedOut):
        await faulty.put("object", b"x")
    assert await faulty.get("object") == b"x"


async def test_bytes_are_spoilt_on_their_way_out_or_where_they_lie(faulty: FaultyBucket) -> None:
    await faulty.put("object", b"\x00\x01\x02\x03")
    faulty.add(Fault(op="get", action=WrongBytes(1), times=1))
    faulty.add(Fault(op="get", action=WrongBytes(-1), times=1))
    faulty.add(Fault(op="get", action=ShortBody(1), times=1))
    assert await faulty.get("object") == b"\x00\xfe\x02\x03"
    assert await faulty.get("object", 1, 3) == b"\x01\xfd"
    assert await faulty.get("object") == b"\x00"
    assert await faulty.get("object") == b"\x00\x01\x02\x03"
    faulty.add(Fault(op="put", action=ShortBody(), times=1))
    await faulty.put("object", b"1234")
    assert await faulty.get("object") == b"12"


async def test_a_hang_ends_when_released_or_cancelled(faulty: FaultyBucket) -> None:
    hang = Hang()
    fault = faulty.add(Fault(op="put", action=hang))
    with trio.move_on_after(0):
        await faulty.put("object", b"never")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(faulty.put, "object", b"late")
        await fault.reached.wait()
        assert await faulty.list("") == []
        hang.release.set()
    assert await faulty.get("object") == b"late"


async def test_gone_is_gone_until_cleared(faulty: FaultyBucket) -> None:
    await faulty.put("object", b"x")
    faulty.add(Fault(action=Gone()))
    for request in (lambda: faulty.get("object"), lambda: faulty.stat("object"), lambda: faulty.list("")):
        with pytest.raises(NoSuchBucket):
            await request()
    faulty.clear()
    assert await faulty.get("object") == b"x"


# --- the composition -----------------------------------------------------------------------


async def test_no_request_hangs_though_every_thread_does() -> None:
    """More requests than connections at a bucket that never answers: all end, none leaks a place."""
    hanging = HangingBucket(memory_bucket())
    metrics = Metrics()
    settings = BucketSettings(request_timeout_s=0.05, retries=2, connections=2)
    bucket = compose(hanging, settings, metrics)
    ended: list[int] = []

    async def get(number: int) -> None:
        with pytest.raises(TimedOut):
            await bucket.get("object")
        ended.append(number)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(get, number)
    assert len(ended) == 6
    assert metrics.snapshot()["get"].errors["Cancelled"] == hanging.hanging
    hanging.release.set()
    await bucket.put("object", b"x")
    assert await bucket.get("object") == b"x"


async def test_metrics_see_retries_and_not_what_the_caller_sees(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    metrics = Metrics()
    bucket = compose(faulty, BucketSettings(), metrics)
    faulty.add(Fault(op="put", action=FailBefore(Throttled), times=2))
    await bucket.put("object", bytes(100))
    assert metrics.snapshot()["put"].requests == 3
    assert metrics.snapshot()["put"].errors == {"Throttled": 2}


async def test_retry_waits_without_a_connection(
    faulty: FaultyBucket, autojump_clock: trio.testing.MockClock
) -> None:
    bucket = compose(faulty, BucketSettings(connections=1, retries=1), Metrics())
    fault = faulty.add(Fault(op="put", action=FailBefore(Unreachable), times=1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bucket.put, "slow", b"x")
        await fault.reached.wait()
        await bucket.put("quick", b"x")
    assert [request.key for request in faulty.requests] == ["slow", "quick", "slow"]


async def test_the_throttle_waits_outside_the_time_limit(autojump_clock: trio.testing.MockClock) -> None:
    settings = BucketSettings(request_timeout_s=1, bytes_per_s=100)
    bucket = compose(memory_bucket(), settings, Metrics())
    for _ in range(3):
        await bucket.put("object", bytes(1000))
    assert trio.current_time() > 15
