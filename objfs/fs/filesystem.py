"""The file system of one view of a volume: the facade over names, bytes and handles.

Owns the joins between the three: an inode lives while it has a name, an open handle or a place in the
kernel's memory; opening with O_TRUNC truncates; a write through an O_SYNC handle is durable before it
returns; a change of size is a truncate.  Promises that every mutation of a read-only view, or after the
gate was closed, raises ReadOnly.  Knows no protocol: ``fuse`` speaks to it, and so do the tests.

Access times: reads that the kernel answers from its pages never arrive here, so opening a file to read it
counts as reading.  Permissions are the kernel's (``default_permissions``).  ``lookup``, ``create``,
``mkdir``, ``mknod``, ``symlink`` and ``link`` do not count as lookups by themselves: who hands an inode
to the kernel says so with ``looked_up``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio

from objfs.errors import BadHandle, IsDirectory, ReadOnly
from objfs.fs.atime import AccessTimes
from objfs.fs.data import Data
from objfs.fs.handles import Handle, Handles
from objfs.fs.namespace import Namespace, without_set_id
from objfs.fs.orphans import Orphans
from objfs.fs.ports import (
    Barrier,
    Caller,
    CapacitySource,
    ChunkCachePort,
    FsSettings,
    Removing,
    Tables,
)
from objfs.fs.stamps import Stamps
from objfs.fs.xattrs import Xattrs
from objfs.model import Attr, AttrChange, DirEntry, Ino
from objfs.ports import Clock, WriteGate


class FileSystem:
    """One view of a volume.  Start with ``recover()``, keep ``run()`` in a nursery, end with ``aclose()``."""

    def __init__(
        self,
        table: Tables,
        cache: ChunkCachePort,
        settings: FsSettings,
        gate: WriteGate,
        clock: Clock,
        barrier: Barrier,
        capacity: CapacitySource,
        *,
        removing: Removing | None = None,
    ) -> None:
        self.tables = self._table = table
        self._cache = cache
        self._gate = gate
        self._stamps = clock = Stamps(clock)
        self.settings = settings
        self.orphans = Orphans(table, gate, clock)
        self._handles = Handles(self.orphans.unused)
        self._data = Data(table, cache, settings, clock, barrier, writable=self._writable)
        self._atimes = AccessTimes(table, gate, clock, settings)
        xattrs = Xattrs(table, clock, writable=self._writable)
        self._names = names = Namespace(
            table,
            settings.root,
            clock,
            capacity,
            xattrs,
            writable=self._writable,
            unlinked=lambda ino: self.orphans.unlinked(ino, self._handles),
            removing=removing,
        )
        # What needs neither bytes nor handles is offered as the namespace has it.
        self.parent_of = names.parent_of
        self.access = names.access
        self.statfs = names.statfs
        self.mkdir = names.mkdir
        self.mknod = names.mknod
        self.symlink = names.symlink
        self.unlink = names.unlink
        self.rmdir = names.rmdir
        self.rename = names.rename
        self.get_xattr = xattrs.get
        self.set_xattr = xattrs.set
        self.list_xattr = xattrs.names
        self.remove_xattr = xattrs.remove
        # The kernel learns of inodes and forgets them.
        self.looked_up = self._handles.looked_up
        self.forget = self._handles.forget
        self.handle = self._handles.get
        self.release = self._handles.close
        self.statistics = self._handles.statistics

    # --- life --------------------------------------------------------------------------

    async def recover(self) -> None:
        """To be awaited before anybody is served: completes what a crash interrupted."""
        if not self.settings.read_only:
            await self.orphans.finish_truncates()

    async def run(self) -> None:
        """The background work of the view, until it is cancelled or may not write any more: purges orphans,
        writes access times."""
        if self.settings.read_only:
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._atimes.run)
            await self.orphans.run()
            nursery.cancel_scope.cancel()

    async def pause(self) -> None:
        """Programs may not write any more: reading sets no access times either.  What was written before is
        durable on return."""
        self._atimes.paused = True
        await self._atimes.write_all()
        await self.sync()

    def resume(self) -> None:
        """The opposite of ``pause``."""
        self._atimes.paused = False

    async def aclose(self) -> None:
        """After the last request: nobody holds anything any more, so all orphans are purged."""
        await self._atimes.write_all()
        if not self.settings.read_only:
            await self.orphans.release_all()

    def _writable(self) -> None:
        if self.settings.read_only:
            raise ReadOnly("this mount is read-only")
        self._gate.check()

    def known(self) -> list[Ino]:
        """The inodes that the kernel may remember something of; it never learns of the root by a lookup."""
        return [self.settings.root, *self._handles.known()]

    def knows(self, ino: Ino) -> bool:
        """Whether the kernel may remember something of this inode."""
        return ino == self.settings.root or self._handles.knows(ino)

    # --- restores ----------------------------------------------------------------------

    async def settled(self) -> None:
        """Returns when no truncate goes on that takes several steps, until the caller awaits."""
        while self._data.truncating:
            await self._data.truncated()

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """No write to a file begins while the body runs: those that come wait.  Access times that reading set
        before are in their rows."""
        with self._data.held():
            await self._atimes.write_all()
            yield

    def replaced(self, rewritten: Iterable[Ino], lost: Iterable[Ino]) -> None:
        """In the step that changed rows behind the back of those who use them: handles of these files are
        stale, and those that lost their last name are purged when nobody holds them."""
        without_name = list(lost)
        self._handles.replace({*rewritten, *without_name})
        for ino in without_name:
            self.orphans.unlinked(ino, self._handles)

    # --- names -------------------------------------------------------------------------

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        """See ``Namespace``."""
        return self._atimes.shown(self._names.lookup(parent, name))

    def link(self, ino: Ino, parent: Ino, name: bytes) -> Attr:
        """See ``Namespace``."""
        return self._atimes.shown(self._names.link(ino, parent, name))

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        """At most ``limit`` entries beyond a cookie, without '.' and '..'."""
        return self._atimes.shown_in(self._names.readdir(parent, after_cookie, limit))

    def readlink(self, ino: Ino) -> bytes:
        """Raises InvalidArgument for anything but a symlink."""
        target = self._names.readlink(ino)
        self._atimes.read(ino)
        return target

    # --- attributes and sizes ----------------------------------------------------------

    def getattr(self, ino: Ino) -> Attr:
        """Raises StaleHandle."""
        return self._atimes.shown(self._names.getattr(ino))

    async def setattr(self, ino: Ino, change: AttrChange, size: int | None, caller: Caller) -> Attr:
        """The size first, then the rest: times that are given win over those of the truncate.

        A truncate by somebody other than root drops the set-ID bits of the file, unless the same
        call sets the mode.
        """
        if size is not None:
            attr = await self.truncate(ino, size, caller)
            if change == AttrChange():
                return self._atimes.shown(attr)
        self._stamps.given(change.atime_ns)
        self._stamps.given(change.mtime_ns)
        attr = self._names.set_attr(ino, change)
        if change.atime_ns is not None:
            self._atimes.forget(ino)
        return self._atimes.shown(attr)

    # --- handles -----------------------------------------------------------------------

    def create(self, parent: Ino, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Handle, Attr]:
        """A new regular file, open."""
        attr = self._names.create(parent, name, mode, caller)
        return self._handles.open(attr.ino, flags), attr

    async def open(self, ino: Ino, flags: int, caller: Caller) -> Handle:
        """Opens a file; O_TRUNC empties it.  Raises IsDirectory, ReadOnly, StaleHandle."""
        attr = self._table.get(ino)
        if attr.is_dir:
            raise IsDirectory(f"inode {ino} is a directory")
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._writable()
        # Counted before the truncate may await: from here on the inode is held.
        handle = self._handles.open(ino, flags)
        if flags & os.O_TRUNC and attr.is_regular:
            try:
                await self.truncate(ino, 0, caller)
            except BaseException:
                self._handles.close(handle.fh)
                raise
        elif handle.marks_reads and not handle.writes:
            handle.marked = self._atimes.note(attr)
        return handle

    def opendir(self, ino: Ino) -> Handle:
        """Raises NotDirectory, StaleHandle."""
        self._atimes.note(self._names.lookup(ino, b"."))
        return self._handles.open(ino, os.O_RDONLY | os.O_DIRECTORY)

    # --- bytes -------------------------------------------------------------------------

    async def read(self, fh: int, offset: int, length: int) -> bytes:
        """A handle open for writing only reads too: the kernel completes pages through it."""
        handle = self._handles.get(fh)
        data = await self._data.read(handle.ino, offset, length)
        if handle.marks_reads:
            self._atimes.read(handle.ino)
        handle.marked = False
        return data

    async def write(self, fh: int, offset: int, data: bytes, *, clear_suid: bool = False) -> int:
        """``clear_suid``: the writer is unprivileged and the kernel has not seen to set-ID bits."""
        handle = self._handles.get(fh)
        if not handle.writes:
            raise BadHandle(f"file handle {fh} is open for reading only")
        written = await self._data.write(
            handle.ino, offset, data, clear_suid=clear_suid, still=lambda: self._handles.get(fh)
        )
        if handle.synchronous:
            await self._data.fsync(handle.ino)
        return written

    async def truncate(self, ino: Ino, size: int, caller: Caller) -> Attr:
        attr = await self._data.truncate(ino, size)
        if caller.uid != 0 and attr.mode != without_set_id(attr.mode):
            attr = self._names.set_attr(ino, AttrChange(mode=without_set_id(attr.mode)))
        return attr

    async def fsync(self, fh: int) -> None:
        """See ``Data.fsync``; also for a directory's handle."""
        await self._data.fsync(self._handles.get(fh).ino)

    async def sync(self) -> None:
        """Everything that was written is durable on this machine."""
        await self._cache.sync()
