"""Making inode tables for tests, and the records that they are filled with."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from objfs.meta import MetaDatabase, new_root
from objfs.model import (
    Chunk,
    Code,
    Location,
    NewInode,
    Placed,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
)
from tests.doubles.inode_table import MemoryInodeTable

CHUNK = 1024
BOOT = b"first-boot"
START = 1_700_000_000 * 10**9


def make(path: Path) -> MetaDatabase:
    return MetaDatabase.make(
        path, uuid=b"volume" + bytes(10), chunk_size=CHUNK, root=new_root(0, 0, START), boot_id=BOOT
    )


def make_double() -> MemoryInodeTable:
    return MemoryInodeTable(CHUNK, new_root(0, 0, START), BOOT)


def snapshot(table: MetaDatabase) -> int:
    """Names the present moment; returns its generation."""
    return table.create_snapshot(b"g%d" % table.generation, START).generation


def regular(now_ns: int = START, mode: int = 0o644) -> NewInode:
    return NewInode(stat.S_IFREG | mode, 1000, 100, now_ns)


def directory(now_ns: int = START) -> NewInode:
    return NewInode(stat.S_IFDIR | 0o755, 1000, 100, now_ns)


def symlink(target: bytes, now_ns: int = START) -> NewInode:
    return NewInode(stat.S_IFLNK | 0o777, 1000, 100, now_ns, target=target)


def segment(length: int = 4096) -> Segment:
    """A new segment of 2+1 shards."""
    slots = (Slot(0), Slot(1), Slot(2))
    return Segment(os.urandom(16), SegmentKind.DATA, 1, Code(2, 1), length, (0, length // 2, length), slots)


def placed(
    chunk: Chunk, size: int = CHUNK, number: int = 0, frames: tuple[int, ...] = (), position: int = 0
) -> Placed:
    """A chunk somewhere in a segment; number 0 is the one about to be placed."""
    identity = hashlib.blake2b(b"%d" % chunk.chunk, digest_size=32).digest()
    return Placed(
        chunk.chunk, Location(SegmentNo(number), position, 0, frames or (size + 17,), size, identity)
    )


def hasher(number: int, image: bytes) -> int:
    """A stand-in for the codec's keyed hash of a page."""
    return int.from_bytes(hashlib.blake2b(image, digest_size=32, key=b"%d" % number).digest(), "big")
