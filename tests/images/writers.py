"""Programs that write all the time, each in a directory of a mount, and what they were told is done.

Owns their threads, and how they come to an end: between two things that were acknowledged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.images.copies import Copies
from tests.powercut.programs import Database, Program, Repository

ENDLESS = 10**9
PATIENCE_S = 300.0


def programs(root: Path) -> tuple[Program, ...]:
    """``root`` is a new directory elsewhere, for what they read."""
    return (
        Database("wal", "NORMAL", ENDLESS),
        Database("delete", "FULL", ENDLESS),
        Repository(ENDLESS, every=4, tidy=("gc", "--quiet", "--prune=now")),
        Copies(root / "source"),
    )


class Ended(Exception):
    """Nobody is to go on."""


class Writers:
    """How far each program is, by its name."""

    def __init__(self, names: Sequence[str]) -> None:
        self._done = dict.fromkeys(names, 0)
        self._changed = threading.Condition()
        self._ending = False
        self.failures: list[str] = []

    def acknowledged(self) -> dict[str, int]:
        with self._changed:
            return dict(self._done)

    def wait_for(self, more: int) -> None:
        """Until so many more things were acknowledged, and by all something; or a program failed."""
        with self._changed:
            goal = sum(self._done.values()) + more
            came = self._changed.wait_for(
                lambda: self.failures or (sum(self._done.values()) >= goal and all(self._done.values())),
                PATIENCE_S,
            )
            assert came, f"nothing is acknowledged any more: {self._done}"

    def end(self) -> None:
        with self._changed:
            self._ending = True

    def work(self, program: Program, directory: Path) -> None:
        try:
            program.work(directory, partial(self._say, program.name))
        except Ended:
            pass
        except Exception as error:
            with self._changed:
                self.failures.append(f"{program.name}: {error!r} {getattr(error, 'stderr', '')!r}")
                self._changed.notify_all()

    def _say(self, name: str, count: int) -> None:
        with self._changed:
            self._done[name] = count
            self._changed.notify_all()
            if self._ending:
                raise Ended


@contextmanager
def writing(programs: Sequence[Program], directory: Path) -> Iterator[Writers]:
    """All at work below a directory until the block ends."""
    for program in programs:
        (directory / program.name).mkdir()
        program.prepare(directory / program.name)
    writers = Writers([program.name for program in programs])
    threads = [
        threading.Thread(target=writers.work, args=(program, directory / program.name))
        for program in programs
    ]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        writers.end()
        for thread in threads:
            thread.join()
