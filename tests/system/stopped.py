"""A mount that stops inside a request to a bucket, as a paused machine does, and whoever watches it.

    python -m tests.system.stopped before|after OPERATION TRIGGER  ARGUMENT...

runs ``objfs ARGUMENT...``.  Once the file TRIGGER holds a prefix, the next OPERATION on such a key removes
the file and stops the whole process (SIGSTOP) inside the request: before the bucket saw it, or after it took
effect.  What was on its way takes effect when the process goes on, whether or not anybody waits for it.

``StoppingMount`` is that process as its parent has it: waitpid(2) tells when it stands still.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import pytest
import trio

from objfs.backends.base import Bucket, Operation, Request
from objfs.backends.registry import open_bucket
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.cli.main import run
from tests.system.foreground import PATIENCE_S, Log, foreground_mount
from tests.system.harness import Station

T = TypeVar("T")
When = Literal["before", "after"]

OFTEN = {"objfs.app.upkeep.REAP_INTERVAL_S": 0.1, "objfs.volume.reaper.SEARCH_INTERVAL_S": 0.0}
"""Nobody wants to wait for the minute after which a mount looks for something to delete."""


# --- in the process that stops ---------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """Where the process stops."""

    when: When
    operation: Operation
    trigger: Path

    def is_here(self, request: Request) -> bool:
        """True for one request: whoever removes the trigger stops."""
        if request.operation != self.operation:
            return False
        try:
            if not request.key.startswith(self.trigger.read_text()):
                return False
            self.trigger.unlink()
        except FileNotFoundError:
            return False
        return True


class StoppingBucket(Wrapper):
    """Stops the process inside one request."""

    def __init__(self, inner: Bucket, moment: Moment) -> None:
        super().__init__(inner)
        self._moment = moment

    async def around(self, request: Request, call: Call[T]) -> T:
        if not self._moment.is_here(request):
            return await call()
        if self._moment.when == "before":
            _stop()
        answer = await _shielded(call)
        if self._moment.when == "after":
            _stop()
        return answer


async def _shielded(call: Call[T]) -> T:
    answers: list[T] = []
    with trio.CancelScope(shield=True):
        answers.append(await call())
    return answers[0]


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def main() -> int:
    when, operation, trigger = sys.argv[1:4]
    moment = Moment(cast("When", when), cast("Operation", operation), Path(trigger))

    def stopping(url: str, options: Mapping[str, str]) -> Bucket:
        return StoppingBucket(open_bucket(url, options), moment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("objfs.app.buckets.open_bucket", stopping)
        for name, seconds in OFTEN.items():
            patch.setattr(name, seconds)
        return run("objfs", sys.argv[4:])


# --- in the process that watches -------------------------------------------------------------


class StoppingMount:
    """A mount in the foreground, a child of ours, that stops where it is told to."""

    def __init__(self, process: subprocess.Popen[str], log: Log, trigger: Path) -> None:
        self._process = process
        self._trigger = trigger
        self.log = log

    def stop_at(self, prefix: str) -> None:
        """From now on the next request for such a key is where the process stops."""
        fresh = self._trigger.with_suffix(".new")
        fresh.write_text(prefix)
        fresh.rename(self._trigger)

    def wait_until_stopped(self) -> None:
        guard = threading.Timer(PATIENCE_S, self._process.kill)
        guard.start()
        try:
            _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        finally:
            guard.cancel()
        assert os.WIFSTOPPED(status), f"ended with status {status} instead of stopping"

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def wait_for_end(self) -> int:
        """Its exit code."""
        return self._process.wait(PATIENCE_S)


@contextmanager
def stopping_mount(
    station: Station, directory: Path, when: When, operation: Operation, options: str
) -> Iterator[StoppingMount]:
    """``VOLUME`` of a station, mounted at ``directory``; gone when the block ends, whatever its state."""
    trigger = station.root / "trigger"
    program = ("tests.system.stopped", when, operation, str(trigger))
    with foreground_mount(station, directory, program, "-o", options) as (process, log):
        log.until("mounted volume=")
        yield StoppingMount(process, log, trigger)


if __name__ == "__main__":
    sys.exit(main())
