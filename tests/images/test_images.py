"""A slice of ``make snapshots``; and what it rests on notices what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.images.copies import Copies
from tests.images.taking import run
from tests.images.writers import Ended
from tests.system.harness import have_fuse

SNAPSHOTS = 2
SEED = 1


@pytest.mark.mount
@pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")
def test_a_snapshot_among_rsync_sqlite_and_git_is_an_image_that_all_of_them_accept(tmp_path: Path) -> None:
    said: list[str] = []
    assert run(tmp_path, SEED, SNAPSHOTS, said.append) == []
    assert len(said) == SNAPSHOTS


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Of which two runs have ended in ``out``."""
    (tmp_path / "out").mkdir()
    copies = Copies(tmp_path / "source")
    copies.prepare(tmp_path / "out")

    def say(run: int) -> None:
        if run == 2:
            raise Ended

    with pytest.raises(Ended):
        copies.work(tmp_path / "out", say)
    return copies


def test_what_rsync_made_is_judged(tmp_path: Path, copies: Copies) -> None:
    out = tmp_path / "out"
    assert copies.complaint(out, 2) == ""
    (out / "one" / ".file1.Xy12Zw").write_bytes(b"half of")
    assert copies.complaint(out, 2) == ""
    assert "from 3 on" in copies.complaint(out, 3)
    name = next(path for path in sorted((out / "two").iterdir()))
    shutil.copy(name, out / "two" / "other")
    assert "other is nothing that rsync makes" in copies.complaint(out, 2)
    (out / "two" / "other").unlink()
    name.write_bytes(name.read_bytes()[:-1])
    assert "is not that of a run from 2 on" in copies.complaint(out, 2)
