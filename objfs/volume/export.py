"""A tree from the buckets as a tar archive, in a stream.

Owns the order: that of the walk, so that a directory comes before what is in it and the first name of a file
before the others.  Promises bounded memory (``AHEAD`` batches), that what is written is a whole archive or is
said not to be one, and that no wrong byte is written: a file that cannot be read is left out and named; one
that is larger than a batch, and of which only a later part fails, ends the archive there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import trio

from objfs.errors import NotEnoughShards, StoreError
from objfs.model import Attr, Ino
from objfs.store.store import SegmentStore
from objfs.volume.attributes import kept
from objfs.volume.pax import END, can_hold, hard_link, member, padding, sparse_member
from objfs.volume.pieces import READ_BYTES, Part, Parts, Unread, read
from objfs.volume.restore import BATCH, Report, survey
from objfs.volume.restored import Restored, said
from objfs.volume.selection import Choice, Selection
from objfs.volume.visit import Source
from objfs.volume.walk import Desk, Found, has_more_names, walk

AHEAD = 3
"""Batches that are being fetched while one is written."""
ZEROS = bytes(1 << 20)
SOCKETS = "sockets are left out: no archive can hold one"

Write = Callable[[bytes], object]


@dataclass(slots=True, eq=False)
class _Member:
    """One name in the archive.  ``first`` is the member that it is another name of."""

    path: bytes
    attr: Attr
    header: bytes
    first: _Member | None = None
    begun: bool = False
    failure: str = ""


class _Data(NamedTuple):
    """Bytes of a file, behind ``zeros`` zeros."""

    member: _Member
    part: Part
    zeros: int


class _End(NamedTuple):
    """Nothing of a member comes after these zeros; ``failure``: something should have."""

    member: _Member
    zeros: int
    failure: str = ""


_Item = _Member | _Data | _End


@dataclass(slots=True)
class _Batch:
    """What is written together.  ``data`` has the bytes of its parts when ``ready`` is set."""

    items: list[_Item]
    ready: trio.Event = field(default_factory=trio.Event)
    data: list[bytes | Unread] = field(default_factory=list)

    async def fetch(self, store: SegmentStore) -> None:
        self.data = await read(store, [item.part for item in self.items if isinstance(item, _Data)])
        self.ready.set()


class Export:
    """One archive, handed to ``write`` in a thread, piece by piece."""

    def __init__(self, source: Source, selection: Selection, write: Write, report: Report) -> None:
        self._source = source
        self._selection = selection
        self._write = write
        self._report = report
        self._desk = Desk(source.table)
        self._parts = Parts(source.table, source.chunk_size)
        self._first: dict[Ino, _Member] = {}
        self.done = Restored(source.moment_ns)

    async def run(self) -> Restored:
        """Raises OSError where nothing more is taken, NotEnoughShards where the archive had to end."""
        begun = trio.current_time()
        self.done.wanted = await survey(self._desk, self._selection, lambda _found: None)
        send, receive = trio.open_memory_channel[_Batch](AHEAD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetch_all, send)
            async for batch in receive:
                await batch.ready.wait()
                pieces = self._bytes_of(batch)
                # A reader that does not take them must not hold up the end.
                await trio.to_thread.run_sync(self._write_all, pieces, abandon_on_cancel=True)
                self._report(self.done)
        await trio.to_thread.run_sync(self._write, END)
        self.done.fetched_bytes = self._source.store.statistics().bytes_read
        self.done.seconds = trio.current_time() - begun
        return self.done

    # --- what comes, in the desk's thread ----------------------------------------------

    def _plan(self) -> Iterator[_Item]:
        for found in walk(self._source.table, self._selection):
            if not found.left and found.choice is Choice.IN:
                yield from self._plan_one(found)

    def _plan_one(self, found: Found) -> Iterator[_Item]:
        attr, path = found.attr, found.path or b"."
        if not can_hold(attr):
            self.done.remark([SOCKETS])
            return
        first = self._first.get(attr.ino)
        if first is not None:
            yield _Member(path, attr, hard_link(path, first.path, attr), first)
            return
        xattrs = kept(self._source.table, attr).xattrs
        if not attr.is_regular:
            yield self._remember(_Member(path, attr, member(path, attr, xattrs)))
        elif attr.held < attr.size:
            try:
                extents = self._extents(attr)
            except StoreError as error:
                self.done.cannot_read(path, str(error))
                return
            yield from self._file(
                self._remember(_Member(path, attr, sparse_member(path, attr, xattrs, extents))), dense=False
            )
        else:
            yield from self._file(self._remember(_Member(path, attr, member(path, attr, xattrs))), dense=True)

    def _remember(self, new: _Member) -> _Member:
        if has_more_names(new.attr):
            self._first[new.attr.ino] = new
        return new

    def _extents(self, attr: Attr) -> list[tuple[int, int]]:
        """Where a file holds bytes, in whole blocks as GNU tar reads them, and its end."""
        found: list[tuple[int, int]] = []
        for part in self._parts.of(attr):
            if found and sum(found[-1]) == part.offset:
                found[-1] = (found[-1][0], found[-1][1] + part.length)
            else:
                found.append((part.offset, part.length))
        blocks = ((start, length + len(padding(length))) for start, length in found)
        return [*((start, min(length, attr.size - start)) for start, length in blocks), (attr.size, 0)]

    def _file(self, one: _Member, *, dense: bool) -> Iterator[_Item]:
        yield one
        at, size = 0, one.attr.size
        try:
            for part in self._parts.of(one.attr):
                yield _Data(one, part, _between(at, part.offset, dense=dense))
                at = part.offset + part.length
        except StoreError as error:
            yield _End(one, 0, str(error))
            return
        yield _End(one, size - at + len(padding(size)) if dense else len(padding(at)))

    # --- fetching ----------------------------------------------------------------------

    async def _fetch_all(self, send: trio.MemorySendChannel[_Batch]) -> None:
        """Batches in order, each read in a task of its own."""
        plan = self._plan()
        items: list[_Item] = []
        nbytes = 0
        async with send, trio.open_nursery() as nursery:
            while batch := await self._desk.ask(lambda: list(islice(plan, BATCH))):
                for item in batch:
                    items.append(item)
                    nbytes += item.part.length if isinstance(item, _Data) else 0
                    if nbytes >= (2 * READ_BYTES if isinstance(item, _Data) else READ_BYTES):
                        await self._start(nursery, send, items)
                        items, nbytes = [], 0
            await self._start(nursery, send, items)

    async def _start(
        self, nursery: trio.Nursery, send: trio.MemorySendChannel[_Batch], items: list[_Item]
    ) -> None:
        batch = _Batch(items)
        nursery.start_soon(batch.fetch, self._source.store)
        await send.send(batch)

    # --- writing -----------------------------------------------------------------------

    def _write_all(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            self._write(piece)

    def _bytes_of(self, batch: _Batch) -> list[bytes]:
        """The archive's bytes of one batch.  Raises NotEnoughShards."""
        data = iter(batch.data)
        items = [(item, next(data) if isinstance(item, _Data) else b"") for item in batch.items]
        for item, found in items:
            if isinstance(item, _Data) and isinstance(found, Unread):
                _fail(item.member, found.why)
            elif isinstance(item, _End) and item.failure:
                _fail(item.member, item.failure)
        return [piece for item, found in items for piece in self._pieces(item, found)]

    def _pieces(self, item: _Item, found: bytes | Unread) -> Iterator[bytes]:
        one = item if isinstance(item, _Member) else item.member
        if isinstance(item, _Member):
            if item.first is not None and item.first.failure:
                item.failure = "the file that it is another name of is not in the archive"
            if item.failure:
                self.done.cannot_read(item.path, item.failure)
                return
            item.begun = True
            yield item.header
            if item.first is not None:
                self.done.linked()
            else:
                self.done.made(item.attr)
        elif not one.failure:
            yield from _zeros(item.zeros)
            if isinstance(found, bytes):
                yield found


def _between(end: int, start: int, *, dense: bool) -> int:
    """How many zeros stand between two parts: the hole itself, or what fills the block before it."""
    if dense:
        return start - end
    return len(padding(end)) if start > end else 0


def _fail(one: _Member, why: str) -> None:
    if one.begun:
        raise NotEnoughShards(f"the archive ends in {said(one.path)}, which cannot be read: {why}")
    one.failure = one.failure or why


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield ZEROS[:count]
        count -= len(ZEROS)
