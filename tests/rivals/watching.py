"""The parent's side of a writer in a process of its own: starting, ending and hearing it.

Owns the processes it starts: all are gone when the ``with`` ends.  They come out of a fork server, which has
loaded everything before, so that one is up in a fraction of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar

from tests.rivals.rival import Begun, Ended, Fenced, Flushed, Left, Opened, Task, live
from tests.system.history import History, Tree
from tests.system.oracle import Witness

T = TypeVar("T")

PATIENCE_S = 90.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.rivals.rival"])


class Rival:
    """One opening of a volume by a process, and all that was heard of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._line, theirs = _CONTEXT.Pipe()
        self._heard: list[object] = []
        self._news = threading.Condition()
        self._ended = False
        self._process = _CONTEXT.Process(target=live, args=(task, theirs))
        self._process.start()
        theirs.close()
        self._listener = threading.Thread(target=self._listen, args=(self._line,), daemon=True)
        self._listener.start()

    def _listen(self, line: Connection) -> None:
        while True:
            try:
                message = line.recv()
            except (EOFError, ConnectionResetError):
                message = None
            with self._news:
                self._ended = message is None
                if not self._ended:
                    self._heard.append(message)
                self._news.notify_all()
            if message is None:
                return

    # --- what becomes of it ------------------------------------------------------------

    def kill(self) -> None:
        self._process.kill()
        self._process.join(PATIENCE_S)
        self._listener.join(PATIENCE_S)

    def stop(self) -> None:
        """Returns when it stands still."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def cut_off(self) -> None:
        (self.task.root / "cut").touch()

    def reconnect(self) -> None:
        (self.task.root / "cut").unlink(missing_ok=True)

    def leave(self) -> Left:
        """In good order; the process is gone."""
        self._line.send("leave")
        left = self.wait_for(Left)
        self._process.join(PATIENCE_S)
        assert self._process.exitcode == 0
        return left

    def end(self) -> None:
        """Whatever its state."""
        self.kill()
        self._process.close()
        self._line.close()

    # --- what was heard ----------------------------------------------------------------

    def wait_for(self, kind: type[T]) -> T:
        """The first message of a kind; AssertionError where the process ends, or nothing comes, without."""
        found: list[T] = []

        def arrived() -> bool:
            found[:] = [message for message in self._heard if isinstance(message, kind)][:1]
            return bool(found)

        self._wait(arrived, kind.__name__)
        return found[0]

    def work(self, operations: int) -> None:
        """Returns when so many more have ended than now."""
        wanted = self._last(Ended) + operations
        self._wait(lambda: self._last(Ended) >= wanted, f"operation {wanted}")

    def flush(self) -> None:
        """Returns when one more flush has returned than now."""
        wanted = self._last(Flushed) + 1
        self._wait(lambda: self._last(Flushed) >= wanted, "a flush")

    def _wait(self, arrived: Callable[[], bool], what: str) -> None:
        with self._news:
            self._news.wait_for(lambda: arrived() or self._ended, PATIENCE_S)
            last = [message for message in self._heard if not isinstance(message, Opened)][-1:]
            assert arrived(), f"{self.task.seed}: {what} never came; last heard: {last}"

    def _last(self, kind: type[Begun] | type[Ended] | type[Flushed]) -> int:
        return max((message.number for message in self._heard if isinstance(message, kind)), default=0)

    @property
    def fenced(self) -> bool:
        return any(isinstance(message, Fenced) for message in self._heard)

    @property
    def found(self) -> Tree:
        """What it found when it opened the volume."""
        return self.wait_for(Opened).tree

    def witness(self) -> Witness:
        """What it had acknowledged by now."""
        with self._news:
            ended, flushed = self._last(Ended), self._last(Flushed)
            begun = max(ended, self._last(Begun))
            left = [message for message in self._heard if isinstance(message, Left) and message.clean]
        return Witness(ended, begun, flushed=ended if left else flushed)

    def history(self) -> History:
        """What it did, and perhaps the operation that was under way."""
        history = self.task.history(self.found)
        history.grow(self.witness().begun)
        return history


@contextmanager
def ending_all(rivals: list[Rival]) -> Iterator[None]:
    """No process is left when the block ends."""
    try:
        yield
    finally:
        for rival in rivals:
            rival.reconnect()
            rival.end()
