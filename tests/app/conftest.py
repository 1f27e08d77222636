"""Fixtures of the application's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fs.real import RealWorld


@pytest.fixture
def world() -> Iterator[RealWorld]:
    """A file system without a volume, sound at the end."""
    world = RealWorld()
    yield world
    world.close()
