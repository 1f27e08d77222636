"""Fixtures of the volume tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from objfs.volume.local import VolumeHome
from tests.volume.patients import Patient, build
from tests.volume.rigs import Cloud


@pytest.fixture
def patient_clock() -> trio.testing.MockClock:
    """Jumps like ``autojump_clock``, but only when worker threads had a moment to finish too."""
    return trio.testing.MockClock(autojump_threshold=0.1)


@pytest.fixture(scope="package")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cloud, VolumeHome]:
    """A volume that was unmounted cleanly; nobody changes it."""
    root = tmp_path_factory.mktemp("template")

    async def make() -> tuple[Cloud, VolumeHome]:
        return await build(root, "clean", crashed=False)

    return trio.run(make)


@pytest.fixture
async def patient(template: tuple[Cloud, VolumeHome], tmp_path: Path) -> Patient:
    """A copy of it, to be damaged."""
    return Patient(*await template[0].copied(tmp_path, template[1]))
