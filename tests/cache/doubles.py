"""Small real implementations of the cache's ports, in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import trio

from objfs.cache.ranges import RangeSet
from objfs.errors import NotEnoughShards, ObjfsError
from objfs.model import (
    FRAME_SIZE,
    Chunk,
    ChunkId,
    ChunkState,
    Code,
    DirtyRange,
    Ino,
    Location,
    Placed,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
    Snapshot,
)
from objfs.ports import Sealable


class MemoryTable:
    """A ChunkTable without namespace; it outlives a cache, as the inode table's file does."""

    def __init__(self, chunk_size: int) -> None:
        self.chunk_size = chunk_size
        self.rows: dict[ChunkId, Chunk] = {}
        self.live: dict[tuple[Ino, int], ChunkId] = {}
        self.ranges: dict[ChunkId, list[DirtyRange]] = {}
        self.sizes: dict[Ino, int] = {}
        self.segments: dict[SegmentNo, Segment] = {}
        self.boot: bytes | None = None
        self._freed: list[ChunkId] = []
        self._next = 1

    @contextmanager
    def transaction(self) -> Iterator[None]:
        yield

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        chunk = self.live.get((ino, index))
        return None if chunk is None else self.rows[chunk]

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        found = [self.chunk_at(ino, index) for index in range(first, last + 1)]
        return [row for row in found if row is not None][:limit]

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        return self.rows.get(chunk)

    def begin_chunk(self, ino: Ino, index: int, base: ChunkId | None, base_size: int) -> Chunk:
        chunk, self._next = ChunkId(self._next), self._next + 1
        row = Chunk(chunk, ino, index, ChunkState.DIRTY, None, base, base_size)
        self.rows[chunk], self.ranges[chunk] = row, []
        self.live[ino, index] = chunk
        self._collect()
        return row

    def record_write(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], *, clear_suid: bool = False
    ) -> None:
        before = self.sizes.get(ino, 0)
        for one in ranges:
            grew = before if size > before else None
            self.ranges[one.chunk].append(one._replace(boot=self.boot, size_before=grew))
        self.sizes[ino] = max(size, before)

    def truncate(self, ino: Ino, size: int, now_ns: int, limit: int) -> bool:
        self.sizes[ino] = size
        self.live = {
            key: chunk for key, chunk in self.live.items() if key[0] != ino or key[1] * self.chunk_size < size
        }
        self._collect()
        return True

    def clip_chunk(self, chunk: ChunkId, length: int) -> None:
        row = self.rows[chunk]
        self.rows[chunk] = replace(row, base_size=min(row.base_size, length))
        kept = []
        for one in self.ranges[chunk]:
            keep = min(one.length, length - one.offset)
            if keep == one.length:
                kept.append(one)
            elif keep > 0:
                data = one.data[:keep] if one.data is not None else None
                kept.append(one._replace(length=keep, checksum=None, data=data))
        self.ranges[chunk] = kept
        if not kept and not self.rows[chunk].base_size:
            self.live = {key: live for key, live in self.live.items() if live != chunk}
            self._collect()

    def commit_inline(self, chunk: ChunkId, ranges: Sequence[tuple[int, bytes]]) -> None:
        for offset, data in ranges:
            self.ranges[chunk].append(DirtyRange(chunk, offset, len(data), None, False, data, self.boot))

    def mark_synced(self, chunk: ChunkId, ranges: Sequence[tuple[int, int]]) -> None:
        assert self.rows[chunk].state is ChunkState.DIRTY
        self.ranges[chunk] = [
            DirtyRange(chunk, start, end - start, None, True, None, self.boot) for start, end in ranges
        ]

    def at_risk(self, ino: Ino) -> int:
        """How many bytes of a file a power cut may take."""
        total = 0
        for chunk, ranges in self.ranges.items():
            unsafe = RangeSet()
            for one in ranges if self.rows[chunk].ino == ino else ():
                change = unsafe.remove if one.synced or one.data is not None else unsafe.add
                change(one.offset, one.offset + one.length)
            total += unsafe.total
        return total

    def set_size_after_power_cut(self, ino: Ino, size: int) -> None:
        self.truncate(ino, min(size, self.sizes.get(ino, 0)), 0, 0)

    def drop_snapshots_showing(self, chunks: Collection[ChunkId]) -> list[Snapshot]:
        """There are no snapshots here."""
        return []

    def count_held(self, ino: Ino) -> None:
        """Nobody asks this table for it."""

    def dirty_ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        return list(self.ranges.get(chunk, ()))

    def dirty_chunks(self) -> list[Chunk]:
        return [row for row in self.rows.values() if row.state is ChunkState.DIRTY]

    def dirty_ids(self) -> list[ChunkId]:
        return [row.chunk for row in self.dirty_chunks()]

    def place(self, segment: Segment | None, placed: Iterable[Placed]) -> SegmentNo | None:
        number = None
        if segment is not None:
            assert segment.uuid not in {known.uuid for known in self.segments.values()}
            number = SegmentNo(len(self.segments) + 1)
            self.segments[number] = segment
        for one in placed:
            row = self.rows.get(one.chunk)
            if row is not None:
                assert row.state is ChunkState.DIRTY
                where = one.location
                if number is not None and not where.segment:
                    where = where._replace(segment=number)
                assert where.segment in self.segments
                self.rows[one.chunk] = replace(
                    row, state=ChunkState.STORED, location=where, base=None, base_size=0
                )
                del self.ranges[one.chunk]
        self._collect()
        return number

    def freed(self, limit: int) -> list[ChunkId]:
        return self._freed[:limit]

    def forget_freed(self, chunks: Sequence[ChunkId]) -> None:
        self._freed = [chunk for chunk in self._freed if chunk not in set(chunks)]

    def segment(self, number: SegmentNo) -> Segment:
        if number not in self.segments:
            raise ObjfsError(f"no segment {number}")
        return self.segments[number]

    def chunks_in_segment(self, number: SegmentNo) -> list[Chunk]:
        found = [row for row in self.rows.values() if row.location and row.location.segment == number]
        return sorted(found, key=lambda row: row.location.position if row.location else 0)

    def _collect(self) -> None:
        """Frees versions that are neither live nor the base of another."""
        while True:
            needed = set(self.live.values()) | {row.base for row in self.rows.values()}
            gone = [chunk for chunk in self.rows if chunk not in needed]
            if not gone:
                return
            for chunk in gone:
                del self.rows[chunk]
                self.ranges.pop(chunk, None)
                self._freed.append(chunk)


