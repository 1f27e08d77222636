"""How sizes and ages are shown, and how a snapshot is named."""

from __future__ import annotations

import os

import pytest

from objfs.cli.context import age, name_and_snapshot, printable, say, show, show_table, size, table
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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain \\ é 写 👩‍👩‍👧", "plain \\ é 写 👩‍👩‍👧"),
        ("a\nD b\t\r\x7f", "a\\nD b\\t\\r\\x7f"),
        ("\x1b[31mred\x9b0m", "\\x1b[31mred\\x9b0m"),
        ("\u2028\u202egpj", "\\u2028\\u202egpj"),
        (os.fsdecode(b"\xff\xe9"), "\\xff\\xe9"),
    ],
)
def test_a_name_fakes_no_line_and_no_colour(
    name: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(name) == shown
    say(name)
    show(name, name)
    rows = table("NAME")
    rows.add_row(name)
    show_table(rows)
    out, err = capsys.readouterr()
    assert err.splitlines() == [shown]
    assert [line.rstrip() for line in out.splitlines()] == [shown, shown, "NAME", shown]
