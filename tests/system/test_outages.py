"""A slice of ``make outages``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.choice import moto
from tests.system import outages
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def test_i3_rsync_while_buckets_go_and_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        figures = outages.run(tmp_path, server.endpoint, seconds=8, seed=1, files=100, megabytes=2)
    assert figures.complaints == []
    assert figures.outages.losses.total() >= 5
    assert figures.syncing.passes >= 1
    assert figures.worker.operations.total() > 10
