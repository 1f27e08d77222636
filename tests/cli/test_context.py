"""How sizes and ages are shown."""

from __future__ import annotations

import pytest

from objfs.cli.context import age, size


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
