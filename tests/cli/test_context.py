"""How sizes and ages are shown, and how a snapshot is named."""

from __future__ import annotations

import pytest

from objfs.cli.context import age, name_and_snapshot, size
from objfs.errors import UsageError


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB (1.02 kB)"),
        (1_610_612_736, "1.50 GiB (1.61 GB)"),
        (2**60, "1.00 EiB (1.15 EB)"),
    ],
)
def test_sizes_in_both_units(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (119, "119.0 s"), (300, "5 min"), (7200, "2 h"), (864_000, "10 d")],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_a_snapshot_stands_behind_an_at() -> None:
    assert name_and_snapshot("home") == ("home", b"")
    assert name_and_snapshot("home@monday@noon") == ("home", b"monday@noon")
    with pytest.raises(UsageError, match="names no snapshot"):
        name_and_snapshot("home@")
