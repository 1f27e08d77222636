"""Where shards go, and what that bears."""

from __future__ import annotations

import os
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from objfs.errors import BadSetting
from objfs.model import Code, Slot
from objfs.store.placement import (
    describe,
    describe_domains,
    domain_count,
    domain_tolerance,
    place,
    spares,
    tolerance,
)

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


# --- domains -------------------------------------------------------------------------------

NAMES = st.sampled_from(["", "a", "b", "c", "d"])


@st.composite
def labelled(draw: st.DrawFn) -> dict[Slot, str]:
    """A domain, or none, for each of some slots."""
    slots = draw(st.sets(st.integers(0, 255).map(Slot), min_size=1, max_size=12))
    return {slot: draw(NAMES) for slot in sorted(slots)}


@given(uuid=UUIDS, code=CODES, domains=labelled())
def test_domains_change_neither_the_spread_nor_what_has_none(
    uuid: bytes, code: Code, domains: dict[Slot, str]
) -> None:
    counts = Counter(place(uuid, code, domains, domains))
    assert counts.total() == code.n
    assert len(counts) == min(code.n, len(domains))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert place(uuid, code, domains, dict.fromkeys(domains, "")) == place(uuid, code, domains)


@given(uuid=UUIDS, code=CODES, domains=labelled())
def test_no_domain_holds_more_than_m_shards_where_distinct_buckets_allow_it(
    uuid: bytes, code: Code, domains: dict[Slot, str]
) -> None:
    """What fits is known without the algorithm: from each domain at most m slots, and every slot without.
    Without parity the loss of any shard is a loss, wherever it was."""
    assume(code.m > 0)
    sizes = Counter(name for name in domains.values() if name)
    room = sum(min(size, code.m) for size in sizes.values()) + sum(not name for name in domains.values())
    placed = place(uuid, code, domains, domains)
    held = Counter(domains[slot] for slot in placed if domains[slot])
    if room >= code.n:
        assert max(held.values(), default=0) <= code.m


@given(code=CODES, domains=labelled())
def test_the_tolerance_of_domains_is_the_truth(code: Code, domains: dict[Slot, str]) -> None:
    """Against trying every loss of whole domains, for every segment that there may be."""
    groups = sorted({name or f"slot {slot}" for slot, name in domains.items()})
    placed = [
        Counter(
            domains[slot] or f"slot {slot}"
            for slot in place(start.to_bytes(16, "big"), code, domains, domains)
        )
        for start in range(len(domains))
    ]

    def bears(lost: int) -> bool:
        return all(
            sum(one[name] for name in gone) <= code.m for gone in combinations(groups, lost) for one in placed
        )

    borne = domain_tolerance(code, domains, domains)
    assert len(groups) == domain_count(domains, domains)
    assert bears(borne)
    assert borne == len(groups) or not bears(borne + 1)


@given(uuid=UUIDS, domains=labelled())
def test_stand_ins_come_from_domains_that_hold_little(uuid: bytes, domains: dict[Slot, str]) -> None:
    placed = place(uuid, Code(2, 1), domains, domains)
    held = Counter(domains[slot] for slot in placed if domains[slot])
    order = [held[domains[slot]] if domains[slot] else 0 for slot in spares(uuid, placed, domains, domains)]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("domains", "sentence"),
    [
        ("------", ""),
        ("aabbcc", "bears the loss of any 1 of 3 domains"),
        ("abcdef", "bears the loss of any 2 of 6 domains"),
        ("aab---", "bears the loss of any 1 of 5 domains"),
        (
            "aaabbb",
            "bears the loss of no whole domain: 2 domains cannot hold the 6 shards of a segment with at ",
        ),
    ],
)
def test_what_is_said_of_domains(domains: str, sentence: str) -> None:
    named = {Slot(slot): name.strip("-") for slot, name in enumerate(domains)}
    said = describe_domains(Code(4, 2), list(named), named)
    assert said.startswith(sentence)
    assert bool(said) == bool(sentence)
