"""The measurements: the floor, a local directory and any others side by side, in interleaved rounds.

Owns the order of the measurements and what it starts: the floor's process, its mount and the
directories it makes are gone afterwards, also after ^C.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from objfs.app.bench import report
from objfs.app.bench.workloads import Sizes, Stage, Workload
from objfs.errors import MountError

END_S = 20.0


@contextlib.contextmanager
def mounted_floor() -> Iterator[Path]:
    """The floor in a process of its own; unmounted and ended afterwards.  Raises MountError."""
    with tempfile.TemporaryDirectory(prefix="objfs-floor-") as mountpoint:
        command = [sys.executable, "-m", "objfs.app.bench.floor", mountpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                if server.stdout is None or server.stdout.readline() != "mounted\n":
                    raise MountError("the floor could not be mounted; is /dev/fuse there?")
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
    targets: Mapping[str, Path],
    workloads: Sequence[Workload],
    sizes: Sizes,
    rounds: int,
    step: Callable[[str], None],
) -> report.Cells:
    """Each workload in each place once a round, the places in turn: what else the machine does
    meanwhile falls on all of them alike.  ``step`` is told what comes next."""
    values: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        stages = {name: Stage(path, sizes) for name, path in targets.items()}
        for stage in stages.values():
            stack.callback(stage.close)
        for number in range(rounds):
            for workload in workloads:
                for name in _turned(list(stages), number):
                    step(f"{number + 1}/{rounds} {workload.name}: {name}")
                    values.setdefault((workload.name, name), []).append(workload.run(stages[name]).value)
    return {key: report.Cell(tuple(found)) for key, found in values.items()}


def _turned(names: list[str], by: int) -> list[str]:
    at = by % len(names)
    return names[at:] + names[:at]
