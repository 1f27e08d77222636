"""Chunks in segments over buckets: what ``cache`` and ``volume`` use.

Owns the composition of sealing, placing, fetching and healing.  Promises that a segment returned by
a write can be read while any m of its k+m shards are lost, less those it names as missing, and that
every byte returned by a read was authenticated.  Does not know files, tables or checkpoints.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from objfs.backends.base import Bucket
from objfs.codec import IndexEntry, KeyRing, Layout, identify, open_chunk_frames, read_index
from objfs.codec.seal import FRAME_OVERHEAD
from objfs.codec.segment import frame_span
from objfs.errors import BucketError, Corrupt
from objfs.model import (
    FRAME_SIZE,
    ChunkId,
    Code,
    Ino,
    Location,
    Placed,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
)
from objfs.ports import Clock, Sealable, WriteGate
from objfs.store.ask import Asker, AskSettings
from objfs.store.blocks import Blocks
from objfs.store.call import Budget
from objfs.store.counters import Counters, StoreStatistics
from objfs.store.fetch import Fetcher
from objfs.store.health import HealthBoard
from objfs.store.layout import UUID_SIZE, shard_name
from objfs.store.pace import PaceBoard, PaceSettings
from objfs.store.placement import Domains, describe, place, tolerance
from objfs.store.places import Places
from objfs.store.ranges import Piece, Run, Span, pieces, runs
from objfs.store.relocate import Copied, Relocator
from objfs.store.restore import Restorer
from objfs.store.scan import Found, Listed, find_segment, recognize
from objfs.store.sealing import Sealed, seal_segment
from objfs.store.upload import Placement, Uploader, UploadSettings
from objfs.store.workers import Workers, gather

Wanted = tuple[Segment, Location, int, int]
"""Segment, location of a chunk in it, first and last frame within the chunk, inclusive."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How patient the store is; see the fields' own records."""

    upload: UploadSettings = field(default_factory=UploadSettings)
    ask: AskSettings = field(default_factory=AskSettings)
    pace: PaceSettings = field(default_factory=PaceSettings)
    hedge: float = 0.05
    """Requests that may be spent on quicker answers, for each that a read needs anyway."""


