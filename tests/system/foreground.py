"""A mount whose process is a child of ours: an objfs of our own making, in the foreground.

Owns the process, what it says, and that both it and the mount are gone afterwards, whatever state they
were in.  What is special about the process is its program's.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.system.harness import REPOSITORY, VOLUME, Station

PATIENCE_S = 60.0


class Log(threading.Thread):
    """What a process says, line by line as it comes."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self._stream = stream
        self._arrived: queue.Queue[str | None] = queue.Queue()
        self.start()

    def run(self) -> None:
        for line in self._stream:
            self._arrived.put(line.rstrip("\n"))
        self._arrived.put(None)

    def until(self, text: str) -> str:
        """The next line that contains ``text``."""
        while (line := self._arrived.get(timeout=PATIENCE_S)) is not None:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was never logged:\n" + "\n".join(self.lines))

    def all(self) -> list[str]:
        """Everything, once the process has ended."""
        while (line := self._arrived.get(timeout=PATIENCE_S)) is not None:
            self.lines.append(line)
        return self.lines


@contextmanager
def foreground_mount(
    station: Station, directory: Path, program: Sequence[str], *options: str, stdin: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], Log]]:
    """``VOLUME`` of a station, on its way to be mounted at ``directory``.  ``program`` is a module and its
    own arguments, before those of ``objfs``; gone when the block ends, whatever its state."""
    words = ["-m", *program, "mount", VOLUME, str(directory), "--foreground", *options]
    with subprocess.Popen(
        [sys.executable, "-bb", *words],
        cwd=REPOSITORY,
        env=station.full_environment(),
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log = Log(process.stderr)
        try:
            yield process, log
        finally:
            process.kill()
            subprocess.run(["fusermount3", "-u", "-z", "--", str(directory)], capture_output=True)
            log.join()
