"""Measures the floor, a local directory and any others side by side, in interleaved rounds.

    python -m bench.run objfs=/mnt/objfs juicefs=/mnt/jfs --local /var/tmp --rounds 5

Owns the order of the measurements and what it starts: the floor's process, its mount and the
directories it makes are gone afterwards, also after ^C.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from bench import report
from bench.workloads import Sizes, Stage, Workload, may_drop_caches, select

END_S = 20.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directories", nargs=-1, metavar="[NAME=DIR]...")
@click.option(
    "--local",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the local yardstick is, on a real disk (default: the temporary directory).",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Sizes times this.")
@click.option("--only", multiple=True, metavar="WORD", help="Only workloads whose name contains WORD.")
@click.option("--no-floor", is_flag=True, help="Without the in-memory file system.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def main(
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
        raise click.UsageError("no workload has such a name")
    targets = {"local": local or Path(tempfile.gettempdir()), **dict(map(_named, directories))}
    console = Console(stderr=True)
    if not may_drop_caches():
        console.print("not root: the kernel's dentries cannot be dropped; stat and readdir measure its cache")
    with contextlib.ExitStack() as stack:
        if not no_floor:
            targets = {"floor": stack.enter_context(mounted_floor()), **targets}
        cells = measure(targets, workloads, Sizes().scaled(scale), rounds, console)
    if as_json:
        click.echo(json.dumps(report.records(workloads, list(targets), cells), indent=2))
    else:
        Console().print(report.table(workloads, list(targets), cells))


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    directory = Path(path if equals else text)
    if not directory.is_dir():
        raise click.UsageError(f"{directory}: no such directory")
    return (name if equals else directory.name), directory


@contextlib.contextmanager
def mounted_floor() -> Iterator[Path]:
    """The floor in a process of its own; unmounted and ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="objfs-floor-") as mountpoint:
        command = [sys.executable, "-m", "bench.floor", mountpoint]
        root = Path(__file__).resolve().parent.parent
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as server:
            try:
                if server.stdout is None or server.stdout.readline() != "mounted\n":
                    raise click.ClickException("the floor could not be mounted; is /dev/fuse there?")
                yield Path(mountpoint)
            finally:
                _end(server, mountpoint)


def _end(server: subprocess.Popen[str], mountpoint: str) -> None:
    server.terminate()
    try:
        server.wait(END_S)
    except subprocess.TimeoutExpired:
        subprocess.run(["fusermount3", "-uz", mountpoint], check=False)
        server.kill()


def measure(
    targets: dict[str, Path], workloads: Sequence[Workload], sizes: Sizes, rounds: int, console: Console
) -> report.Cells:
    """Each workload in each place once a round, the places in turn: what else the machine does
    meanwhile falls on all of them alike."""
    values: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        stages = {name: Stage(path, sizes) for name, path in targets.items()}
        for stage in stages.values():
            stack.callback(stage.close)
        progress = stack.enter_context(Progress(console=console, transient=True))
        task = progress.add_task("", total=rounds * len(workloads) * len(stages))
        for number in range(rounds):
            for workload in workloads:
                for name in _turned(list(stages), number):
                    progress.update(
                        task, advance=1, description=f"{number + 1}/{rounds} {workload.name}: {name}"
                    )
                    values.setdefault((workload.name, name), []).append(workload.run(stages[name]).value)
    return {key: report.Cell(tuple(found)) for key, found in values.items()}


def _turned(names: list[str], by: int) -> list[str]:
    at = by % len(names)
    return names[at:] + names[:at]


if __name__ == "__main__":
    main()
