"""Which pages of the inode table changed since the last checkpoint, and the log that tells it.

Owns the backfill of SQLite's write-ahead log and the record of the frames in it. Promises that
``take(mark)`` gives the last image of every page that was committed after the take before and up to the
mark, whatever was backfilled or restarted meanwhile, and that the log stays bounded as long as
``backfill`` is called.

Why nothing is lost. Only we checkpoint. SQLite starts the log over (and then overwrites frames) only
when all of it is backfilled. Before each backfill a reader (the pin) notes the end of the log, which
stops the backfill there; then the images up to there that were not taken are spooled; only then frames
are moved. So a frame that is not spooled is not backfilled, and the log does not start over.

Threads. ``mark``, ``pending`` and ``restart`` belong to the loop's thread and never wait. ``take`` and
``backfill`` are for worker threads and exclude each other (``_work``). ``_state`` guards the runs and
marks, for moments.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from objfs.errors import Corrupt, ObjfsError
from objfs.meta.database import Database
from objfs.meta.pages import PageSet, Spool, spooled_in
from objfs.meta.schema import PAGE_SIZE
from objfs.meta.walfile import LogFiles, LogState
from objfs.model import WalMark

REST_FRAMES = 256
"""How many frames ``restart`` may move on the loop's thread: 512 KiB."""
_BATCH = 256
"""How many frames are noted in one hold of a lock that the loop waits for."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Frames in the log, and how many of them are in the database file now."""

    frames: int
    moved: int

    @property
    def complete(self) -> bool:
        """The next write starts the log over."""
        return self.frames == self.moved


@dataclass(slots=True)
class _Run:
    """One run of the log between two starts.  Frame f has position ``base`` + f in the history of all
    runs."""

    salt: int
    base: int
    frames: int = 0
    """Committed, as far as seen."""
    moved: int = 0
    """Of them, backfilled."""


@dataclass(slots=True)
class _Mark:
    """A moment: its position, the size of the database then, and for each page changed since the mark before
    its last position up to this one, as far as scanned."""

    position: int
    page_count: int
    changed: dict[int, int] = field(default_factory=dict)


