"""A tree from the buckets into a directory of this machine, without a mount.

Owns the order and the tasks: one plans (directories, symlinks and special files are made as the walk meets
them, files are cut into pieces), several fetch and write, segment by segment within a window of the plan;
then hard links, then what is the directories' own.  Promises bounded memory: a window of pieces, ``READERS``
reads, and the names of inodes that have several.  Promises that a file which cannot be read, or not be
written, is named and the rest goes on; a destination that is full or broken ends it.

Going on with an interrupted restore: what has the kind, size, time, mode and, for root, the owner of the
inode counts as restored; the chunks of a draft are compared by their identities.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import trio

from objfs.errors import StoreError
from objfs.model import Attr, Ino
from objfs.volume.attributes import Kept, kept, mode_of
from objfs.volume.destination import Destination
from objfs.volume.pieces import Part, Parts, Piece, Unread, read, reads
from objfs.volume.readback import differs, has_part
from objfs.volume.restored import Restored
from objfs.volume.selection import Choice, Selection
from objfs.volume.visit import Source
from objfs.volume.walk import Census, Desk, Found, Totals, has_more_names, walk

WINDOW = 8192
"""Pieces that are brought into the order of the segments at once."""
BATCH = 512
"""Steps of a walk in one turn of the desk's thread."""
READERS = 4
ENDING = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENODEV, errno.ESTALE))
"""Failures of the destination that the next file would meet too."""

Report = Callable[[Restored], None]


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """``resume``: what is there already and looks right stays.  ``verify``: what is written is read back, and
    what stays is read."""

    resume: bool = False
    verify: bool = False


@dataclass(slots=True, eq=False)
class _File:
    """A regular file that is being written.  ``planned`` belongs to the desk's thread, the rest to the loop;
    ``whole``: no piece is going to be planned any more."""

    path: bytes
    what: Kept
    planned: int = 0
    whole: bool = False
    done: int = 0
    failure: str = ""

    @property
    def attr(self) -> Attr:
        return self.what.attr

    @property
    def draft(self) -> bytes:
        """Of this content alone: what an older one left must not show through a hole."""
        return b"%d-%d" % (self.attr.ino, self.attr.ctime_ns)

    @property
    def sparse(self) -> bool:
        return self.attr.held < self.attr.size


_Piece = Piece[_File]
_Step = _Piece | _File | None
"""Of the plan: a piece, a file that has none, a sign of life."""


@dataclass(slots=True)
class _Landing:
    """What one read brings of one file; ``last``: nothing of it comes after.  The thread that lands it fills
    in the rest."""

    file: _File
    count: int
    parts: list[tuple[int, bytes]]
    last: bool
    ended: bool = False
    error: OSError | None = None
    remarks: list[str] = field(default_factory=list)


