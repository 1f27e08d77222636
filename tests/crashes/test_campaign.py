"""A slice of ``make crashes``: chains of lives, each ended in three ways and judged by the oracle."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crashes import campaign, killed
from tests.system.harness import have_fuse


@pytest.mark.parametrize("seed", [1, 2])
def test_i1_i2_crashes_power_cuts_and_lost_machines_leave_whole_moments(tmp_path: Path, seed: int) -> None:
    found = campaign.run_seed(seed, tmp_path, deaths={"kill": 4, "cut": 3, "loss": 2}, lives=2)
    assert found.violations == []
    assert found.deaths == {"kill": 8, "cut": 6, "loss": 4}


@pytest.mark.mount
@pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")
def test_i1_a_killed_mount_keeps_what_was_written() -> None:
    found = killed.run_seed(1, kills=3)
    assert found.violations == []
    assert found.kills == 3
