"""What holds for every test: hypothesis without deadlines, and no mount left behind."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from objfs.app.mountpoint import FSTYPE, mounts

hypothesis.settings.register_profile("objfs", deadline=None, print_blob=True)
hypothesis.settings.load_profile("objfs")


@pytest.fixture(autouse=True, scope="session")
def no_mount_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A leaked mount would hang whoever walks over it next."""
    base = tmp_path_factory.getbasetemp()
    yield
    left = [
        mount.directory for mount in mounts() if mount.fstype == FSTYPE and base in mount.directory.parents
    ]
    assert not left, f"mounts left behind: {sorted(map(str, left))}"
