"""The round trip at a small size: what ``make roundtrip`` does at full size."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import roundtrip
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[roundtrip.Trip]:
    root = tmp_path_factory.mktemp("trip")
    with roundtrip.prepared(root, files=600, megabytes=40) as made:
        yield made


@pytest.mark.parametrize("check", roundtrip.CHECKS)
def test_round_trip(trip: roundtrip.Trip, check: str) -> None:
    """The checks build on each other, in order."""
    roundtrip.CHECKS[check](trip)
