"""A slice of ``make faults``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.choice import moto
from tests.system import faults
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]


def test_i8_load_through_a_network_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with moto() as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        figures = faults.run(tmp_path, server.endpoint, seconds=8, seed=1)
    assert figures.complaints == []
    assert all(worker.operations.total() > 10 for worker in figures.workers)
    assert sum(proxy.struck.total() for proxy in figures.proxies) > 5
