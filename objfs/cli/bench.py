"""``objfs bench``: the project's workloads in directories, beside the floor and a local directory."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from objfs.app.bench import report
from objfs.app.bench.measure import measure, mounted_floor
from objfs.app.bench.workloads import Sizes, may_drop_caches, select
from objfs.cli.bars import stepping
from objfs.cli.context import json_option, say, show_json
from objfs.errors import UsageError


@click.command()
@click.argument("directories", nargs=-1, metavar="[NAME=]DIR...")
@click.option(
    "--local",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the local yardstick is, on a real disk (default: the temporary directory).",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Sizes times this.")
@click.option("--only", multiple=True, metavar="WORD", help="Only workloads whose name contains WORD.")
@click.option("--no-floor", is_flag=True, help="Without the in-memory file system.")
@json_option
def bench(
    directories: Sequence[str],
    local: Path | None,
    rounds: int,
    scale: float,
    only: Sequence[str],
    no_floor: bool,
    as_json: bool,
) -> None:
    """Measure the floor, a local directory and DIRs (mounted file systems) side by side."""
    workloads = select(only)
    if not workloads:
        raise UsageError("no workload has such a name")
    targets = {"local": local or Path(tempfile.gettempdir()), **dict(map(_named, directories))}
    if not may_drop_caches():
        say("not root: the kernel's dentries cannot be dropped; stat and readdir measure its cache")
    with contextlib.ExitStack() as stack:
        if not no_floor:
            targets = {"floor": stack.enter_context(mounted_floor()), **targets}
        step = stack.enter_context(stepping(rounds * len(workloads) * len(targets)))
        cells = measure(targets, workloads, Sizes().scaled(scale), rounds, step)
    if as_json:
        show_json(report.records(workloads, list(targets), cells))
    else:
        Console().print(report.table(workloads, list(targets), cells))


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    directory = Path(path if equals else text)
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory")
    return (name if equals else directory.name), directory
