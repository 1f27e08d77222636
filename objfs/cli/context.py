"""What every command shares: where volumes are, how to print, how to show sizes and ages.

Owns the two consoles.  Results go to standard output; progress and messages go to standard error,
and progress bars only to a terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.table import Table

from objfs.app.home import objfs_home
from objfs.errors import UsageError

F = TypeVar("F", bound=Callable[..., object])


def home() -> Path:
    return objfs_home(os.environ)


def printable(text: str) -> str:
    """What may go to a terminal: bytes that are no UTF-8, control characters, and marks that turn the
    direction of writing are escaped, so that a name fakes no line and no colour."""
    return _UNSAFE.sub(_escaped, text)


_UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(match: re.Match[str]) -> str:
    """A surrogate stands for a byte."""
    return match[0].encode("unicode_escape").decode("ascii").replace("\\udc", "\\x")


def say(line: str) -> None:
    """One line for the person, on standard error."""
    click.echo(printable(line), err=True)


def show(*lines: str) -> None:
    """Lines of the result, for a person."""
    for line in lines:
        click.echo(printable(line))


def show_json(value: Mapping[str, object] | Sequence[object]) -> None:
    click.echo(json.dumps(value, indent=2, sort_keys=True))


def json_option(command: F) -> F:
    """``--json`` for a listing."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)


class _Listing(Table):
    """Each cell is one line of text."""

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        """As a table does."""
        super().add_row(*(printable(cell) if isinstance(cell, str) else cell for cell in cells), **how)


def table(*columns: str) -> Table:
    """A plain table: no frames, so that it can be cut and grepped."""
    made = _Listing(box=None, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def show_table(made: Table) -> None:
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False, markup=False).print(made)


def size(count: int) -> str:
    """``1.50 GiB (1.61 GB)``: both units, because people and clouds count differently."""
    if abs(count) < 1024:
        return f"{count} B"
    return f"{_scaled(count, 1024, 'iB')} ({_scaled(count, 1000, 'B')})"


def _scaled(count: int, base: int, suffix: str) -> str:
    value, units = float(count), "kMGTPE" if base == 1000 else "KMGTPE"
    for unit in units:
        value /= base
        if abs(value) < base or unit == "E":
            return f"{value:.2f} {unit}{suffix}"
    raise AssertionError("unreachable: the last unit always answers")


def age(seconds: float) -> str:
    """``3.2 s``, ``5 min``, ``2 h``, ``4 d``."""
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}" if divisor == 1 else f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def notes() -> Callable[[str], None]:
    """Says what a long command is at, each thing once; silent without a terminal."""
    last = ""

    def note(text: str) -> None:
        nonlocal last
        if text and text != last and sys.stderr.isatty():
            say(text)
        last = text

    return note


def name_and_snapshot(word: str) -> tuple[str, bytes]:
    """``NAME@SNAPSHOT``, or ``NAME`` and nothing.  Raises UsageError."""
    name, at, snapshot = word.partition("@")
    if at and not snapshot:
        raise UsageError(f"{word} names no snapshot behind the @")
    return name, os.fsencode(snapshot)


_UNITS: dict[str, int] = {"": 1, "B": 1} | {
    letter + suffix: base**power
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("IB", 1024), ("B", 1000))
}


def parse_size(text: str) -> int:
    """``1 MiB``, ``512KiB``, ``65536``: bytes.  Raises UsageError."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{text!r} is not a size: give bytes, or a number with KiB, MiB, GiB, kB, MB, GB")
    return int(match[1]) * unit
