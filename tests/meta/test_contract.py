"""The suite of the ports, over the SQLite table and over its double; the table is audited after each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.contract import ChunkContract, HistoryContract, NamespaceContract, Table
from tests.meta.support import make, make_double


@pytest.fixture(params=["sqlite", "memory"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    if request.param == "memory":
        yield make_double()
        return
    with make(tmp_path / "meta.db") as found:
        yield found
        assert found.check() == []


class TestNamespace(NamespaceContract):
    pass


class TestChunks(ChunkContract):
    pass


class TestHistory(HistoryContract):
    pass
