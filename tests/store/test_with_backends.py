"""The store over the real backends and the wrappers that a volume uses."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.backends.base import Bucket
from objfs.backends.compose import BucketSettings, compose
from objfs.backends.memory import MemoryBuckets
from objfs.backends.registry import open_bucket
from objfs.backends.wrappers.faults import (
    Fault,
    FaultyBucket,
    Gone,
    Hang,
    ShortBody,
    WrongBytes,
)
from objfs.backends.wrappers.metrics import Metrics
from objfs.codec import KeyRing
from objfs.model import Code, Slot
from objfs.store.store import SegmentStore
from tests.store.buckets import VOLUME, TrioClock, chunks, noise, text, whole

DATAS = [noise(400_000), text(300_000), noise(70_000, 3)]


class Composed:
    """A store over six memory buckets, each with faults inside and the wrappers outside."""

    def __init__(self) -> None:
        places = MemoryBuckets()
        self.faulty = {Slot(i): FaultyBucket(places.open(f"b{i}")) for i in range(6)}
        settings = BucketSettings(request_timeout_s=20.0, retries=3)
        buckets: dict[Slot, Bucket] = {
            slot: compose(bucket, settings, Metrics()) for slot, bucket in self.faulty.items()
        }
        ring = KeyRing(VOLUME, {1: b"k" * 32}, 1)
        self.store = SegmentStore(buckets, ring, Code(4, 2), clock=TrioClock())


@pytest.mark.parametrize("code", [Code(1, 1), Code(4, 2)], ids=str)
async def test_directories_as_buckets(tmp_path: Path, code: Code) -> None:
    buckets: dict[Slot, Bucket] = {}
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        inner = open_bucket(f"file://{tmp_path}/{number}", {})
        buckets[Slot(number)] = compose(inner, BucketSettings(), Metrics())
    store = SegmentStore(buckets, KeyRing(VOLUME, {1: b"k" * 32}, 1), code, clock=TrioClock())
    segment, placed = await store.write_segment(chunks(*DATAS))
    assert await store.read_chunks(whole(segment, placed)) == DATAS
    for slot in segment.placement[: code.m]:
        for path in sorted((tmp_path / str(slot)).rglob("*.0?")):
            path.write_bytes(b"\0" * path.stat().st_size)
    assert await store.read_chunks(whole(segment, placed)) == DATAS
    assert await store.delete_segment(segment) == set()
    for bucket in buckets.values():
        assert await bucket.list("segment/") == []
        await bucket.aclose()


@pytest.mark.parametrize(
    "action", [WrongBytes(1000), WrongBytes(-1), WrongBytes(3), ShortBody(), ShortBody(keep=0)], ids=repr
)
@pytest.mark.parametrize("op", ["get", "put"])
async def test_two_lying_buckets(op: str, action: WrongBytes | ShortBody) -> None:
    """I3, I4: whether they lie about what they were given or about what they give."""
    volume = Composed()
    for slot in (Slot(1), Slot(4)):
        volume.faulty[slot].add(Fault(action, op="get" if op == "get" else "put"))
    segment, placed = await volume.store.write_segment(chunks(*DATAS))
    assert await volume.store.read_chunks(whole(segment, placed)) == DATAS


async def test_two_buckets_gone_then_back(autojump_clock: trio.testing.MockClock) -> None:
    volume = Composed()
    written = [await volume.store.write_segment(chunks(*DATAS))]
    gone = [volume.faulty[slot].add(Fault(Gone())) for slot in (Slot(0), Slot(5))]
    for _ in range(4):
        written.append(await volume.store.write_segment(chunks(*DATAS)))
        for segment, placed in written:
            assert await volume.store.read_chunks(whole(segment, placed)) == DATAS
    assert volume.store.health.down(Slot(0))
    assert [len(segment.missing) for segment, _ in written] == [0, 2, 2, 2, 2]
    for slot, fault in zip((Slot(0), Slot(5)), gone, strict=True):
        volume.faulty[slot].remove(fault)
    await trio.sleep(200)
    segment, _ = await volume.store.write_segment(chunks(*DATAS))
    assert not segment.missing


async def test_two_hanging_buckets_cost_a_bounded_time(autojump_clock: trio.testing.MockClock) -> None:
    """I8: the first read waits its patience, later ones not at all; nor do writes, once both are down."""
    volume = Composed()
    segment, placed = await volume.store.write_segment(chunks(*DATAS))
    for slot in segment.placement[:2]:
        volume.faulty[slot].add(Fault(Hang()))
    began = trio.current_time()
    assert await volume.store.read_chunks(whole(segment, placed)) == DATAS
    assert trio.current_time() - began < 20
    began = trio.current_time()
    for _ in range(6):
        assert await volume.store.read_chunks(whole(segment, placed)) == DATAS
    assert trio.current_time() == began
    for _ in range(2):
        began = trio.current_time()
        await volume.store.write_segment(chunks(*DATAS))
        assert trio.current_time() - began < 35
    began = trio.current_time()
    written, _ = await volume.store.write_segment(chunks(*DATAS))
    assert len(written.missing) == 2
    assert trio.current_time() == began
