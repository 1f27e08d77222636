"""Two writers and one volume: a diagonal of the matrix, each end and each succession once.  All of it:
``make two-writers``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rivals import matrix

DIAGONAL: tuple[tuple[matrix.End, matrix.Succession], ...] = (
    ("kill", "back first"),
    ("stop", "twice"),
    ("cut", "forced"),
    ("leave", "expired"),
)


@pytest.mark.parametrize(("end", "succession"), DIAGONAL)
def test_i5_two_writers(tmp_path: Path, end: matrix.End, succession: matrix.Succession) -> None:
    matrix.run(tmp_path, end, succession)
