"""The redundancy sentence promises nothing that is not so."""

from __future__ import annotations

import pytest

from objfs.app.status import BucketStatus, judge
from objfs.model import Code


def witness(health: str) -> BucketStatus:
    return BucketStatus(9, "00", "file:///w", True, health, shards=False)


def buckets(*health: str) -> tuple[BucketStatus, ...]:
    return tuple(
        BucketStatus(slot, "00", f"file:///{slot}", True, state) for slot, state in enumerate(health)
    )


@pytest.mark.parametrize(
    ("code", "tolerance", "health", "sentence"),
    [
        (Code(2, 1), 1, ("healthy",) * 3, "survives the loss of any one of 3 buckets"),
        (
            Code(4, 2),
            2,
            ("healthy", "suspect", *("healthy",) * 4),
            "survives the loss of any two of 6 buckets",
        ),
        (Code(2, 1), 0, ("healthy",) * 2, "survives the loss of no bucket"),
        (Code(2, 1), 1, ("healthy", "down", "healthy"), "is missing: no further loss is covered"),
        (Code(4, 2), 2, ("absent", *("healthy",) * 5), "slot 0 (file:///0) is missing: one more may be lost"),
        (Code(2, 1), 1, ("down", "down", "healthy"), "are missing: parts of the volume cannot be read"),
    ],
)
def test_sentences(code: Code, tolerance: int, health: tuple[str, ...], sentence: str) -> None:
    redundancy = judge(code, tolerance, buckets(*health))
    assert sentence in redundancy.sentence
    assert redundancy.degraded == ("missing" in redundancy.sentence)


@pytest.mark.parametrize(
    ("domains", "said"),
    [((0, 0), ""), ((1, 3), "; any one of 3 domains"), ((0, 2), "; not that of a whole domain")],
)
def test_whole_domains_are_told_beside_buckets(domains: tuple[int, int], said: str) -> None:
    sentence = judge(Code(4, 2), 2, buckets(*("healthy",) * 6), domains=domains).sentence
    assert sentence.startswith(f"survives the loss of any two of 6 buckets{said}")
    assert ("domain" in sentence) == bool(said)


@pytest.mark.parametrize(
    ("tolerance", "waiting", "covered"),
    [
        (1, (1, 1), "; 1 segment waits for repair, as a bucket did not take its shard: there no loss is"),
        (
            2,
            (7, 1),
            "; 7 segments wait for repair, as a bucket did not take its shard: there only the loss of one",
        ),
        (2, (7, 2), "there no loss is covered"),
    ],
)
def test_segments_that_lack_shards_are_not_covered_like_the_rest(
    tolerance: int, waiting: tuple[int, int], covered: str
) -> None:
    """A bucket that was full for a while looked healthy, and the sentence promised its loss for all."""
    redundancy = judge(Code(2, tolerance), tolerance, buckets(*("healthy",) * 5), waiting)
    assert redundancy.sentence.startswith("survives the loss of any")
    assert covered in redundancy.sentence
    assert redundancy.degraded


@pytest.mark.parametrize(
    ("data", "votes", "sentence"),
    [
        (("healthy",) * 2, "healthy", "survives the loss of any one of 2 buckets"),
        (("healthy",) * 2, "down", "survives the loss of any one of 2 buckets; witness slot 9 (file:///w)"),
        (("down", "healthy"), "healthy", "bucket slot 0 (file:///0) is missing: no further loss is covered"),
        (("down", "healthy"), "down", "no further loss is covered; witness slot 9 (file:///w) is missing"),
        (("down", "down"), "healthy", "are missing: parts of the volume cannot be read until one is back"),
    ],
)
def test_a_witness_holds_no_data(data: tuple[str, ...], votes: str, sentence: str) -> None:
    """Without it nothing less can be read, and with it nothing more."""
    redundancy = judge(Code(1, 1), 1, (*buckets(*data), witness(votes)))
    assert sentence in redundancy.sentence
    needs = "a new mount that writes needs 2 of 3 voting buckets" in redundancy.sentence
    assert needs == ((*data, votes).count("down") > 1)


@pytest.mark.parametrize(("count", "tolerance", "needed"), [(2, 1, 2), (3, 1, 0), (4, 2, 3), (5, 2, 0)])
def test_fewer_voters_than_twice_the_tolerance_and_one(count: int, tolerance: int, needed: int) -> None:
    """I5: a new mount that writes is then not as hard to hinder as reading is."""
    sentence = judge(Code(2, tolerance), tolerance, buckets(*("healthy",) * count)).sentence
    said = f"after that a new mount that writes needs --force: {needed} of {count} must vote"
    assert sentence.endswith(said) == bool(needed)


@pytest.mark.parametrize("health", ["full", "read-only"])
def test_a_bucket_that_takes_nothing_can_be_read_and_is_said(health: str) -> None:
    redundancy = judge(Code(2, 1), 1, buckets("healthy", health, "healthy"))
    assert redundancy.sentence.startswith("survives the loss of any one of 3 buckets")
    assert f"slot 1 (file:///1) is {health}: what is written now is not on it" in redundancy.sentence
    assert redundancy.degraded
    assert not redundancy.missing


def test_votes_need_buckets_that_take_objects() -> None:
    redundancy = judge(Code(2, 1), 1, buckets("full", "read-only", "healthy"))
    assert "a new mount that writes needs 2 of 3 voting buckets" in redundancy.sentence
