"""Where repairs put what they cannot put anywhere else: the directory ``lost+found`` of the root.

Owns its names, which follow a fixed rule: ``#<inode>`` is an inode that had lost its name, and
``#<inode>.chunks`` a file that holds, each at its old place, chunks that belonged to that inode and that its
map does not show.  A name that is taken gets ``.1``, ``.2`` and so on behind it.  Owns also the places of
bytes that are lost for good: they read as an error and never as zeros, because their versions lie in a
segment of which no shard was ever placed.  Decides nothing.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from objfs.meta import held
from objfs.meta.chunks import LOCATION_COLUMNS, from_location
from objfs.meta.database import Database
from objfs.meta.entries import Entries
from objfs.meta.inodes import Inodes
from objfs.meta.segments import SEGMENT_COLUMNS, from_segment
from objfs.model import (
    FRAME_SIZE,
    ROOT,
    ChunkId,
    Code,
    Ino,
    Location,
    NewInode,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
)

NAME = b"lost+found"
FRAME_COST = 17
"""What sealing adds to a frame that does not compress."""
LOST_MOST = 2**31
"""Bytes of lost chunks in one segment."""
_PLACE = "INSERT INTO map (ino, idx, chunk, born) VALUES (?, ?, ?, ?) ON CONFLICT (ino, idx) "


class Repaired(NamedTuple):
    """What was done for a rule; ``lost``: something that was there cannot be had any more."""

    rule: str
    text: str
    lost: bool = False


class LostFound:
    """The directory, made when something is first put there; ``key_id`` is of the volume's current key."""

    def __init__(
        self, database: Database, inodes: Inodes, entries: Entries, now_ns: int, key_id: int
    ) -> None:
        self.database = database
        self.inodes = inodes
        self.entries = entries
        self.now_ns = now_ns
        self._key_id = key_id
        self._directory: Ino | None = None
        self._pieces: dict[Ino, Ino] = {}
        self._lost: SegmentNo | None = None
        self._lost_bytes = 0

    # --- inodes ------------------------------------------------------------------------

    @property
    def directory(self) -> Ino:
        """Found, or made with mode 0700."""
        if self._directory is None:
            self._directory = self._find() or self._make()
        return self._directory

    def _find(self) -> Ino | None:
        found = self.entries.find(ROOT, NAME)
        return found.ino if found is not None and found.is_dir and found.nlink > 0 else None

    def _make(self) -> Ino:
        new = NewInode(stat.S_IFDIR | 0o700, 0, 0, self.now_ns)
        return self.entries.create(ROOT, self._free_name(ROOT, NAME), new).ino

    def _free_name(self, parent: Ino, wanted: bytes) -> bytes:
        return next(name for name in _variants(wanted) if self.entries.find(parent, name) is None)

    def adopt(self, ino: Ino) -> str:
        """Gives an inode a name here, and with it a life; returns the path for people."""
        database, directory = self.database, self.directory
        name = self._free_name(directory, b"#%d" % ino)
        self.entries.add(directory, name, ino, self.entries.directory(directory).next_cookie)
        is_dir = self.inodes.get(ino).is_dir
        self.entries.changed(directory, self.now_ns, links=int(is_dir), cookies=1)
        if is_dir:
            database.run("UPDATE inode SET parent = ?, nlink = max(nlink, 2) WHERE ino = ?", (directory, ino))
        else:
            database.run(
                "UPDATE inode SET nlink = (SELECT count(*) FROM entry WHERE ino = ?1) WHERE ino = ?1", (ino,)
            )
        database.run("DELETE FROM orphan WHERE ino = ? AND keep_from = -1", (ino,))
        return self._path(name)

    def _path(self, name: bytes) -> str:
        return f"/{NAME.decode()}/{name.decode()}"

    # --- chunks ------------------------------------------------------------------------

    def keep(self, ino: Ino, index: int, chunk: ChunkId) -> str:
        """Puts a version at its place of the file for pieces of ``ino``; returns that file's path."""
        database = self.database
        for holder in self._holders(ino):
            if database.run(f"{_PLACE} DO NOTHING", (holder, index, chunk, database.generation)):
                break
        length = self.length_of(chunk)
        database.run("UPDATE chunk SET ino = ?, idx = ? WHERE chunk = ?", (holder, index, chunk))
        database.run(
            "UPDATE inode SET size = max(size, ?) WHERE ino = ?",
            (index * database.chunk_size + length, holder),
        )
        held.count_anew(database, holder)
        return self._path(self._name_of(holder))

    def _holders(self, ino: Ino) -> Iterator[Ino]:
        """The file for pieces of an inode; where its place is taken, another one."""
        if ino in self._pieces:
            yield self._pieces[ino]
        for _ in itertools.count():
            new = NewInode(stat.S_IFREG | 0o600, 0, 0, self.now_ns)
            name = self._free_name(self.directory, b"#%d.chunks" % ino)
            self._pieces[ino] = self.entries.create(self.directory, name, new).ino
            yield self._pieces[ino]

    def _name_of(self, ino: Ino) -> bytes:
        row = self.database.one("SELECT name FROM entry WHERE parent = ? AND ino = ?", (self.directory, ino))
        assert row is not None
        return bytes(row[0])

    def length_of(self, chunk: ChunkId) -> int:
        """Where the bytes of a version end, as far as its rows say."""
        row = self.database.one(f"SELECT {held.LENGTH} FROM chunk c WHERE c.chunk = ?", (chunk,))
        return 0 if row is None else int(row[0])

    # --- what is lost ------------------------------------------------------------------

    def lose(self, ino: Ino, index: int) -> None:
        """The chunk at a place of a file is gone: reading it is an error until it is written whole.  Beyond
        the end of the file nothing is."""
        database = self.database
        if database.run(
            "DELETE FROM map WHERE ino = ?1 AND idx = ?2 "
            "AND ?2 * ?3 >= (SELECT size FROM inode WHERE ino = ?1)",
            (ino, index, database.chunk_size),
        ):
            return
        chunk = self.lost_version(ino, index)
        sql = f"{_PLACE} DO UPDATE SET chunk = excluded.chunk"
        database.run(sql, (ino, index, chunk, database.generation))

    def lost_version(self, ino: Ino, index: int) -> ChunkId:
        """A version without bytes anywhere, as long as the file's size lets the chunk be."""
        database = self.database
        row = database.one("SELECT size FROM inode WHERE ino = ?", (ino,))
        rest = (0 if row is None else row[0]) - index * database.chunk_size
        size = min(max(rest, 1), database.chunk_size)
        frames = tuple(min(FRAME_SIZE, size - at) + FRAME_COST for at in range(0, size, FRAME_SIZE))
        number = self._lost_segment(sum(frames))
        location = Location(number, self._lost_bytes - sum(frames), 0, frames, size, bytes(32))
        chunk = database.new_chunk()
        database.run(
            f"INSERT INTO chunk (chunk, ino, idx, state, {LOCATION_COLUMNS}) "
            "VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?)",
            (chunk, ino, index, *from_location(location, number)),
        )
        return chunk

    def _lost_segment(self, more: int) -> SegmentNo:
        """The segment without shards, ``more`` bytes longer."""
        database = self.database
        if self._lost_bytes + more > LOST_MOST:
            self._lost, self._lost_bytes = None, 0
        self._lost_bytes += more
        if self._lost is None:
            self._lost = database.new_segment()
            length = self._lost_bytes
            segment = Segment(
                os.urandom(16), SegmentKind.DATA, self._key_id, Code(1, 0), length, (0, length), (Slot(0),),
                frozenset({0}),
            )  # fmt: skip
            marks = ", ".join("?" * (2 + SEGMENT_COLUMNS.count(",")))
            database.run(
                f"INSERT INTO segment (segment, {SEGMENT_COLUMNS}, state) VALUES ({marks}, 0)",
                (self._lost, *from_segment(segment)),
            )
        cuts = struct.pack(">2Q", 0, self._lost_bytes)
        database.run(
            "UPDATE segment SET length = ?, cuts = ? WHERE segment = ?", (self._lost_bytes, cuts, self._lost)
        )
        return self._lost


Mender = Callable[[LostFound], Iterator[Repaired]]
"""Mends one rule everywhere, and says what it did."""


def _variants(name: bytes) -> Iterator[bytes]:
    yield name
    for number in itertools.count(1):
        yield b"%b.%d" % (name, number)
