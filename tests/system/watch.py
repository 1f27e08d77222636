"""What a mount takes of its machine, measured from outside while it works."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LOOK_S = 0.2


@dataclass
class Watch(threading.Thread):
    """Measures a mount from outside; in bytes."""

    pid: int
    state: Path
    memory: int = 0
    disk: int = 0
    _told: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            while not self._told.wait(LOOK_S):
                self._look()

    def _look(self) -> None:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        self.memory = next(
            (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), self.memory
        )
        found = {(status.st_dev, status.st_ino): status.st_blocks * 512 for status in self._files()}
        self.disk = max(self.disk, sum(found.values()))

    def _files(self) -> Iterator[os.stat_result]:
        """Files with names, and those without that the process has open."""
        opened = list(Path(f"/proc/{self.pid}/fd").iterdir())
        for path in [*self.state.rglob("*"), *opened]:
            with contextlib.suppress(FileNotFoundError):
                inside = path.parent != Path(f"/proc/{self.pid}/fd") or str(path.readlink()).startswith(
                    f"{self.state}/"
                )
                if inside:
                    yield path.stat()

    def finish(self) -> None:
        self._told.set()
        self.join()