class PageLog:
    """The log of one open inode table."""

    def __init__(self, database: Database) -> None:
        self._path = database.path
        self._pin = _connect(database)
        self._mover = _connect(database)
        self._files = LogFiles(database.path, PAGE_SIZE)
        self._spool = Spool(database.path.parent, PAGE_SIZE)
        self._slots: dict[int, int] = {}
        """Position -> where its image is spooled."""
        self._given: weakref.WeakSet[Spool] = weakref.WeakSet()
        """Where the sets lie that were taken and are still in use."""
        self._work = threading.Lock()
        self._state = threading.Lock()
        state = self._files.state()
        self._run = _Run(state.salt, 0, state.frames)
        self._bases = {state.salt: 0}
        self._marks: list[_Mark] = []
        self._since: dict[int, int] = {}
        """Pages scanned after the last mark: number -> last position."""
        self._scanned = 0
        self._taken = 0
        # An empty log does not know the size of the database.
        self._page_count = state.page_count or int(self._pin.execute("PRAGMA page_count").fetchone()[0])

    def close_connections(self) -> None:
        """Before the database is closed."""
        self._pin.close()
        self._mover.close()

    def close(self) -> None:
        """After it."""
        self._files.close()

    # --- on the loop's thread ----------------------------------------------------------

    def mark(self) -> WalMark:
        """The present end of the log.  Not inside a transaction that has written."""
        with self._state:
            state = self._observe()
            position = self._run.base + state.frames
            last = self._marks[-1].position if self._marks else self._taken
            if position > last:
                self._marks.append(_Mark(position, state.page_count, self._since))
                self._since = {}
            return WalMark(state.salt, state.frames)

    @property
    def pending(self) -> int:
        """Committed page changes that were not taken yet (a page that changed twice counts twice)."""
        with self._state:
            frames = self._observe().frames  # may begin a run
            return self._run.base + frames - self._taken

    def restart(self, limit: int = REST_FRAMES) -> bool:
        """Moves the rest of the log when it is at most ``limit`` frames; the next write starts the log over.

        For a log that grows past its bound because there is always a write between a backfill and its end.
        Holds the loop for two syncs.  False when the rest is longer or a worker is busy.  Raises ObjfsError.
        """
        if not self._work.acquire(blocking=False):
            return False
        try:
            with self._state:
                rest = self._observe().frames - self._run.moved
            if rest > limit:
                return False
            self._scan()
            self._spool_all()
            return self._move().complete
        finally:
            self._work.release()

    # --- from any thread ---------------------------------------------------------------

    def sync(self) -> None:
        """Blocking: everything committed before is on the disk.  Raises OSError."""
        self._files.sync()

    @property
    def size(self) -> int:
        """Of the log's file, in bytes."""
        return self._files.size

    @property
    def spool_bytes(self) -> int:
        """On the disk, of page images in files without a name: those not taken and those taken and in use."""
        with self._state:
            return sum(spool.disk_bytes for spool in (self._spool, *self._given))

    # --- in a worker thread ------------------------------------------------------------

    def take(self, mark: WalMark) -> PageSet:
        """The last image of each page changed since the take before, up to ``mark``.

        A mark at or before the one taken last gives an empty set.  Raises ObjfsError for a mark of another
        log, Corrupt, OSError; what was not given can be taken again then.
        """
        with self._work:
            base = self._bases.get(mark.salt)
            if base is None:
                raise ObjfsError(f"{self._path}: mark {mark} is of another log")
            self._scan()
            with self._state:
                taken = [known for known in self._marks if known.position <= base + mark.frame]
            changed: dict[int, int] = {}
            for known in taken:
                changed |= known.changed
            page_count = taken[-1].page_count if taken else self._page_count
            images = ((number, self._image(changed[number])) for number in sorted(changed))
            spool = Spool(self._path.parent, PAGE_SIZE)
            with self._state:
                self._given.add(spool)
            pages = spooled_in(spool, PAGE_SIZE, page_count, images)
            self._forget(taken)
            return pages

    def backfill(self) -> Backfilled:
        """Moves frames into the database file: those committed when it starts, at most."""
        with self._work, _pinned(self._pin):
            self._scan()
            self._spool_all()
            return self._move()

    # --- parts -------------------------------------------------------------------------

    def _observe(self) -> LogState:
        """Notices that the log was started over.  Under ``_state``."""
        state, run = self._files.state(), self._run
        if state.salt != run.salt:
            run = self._run = _Run(state.salt, run.base + run.frames)
            self._bases[state.salt] = run.base
        run.frames = state.frames
        return state

    def _scan(self) -> None:
        """Learns which pages the frames hold that were committed since the last scan.  Under ``_work``."""
        with self._state:
            state, base = self._observe(), self._run.base
        if self._scanned < base:
            raise Corrupt(f"{self._path}: its log was started over by another program; remount")
        numbers = self._files.numbers(state.salt, self._scanned - base + 1, state.frames)
        while batch := list(islice(numbers, _BATCH)):
            with self._state:
                for number in batch:
                    self._scanned += 1
                    self._note(number, self._scanned)

    def _note(self, number: int, position: int) -> None:
        """A page's image at ``position`` is the newest for the first mark that comes after.  Under both
        locks."""
        changed = next((known.changed for known in self._marks if known.position >= position), self._since)
        before = changed.get(number)
        if before in self._slots:
            self._spool.release(self._slots.pop(before))
        changed[number] = position

    def _image(self, position: int) -> bytes:
        """Under ``_work``: what is not spooled is in the present run and stays there."""
        slot = self._slots.get(position)
        return self._files.image(position - self._run.base) if slot is None else self._spool.get(slot)

    def _spool_all(self) -> None:
        """Makes every image that was scanned and not taken independent of the log.  Under ``_work``."""
        with self._state:
            sets = [known.changed for known in self._marks] + [self._since]
            wanted = [position for changed in sets for position in changed.values()]
        for position in wanted:
            if position not in self._slots:
                self._slots[position] = self._spool.put(self._image(position))

    def _move(self) -> Backfilled:
        try:
            _, frames, moved = self._mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise ObjfsError(f"{self._path}: its log cannot be moved into it: {error}") from error
        with self._state:
            self._run.moved = moved
        return Backfilled(frames, moved)

    def _forget(self, taken: list[_Mark]) -> None:
        for known in taken:
            for position in known.changed.values():
                if position in self._slots:
                    self._spool.release(self._slots.pop(position))
        if taken:
            with self._state:
                del self._marks[: len(taken)]
                self._taken = taken[-1].position
                self._page_count = taken[-1].page_count


def _connect(database: Database) -> sqlite3.Connection:
    """A connection for worker threads, one at a time."""
    connection = sqlite3.connect(database.path, isolation_level=None, check_same_thread=False)
    for pragma in ("wal_autocheckpoint = 0", "synchronous = NORMAL", "cache_size = -256"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("SELECT generation FROM volume").fetchone()
    return connection


@contextmanager
def _pinned(connection: sqlite3.Connection) -> Iterator[None]:
    """While it lasts, no backfill goes beyond the present end of the log."""
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT generation FROM volume").fetchone()
        yield
    finally:
        connection.execute("ROLLBACK")
