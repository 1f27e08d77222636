"""A writer of a volume in a process of its own, without a mount, that can be killed, stopped and cut off.

Owns what happens in that process: the whole of a volume's engine over its own state directory and over
buckets that several such processes share, a random history on it, and beside it flushes.  Whatever it does
it tells first and last over a line to its parent (``tests.rivals.watching``): what had begun, ended and was
flushed at the time of a kill is what the parent has heard.

While the file ``cut`` lies in the machine's directory no request reaches a bucket, and no answer comes back.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import trio

from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.options import MountOptions
from objfs.app.wire import first_cause
from objfs.backends.base import Bucket, Request
from objfs.backends.registry import open_bucket
from objfs.backends.wrappers.wrapper import Call, Wrapper
from objfs.errors import HeldElsewhere, LeaseLost, ObjfsError, ReadOnly, Unreachable
from objfs.volume.local import VolumeHome
from tests.crashes.hands import Hands
from tests.crashes.machine import OFTEN, VOLUME
from tests.system.history import History, Tree, renumbered
from tests.volume.support import PASSPHRASE

T = TypeVar("T")

SIZES = (1, 100, 4096, 20_000, 70_000)
PACE_S = 0.02
FLUSHES = 0.05
"""The share of operations after which a flush is asked for."""
SETTINGS: Mapping[str, float] = {
    "lease_interval": 1.0,
    "checkpoint_interval": 1.0,
    "request_timeout": 2.0,
    "cache_reserve": 0,
    "recovery_window": 0.0,
    "recovery_keep": 2,
    "delete_grace": 0.0,
}
"""Of every machine here: what is superseded is deleted at once, so that a late delete would hurt."""


@dataclass(frozen=True, slots=True)
class Task:
    """``root`` is the machine's directory.  ``first`` is the number of its first operation: those of two
    writers write different bytes."""

    root: Path
    seed: str
    first: int
    take_over: bool = False
    force: bool = False

    @property
    def home(self) -> VolumeHome:
        return VolumeHome(self.root / "home", VOLUME)

    def history(self, found: Tree) -> History:
        """What this writer does to the tree that it found; the same for whoever judges it."""
        history = History(self.seed, renumbered(found, self.first), SIZES)
        history.next_number = self.first + len(found)
        return history


# --- what is told --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refused:
    """Another one has the volume."""

    why: str


@dataclass(frozen=True, slots=True)
class Opened:
    tree: Tree


@dataclass(frozen=True, slots=True)
class Begun:
    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    number: int


@dataclass(frozen=True, slots=True)
class Flushed:
    """A flush returned that was asked for after so many operations."""

    number: int


@dataclass(frozen=True, slots=True)
class Fenced:
    """An operation was refused because the volume is another one's: what the process says of that."""

    lease_lost: bool
    reason: str
    logged: tuple[str, ...]
    names: frozenset[bytes]
    """What can still be read."""


@dataclass(frozen=True, slots=True)
class Left:
    """It ended in good order.  ``clean``: everything is in the buckets; ``outcome`` says what is not."""

    clean: bool
    outcome: str


# --- the process ---------------------------------------------------------------------------


class SeveredBucket(Wrapper):
    """Not reached while a file lies there; a request that is on its way then loses its answer."""

    def __init__(self, inner: Bucket, cut: Path) -> None:
        super().__init__(inner)
        self._cut = cut

    async def around(self, request: Request, call: Call[T]) -> T:
        self._check(request)
        answer = await call()
        self._check(request)
        return answer

    def _check(self, request: Request) -> None:
        if self._cut.exists():
            raise Unreachable(f"{self.url}: {request.operation} {request.key}: cut off")


def live(task: Task, line: Connection) -> None:
    """The whole life of the process."""
    cut = task.root / "cut"

    def severed(url: str, options: Mapping[str, str]) -> Bucket:
        return SeveredBucket(open_bucket(url, options), cut)

    with ExitStack() as stack:
        for name, value in OFTEN.items():
            stack.enter_context(patch(name, value))
        stack.enter_context(patch("objfs.app.buckets.open_bucket", severed))
        trio.run(_Rival(task, line).run)


class _Rival:
    """One opening of the volume."""

    def __init__(self, task: Task, line: Connection) -> None:
        self._task = task
        self._line = line
        self._random = random.Random(f"rival {task.seed}")
        self._log = _Errors()
        self._engine: Engine

    async def run(self) -> None:
        logging.getLogger("objfs").addHandler(self._log)
        options = MountOptions(
            take_over=self._task.take_over, force=self._task.force, settings=dict(SETTINGS)
        )
        order = Order(self._task.home, PASSPHRASE, options)
        lock = self._task.home.lock()
        try:
            async with opened_engine(order, lambda _text: None) as self._engine:
                await self._live()
        except* HeldElsewhere as errors:
            self._line.send(Refused(str(first_cause(errors))))
        else:
            self._line.send(Left(self._engine.clean and not self._engine.outcome, self._engine.outcome))
        finally:
            lock.release()

    async def _live(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self._engine.run)
            hands = Hands(self._engine.fs)
            tree = await hands.tree()
            self._line.send(Opened(tree))
            with trio.CancelScope() as working:
                nursery.start_soon(self._listen, working)
                await self._write(hands, self._task.history(tree))
                await trio.sleep_forever()
            hands.let_go()
            await self._engine.finish()
            nursery.cancel_scope.cancel()

    async def _listen(self, working: trio.CancelScope) -> None:
        """Any word of the parent ends the work."""
        await trio.to_thread.run_sync(self._line.recv, abandon_on_cancel=True)
        working.cancel()

    # --- work ------------------------------------------------------------------------------

    async def _write(self, hands: Hands, history: History) -> None:
        """Until cancelled, or until nothing may be written any more."""
        async with trio.open_nursery() as beside:
            while True:
                operation = history.next()
                number = len(history.operations)
                self._line.send(Begun(number))
                try:
                    with trio.CancelScope(shield=True):
                        await hands.perform(operation)
                except (ReadOnly, LeaseLost):
                    break
                self._line.send(Ended(number))
                if self._random.random() < FLUSHES:
                    beside.start_soon(self._flush, number)
                await trio.sleep(self._random.uniform(0, 2 * PACE_S))
            beside.cancel_scope.cancel()
        self._line.send(self._fenced(hands))

    async def _flush(self, number: int) -> None:
        try:
            await self._engine.flush()
        except ObjfsError as error:
            self._log.lines.append(f"flush: {error}")
        else:
            self._line.send(Flushed(number))

    def _fenced(self, hands: Hands) -> Fenced:
        engine = self._engine
        return Fenced(engine.lease_lost, engine.reason, tuple(self._log.lines), frozenset(hands.names()))


class _Errors(logging.Handler):
    """What a person would read in the log."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
