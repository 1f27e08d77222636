"""The copies of stored versions in a running cache, verified: for scrub.

Owns the comparison of clean frames with the checksums that were noted when they came.  Promises that a
frame which does not match is not served any more, and is fetched again by whoever reads it.  Reads in
workers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
import xxhash

from objfs.cache.disk import VersionFiles
from objfs.cache.entry import Entry, State
from objfs.cache.ledger import CleanLog
from objfs.cache.shelf import Shelf
from objfs.model import ChunkId

log = logging.getLogger(__name__)

Spend = Callable[[int], Awaitable[None]]
"""Waits until so many bytes may be read."""
Frame = tuple[int, int]
"""Offset and length."""


@dataclass(slots=True)
class Copies:
    """What was verified, in bytes, and the frames that were dropped: (version, offset, length)."""

    nbytes: int = 0
    dropped: list[tuple[ChunkId, int, int]] = field(default_factory=list)


async def verify_copies(shelf: Shelf, files: VersionFiles, ledger: CleanLog, spend: Spend) -> Copies:
    """One pass over the versions that are clean now; those without a checksum are passed over."""
    ledger.flush()
    sums, found, disk = await trio.to_thread.run_sync(ledger.load), Copies(), trio.CapacityLimiter(1)
    for chunk, frames in sums.items():
        await spend(sum(length for _, length in frames))
        entry = shelf.entries.get(chunk)
        if entry is None or entry.state is not State.CLEAN:
            continue
        due = {key: total for key, total in frames.items() if entry.present.covers(key[0], sum(key))}
        with shelf.pinned([entry]):
            wrong = await trio.to_thread.run_sync(_wrong, files, chunk, due, limiter=disk)
        found.nbytes += sum(length for _, length in due)
        for frame in wrong:
            _drop(entry, frame)
            found.dropped.append((chunk, *frame))
    return found


def _wrong(files: VersionFiles, chunk: ChunkId, due: dict[Frame, int]) -> list[Frame]:
    found = []
    for (offset, length), checksum in due.items():
        try:
            data = files.read(chunk, offset, length)
        except OSError:
            data = b""
        if xxhash.xxh3_64_intdigest(data) != checksum:
            found.append((offset, length))
    return found


def _drop(entry: Entry, frame: Frame) -> None:
    offset, length = frame
    log.warning("damaged cache file, fetched again: chunk=%x offset=%d", entry.chunk, offset)
    entry.present.remove(offset, offset + length)
    if entry.unverified is not None:
        entry.unverified.remove(offset, offset + length)
