"""I3 and I4, a slice of ``make losses``: each code, one loss of the full size, and one bucket more."""

from __future__ import annotations

from pathlib import Path

import pytest

from objfs.model import Code
from objfs.store.placement import tolerance
from objfs.volume.recode import publish_code
from tests.losses.matrix import BUCKETS, CODES, MOST_SETS, Loss, sets_of

CASES = [
    (Code(1, 0), 1, ()),
    (Code(1, 1), 2, (0,)),
    (Code(2, 1), 3, (1,)),
    (Code(4, 2), 6, (0, 4)),
    (Code(4, 2), 3, (2,)),
    (Code(8, 3), 11, (1, 5, 9)),
]


@pytest.mark.parametrize(("code", "buckets", "lost"), CASES, ids=str)
async def test_what_is_borne_is_lost_and_comes_back(
    tmp_path: Path, code: Code, buckets: int, lost: tuple[int, ...]
) -> None:
    assert len(lost) == tolerance(code, buckets)
    loss = Loss(tmp_path, code, buckets)
    await loss.make()
    await loss.lose(0, lost)
    await loss.lose_too_many()


async def test_while_the_code_changes_the_weaker_one_holds(tmp_path: Path) -> None:
    """Segments of 2+1 beside such of 4+2: one bucket may go; repair and scrub take each by its own code."""
    loss = Loss(tmp_path, Code(2, 1), 6)
    await loss.make()
    async with loss.mounted(()) as rig:
        await publish_code(rig.volume, rig.checkpointer, Code(4, 2))
        loss.write(rig, b"under the new code", 300_000)
    for number, lost in enumerate([(0,), (3,)]):
        await loss.lose(number, lost)


def test_the_whole_goes_through_every_loss_that_is_borne_or_five_hundred_of_them() -> None:
    for code in CODES:
        for buckets in BUCKETS:
            chosen = sets_of(code, buckets)
            assert len(chosen) == len(set(chosen)) <= MOST_SETS
            assert max(map(len, chosen)) <= tolerance(code, buckets)
    assert len(sets_of(Code(4, 2), 6)) == 6 + 15
    assert len(sets_of(Code(8, 3), 11)) == 11 + 55 + 165
