"""The place to mount on: what is refused, and what objfs makes itself."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from objfs.app.mountpoint import Mounted, find_mount, holder_of, mounts, prepare, unmount
from objfs.errors import ExitCode, MountPointUnusable, NotMounted

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount on what lets nobody in")
def test_a_made_directory_lets_nobody_in(tmp_path: Path) -> None:
    place = prepare(tmp_path / "new" / "mnt", make=True)
    assert stat.S_IMODE(place.stat().st_mode) == 0
    assert prepare(place, make=True) == place


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """The test runs as one; a directory of his."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(directory)
        finally:
            os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_may_enter_and_write_to_what_was_made_for_him(ordinary_user: Path) -> None:
    """Or fusermount3 refuses to mount there."""
    place = prepare(ordinary_user / "mnt", make=True)
    assert os.access(place, os.W_OK | os.X_OK, effective_ids=True)


def test_missing_is_refused_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(MountPointUnusable, match="does not exist") as caught:
        prepare(tmp_path / "absent", make=False)
    assert caught.value.exit_code is ExitCode.MOUNT_POINT


def test_not_empty_and_not_a_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountPointUnusable, match="not empty"):
        prepare(tmp_path, make=False)
    with pytest.raises(MountPointUnusable, match="not a directory"):
        prepare(tmp_path / "file", make=False)


def test_mountinfo_is_unescaped(tmp_path: Path) -> None:
    line = rb"36 35 98:0 / /mnt/a\040b rw,noatime master:1 - fuse.objfs my\040volume rw,user_id=0" + b"\n"
    (tmp_path / "mountinfo").write_bytes(line)
    assert list(mounts(tmp_path / "mountinfo")) == [
        Mounted(Path("/mnt/a b"), "fuse.objfs", "my volume", ("rw", "noatime"))
    ]


def test_what_is_not_mounted(tmp_path: Path) -> None:
    assert find_mount(tmp_path) is None
    assert holder_of(tmp_path) is None
    with pytest.raises(NotMounted):
        unmount(tmp_path)
