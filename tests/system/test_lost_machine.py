"""A slice of ``make lost-machine``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import lost_machine
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


@pytest.mark.parametrize("seed", [101, 102])
def test_i2_a_lost_machine_comes_back_as_one_recent_moment(tmp_path: Path, seed: int) -> None:
    assert lost_machine.complaint(seed, lost_machine.lose(tmp_path, seed)) is None
