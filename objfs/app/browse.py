"""What a mount shows of snapshots: one file system for each tree, and one for the directory of them.

Owns their making: read-only, over the table and the cache of the mount, so that nothing is kept twice and all
of it counts against the same caps.
"""

from __future__ import annotations

import os

import trio

from objfs.app.options import MountOptions
from objfs.cache import ChunkCache
from objfs.fs import FileSystem, FsSettings, Tables
from objfs.fs.ports import CapacitySource
from objfs.fuse.browse import Browsing
from objfs.meta import MetaDatabase
from objfs.model import ROOT, Ino
from objfs.ports import Clock, WriteGate


class NoBarrier:
    """The barrier of what writes nothing: everything is in the buckets already."""

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()


class Showing:
    """Makes the file systems of what has passed."""

    def __init__(
        self,
        table: MetaDatabase,
        cache: ChunkCache,
        gate: WriteGate,
        clock: Clock,
        capacity: CapacitySource,
    ) -> None:
        self._table = table
        self._cache = cache
        self._gate = gate
        self._clock = clock
        self._capacity = capacity

    def past(self, table: Tables, root: Ino) -> FileSystem:
        """A tree that never changes, with ``root`` as its root."""
        settings = FsSettings(self._table.chunk_size, read_only=True, root=root)
        cache = self._cache.at(table)
        return FileSystem(table, cache, settings, self._gate, self._clock, NoBarrier(), self._capacity)

    def browsing(self, options: MountOptions) -> Browsing:
        """The directory of snapshots as ``options`` ask for it."""
        moments = self._table.moments([os.fsencode(name) for name in options.subdir.split("/") if name])

        def tree(door: Ino) -> FileSystem:
            moment = moments.moment(door)
            return self.past(moment.table, moment.root)

        name = os.fsencode(options.snapshot_dir)
        return Browsing(self.past(moments, ROOT), tree, name, options.show_snapshots)
