"""Checksums of the clean bytes in the cache, kept over a restart.

Owns ``clean.log`` in the cache directory: an append-only file of fixed records (version u64, offset
u32, length u32, xxh3-64 u64; big-endian), one per clean frame.  It is never synced and nothing
relies on it being complete: bytes without a matching record are fetched again, so that a
crash costs warmth and nothing else.

Why not a footer in each version's file: a footer costs a file of 4 KiB a second disk block, doubling
the space of small files, and a second write each; here a record costs 24 buffered bytes.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from objfs.model import FRAME_SIZE, ChunkId

log = logging.getLogger(__name__)

RECORD = struct.Struct(">QIIQ")
_MAGIC = b"objfs clean log 1\n"
_ROTATE_BYTES = 8 * 1024 * 1024
_BUFFER_BYTES = 64 * 1024

Sums = dict[ChunkId, dict[tuple[int, int], int]]
"""Per version: (offset, length) of a clean frame -> its checksum."""


class CleanLog:
    """Appends records; bounded by two generations of 8 MiB, the older of which is dropped."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "clean.log"
        self._older = directory / "clean.log.1"
        self._pending = bytearray()

    def note(self, chunk: ChunkId, offset: int, length: int, checksum: int) -> None:
        self._pending += RECORD.pack(chunk, offset, length, checksum)
        if len(self._pending) >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hands what is buffered to the kernel; a disk that takes it not costs warmth only."""
        if not self._pending:
            return
        try:
            self._append(bytes(self._pending))
        except OSError as error:
            log.warning("checksums of the cache are lost, it will be fetched again: %s", error)
        self._pending.clear()

    def _append(self, records: bytes) -> None:
        if self._path.exists() and self._path.stat().st_size > _ROTATE_BYTES:
            self._path.replace(self._older)
        with self._path.open("ab", buffering=0) as stream:
            end = stream.tell()
            data = records if end else _MAGIC + records
            if stream.write(data) != len(data):
                # Half a record would make nonsense of all that follow.
                stream.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self._path))

    def load(self) -> Sums:
        """What former mounts left; a later record replaces an earlier one of the same frame."""
        sums: Sums = defaultdict(dict)
        for path in (self._older, self._path):
            for chunk, offset, length, checksum in _records(path):
                sums[ChunkId(chunk)][offset, length] = checksum
        return sums

    def restart(self, sums: Sums) -> None:
        """Begins a new log that holds only ``sums``."""
        self._older.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        self._pending.clear()
        for chunk, frames in sums.items():
            for (offset, length), checksum in frames.items():
                self.note(chunk, offset, length, checksum)
        self.flush()


def _records(path: Path) -> Iterable[tuple[int, int, int, int]]:
    if not path.exists():
        return []
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        return []
    body = data[len(_MAGIC) :]
    # A crash may leave half a record at the end, and a rotten disk one of any length.
    records = RECORD.iter_unpack(body[: len(body) // RECORD.size * RECORD.size])
    return (record for record in records if 0 < record[2] <= FRAME_SIZE)
