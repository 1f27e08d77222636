"""When reading sets an access time, and when that is written.

Owns the rule of a mount, and the times that reading set and no row holds yet.  With ``relatime`` a time is
brought up to date when it is not later than the last change, or a day old, as Linux does; ``strictatime``
does so each time, ``noatime`` never.  Promises:

- ``shown`` has the new time at once; rows follow within ``WRITE_INTERVAL_S``, many in one transaction, so
  that reading a tree of small files costs next to nothing.  What a crash takes in between is lost.
- A time that cannot be written disturbs nobody: on a read-only view, behind a closed gate, or where the
  table has no room, reading leaves no trace.

Access times are not versioned, and they are no change that has to be safe: they are made durable and
published with whatever comes next.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

import trio

from objfs.errors import ObjfsError
from objfs.fs.ports import AtimeRule, FsSettings, Tables
from objfs.model import NS, Attr, DirEntry, Ino
from objfs.ports import DOING, Clock, WriteGate

DAY_NS = 86_400 * NS
WRITE_INTERVAL_S = 5.0
BATCH = 512
"""Rows of one transaction: a few milliseconds of the event loop."""
WAITING_MAX = 8192
"""Times that may wait; beyond, reading writes a batch itself."""


class AccessTimes:
    """The access times of one view.  Keep ``run`` in a nursery; end with ``write_all``."""

    def __init__(self, table: Tables, gate: WriteGate, clock: Clock, settings: FsSettings) -> None:
        self._table = table
        self._gate = gate
        self._clock = clock
        self._kept = settings.atime is not AtimeRule.NOATIME and not settings.read_only
        self._strict = settings.atime is AtimeRule.STRICTATIME
        self._directories = settings.diratime
        self.paused = False
        """While it is set reading sets no times; those that were set before are still written."""
        self._waiting: dict[Ino, int] = {}

    # --- reading -----------------------------------------------------------------------

    def read(self, ino: Ino) -> None:
        """Somebody read the inode just now."""
        if self._kept:
            self.note(self._table.get(ino))

    def note(self, attr: Attr) -> bool:
        """The same where the attributes are at hand; whether that sets the access time."""
        if not self._kept or self.paused or (attr.is_dir and not self._directories) or not self._gate.open:
            return False
        now = self._clock.now_ns()
        if not self._strict and not is_due(self.shown(attr), now):
            return False
        self._waiting[attr.ino] = now
        if len(self._waiting) > WAITING_MAX:
            self.write_batch()
        return True

    def shown(self, attr: Attr) -> Attr:
        """The attributes with the access time as it is."""
        waiting = self._waiting.get(attr.ino)
        return attr if waiting is None else attr._replace(atime_ns=waiting)

    def shown_in(self, page: list[DirEntry]) -> list[DirEntry]:
        """The same for a page of a listing."""
        if not self._waiting:
            return page
        waiting = self._waiting
        return [
            entry._replace(attr=self.shown(entry.attr)) if entry.attr.ino in waiting else entry
            for entry in page
        ]

    def forget(self, ino: Ino) -> None:
        """A time was given by somebody: what reading set before is of no interest."""
        self._waiting.pop(ino, None)

    # --- writing -----------------------------------------------------------------------

    async def run(self) -> None:
        """Writes what waits, until cancelled."""
        while True:
            await trio.sleep(WRITE_INTERVAL_S)
            await self.write_all()

    async def write_all(self) -> None:
        """Every time that was set before is in its row, or given up."""
        while self._waiting:
            self.write_batch()
            await trio.lowlevel.checkpoint()

    def write_batch(self) -> None:
        """Oldest first."""
        DOING.operation = "atime"
        times = list(islice(self._waiting.items(), BATCH))
        with suppress(ObjfsError):
            if self._gate.open:
                self._table.set_atimes(times)
        for ino, _ in times:
            del self._waiting[ino]


def is_due(attr: Attr, now_ns: int) -> bool:
    """Linux's rule for relatime."""
    return attr.atime_ns <= max(attr.mtime_ns, attr.ctime_ns) or now_ns - attr.atime_ns >= DAY_NS
