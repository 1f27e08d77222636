"""Which inode a path leads to, and how one file lies in chunks and segments: behind ``objfs info``."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from objfs.app.wire import Message
from objfs.errors import NotDirectory, NotFound
from objfs.fs import FileSystem, Tables
from objfs.model import Attr, Chunk, Ino, SegmentNo
from objfs.volume.fields import JSON

BATCH = 512
LAST_INDEX = 2**62


def at_path(fs: FileSystem, path: bytes) -> Attr:
    """What lies at a path from the root of the view; links are not followed.  Raises NotFound."""
    attr = fs.getattr(fs.settings.root)
    try:
        for name in filter(None, path.split(b"/")):
            attr = fs.lookup(attr.ino, name)
    except (NotFound, NotDirectory):
        raise NotFound(f"{path.decode(errors='backslashreplace')} is not there") from None
    return attr


@dataclass(slots=True)
class _Sums:
    chunks: int = 0
    dirty: int = 0
    shared: int = 0
    chunk_bytes: int = 0
    stored_bytes: int = 0
    segments: dict[SegmentNo, int] = field(default_factory=dict)
    places: set[tuple[SegmentNo, int]] = field(default_factory=set)

    def add(self, chunk: Chunk) -> None:
        self.chunks += 1
        location = chunk.location
        if location is None:
            self.dirty += 1
            return
        self.chunk_bytes += location.size
        self.segments[location.segment] = self.segments.get(location.segment, 0) + 1
        place = (location.segment, location.position)
        if place in self.places:
            self.shared += 1
        else:
            self.stored_bytes += sum(location.frames)
        self.places.add(place)


async def inspect_file(table: Tables, ino: Ino) -> Message:
    """Reads the block map in batches, so that a huge file holds nobody up."""
    attr = table.get(ino)
    sums, index = _Sums(), 0
    while batch := table.chunks_between(ino, index, LAST_INDEX, BATCH):
        for chunk in batch:
            sums.add(chunk)
        index = batch[-1].index + 1
        await trio.lowlevel.checkpoint()
    segments: list[JSON] = [_segment(table, number, count) for number, count in sums.segments.items()]
    return {
        "ino": ino,
        "size": attr.size,
        "chunks": sums.chunks,
        "dirty": sums.dirty,
        "shared": sums.shared,
        "chunk_bytes": sums.chunk_bytes,
        "stored_bytes": sums.stored_bytes,
        "segments": segments,
    }


def _segment(table: Tables, number: SegmentNo, chunks: int) -> JSON:
    segment = table.segment(number)
    return {
        "uuid": segment.uuid.hex(),
        "code": str(segment.code),
        "chunks": chunks,
        "placement": [int(slot) for slot in segment.placement],
        "missing": [*sorted(segment.missing)],
    }
