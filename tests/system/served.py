"""How the runs over a server and a bad network are started, and how they end.

Owns their command line, the directory that is kept where something is wrong, and the exit code.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tests.console import say
from tests.servers.choice import SERVERS, serving


class Figures(Protocol):
    """What a run was; nothing was wrong where there are no complaints."""

    @property
    def complaints(self) -> list[str]: ...
    def lines(self) -> Iterator[str]: ...


class Run(Protocol):
    """A run in a new directory, so many seconds, over the server at an endpoint."""

    def __call__(self, root: Path, endpoint: str, seconds: float, seed: int, /) -> Figures: ...


def main(name: str, purpose: str, run: Run) -> int:
    """The exit code of ``python -m`` of the module that has the run."""
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--server", choices=sorted(SERVERS), default="ceph")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix=f"objfs-{name}-"))
    with serving(arguments.server) as server:
        figures = run(root, server.endpoint, 60 * arguments.minutes, arguments.seed)
    for line in figures.lines():
        say(line)
    for complaint in figures.complaints:
        say(f"WRONG         {complaint} (kept: {root})")
    if figures.complaints:
        return 1
    shutil.rmtree(root)
    return 0