class MemoryStore:
    """A SegmentPort whose reads and writes can be made to hang or fail."""

    def __init__(self) -> None:
        self.payloads: dict[bytes, list[bytes]] = {}
        self.reads: list[list[tuple[ChunkPosition, int, int]]] = []
        self.fetched_bytes = 0
        self.writes = 0
        self.lost = 0
        self.asked = trio.Event()
        """Set by the first write."""
        self.written: list[list[Sealable]] = []
        self.fail_writes = 0
        self.write_s = 0.0
        self.hang_writes = False
        self.read_bound_s: float | None = None
        """When set, reads hang and fail after so many seconds."""
        self.read_gate: trio.Event | None = None

    async def write_segment(self, chunks: Sequence[Sealable]) -> tuple[Segment, list[Placed]]:
        self.writes += 1
        self.asked.set()
        if self.hang_writes:
            await trio.sleep_forever()
        await trio.sleep(self.write_s)
        if self.fail_writes:
            self.fail_writes -= 1
            raise NotEnoughShards("the double was told to fail")
        uuid = len(self.payloads).to_bytes(16, "big")
        frames: list[bytes] = []
        placed, position = [], 0
        for item in chunks:
            parts = [item.data[at : at + FRAME_SIZE] for at in range(0, len(item.data), FRAME_SIZE)]
            lengths = tuple(len(part) for part in parts)
            where = Location(
                SegmentNo(0), position, len(frames), lengths, len(item.data), self.identify(item.data)
            )
            placed.append(Placed(item.chunk, where))
            frames += parts
            position += sum(lengths)
        self.payloads[uuid] = frames
        self.written.append(list(chunks))
        slots = (Slot(0), Slot(1))
        return Segment(uuid, SegmentKind.DATA, 1, Code(1, 1), position, (0, position), slots), placed

    async def read_chunks(self, wanted: Sequence[tuple[Segment, Location, int, int]]) -> list[bytes]:
        self.reads.append([(where.position, first, last) for _, where, first, last in wanted])
        if self.read_bound_s is not None:
            await trio.sleep(self.read_bound_s)
            raise NotEnoughShards("no bucket answers")
        if self.read_gate is not None:
            await self.read_gate.wait()
        await trio.lowlevel.checkpoint()
        answers = []
        for segment, where, first, last in wanted:
            if segment.nowhere:
                raise NotEnoughShards(f"segment {segment.uuid!r} is nowhere")
            frames = self.payloads[segment.uuid][where.first_frame + first : where.first_frame + last + 1]
            answers.append(b"".join(frames))
            self.fetched_bytes += len(answers[-1])
        return answers

    def nowhere(self, size: int) -> tuple[Segment, Location]:
        lengths = tuple(min(FRAME_SIZE, size - at) for at in range(0, size, FRAME_SIZE))
        uuid = b"nowhere" + self.lost.to_bytes(9, "big")
        self.lost += 1
        segment = Segment(uuid, SegmentKind.DATA, 1, Code(1, 0), size, (0, size), (Slot(0),), frozenset({0}))
        return segment, Location(SegmentNo(0), 0, 0, lengths, size, bytes(32))

    def identify(self, data: bytes) -> bytes:
        return hashlib.blake2b(data, digest_size=32).digest()


ChunkPosition = int


class MemoryLog:
    """A LogSync that counts."""

    def __init__(self) -> None:
        self.syncs = 0
        self.behind = False

    async def sync(self) -> None:
        self.syncs += 1
        self.behind = False
        await trio.lowlevel.checkpoint()


class TrioClock:
    """Time as the running loop (and its MockClock) sees it."""

    def now_ns(self) -> int:
        return int(trio.current_time() * 1_000_000_000)

    def monotonic(self) -> float:
        return trio.current_time()