class SegmentStore:
    """``ports.SegmentPort``, and blobs, deletion and scans besides.

    ``target_bytes`` is how large callers should make a segment; ``min_placed`` (0: k) how many shards make
    it stored, where it is striped, and copies need as many above one as that is above k; ``workers`` limits
    the threads that compute.
    """

    def __init__(
        self,
        buckets: Mapping[Slot, Bucket],
        ring: KeyRing,
        code: Code,
        *,
        target_bytes: int = 8 << 20,
        clock: Clock,
        health: HealthBoard | None = None,
        min_placed: int = 0,
        workers: trio.CapacityLimiter | None = None,
        gate: WriteGate | None = None,
        settings: StoreSettings | None = None,
    ) -> None:
        chosen = settings or StoreSettings()
        self.target_bytes = target_bytes
        self.code = code
        self.health = health or HealthBoard(clock)
        self.pace = PaceBoard(clock, chosen.pace)
        self._ring = ring
        self._min_placed = min_placed
        self._gate = gate or WriteGate()
        self._places = Places(buckets)
        self._counters = Counters()
        self._workers = Workers(workers)
        parts = (self._places, self.health, self._counters)
        self._uploader = Uploader(*parts, self._gate, chosen.upload, self.pace)
        asker = Asker(*parts, self._workers, chosen.ask, self.pace)
        self._fetcher = Fetcher(asker, *parts, self._workers, self.pace, Budget(chosen.hedge))
        self._restorer = Restorer(self._fetcher, *parts, self._gate, self._workers)
        self._relocator = Relocator(self._restorer, self._places, self.health, self._gate, self._workers)

    # --- the volume changes ----------------------------------------------------------------

    def use_buckets(
        self,
        buckets: Mapping[Slot, Bucket],
        writable: Collection[Slot] | None = None,
        domains: Domains | None = None,
    ) -> None:
        """The buckets from now on; ``writable`` are those that take new shards (default: all), ``domains``
        name what fails together."""
        self._places.replace(buckets, writable, domains)

    def takes_shards(self, segment: Segment) -> bool:
        """Whether all buckets in which it lies take new shards now: one that does not is being emptied."""
        return self._places.writable.issuperset(segment.placement)

    def use_code(self, code: Code) -> None:
        """The code of what is sealed from now on; what is on its way has the one before."""
        self.code = code

    # --- writing ---------------------------------------------------------------------------

    def identify(self, data: bytes) -> bytes:
        """The keyed identity of a chunk's plain bytes; 0.2 ms per MiB, where the caller is."""
        return identify(self._ring.current, data)

    def is_of(self, segment: Segment, location: Location, data: bytes) -> bool:
        """Whether these are the plain bytes that a location names.  0.2 ms per MiB, where the caller is."""
        return identify(self._ring.get(segment.key_id), data) == location.identity

    def nowhere(self, size: int) -> tuple[Segment, Location]:
        """See the port."""
        frames = tuple(min(FRAME_SIZE, size - at) + FRAME_OVERHEAD for at in range(0, size, FRAME_SIZE))
        length, key = sum(frames), self._ring.current.key_id
        code, slots, missing = Code(1, 0), (Slot(0),), frozenset({0})
        segment = Segment(os.urandom(16), SegmentKind.DATA, key, code, length, (0, length), slots, missing)
        return segment, Location(SegmentNo(0), 0, 0, frames, size, bytes(32))

    async def write_segment(self, chunks: Sequence[Sealable]) -> tuple[Segment, list[Placed]]:
        """Seals the chunks into one new segment and places it; see ``Uploader.place``.

        Each call draws a new uuid, so a call repeated after a failure is a new segment.  Raises
        NotEnoughShards, ReadOnly (gate closed), CodecError (more than fits one segment).
        """
        return await self._write(SegmentKind.DATA, chunks)

    async def write_blob(self, kind: SegmentKind, plain: bytes) -> tuple[Segment, Location]:
        """Up to 16 MiB of pages or of a patch as a segment of its own.  Raises as ``write_segment``."""
        segment, placed = await self._write(kind, [Sealable(ChunkId(0), Ino(0), 0, plain)])
        return segment, placed[0].location

    async def _write(self, kind: SegmentKind, chunks: Sequence[Sealable]) -> tuple[Segment, list[Placed]]:
        self._gate.check()
        nbytes = sum(len(item.data) for item in chunks)
        work = partial(seal_segment, self._ring, kind, tuple(chunks), self.code, self.target_bytes)
        sealed = await self._workers.seal(nbytes, work)
        return await self._place(sealed), sealed.placed

    async def _place(self, sealed: Sealed) -> Segment:
        layout = sealed.layout
        slots = place(layout.uuid, layout.code, self._places.writable, self._places.domains)
        # With m+1 copies, one is what k shards are for a striped segment.
        reserve = max(0, self._min_placed - self.code.k)
        least = min(layout.code.k + reserve, layout.code.n)
        placement = await self._uploader.place(layout.uuid, sealed.objects, slots, least)
        return _segment(layout, placement)

    async def delete_segment(self, segment: Segment) -> set[Slot]:
        """Deletes all shards, also those thought missing; returns the slots where that failed.

        A bucket that is down is not waited for, and is among them.  Raises ReadOnly.
        """
        self._gate.check()

        async def delete(shard: int) -> bool:
            return await self._delete_one(segment, shard)

        done = await gather(delete, range(segment.code.n))
        self._gate.check()
        self._counters.add(segments_deleted=all(done))
        return {slot for slot, gone in zip(segment.placement, done, strict=True) if not gone}

    async def _delete_one(self, segment: Segment, shard: int) -> bool:
        return await self.delete_copy(segment.uuid, shard, segment.placement[shard])

    async def delete_copy(self, uuid: bytes, shard: int, slot: Slot) -> bool:
        """Deletes one shard in one bucket; False where that cannot be done now.  The caller says that nothing
        needs it."""
        bucket = self._places.bucket(slot)
        if bucket is None or not self._gate.open or not self.health.admit(slot):
            return False
        try:
            await bucket.delete(shard_name(uuid, shard))
        except BucketError as error:
            self.health.failed(slot, error)
            return False
        self.health.succeeded(slot)
        return True

    # --- reading ---------------------------------------------------------------------------

    async def read_chunks(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """The plain bytes of the wanted frames of each chunk, in order.

        Frames that lie in one shard, next to each other or a block apart, cost one request.
        Raises NotEnoughShards, UnknownKey, NewerFormat; Corrupt for a location that cannot be.
        """
        spans = [_span(*want) for want in wanted]
        ring = self._ring
        fetched = await self._fetch(ring, spans)
        work = partial(_open_all, ring, fetched, list(wanted))
        plain = sum(
            min(want[1].size, len(span.frames) * FRAME_SIZE) for want, span in zip(wanted, spans, strict=True)
        )
        return await self._workers.read(plain, work)

    async def read_blob(self, segment: Segment, location: Location) -> bytes:
        """What ``write_blob`` was given.  Raises as ``read_chunks``."""
        last = len(location.frames) - 1
        return (await self.read_chunks([(segment, location, 0, last)]))[0]

    async def _fetch(self, ring: KeyRing, spans: Sequence[Span]) -> list[list[memoryview]]:
        """For each span its sealed bytes, in pieces."""
        found = [(span.segment.uuid, pieces(Layout.from_segment(span.segment), span)) for span in spans]
        segments = {span.segment.uuid: span.segment for span in spans}
        by_segment: dict[bytes, list[Piece]] = {uuid: [] for uuid in segments}
        for uuid, many in found:
            by_segment[uuid] += many
        wanted = [run for uuid, many in by_segment.items() for run in runs(segments[uuid], many)]
        blocks = await self._fetcher.fetch(ring, wanted)
        held: dict[tuple[bytes, int], list[tuple[Run, Blocks]]] = {}
        for run, data in zip(wanted, blocks, strict=True):
            held.setdefault((run.segment.uuid, run.shard), []).append((run, data))
        return [[_cut(held[uuid, piece.shard], piece) for piece in many] for uuid, many in found]

    # --- scans -----------------------------------------------------------------------------

    async def find_segment(self, uuid_hex: str) -> Found:
        """A segment as its shards describe it; see ``scan.find_segment``."""
        return await find_segment(self._places, self._ring, _parse_uuid(uuid_hex))

    async def recognize(self, uuid: bytes, listed: Listed) -> Found:
        """A segment of which a listing is at hand, by one header; see ``scan.recognize``."""
        return await recognize(self._places, self._ring, uuid, listed)

    async def open_index(self, uuid_hex: str) -> tuple[Layout, list[IndexEntry]]:
        """Which chunks a segment holds, from its sealed index.  Raises NotEnoughShards, Corrupt."""
        found = await self.find_segment(uuid_hex)
        return found.layout, await self.read_index(found)

    async def read_index(self, found: Found) -> list[IndexEntry]:
        """The same of a segment that was found.  Raises NotEnoughShards, Corrupt."""
        segment, layout = found
        if layout.index is None:
            raise Corrupt(f"segment {segment.uuid.hex()} names no index")
        ring, span = self._ring, Span(segment, layout.index.position, layout.index.frames)
        (sealed,) = await self._fetch(ring, [span])
        work = partial(read_index, ring.get(layout.key_id), layout)
        return await self._workers.read(layout.index.length, lambda: work(b"".join(sealed)))

    # --- repair ----------------------------------------------------------------------------

    async def restore_shards(self, found: Found, shards: Collection[int]) -> set[int]:
        """Puts shards again, byte for byte, where the segment says; see ``Restorer.restore``."""
        return await self._restorer.restore(self._ring, found, shards)

    async def heal(self, segment: Segment, shards: Collection[int], left: Collection[Slot] = ()) -> Segment:
        """The segment as it is after its shards were put again; see ``Restorer.heal``."""
        return await self._restorer.heal(self._ring, segment, shards, left)

    # --- moving ----------------------------------------------------------------------------

    async def copy_shard(self, segment: Segment, shard: int, target: Slot) -> Copied:
        """Puts a shard into another bucket as well, verified; see ``Relocator.copy``."""
        return await self._relocator.copy(self._ring, segment, shard, target)

    # --- for people ------------------------------------------------------------------------

    def statistics(self) -> StoreStatistics:
        """What the store has done; the buckets' health is ``health.statistics()``."""
        return self._counters.snapshot()

    @property
    def tolerance(self) -> int:
        """How many of the buckets that take shards may be lost at present."""
        return tolerance(self.code, len(self._places.writable))

    def describe(self) -> str:
        """One sentence about that."""
        return describe(self.code, len(self._places.writable))


def _segment(layout: Layout, placement: Placement) -> Segment:
    return Segment(
        uuid=layout.uuid,
        kind=layout.kind,
        key_id=layout.key_id,
        code=layout.code,
        length=layout.length,
        cuts=layout.cuts,
        placement=placement.slots,
        missing=placement.missing,
        generation=layout.generation,
    )


def _span(segment: Segment, location: Location, first: int, last: int) -> Span:
    start, _ = frame_span(location, first, last)
    return Span(segment, start, location.frames[first : last + 1])


def _cut(held: Sequence[tuple[Run, Blocks]], piece: Piece) -> memoryview:
    """A piece's blocks are consecutive, so they all lie in one run."""
    covering = piece.blocks
    for run, blocks in held:
        if run.first <= covering.start and covering.stop <= run.last:
            return blocks.cut(piece.start, piece.end)
    raise Corrupt(f"blocks {covering.start} to {covering.stop} of shard {piece.shard} were not fetched")


def _open_all(
    ring: KeyRing, fetched: Sequence[Sequence[memoryview]], wanted: Sequence[Wanted]
) -> list[bytes]:
    return [_open(ring, sealed, *want) for sealed, want in zip(fetched, wanted, strict=True)]


def _open(
    ring: KeyRing, sealed: Sequence[memoryview], segment: Segment, location: Location, first: int, last: int
) -> bytes:
    if not location.frames:
        return b""
    key, data = ring.get(segment.key_id), sealed[0] if len(sealed) == 1 else b"".join(sealed)
    return open_chunk_frames(key, segment.uuid, segment.kind, location, first, last, data)


def _parse_uuid(text: str) -> bytes:
    try:
        uuid = bytes.fromhex(text)
    except ValueError:
        uuid = b""
    if len(uuid) != UUID_SIZE:
        raise Corrupt(f"{text!r} is not the uuid of a segment: 32 hexadecimal digits are")
    return uuid
