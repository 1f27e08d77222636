"""A slice of ``make moving``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system import moving
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def test_i3_a_bucket_is_replaced_under_load_and_the_mount_is_killed(tmp_path: Path) -> None:
    figures = moving.run(tmp_path, seed=2, kills=1, segments=10)
    assert figures.complaints == []
    assert figures.kills == 1
    assert figures.walked > 40
    assert figures.least == figures.floor
    assert figures.files > 10
