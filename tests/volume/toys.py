"""Small real implementations of the ports of checkpoints: a page log, a replica and a cache in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from objfs.cache.settings import CacheStatistics
from objfs.codec.identity import PAGE_HASH_MODULUS, page_hash
from objfs.codec.keys import KeyRing
from objfs.model import ChunkId, Ino, Placed, Segment, SegmentNo, WalMark
from objfs.ports import Sealable
from objfs.store.store import SegmentStore
from objfs.volume.ports import PageSet

PAGE = 512


@dataclass(frozen=True)
class ToyPages:
    page_size: int
    page_count: int
    pages: Mapping[int, bytes]


class ToyTable:
    """Pages that change by commits; the page log of a checkpoint."""

    def __init__(self) -> None:
        self.commits: list[dict[int, bytes]] = []
        self.taken = 0

    def commit(self, pages: Mapping[int, bytes]) -> None:
        self.commits.append({number: image.ljust(PAGE, b".") for number, image in pages.items()})

    def at(self, commits: int) -> dict[int, bytes]:
        """The image after so many commits."""
        image: dict[int, bytes] = {}
        for pages in self.commits[:commits]:
            image.update(pages)
        return image

    @property
    def now(self) -> dict[int, bytes]:
        return self.at(len(self.commits))

    @property
    def pending(self) -> int:
        return sum(len(pages) for pages in self.commits[self.taken :])

    def mark(self) -> WalMark:
        return WalMark(0, len(self.commits))

    def take(self, mark: WalMark) -> PageSet:
        changed: dict[int, bytes] = {}
        for pages in self.commits[self.taken : mark.frame]:
            changed.update(pages)
        self.taken = mark.frame
        return ToyPages(PAGE, max(self.at(mark.frame), default=0), changed)

    def backfill(self) -> None:
        pass


class ToyReplica:
    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self.pages: dict[int, bytes] = {}
        self._count = 0
        self._rotten: dict[int, bytes] = {}

    @property
    def page_count(self) -> int:
        return self._count

    @property
    def digest(self) -> int:
        return self._sum(self.pages | self._rotten)

    def rot(self, number: int) -> None:
        """The disk loses a page; the digest, kept incrementally, does not notice."""
        self._rotten[number] = self.pages[number]
        self.pages[number] = b"rotten".ljust(PAGE, b"!")

    def _sum(self, pages: Mapping[int, bytes]) -> int:
        return sum(page_hash(self._ring.current, *item) for item in pages.items()) % PAGE_HASH_MODULUS

    def page(self, number: int) -> bytes:
        return self.pages[number]

    def apply(self, pages: PageSet) -> None:
        self.pages.update(pages.pages)
        self._count = pages.page_count

    def clear(self) -> None:
        self.pages, self._count, self._rotten = {}, 0, {}

    def compute_digest(self) -> int:
        return self._sum(self.pages)

    def digest_with(self, pages: PageSet) -> int:
        return self._sum(self.pages | self._rotten | dict(pages.pages))


class ToyCache:
    """Chunks that wait to be placed; a cut places its own into one segment."""

    def __init__(self, store: SegmentStore) -> None:
        self._store = store
        self.dirty: dict[ChunkId, bytes] = {}
        self._next = 0
        self.hold: trio.Event | None = None

    def write(self, data: bytes) -> ChunkId:
        self._next += 1
        self.dirty[ChunkId(self._next)] = data
        return ChunkId(self._next)

    def cut(self) -> ToyCut:
        return ToyCut(self, self._store, dict(self.dirty))

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(0, 0, len(self.dirty), 0.0, 0, 0, 0, 0, 0, 0, 0, None)


@dataclass(frozen=True)
class ToyCutResult:
    segments: dict[SegmentNo, Segment]
    placed: list[Placed]


class ToyCut:
    def __init__(self, cache: ToyCache, store: SegmentStore, chunks: dict[ChunkId, bytes]) -> None:
        self._cache = cache
        self._store = store
        self._chunks = chunks

    async def placed(self) -> ToyCutResult:
        if self._cache.hold is not None:
            await self._cache.hold.wait()
        if not self._chunks:
            return ToyCutResult({}, [])
        items = [Sealable(chunk, Ino(1), 0, data) for chunk, data in self._chunks.items()]
        segment, placed = await self._store.write_segment(items)
        for chunk in self._chunks:
            self._cache.dirty.pop(chunk, None)
        return ToyCutResult({SegmentNo(0): segment}, placed)


class ToySegments:
    """Rows of segments: which have chunks, which are condemned."""

    def __init__(self) -> None:
        self.rows: dict[SegmentNo, Segment] = {}
        self.used: set[SegmentNo] = set()
        self.gone: dict[SegmentNo, int] = {}

    def segments_without_chunks(self, limit: int) -> list[tuple[SegmentNo, Segment]]:
        free = self.rows.keys() - self.used - self.gone.keys()
        return [(number, self.rows[number]) for number in sorted(free)][:limit]

    def condemn(self, numbers: Sequence[SegmentNo], sequence: int) -> list[SegmentNo]:
        chosen = [number for number in numbers if number not in self.used]
        self.gone |= dict.fromkeys(chosen, sequence)
        return chosen

    def condemned(self) -> list[tuple[SegmentNo, Segment, int]]:
        return [(number, self.rows[number], sequence) for number, sequence in self.gone.items()]

    def segment(self, number: SegmentNo) -> Segment:
        return self.rows[number]

    def drop_segments(self, numbers: Sequence[SegmentNo]) -> list[Segment]:
        for number in numbers:
            self.gone.pop(number, None)
        return [self.rows.pop(number) for number in numbers if number not in self.used]
