"""A volume whose inode table and checkpoints are all gone, from what its segments say of themselves.

Owns the scan of the buckets: which chunk of which inode lies where, by the sealed indexes, the newest version
of each.  Promises that every byte it gives is authenticated, and that it says what it could not read.  What
no index knows does not come back: names, directories, attributes, symlinks, empty files, a hole at the end of
a file, and chunks that were stored by reference to an equal one.  What was deleted and not yet removed comes
back with the rest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.codec import IndexEntry
from objfs.errors import CodecError, StoreError
from objfs.meta.table import MetaDatabase, new_root
from objfs.model import ChunkId, Ino, Location, Segment, SegmentKind, SegmentNo, Slot
from objfs.store.scan import Found
from objfs.store.store import SegmentStore
from objfs.volume.fields import JSON
from objfs.volume.listing import FAN, Listing, Places
from objfs.volume.quorum import BucketSet

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Segments read at the same time."""
FEW_HOLES = 100
ROWS_AT_ONCE = 1000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Piece:
    """The newest version of one chunk of a file."""

    chunk: ChunkId
    segment: bytes
    location: Location


@dataclass(slots=True)
class Scanned:
    """What was found.  ``unreadable`` segments have fewer than k sound shards, or an index that does not
    open; ``silent`` buckets did not answer."""

    chunk_size: int
    files: dict[Ino, dict[int, Piece]] = field(default_factory=dict)
    segments: dict[bytes, Segment] = field(default_factory=dict)
    unreadable: dict[bytes, str] = field(default_factory=dict)
    silent: dict[Slot, str] = field(default_factory=dict)
    seen: int = 0

    def size(self, ino: Ino) -> int:
        """In bytes, up to the end of the last chunk."""
        index, piece = max(self.files[ino].items())
        return index * self.chunk_size + piece.location.size

    def holes(self, ino: Ino) -> list[int]:
        """Chunks below the last one of which nothing is known: holes, or stored elsewhere by reference."""
        known = self.files[ino]
        return [index for index in range(max(known)) if index not in known][:FEW_HOLES]

    def to_json(self) -> dict[str, JSON]:
        files: list[JSON] = [
            {
                "inode": ino,
                "size": self.size(ino),
                "chunks": len(self.files[ino]),
                "holes": [*self.holes(ino)],
            }
            for ino in sorted(self.files)
        ]
        return {
            "files": files,
            "segments": self.seen,
            "unreadable": {uuid.hex(): why for uuid, why in self.unreadable.items()},
            "silent": {str(slot): why for slot, why in self.silent.items()},
        }


async def scan(
    buckets: BucketSet, store: SegmentStore, chunk_size: int, note: Callable[[str], None]
) -> Scanned:
    """Lists every bucket, and reads one header and the index of every segment."""
    found = Scanned(chunk_size)
    listed = await _list(buckets, found)
    limit = trio.Semaphore(AT_ONCE)

    async def look(uuid: bytes) -> None:
        async with limit:
            await _look(store, uuid, listed[uuid], found)
        found.seen += 1
        if found.seen % 100 == 0:
            note(f"{found.seen} of {len(listed)} segments read, {len(found.files)} files found")

    async with trio.open_nursery() as nursery:
        for uuid in sorted(listed):
            nursery.start_soon(look, uuid)
    used = {piece.segment for pieces in found.files.values() for piece in pieces.values()}
    found.segments = {uuid: segment for uuid, segment in found.segments.items() if uuid in used}
    return found


async def _list(buckets: BucketSet, found: Scanned) -> Mapping[bytes, Places]:
    listing = Listing(buckets, {})
    listed: dict[bytes, Places] = {}
    for prefix in FAN:
        listed |= (await listing.part(prefix)).places
    found.silent = listing.silent
    return listed


async def _look(store: SegmentStore, uuid: bytes, listed: Places, found: Scanned) -> None:
    try:
        known = await store.recognize(uuid, listed)
        entries = await store.read_index(known) if known.segment.kind is SegmentKind.DATA else []
    except (StoreError, CodecError) as error:
        log.warning("segment not readable uuid=%s: %s", uuid.hex(), error)
        found.unreadable[uuid] = str(error)
        return
    _take(known, entries, found)


def _take(known: Found, entries: list[IndexEntry], found: Scanned) -> None:
    """Of two versions of one chunk the higher number is the newer."""
    found.segments[known.segment.uuid] = known.segment
    for entry in entries:
        pieces = found.files.setdefault(entry.ino, {})
        before = pieces.get(entry.index)
        if before is None or before.chunk < entry.chunk:
            pieces[entry.index] = Piece(entry.chunk, known.segment.uuid, entry.location)


# --- into a directory ----------------------------------------------------------------------


async def copy_out(found: Scanned, store: SegmentStore, directory: Path) -> dict[Ino, list[str]]:
    """Writes each file as ``#<inode>`` into a directory that exists; one of which bytes could not be read is
    called ``#<inode>.incomplete``, and why is returned by inode.

    Raises FileExistsError and other errors of the disk.
    """
    failures: dict[Ino, list[str]] = {}
    for ino in sorted(found.files):
        descriptor = os.open(directory / f"#{ino}", _NEW, 0o600)
        try:
            os.truncate(descriptor, found.size(ino))
            why = await _copy_file(found, store, descriptor, ino)
        finally:
            os.close(descriptor)
        if why:
            failures[ino] = why
            (directory / f"#{ino}").rename(directory / f"#{ino}.incomplete")
    return failures


async def _copy_file(found: Scanned, store: SegmentStore, descriptor: int, ino: Ino) -> list[str]:
    """Why some of its chunks are zeros in the copy."""
    failures = []
    for index, piece in sorted(found.files[ino].items()):
        segment, location = found.segments[piece.segment], piece.location
        try:
            (data,) = await store.read_chunks([(segment, location, 0, len(location.frames) - 1)])
        except (StoreError, CodecError) as error:
            failures.append(f"chunk {index}: {error}")
            continue
        await trio.to_thread.run_sync(os.pwrite, descriptor, data, index * found.chunk_size)
    return failures


# --- into a table --------------------------------------------------------------------------


def build_table(found: Scanned, path: Path, volume: bytes, key_id: int, now_ns: int, boot: bytes) -> None:
    """A new inode table at ``path`` with every file in ``lost+found``.  Blocking.  Raises VolumeExists."""
    root = new_root(os.getuid(), os.getgid(), now_ns)
    with MetaDatabase.make(path, uuid=volume, chunk_size=found.chunk_size, root=root, boot_id=boot) as table:
        repairs = table.repairs(now_ns, key_id)
        numbers: dict[bytes, SegmentNo] = {}
        with table.transaction():
            for uuid, segment in found.segments.items():
                numbers[uuid] = repairs.restore_segment(None, segment)
        for rows in _batches(found):
            with table.transaction():
                for ino, index, piece in rows:
                    location = piece.location._replace(segment=numbers[piece.segment])
                    repairs.restore_version(piece.chunk, ino, index, location)
                    repairs.restore_place(ino, index, piece.chunk)
        repairs.mend()
        table.clear_local()


def _batches(found: Scanned) -> Iterator[list[tuple[Ino, int, Piece]]]:
    rows: list[tuple[Ino, int, Piece]] = []
    for ino in sorted(found.files):
        for index, piece in sorted(found.files[ino].items()):
            rows.append((ino, index, piece))
            if len(rows) == ROWS_AT_ONCE:
                yield rows
                rows = []
    yield rows
