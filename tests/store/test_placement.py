"""Where shards go, and what that bears."""

from __future__ import annotations

import os
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objfs.errors import BadSetting
from objfs.model import Code, Slot
from objfs.store.placement import describe, place, spares, tolerance

UUIDS = st.binary(min_size=16, max_size=16)
CODES = st.builds(Code, st.integers(1, 8), st.integers(0, 4))


@given(uuid=UUIDS, code=CODES, slots=st.sets(st.integers(0, 255).map(Slot), min_size=1, max_size=14))
def test_shards_are_spread_evenly_over_distinct_buckets(uuid: bytes, code: Code, slots: set[Slot]) -> None:
    placed = place(uuid, code, slots)
    counts = Counter(placed)
    assert len(placed) == code.n
    assert len(counts) == min(code.n, len(slots))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert sorted([*spares(uuid, placed, slots), *counts]) == sorted(slots)
    assert place(uuid, code, sorted(slots, reverse=True)) == placed


def test_load_spreads_over_all_buckets() -> None:
    slots = [Slot(i) for i in range(9)]
    placed = [place(os.urandom(16), Code(4, 2), slots) for _ in range(3000)]
    for shards in ([0], [0, 1, 2, 3], [4, 5]):
        counts = Counter(one[shard] for one in placed for shard in shards)
        assert min(counts.values()) > 0.8 * 3000 * len(shards) / 9


@given(code=CODES, buckets=st.integers(1, 9))
def test_tolerance_is_the_truth(code: Code, buckets: int) -> None:
    """Against trying every loss of whole buckets, for striped segments and for small ones (copies)."""
    slots = [Slot(i) for i in range(buckets)]

    def bears(lost: int, used: Code) -> bool:
        placed = place(bytes(16), used, slots)
        return all(
            sum(slot not in gone for slot in placed) >= used.k for gone in combinations(slots, lost)
        )  # fmt: skip

    borne = tolerance(code, buckets)
    assert all(bears(lost, code) and bears(lost, Code(1, code.m)) for lost in range(borne + 1))
    assert borne == buckets or not bears(borne + 1, code)


@pytest.mark.parametrize(
    ("code", "buckets", "sentence"),
    [
        (Code(4, 2), 6, "4+2 over 6 buckets bears the loss of any 2 buckets, and takes 1.50 times the bytes"),
        (
            Code(4, 2),
            3,
            "4+2 over 3 buckets bears the loss of any one bucket, and takes 1.50 times the bytes: "
            "one bucket holds 2 of the 6 shards, with 6 buckets it would bear 2",
        ),
        (
            Code(2, 1),
            1,
            "2+1 over 1 bucket bears the loss of no bucket, and takes 1.50 times the bytes: "
            "one bucket holds 3 of the 3 shards, with 3 buckets it would bear 1",
        ),
        (Code(1, 0), 1, "1+0 over 1 bucket bears the loss of no bucket, and takes 1.00 times the bytes"),
        (Code(1, 2), 5, "1+2 over 5 buckets bears the loss of any 2 buckets, and takes 3.00 times the bytes"),
    ],
)
def test_one_honest_sentence(code: Code, buckets: int, sentence: str) -> None:
    assert describe(code, buckets) == sentence


def test_no_bucket_is_refused() -> None:
    with pytest.raises(BadSetting):
        place(bytes(16), Code(1, 0), [])
    with pytest.raises(BadSetting):
        tolerance(Code(1, 0), 0)
