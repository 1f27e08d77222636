"""The figure of slow buckets, on a clock that only the waiting moves: the bounds that are promised."""

from __future__ import annotations

from dataclasses import replace

import trio.testing

from bench.slow_bucket import HEDGED, PLAIN, Scale, measure
from tests.store.buckets import TrioClock

SCALE = Scale(reads=400, warm=200, segments=24, pieces=50)
"""Places are chosen at random: of many segments, the late bucket holds data of about two thirds."""


async def test_p99_with_one_of_six_buckets_2_s_late_stays_within_twice_the_healthy_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    healthy = await measure(SCALE, HEDGED, TrioClock(), late=False)
    hedged = await measure(SCALE, HEDGED, TrioClock(), late=True)
    assert hedged.quantile(0.99) <= 2 * healthy.quantile(0.99)
    # What the reads of the warm-up did not spend may be spent later.
    assert healthy.requests - SCALE.reads <= 0.05 * (SCALE.warm + SCALE.reads)
    assert hedged.requests <= 2 * SCALE.reads, "a sixth of the reads costs four requests"


async def test_without_hedging_a_sixth_of_the_reads_waits(autojump_clock: trio.testing.MockClock) -> None:
    plain = await measure(replace(SCALE, reads=200, warm=0), PLAIN, TrioClock(), late=True)
    assert plain.quantile(0.98) > SCALE.delay_s
    assert plain.requests == 200
