"""A mount that kills itself (SIGKILL) at a named place, and the process that watches it.

    python -m tests.crashes.dying HOME PLACE COUNT  ARGUMENT...

runs ``objfs ARGUMENT...``; the COUNT-th time that it is at PLACE (``tests.crashes.points``) in the state
directories below HOME or in its buckets, it is gone, before it can do anything else.  Without a PLACE (an
empty word) nothing is recorded, and it lives until it is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket
from objfs.cli.main import run
from tests.crashes.machine import OFTEN
from tests.crashes.points import Watcher
from tests.doubles.disk import Tree
from tests.doubles.journal import Journal, Record
from tests.doubles.recorded_bucket import RecordedBucket
from tests.doubles.recorder import IGNORED, Recorder
from tests.system.foreground import Log, foreground_mount
from tests.system.harness import Station

END_S = 60.0


# --- in the process that dies ----------------------------------------------------------------


class Executioner:
    """Kills this process at its place."""

    def __init__(self, place: str, count: int) -> None:
        self._place = place
        self._left = count
        self._watcher = Watcher()

    def look(self, record: Record, journal: Journal) -> None:
        if self._place in self._watcher.names(record, journal):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    home, place, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    with ExitStack() as stack:
        for name, value in OFTEN.items():
            stack.enter_context(patch(name, value))
        if place:
            journal = Journal(Tree.read(home.parent, IGNORED).records(), keep=False)
            journal.on_record = Executioner(place, count).look
            stack.enter_context(patch("objfs.app.buckets.open_bucket", recording(journal)))
            stack.enter_context(Recorder(home.parent, journal).installed())
        return run("objfs", sys.argv[4:])


def recording(journal: Journal) -> object:
    """``open_bucket`` whose buckets tell the journal."""

    def opened(url: str, options: Mapping[str, str]) -> Bucket:
        return RecordedBucket(open_bucket(url, options), url, journal)

    return opened


# --- in the process that watches -------------------------------------------------------------


class Mortal:
    """A mount in the foreground, a child of ours."""

    def __init__(self, process: subprocess.Popen[str], log: Log) -> None:
        self._process = process
        self.died_by_itself = False
        self.log = log

    def is_up(self) -> bool:
        """Whether it came to serving the mount: its place may be before that."""
        try:
            self.log.until("mounted volume=")
        except AssertionError:
            self.wait_for_death(END_S)
            return False
        return True

    def wait_for_death(self, patience_s: float) -> None:
        """It is dead afterwards: by itself, or after so many seconds by us."""
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
        else:
            self.died_by_itself = True
        assert self._process.returncode == -signal.SIGKILL, "\n".join(self.log.lines)


@contextmanager
def mortal_mount(
    station: Station, directory: Path, *options: str, place: str = "", count: int = 1
) -> Iterator[Mortal]:
    """``VOLUME`` of a station, mounted at ``directory``; gone when the block ends, whatever its state."""
    program = ("tests.crashes.dying", str(station.home), place, str(count))
    with foreground_mount(station, directory, program, *options) as (process, log):
        yield Mortal(process, log)


if __name__ == "__main__":
    sys.exit(main())
