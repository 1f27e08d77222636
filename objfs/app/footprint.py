"""What a mount keeps on the local disk besides the cache's files: counted against the same cap.

Owns the estimate: the inode table, its log, its replica, pages between the two, checksums of the cache and
the mount's own log.  Promises a figure that is cheap to ask for and not below the truth for long: the log is
measured each time, with room for what it grows before it is shortened; the rest by ``refresh``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from objfs.meta import WAL_SOFT_LIMIT, MetaDatabase
from objfs.volume.local import VolumeHome

log = logging.getLogger(__name__)

LOG_SHARE = 16
"""The log of the inode table is shortened from this part of the cap on, at the latest from its soft limit."""
LOG_SLACK = 2
"""So many times its bound is kept free for the log, which grows while it is shortened."""
MOST = 2
"""At most this part of the cap is counted: the cache must be able to work beside a huge inode table."""
BLOCK = 512
"""The unit of st_blocks."""


def log_limit(cap: int) -> int:
    """From how many bytes on the log of the inode table is shortened; ``cap`` is the cache's size."""
    return min(WAL_SOFT_LIMIT, cap // LOG_SHARE)


class Footprint:
    """Bytes of one state directory outside ``cache/``'s versions.  On the loop's thread."""

    def __init__(self, home: VolumeHome, table: MetaDatabase, cap: int) -> None:
        self._home = home
        self._table = table
        self._cap = cap
        self._log_room = LOG_SLACK * log_limit(cap)
        self._warned = False
        self._rest = 0
        self.refresh()

    def bytes(self) -> int:
        """To be counted against the cap now."""
        total = self._rest + max(self._table.log.size, self._log_room)
        return min(total, self._cap // MOST)

    def refresh(self) -> None:
        """Measures all but the log."""
        self._rest = sum(map(_allocated, self._files())) + self._table.log.spool_bytes
        if self._rest > self._cap // MOST and not self._warned:
            self._warned = True
            log.warning(
                "the inode table and its replica take %d bytes of a cache_size of %d: raise cache_size",
                self._rest,
                self._cap,
            )

    def _files(self) -> Iterator[Path]:
        home = self._home
        own_log = home.database_path.name + "-wal"
        for directory in (home.path, home.replica_path):
            yield from (Path(entry) for entry in _scan(directory) if entry.name != own_log)
        yield from (home.cache_path / name for name in ("clean.log", "clean.log.1"))


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * BLOCK
    except FileNotFoundError:
        return 0
