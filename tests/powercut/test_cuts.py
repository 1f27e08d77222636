"""A slice of ``make powercut``: one run of SQLite and git, cut at a few places."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from tests.doubles.journal import Record
from tests.powercut.cutting import complaints, cuts, record
from tests.powercut.programs import PROGRAMS, Database, Program, Repository
from tests.system.harness import have_fuse

pytestmark = [pytest.mark.mount, pytest.mark.skipif(not have_fuse(), reason="no usable /dev/fuse")]

CUTS = 20


def small(program: Program) -> Program:
    if isinstance(program, Database):
        return replace(program, transactions=20)
    assert isinstance(program, Repository)
    return replace(program, commits=3, every=2)


SMALL = tuple(map(small, PROGRAMS))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return record(tmp_path_factory.mktemp("recorded"), SMALL)


def test_i1_sqlite_and_git_are_whole_after_a_power_cut(tmp_path: Path, records: list[Record]) -> None:
    found = [
        f"{cut.at}: {text}"
        for number, cut in enumerate(islice(cuts(records, 0), CUTS))
        for text in complaints(tmp_path / "cut", records, cut, f"0-{number}", SMALL)
    ]
    assert found == []


def test_what_was_promised_and_is_not_there_is_noticed(tmp_path: Path, records: list[Record]) -> None:
    """Or the other test would say nothing: promises of the end, and the disk of the middle."""
    first, *_, last = sorted(islice(cuts(records, 0), 50), key=lambda cut: cut.at)
    early = replace(first, acknowledged=last.acknowledged)
    found = complaints(tmp_path / "cut", records, early, "0", SMALL)
    assert [text.partition(":")[0] for text in found] == [program.name for program in SMALL]
