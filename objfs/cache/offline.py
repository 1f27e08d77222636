"""Bytes of chunk versions in a cache directory that no cache has open, or that a running one goes on using.

Owns the reading of versions' files and of ``clean.log`` without changing either: for fsck and salvage.  Which
ranges count is decided as ``recovery`` does: what was written under the present boot is in the file; of an
older boot it is so when it was synced, rides in the log, or matches its checksum.  Besides, a file can be
missing or cut short, which no crash explains.  Knows no table: the caller brings the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from objfs.cache.disk import length_of, read_at, version_path, walk_versions
from objfs.cache.ledger import CleanLog, Sums
from objfs.cache.ranges import RangeSet
from objfs.model import ChunkId, DirtyRange


@dataclass(slots=True)
class Held:
    """What the disk has of a version's own ranges: ``sound`` bytes, ``missing`` ones that no crash explains,
    and those ``torn`` by a power cut before they were synced."""

    sound: RangeSet = field(default_factory=RangeSet)
    missing: RangeSet = field(default_factory=RangeSet)
    torn: RangeSet = field(default_factory=RangeSet)


class CacheDirectory:
    """One directory; ``boot`` is the boot id under which written bytes are trusted.  Blocking."""

    def __init__(self, directory: Path, boot: bytes) -> None:
        self._directory = directory
        self._boot = boot
        self._sums: Sums | None = None

    # --- versions that were not uploaded -------------------------------------------------

    def held(self, chunk: ChunkId, ranges: Sequence[DirtyRange]) -> Held:
        """Judges the ranges of a version, which are in the order they were written."""
        found, newer, end = Held(), RangeSet(), self.length(chunk)
        for one in reversed(ranges):
            kind = self._judge(one, end, newer, found)
            for start, stop in newer.gaps(one.offset, one.offset + one.length):
                kind.add(start, stop)
            newer.add(one.offset, one.offset + one.length)
        return found

    def _judge(self, one: DirtyRange, end: int, newer: RangeSet, found: Held) -> RangeSet:
        """Where the part of a range belongs that nothing newer covers."""
        if one.data is not None:
            return found.sound
        if one.offset + one.length > end:
            return found.missing
        ours = one.boot is None or one.boot == self._boot
        if ours or one.synced or newer.within(one.offset, one.offset + one.length):
            return found.sound
        return found.sound if self._checksum(one) == one.checksum else found.torn

    def length(self, chunk: ChunkId) -> int:
        """Of a version's file in bytes; 0 where there is none."""
        return length_of(self._directory, chunk)

    def _checksum(self, one: DirtyRange) -> int | None:
        try:
            return xxhash.xxh3_64_intdigest(self._read(one.chunk, one.offset, one.length))
        except OSError:
            return None

    def bytes_of(self, chunk: ChunkId, ranges: Sequence[DirtyRange], start: int, end: int) -> bytes:
        """[start, end) of a version, all of it in sound ranges.  Raises OSError."""
        out = bytearray(end - start)
        for one in ranges:
            low, high = max(one.offset, start), min(one.offset + one.length, end)
            if low >= high:
                continue
            if one.data is None:
                piece = self._read(chunk, low, high - low)
            else:
                piece = one.data[low - one.offset : high - one.offset]
            out[low - start : high - start] = piece
        return bytes(out)

    def _read(self, chunk: ChunkId, offset: int, length: int) -> bytes:
        return read_at(version_path(self._directory, chunk), offset, length)

    # --- copies of stored versions -------------------------------------------------------

    @property
    def sums(self) -> Sums:
        """The checksums of clean frames, as the last mount left them."""
        if self._sums is None:
            self._sums = CleanLog(self._directory).load()
        return self._sums

    def clean(self, chunk: ChunkId, size: int) -> bytes | None:
        """All bytes of a stored version, where every frame is here and matches its checksum."""
        frames, at, parts = self.sums.get(chunk, {}), 0, []
        for (offset, length), checksum in sorted(frames.items()):
            data = self._verified(chunk, offset, length, checksum) if offset == at else None
            if data is None:
                break
            parts.append(data)
            at += length
        return b"".join(parts) if at == size else None

    def rotten(self) -> Iterator[tuple[ChunkId, int, int]]:
        """(version, offset, length) of clean frames that are in a file and do not match.  Reads them all."""
        for chunk, frames in self.sums.items():
            end = self.length(chunk)
            for (offset, length), checksum in frames.items():
                if offset + length <= end and self._verified(chunk, offset, length, checksum) is None:
                    yield chunk, offset, length

    def _verified(self, chunk: ChunkId, offset: int, length: int, checksum: int) -> bytes | None:
        try:
            data = self._read(chunk, offset, length)
        except OSError:
            return None
        return data if xxhash.xxh3_64_intdigest(data) == checksum else None

    # --- files ---------------------------------------------------------------------------

    def files(self) -> Iterator[tuple[Path, ChunkId | None]]:
        """Every file with the version that it belongs to (None: to none)."""
        if self._directory.is_dir():
            for entry, chunk in walk_versions(self._directory):
                yield Path(entry.path), chunk
