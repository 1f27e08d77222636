"""The tree of one moment, path by path, as far as it is meant.

Owns the order: a directory before what is in it, and once more after all of that; names in the order of their
creation, which is about that of their bytes in the buckets.  Promises to hold one batch of names for each
level that it is in.  Blocking: for a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar

import trio

from objfs.errors import NotFound
from objfs.fs import Tables
from objfs.model import ROOT, Attr, Ino
from objfs.volume.selection import Choice, Selection

T = TypeVar("T")

NAMES = 512
"""Names that are read at once."""


class Found(NamedTuple):
    """A path below the root (itself empty).  ``choice`` is WAY for a directory that is not meant itself;
    ``left``: a directory of which everything has been given."""

    path: bytes
    attr: Attr
    choice: Choice
    left: bool = False


def walk(table: Tables, selection: Selection) -> Iterator[Found]:
    """Everything that is meant, and the ways to it.  Raises Corrupt."""
    root = Found(b"", table.get(ROOT), selection.root)
    yield root
    stack = [(root, _children(table, selection, root))]
    while stack:
        above, children = stack[-1]
        below = next(children, None)
        if below is None:
            stack.pop()
            yield above._replace(left=True)
            continue
        yield below
        if below.attr.is_dir:
            stack.append((below, _children(table, selection, below)))


def _children(table: Tables, selection: Selection, above: Found) -> Iterator[Found]:
    before = above.path + b"/" if above.path else b""
    for name, attr in _entries(table, above.attr.ino, selection, above.path):
        path = before + name
        choice = selection.choose(path, above.choice, is_dir=attr.is_dir)
        if choice is not Choice.OUT:
            yield Found(path, attr, choice)


def _entries(table: Tables, ino: Ino, selection: Selection, path: bytes) -> Iterator[tuple[bytes, Attr]]:
    among = selection.among(path)
    if among is not None:
        for name in among:
            try:
                yield name, table.lookup(ino, name)
            except NotFound:
                continue
        return
    cookie = 0
    while batch := table.readdir(ino, cookie, NAMES):
        yield from ((entry.name, entry.attr) for entry in batch)
        cookie = batch[-1].cookie


@dataclass(slots=True)
class Totals:
    """What a walk finds; ``bytes`` are those that the chunks of its files hold, a hard link counted once."""

    directories: int = 0
    files: int = 0
    links: int = 0
    others: int = 0
    bytes: int = 0

    def add(self, attr: Attr) -> None:
        """One inode, under its first name."""
        if attr.is_dir:
            self.directories += 1
        elif attr.is_regular:
            self.files += 1
            self.bytes += attr.held
        else:
            self.others += 1

    @property
    def names(self) -> int:
        return self.directories + self.files + self.links + self.others


class Census:
    """Counts what is found.  Remembers every inode with several names."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._seen: set[Ino] = set()

    def count(self, found: Found) -> None:
        if found.left or found.choice is Choice.WAY:
            return
        if has_more_names(found.attr) and found.attr.ino in self._seen:
            self.totals.links += 1
            return
        self.totals.add(found.attr)
        if has_more_names(found.attr):
            self._seen.add(found.attr.ino)


def has_more_names(attr: Attr) -> bool:
    """Whether an inode is, or was, found under other names too."""
    return attr.nlink > 1 and not attr.is_dir


class Desk:
    """Rows for whoever asks, in one thread at a time: the table has one connection."""

    def __init__(self, table: Tables) -> None:
        self.table = table
        self._limiter = trio.CapacityLimiter(1)

    async def ask(self, work: Callable[[], T]) -> T:
        """Runs ``work``, which reads the table, in a thread."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def batch(self, items: Iterator[T], most: int) -> list[T]:
        """The next of ``items``, which read the table as they go."""
        return await self.ask(lambda: list(islice(items, most)))
