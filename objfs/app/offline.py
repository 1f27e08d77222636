"""A command for a volume, mounted here or not: the mount does it, or the volume is opened for it alone.

Owns the choice between the two.  Without a mount the state directory is locked and, for what changes
something, the lease is taken; everything is in the buckets on return.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import trio

from objfs.app.client import ControlClient
from objfs.app.control import Command, Report
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.fsck import locked_run
from objfs.app.options import MountOptions
from objfs.app.wire import Message
from objfs.errors import NotMounted
from objfs.volume.fields import JSON
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome

Progress = Callable[[Message], None]
Table = Callable[[Engine], Mapping[str, Command]]


def ask(
    home: VolumeHome,
    secret: Callable[[], Secret],
    table: Table,
    command: str,
    *,
    writes: bool,
    on_progress: Progress = lambda _message: None,
    **arguments: JSON,
) -> Message:
    """The answer to one command.  ``secret`` is asked for only where no mount runs.

    Raises what the command raises, and without a mount what opening a volume raises.
    """
    try:
        with ControlClient(home.control_path) as mount:
            return mount.ask(command, on_progress, None, **arguments)
    except NotMounted:
        return _alone(
            Order(home, secret(), MountOptions(read_only=not writes)), table, command, on_progress, arguments
        )


def _alone(
    order: Order, table: Table, command: str, on_progress: Progress, arguments: Mapping[str, JSON]
) -> Message:
    async def body() -> Message:
        async with working(order, lambda _note: None) as engine:
            answer = await table(engine)[command](dict(arguments), reporting(on_progress))
            await engine.snapshots.clear()
        return answer

    return locked_run(order.home, body)


def reporting(on_progress: Progress) -> Report:
    """As a mount hears news that go to a person on this terminal."""

    async def report(message: Message) -> None:
        on_progress(message)
        await trio.lowlevel.checkpoint()

    return report


@asynccontextmanager
async def working(order: Order, note: Callable[[str], None]) -> AsyncIterator[Engine]:
    """A mount without a kernel: everything runs in the background, and at the end all is drained."""
    async with opened_engine(order, note) as engine, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        await engine.finish()
        nursery.cancel_scope.cancel()
