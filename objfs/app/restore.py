"""restore: a tree of a volume into a directory, with nothing mounted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.model import ROOT
from objfs.volume.destination import DRAFTS, Destination
from objfs.volume.restore import Report, Restore, RestoreOptions, survey
from objfs.volume.restored import Restored
from objfs.volume.selection import Selection
from objfs.volume.visit import Source, Visit
from objfs.volume.walk import Desk, Found


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What a person asked for.  ``snapshot`` empty: the newest moment."""

    directory: Path
    selection: Selection
    snapshot: bytes = b""
    options: RestoreOptions = field(default_factory=RestoreOptions)


async def restore(visit: Visit, order: RestoreOrder, report: Report) -> Restored:
    """Raises UsageError, HeldElsewhere, and as ``Restore.run``."""
    source = await source_of(visit, order.selection, order.snapshot)
    taken = await trio.to_thread.run_sync(_taken, source)
    destination = await trio.to_thread.run_sync(
        lambda: Destination(order.directory, resume=order.options.resume, taken=taken)
    )
    with closing(destination):
        return await Restore(source, order.selection, destination, order.options, report).run()


async def look(visit: Visit, order: RestoreOrder, told: Callable[[Found], None]) -> Restored:
    """What ``restore`` would do, without doing it; ``told`` hears of each path, in a thread."""
    source = await source_of(visit, order.selection, order.snapshot)
    done = Restored(source.moment_ns)
    done.wanted = await survey(Desk(source.table), order.selection, told)
    return done


async def source_of(visit: Visit, selection: Selection, snapshot: bytes) -> Source:
    """The moment that is meant.  Raises NoSuchSnapshot, UsageError for paths that are not there."""

    def find() -> Source:
        source = visit.at(snapshot) if snapshot else visit.newest()
        selection.require(source.table)
        return source

    return await trio.to_thread.run_sync(find)


def _taken(source: Source) -> list[bytes]:
    """Names in the top of the tree that look like that of the drafts."""
    names, cookie = [], 0
    while batch := source.table.readdir(ROOT, cookie, 512):
        names += [entry.name for entry in batch if entry.name.startswith(DRAFTS)]
        cookie = batch[-1].cookie
    return names
