"""The redundancy sentence promises nothing that is not so."""

from __future__ import annotations

import pytest

from objfs.app.status import BucketStatus, judge
from objfs.model import Code


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
