"""A mount whose local state and buckets are recorded, while programs of others work on it.

    python -m tests.powercut.recorded HOME JOURNAL  ARGUMENT...

runs ``objfs ARGUMENT...``, a mount in the foreground, and leaves at JOURNAL all that it did to the state
directories below HOME and to its buckets.  Each line on its standard input becomes a mark in the journal:
whoever writes one after something was acknowledged has it no earlier in the journal than it was.

``recorded_mount`` is the side of the parent.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from objfs.cli.main import run
from tests.crashes.dying import recording
from tests.doubles.disk import Tree
from tests.doubles.journal import Journal, Record
from tests.doubles.recorder import IGNORED, Recorder
from tests.system.foreground import PATIENCE_S, Log, foreground_mount
from tests.system.harness import Station

OPTIONS = "cache_size=67108864,cache_reserve=0,checkpoint_interval=1"


# --- in the process of the mount -------------------------------------------------------------


def main() -> int:
    home, left = Path(sys.argv[1]), Path(sys.argv[2])
    journal = Journal(Tree.read(home.parent, IGNORED).records())
    recorder = Recorder(home.parent, journal)
    threading.Thread(target=_mark, args=(journal,), daemon=True).start()
    with patch("objfs.app.buckets.open_bucket", recording(journal)), recorder.installed():
        code = run("objfs", sys.argv[3:])
    missed = recorder.missed()
    assert not missed, f"something is written that is not recorded: {missed}"
    left.write_bytes(pickle.dumps(journal.records))
    return code


def _mark(journal: Journal) -> None:
    for line in sys.stdin:
        journal.mark(line.rstrip("\n"), 0.0)


# --- in the process of the parent ------------------------------------------------------------


@dataclass
class RecordedMount:
    """A mount in the foreground, a child of ours; ``records`` are there when the ``with`` has ended."""

    process: subprocess.Popen[str]
    log: Log
    records: list[Record] = field(default_factory=list)

    def mark(self, line: str) -> None:
        """From any thread, whole lines at a time."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()


@contextmanager
def recorded_mount(station: Station, directory: Path) -> Iterator[RecordedMount]:
    """``VOLUME`` of a station at ``directory``; unmounted at the end in good order."""
    left = station.root.parent / "journal"
    program = ("tests.powercut.recorded", str(station.home), str(left))
    started = foreground_mount(station, directory, program, "-o", OPTIONS, stdin=subprocess.PIPE)
    with started as (process, log):
        mount = RecordedMount(process, log)
        log.until("mounted volume=")
        yield mount
        station.run("umount", directory)
        code = process.wait(PATIENCE_S)
        assert code == 0, "\n".join(log.all())
        mount.records = pickle.loads(left.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
