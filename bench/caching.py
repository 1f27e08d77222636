"""What the kernel may remember of a mount, measured: timeouts, the page cache, writing through or back.

Owns a volume for each choice, mounted beside the others by a process of its own, and measures them in turns,
so that what else the machine does falls on all alike.  docs/design/kernel-caching.md holds the figures.

    python -m bench.caching [--rounds 5] [--scale 1.0]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio
from rich.console import Console
from rich.table import Table

from bench.million import Site, make, running
from objfs.app.bench import report, workloads
from objfs.app.bench.measure import measure
from objfs.app.bench.workloads import MB, MIB, PER_S, Sizes, Stage, Workload
from objfs.fuse import FuseSettings, Operations, Session, fuse_options

AGAIN = 4
"""How often a workload repeats what the kernel might remember."""
PIECES = 8
"""The share of a large file that is written in small pieces."""
CHOSEN = "chosen"
END_S = 30.0


class Choice(NamedTuple):
    """What one mount lets the kernel do."""

    settings: FuseSettings
    writeback: bool = False


def _timeouts(seconds: float) -> FuseSettings:
    return FuseSettings(entry_timeout=seconds, attr_timeout=seconds, negative_timeout=seconds)


CHOICES = {
    CHOSEN: Choice(FuseSettings()),
    "1 s": Choice(_timeouts(1.0)),
    "0 s": Choice(_timeouts(0.0)),
    "no keep_cache": Choice(FuseSettings(keep_cache=False)),
    "writeback": Choice(FuseSettings(), writeback=True),
}


# --- workloads -----------------------------------------------------------------------------


def _timed(stage: Stage, once: Callable[[Stage], None]) -> float:
    """The first time fills what the kernel remembers and is not measured."""
    once(stage)
    begun = time.perf_counter()
    for _ in range(AGAIN):
        once(stage)
    return time.perf_counter() - begun


def _stat(stage: Stage) -> None:
    for path in stage.small_files:
        os.stat(path)


def _absent(stage: Stage) -> None:
    for path in stage.small_files:
        os.path.lexists(path + ".absent")


def _list(stage: Stage) -> None:
    with os.scandir(os.path.dirname(stage.small_files[0])) as entries:
        for entry in entries:
            entry.stat(follow_symlinks=False)


def _read_small(stage: Stage) -> None:
    for path in stage.small_files:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, workloads.BLOCK)
        os.close(descriptor)


def _read_large(stage: Stage) -> None:
    stage.need_large()
    buffer = bytearray(MIB)
    with stage.large.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _write_pieces(stage: Stage) -> float:
    """4 KiB at a time, and fsync at the end."""
    data = os.urandom(workloads.BLOCK)
    begun = time.perf_counter()
    with (stage.root / "pieces").open("wb", buffering=0) as file:
        for _ in range(stage.sizes.file_bytes // PIECES // workloads.BLOCK):
            file.write(data)
        os.fsync(file.fileno())
    return time.perf_counter() - begun


def _files(sizes: Sizes) -> float:
    return float(AGAIN * sizes.files)


def _large(sizes: Sizes) -> float:
    return AGAIN * sizes.file_bytes / MB


def _pieces(sizes: Sizes) -> float:
    return sizes.file_bytes / PIECES / MB


def _load(name: str, unit: str, amount: Callable[[Sizes], float], run: Callable[[Stage], float]) -> Workload:
    return Workload(name, unit, amount, run, "", 0.0, CHOSEN)


WORKLOADS = (
    _load("stat again", PER_S, _files, partial(_timed, once=_stat)),
    _load("absent names again", PER_S, _files, partial(_timed, once=_absent)),
    _load("readdir + stat again", PER_S, _files, partial(_timed, once=_list)),
    _load("open, read 4 KiB, close again", PER_S, _files, partial(_timed, once=_read_small)),
    _load("read a large file again", "MB/s", _large, partial(_timed, once=_read_large)),
    _load("write 4 KiB at a time, fsync", "MB/s", _pieces, _write_pieces),
    *workloads.select(["write, fsync", "random writes", "create + write", "rename"]),
)


# --- mounts --------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(name: str, root: Path) -> Iterator[Path]:
    """One choice, served by a process of its own; unmounted and ended afterwards."""
    directory = root / "mnt"
    directory.mkdir(parents=True)
    command = [sys.executable, "-m", "bench.caching", "--serve", name, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is None or server.stdout.readline() != "mounted\n":
                raise RuntimeError(f"choice {name} could not be mounted; is /dev/fuse there?")
            yield directory
        finally:
            subprocess.run(["fusermount3", "-u", directory], check=False)
            server.wait(END_S)


async def serve(name: str, root: Path) -> None:
    choice, site = CHOICES[name], Site(root)
    await make(site)
    async with running(site) as engine:
        operations = Operations(engine.fs, choice.settings, writeback=choice.writeback)
        session = Session(operations, root / "mnt", fuse_options(name))
        session.mount()
        try:
            sys.stdout.write("mounted\n")
            sys.stdout.flush()
            await session.serve()
        finally:
            session.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--serve", nargs=2, metavar=("CHOICE", "PLACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        trio.run(serve, given.serve[0], Path(given.serve[1]))
        return
    with tempfile.TemporaryDirectory(prefix="objfs-caching-") as place, contextlib.ExitStack() as stack:
        targets = {
            name: stack.enter_context(mounted(name, Path(place) / f"{number}"))
            for number, name in enumerate(CHOICES)
        }
        cells = measure(targets, WORKLOADS, Sizes().scaled(given.scale), given.rounds, lambda _text: None)
    Console(width=120).print(_table(cells))


def _table(cells: report.Cells) -> Table:
    """The fastest round of each: whatever else runs can only slow one down."""
    table = Table("workload", "unit", title="fastest of the rounds")
    for name in CHOICES:
        table.add_column(name, justify="right")
    for load in WORKLOADS:
        figures = (f"{max(cells[load.name, name].values):,.0f}" for name in CHOICES)
        table.add_row(load.name, load.unit, *figures)
    return table


if __name__ == "__main__":
    main()