class Restore:
    """One restore.  ``report`` hears of progress, on the loop."""

    def __init__(
        self,
        source: Source,
        selection: Selection,
        destination: Destination,
        options: RestoreOptions,
        report: Report,
    ) -> None:
        self._source = source
        self._selection = selection
        self._destination = destination
        self._options = options
        self._report = report
        self._desk = Desk(source.table)
        self._parts = Parts(source.table, source.chunk_size)
        self._first: dict[Ino, bytes] = {}
        """Of inodes with several names the one that was met first."""
        self._others: list[tuple[Ino, bytes]] = []
        self.done = Restored(source.moment_ns)

    async def run(self) -> Restored:
        """Raises OSError where the destination takes nothing more, Corrupt where the rows cannot be read."""
        begun = trio.current_time()
        self.done.wanted = await survey(self._desk, self._selection, lambda _found: None)
        self._report(self.done)
        await self._files()
        await trio.to_thread.run_sync(self._make_links)
        if not self.done.failures:
            await trio.to_thread.run_sync(self._destination.complete)
        await self._directories()
        await trio.to_thread.run_sync(self._destination.sync)
        self.done.fetched_bytes = self._source.store.statistics().bytes_read
        self.done.seconds = trio.current_time() - begun
        return self.done

    async def _files(self) -> None:
        send, receive = trio.open_memory_channel[list[_Piece]](0)
        async with trio.open_nursery() as nursery, send:
            for _ in range(READERS):
                nursery.start_soon(self._read_all, receive)
            window: list[_Piece] = []
            plan = self._plan()
            while batch := await self._desk.batch(plan, BATCH):
                window += [step for step in batch if isinstance(step, Piece)]
                files = [step for step in batch if isinstance(step, _File)]
                await self._land([_Landing(file, 0, [], last=True) for file in files])
                if len(window) >= WINDOW:
                    await _send(send, window)
                    window = []
            await _send(send, window)

    # --- the plan, in the desk's thread ------------------------------------------------

    def _plan(self) -> Iterator[_Step]:
        """Makes what needs no bytes; gives the pieces of the rest."""
        for found in walk(self._source.table, self._selection):
            yield None
            if found.left or found.choice is Choice.WAY:
                continue
            try:
                yield from self._plan_one(found)
            except OSError as error:
                self._refuse(found.path, error)

    def _plan_one(self, found: Found) -> Iterator[_Step]:
        attr = found.attr
        if has_more_names(attr) and attr.ino in self._first:
            self._others.append((attr.ino, found.path))
            return
        if has_more_names(attr):
            self._first[attr.ino] = found.path
        if attr.is_dir:
            self._destination.make_directory(found.path)
            self.done.made(attr)
        elif self._stays(found):
            self.done.made(attr, kept=True)
        elif attr.is_regular:
            yield from self._plan_file(_File(found.path, kept(self._source.table, attr)))
        else:
            self.done.remark(self._destination.make_other(found.path, kept(self._source.table, attr)))
            self.done.made(attr)

    def _stays(self, found: Found) -> bool:
        """Whether what is at a path already is what should be there."""
        attr, place = found.attr, self._destination
        if not self._options.resume or not place.is_whole(found.path, attr, mode_of(attr, os.geteuid())):
            return False
        if not (attr.is_regular and self._options.verify):
            return True
        try:
            return not self._differs(place.open_file(found.path), attr)
        except PermissionError:  # nobody but root reads it there: it is written again
            return False

    def _plan_file(self, file: _File) -> Iterator[_Step]:
        before: Part | None = None
        try:
            for part in self._missing(file):
                if before is not None:
                    file.planned += 1
                    yield Piece(file, before)
                before = part
        except StoreError as error:
            file.failure = str(error)
        file.planned += before is not None
        file.whole = True  # the loop looks at both, whenever it likes
        yield file if before is None else Piece(file, before)

    def _missing(self, file: _File) -> Iterator[Part]:
        """The parts that a draft of before does not hold."""
        if not (self._options.resume and self._destination.has_draft(file.draft)):
            yield from self._parts.of(file.attr)
            return
        descriptor = self._destination.open_draft(file.draft)
        try:
            for part in self._parts.of(file.attr):
                if not has_part(descriptor, part, self._source.ring):
                    yield part
        finally:
            os.close(descriptor)

    def _differs(self, descriptor: int, attr: Attr) -> str:
        """How an open file is not the inode; closes it."""
        try:
            return differs(descriptor, attr, self._parts.of(attr), self._source.ring)
        except StoreError as error:
            return str(error)
        finally:
            os.close(descriptor)

    # --- bytes -------------------------------------------------------------------------

    async def _read_all(self, receive: trio.MemoryReceiveChannel[list[_Piece]]) -> None:
        async for group in receive:
            found = await read(self._source.store, [piece.part for piece in group])
            items = sorted(zip(group, found, strict=True), key=lambda item: id(item[0].owner))
            by_file = groupby(items, key=lambda item: item[0].owner)
            await self._land([_landing(file, list(many)) for file, many in by_file])
            self._report(self.done)

    async def _land(self, landings: Sequence[_Landing]) -> None:
        if landings:
            await trio.to_thread.run_sync(self._write, landings)
        for landing in landings:
            file = landing.file
            file.done += landing.count
            self.done.remark(landing.remarks)
            if landing.error is not None:
                self._refuse(file.path, landing.error)
                file.failure = file.failure or str(landing.error.strerror)
            if landing.ended:
                self.done.made(file.attr)
            elif file.whole and file.done == file.planned:
                await self._end(file)

    def _write(self, landings: Sequence[_Landing]) -> None:
        """In a thread: one turn for all files of a read."""
        for landing in landings:
            file = landing.file
            if file.failure:
                continue
            try:
                self._destination.write(file.draft, file.attr.size, landing.parts, sparse=file.sparse)
                if landing.last and not self._options.verify:
                    landing.remarks = self._destination.finish(file.draft, file.path, file.what)
                    landing.ended = True
            except OSError as error:
                landing.error = error

    async def _end(self, file: _File) -> None:
        """A file that is to be verified, or has failed: all of its pieces are written, or cannot be had."""
        if not file.failure:
            await self._desk.ask(lambda: self._verify(file))
        if file.failure and file.path not in self.done.refused:
            self.done.cannot_read(file.path, file.failure)

    def _verify(self, file: _File) -> None:
        """Reads a draft back, and makes it the file where it is right."""
        try:
            why = self._differs(self._destination.open_draft(file.draft), file.attr)
            if why:
                file.failure = f"what was written does not read back: {why}"
                return
            self.done.remark(self._destination.finish(file.draft, file.path, file.what))
            self.done.made(file.attr)
        except OSError as error:
            self._refuse(file.path, error)
            file.failure = str(error.strerror)

    # --- afterwards --------------------------------------------------------------------

    def _make_links(self) -> None:
        for ino, path in self._others:
            try:
                self._destination.link(self._first[ino], path)
                self.done.linked()
            except FileNotFoundError:
                self.done.refuse(path, "the file that it is another name of is not there")
            except OSError as error:
                self._refuse(path, error)

    async def _directories(self) -> None:
        """The deepest first: whatever changes a directory's time is done by then."""
        table = self._source.table
        leaving = (found for found in walk(table, self._selection) if found.left)

        def finish() -> int:
            taken = list(islice(leaving, BATCH))
            for found in taken:
                self._finish_directory(found)
            return len(taken)

        while await self._desk.ask(finish):
            pass

    def _finish_directory(self, found: Found) -> None:
        try:
            what = kept(self._source.table, found.attr)
            self.done.remark(self._destination.finish_directory(found.path, what))
        except OSError as error:
            self._refuse(found.path, error)

    def _refuse(self, path: bytes, error: OSError) -> None:
        """Raises it again where it is not about this path alone."""
        if error.errno in ENDING:
            raise error
        self.done.refuse(path, error.strerror or str(error))


def _landing(file: _File, items: Sequence[tuple[_Piece, bytes | Unread]]) -> _Landing:
    for _, data in items:
        if isinstance(data, Unread):
            file.failure = data.why
    parts = [(piece.part.offset, data) for piece, data in items if isinstance(data, bytes)]
    last = file.whole and file.done + len(items) == file.planned
    return _Landing(file, len(items), parts, last)


async def _send(send: trio.MemorySendChannel[list[_Piece]], window: list[_Piece]) -> None:
    window.sort(key=lambda piece: piece.place)
    for group in reads(window):
        await send.send(group)


async def survey(desk: Desk, selection: Selection, told: Callable[[Found], None]) -> Totals:
    """What is meant, counted; ``told`` hears of each, in a thread."""
    census = Census()
    steps = walk(desk.table, selection)

    def count() -> int:
        taken = list(islice(steps, BATCH))
        for found in taken:
            census.count(found)
            if not found.left and found.choice is Choice.IN:
                told(found)
        return len(taken)

    while await desk.ask(count):
        pass
    return census.totals
