"""What the tests of one machine begin with: three local buckets, a volume over them, a mount point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.azurite import azurite
from tests.servers.gcs import gcs_server
from tests.system.harness import VOLUME, Station, local_buckets, urls

__all__ = ["azurite", "directory", "gcs_server", "places", "station"]


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """Directories that serve as buckets."""
    return local_buckets(tmp_path, 3)


@pytest.fixture
def station(tmp_path: Path, places: list[Path]) -> Iterator[Station]:
    """A machine that made the volume ``VOLUME`` over the three buckets."""
    with Station(tmp_path / "machine") as made:
        made.mkfs(VOLUME, urls(places))
        yield made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    made = tmp_path / "mnt"
    made.mkdir()
    return made
