"""What the last mount left in the cache directory.

Owns the rules by which files and rows become entries again.  Dirty versions: after a
crash of the daemon alone (same boot) every recorded range is trusted; after a reboot or power cut a range
counts when it was synced, rides in the log, or matches its checksum, and a file that
lost a range falls back to its last durable size (I1).  Clean versions: kept where ``clean.log`` has checksums,
which the first read verifies (I4).  Files of nobody are removed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import xxhash

from objfs.cache.disk import VersionFiles
from objfs.cache.entry import Entry
from objfs.cache.ledger import Sums
from objfs.cache.ranges import RangeSet
from objfs.cache.shelf import Shelf
from objfs.model import Chunk, ChunkId, ChunkTable, DirtyRange, Ino

log = logging.getLogger(__name__)


class RecoverableTable(ChunkTable, Protocol):
    """What recovery asks of the inode table besides the block map."""

    def rows_of_other_boots(self) -> bool:
        """Whether dirty rows may be older than this boot of the machine."""
        ...

    def durable_size(self, ino: Ino) -> int: ...

    def set_size_after_power_cut(self, ino: Ino, size: int) -> None: ...


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What ``recover`` found: versions that wait for upload, ranges and files lost to a power cut."""

    dirty_chunks: int
    clean_chunks: int
    lost_ranges: int
    shortened: tuple[Ino, ...]
    removed_files: int
