"""Bytes of chunk versions of a state that nobody uses: from its cache, and from the buckets.

Owns the layering of versions, read from rows and files alone.  Promises zeros for what cannot be had, and to
say which bytes these are and why; everything else was verified as far as rows and buckets allow.  Changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from objfs.cache.offline import CacheDirectory
from objfs.cache.ranges import RangeSet
from objfs.errors import BucketError, CodecError, StoreError
from objfs.meta.view import TableView
from objfs.model import Chunk, ChunkId
from objfs.store.store import SegmentStore
from objfs.volume.fsck_map import Span

T = TypeVar("T")


class Missing:
    """Ranges of a chunk that are not in the copy, with the reason."""

    def __init__(self) -> None:
        self.spans: list[tuple[Span, str]] = []

    def note(self, start: int, end: int, why: str) -> None:
        self.spans.append(((start, end), why))

    def said(self, base: int) -> list[str]:
        """A line for each, counted from ``base``."""
        return [f"bytes {base + low} to {base + high - 1}: {why}" for (low, high), why in self.spans]


class Versions:
    """Reads chunk versions of a set-aside state.  ``store`` is None where no bucket is to be asked."""

    def __init__(self, view: TableView, cache: CacheDirectory, store: SegmentStore | None) -> None:
        self._view = view
        self._cache = cache
        self._store = store

    async def read(self, chunk: ChunkId, length: int) -> tuple[bytes, Missing]:
        """The first ``length`` bytes, zeros for what is missing, and what that is."""
        out, missing = bytearray(length), Missing()
        wanted: list[Span] = [(0, length)]
        layer: ChunkId | None = chunk
        seen: set[ChunkId] = set()
        while layer is not None and wanted:
            row = await thread(self._view.chunk, layer)
            if row is None or layer in seen:  # a damaged table may lead in a circle
                for low, high in wanted:
                    missing.note(low, high, f"chunk {layer} is gone")
                break
            seen.add(layer)
            wanted = [gap for low, high in wanted for gap in await self._fill(row, low, high, out, missing)]
            layer = row.base
        return bytes(out), missing

    async def _fill(self, row: Chunk, start: int, end: int, out: bytearray, missing: Missing) -> list[Span]:
        """Puts what a version holds of [start, end) into ``out``; returns what its base holds of it."""
        if row.location is not None:
            await self._fill_stored(row, start, min(end, row.location.size), out, missing)
            return []
        own = await self._fill_dirty(row, start, end, out, missing)
        return list(own.gaps(start, min(end, row.base_size)))

    async def _fill_dirty(
        self, row: Chunk, start: int, end: int, out: bytearray, missing: Missing
    ) -> RangeSet:
        """Its own bytes, and which these are."""
        ranges = await thread(self._view.ranges, row.chunk)
        held = await thread(self._cache.held, row.chunk, ranges)
        for low, high in held.sound.within(start, end):
            out[low:high] = await thread(self._cache.bytes_of, row.chunk, ranges, low, high)
        for low, high in held.missing.within(start, end):
            missing.note(low, high, "written here, and gone from the cache's directory")
        for low, high in held.torn.within(start, end):
            missing.note(low, high, "written shortly before a power cut, and not as it was written")
        return RangeSet([*held.sound, *held.missing, *held.torn])

    async def _fill_stored(self, row: Chunk, start: int, end: int, out: bytearray, missing: Missing) -> None:
        """From its copy in the cache, or from the buckets."""
        assert row.location is not None
        if start >= end:
            return
        data = await thread(self._cache.clean, row.chunk, row.location.size)
        if data is None:
            try:
                data = await self._from_buckets(row)
            except (StoreError, CodecError, BucketError) as error:
                missing.note(start, end, f"stored in the buckets, and cannot be read: {error}")
                return
        out[start:end] = data[start:end]

    async def _from_buckets(self, row: Chunk) -> bytes:
        assert row.location is not None
        if self._store is None:
            raise StoreError("the buckets were not asked")
        segment = await thread(self._view.segment, row.location.segment)
        last = len(row.location.frames) - 1
        return (await self._store.read_chunks([(segment, row.location, 0, last)]))[0]


async def thread(work: Callable[..., T], *values: object) -> T:
    """Blocking work in a worker."""
    return await trio.to_thread.run_sync(partial(work, *values))
