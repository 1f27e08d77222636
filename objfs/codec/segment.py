"""Segments: sealed chunks one after the other, their index at the end, cut into shards.

Owns how chunks become frames, how frames are numbered and where payloads are cut.  Promises that
no frame crosses a cut and that no frame number is sealed twice.  Knows nothing of buckets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from objfs.codec.erasure import check_code
from objfs.codec.gf256 import Buffer
from objfs.codec.index import (
    MAX_CHUNKS,
    MAX_INDEX_BYTES,
    IndexEntry,
    entry_size,
    frame_count,
    pack_index,
    unpack_index,
)
from objfs.codec.keys import VolumeKey
from objfs.codec.seal import FrameSealer
from objfs.codec.shard import MAX_PAYLOAD, IndexRef, Layout
from objfs.errors import CodecError, Corrupt
from objfs.model import FRAME_SIZE, ChunkId, Code, Ino, Location, SegmentKind, SegmentNo

COPY_LIMIT = 64 * 1024
"""Payloads below this many bytes are stored as m+1 copies: same tolerance, fewer requests."""

MAX_CHUNK = 16 * 1024 * 1024
_LARGEST_ENTRY = entry_size(frame_count(MAX_CHUNK))
_UNUSED_INDEX = 4


class SegmentBuilder:
    """Collects chunks into one segment, sealing each as it is added; one thread at a time.

    ``uuid`` is 16 fresh random bytes: it makes the segment's key, so it is never used again.
    """

    def __init__(self, key: VolumeKey, uuid: bytes, kind: SegmentKind, target_bytes: int) -> None:
        self._key = key
        self._uuid = uuid
        self._kind = kind
        self._target = target_bytes
        self._sealer = FrameSealer(key, uuid, kind)
        self._frames: list[bytes] = []
        self._entries: list[IndexEntry] = []
        self._index_bytes = _UNUSED_INDEX
        self._finished = False
        self.size = 0
        """Sealed bytes so far, without the index."""

    @property
    def full(self) -> bool:
        """True when the target is reached, or no further chunk of any size surely fits."""
        return (
            self.size >= self._target
            or len(self._entries) >= MAX_CHUNKS
            or self._index_bytes + _LARGEST_ENTRY > MAX_INDEX_BYTES
        )

    def add(self, chunk: ChunkId, ino: Ino, index: int, data: Buffer, identity: bytes) -> Location:
        """Seals one chunk of up to 16 MiB; the location names segment 0 (its row is not known yet).

        Raises CodecError when the segment can hold no more, or was finished.
        """
        count = frame_count(len(data))
        entry_bytes = entry_size(count)
        if self._finished or len(data) > MAX_CHUNK or len(self._entries) >= MAX_CHUNKS:
            raise CodecError(f"segment {self._uuid.hex()} takes no chunk of {len(data)} bytes")
        if self._index_bytes + entry_bytes > MAX_INDEX_BYTES:
            raise CodecError(f"segment {self._uuid.hex()} has no room for another chunk in its index")
        first = len(self._frames)
        frames = self._seal(data)
        location = Location(SegmentNo(0), self.size, first, frames, len(data), identity)
        self._entries.append(IndexEntry(chunk, ino, index, location))
        self._index_bytes += entry_bytes
        self.size += location.length
        return location

    def finish(self, code: Code) -> tuple[Layout, bytes]:
        """Seals the index and lays the payload out; small payloads are laid out as copies.

        Raises CodecError when called twice (a frame number would be sealed twice).
        """
        check_code(code.k, code.m)
        if self._finished:
            raise CodecError(f"segment {self._uuid.hex()} is finished already")
        self._finished = True
        first = len(self._frames)
        frames = self._seal(pack_index(self._entries))
        ref = IndexRef(self.size, sum(frames), first, frames)
        payload = b"".join(self._frames)
        if len(payload) > MAX_PAYLOAD:
            raise CodecError(f"segment {self._uuid.hex()} of {len(payload)} bytes is too long")
        used = used_code(code, len(payload))
        cuts = choose_cuts([len(frame) for frame in self._frames], used.k)
        self._frames = []
        layout = Layout(self._uuid, self._kind, self._key.key_id, used, len(payload), cuts, 0, ref)
        return layout, payload

    def _seal(self, data: Buffer) -> tuple[int, ...]:
        view, lengths = memoryview(data), []
        for start in range(0, len(view), FRAME_SIZE):
            sealed = self._sealer.seal(len(self._frames), bytes(view[start : start + FRAME_SIZE]))
            self._frames.append(sealed)
            lengths.append(len(sealed))
        return tuple(lengths)


def used_code(code: Code, length: int) -> Code:
    """The code of a payload of ``length`` bytes in a volume of this code: small payloads are copies."""
    return code if length >= COPY_LIMIT else Code(1, code.m)


def choose_cuts(frames: Sequence[int], k: int) -> tuple[int, ...]:
    """k+1 payload offsets: cut i is the frame boundary nearest to i*S/k, the lower of two equal."""
    bounds = [0, *accumulate(frames)]
    total = bounds[-1]
    return (0, *(_nearest(bounds, i * total, k) for i in range(1, k)), total)


def _nearest(bounds: Sequence[int], numerator: int, k: int) -> int:
    """The bound nearest to numerator/k, in integers so that every reader gets the same."""
    at = bisect_left(bounds, -(-numerator // k))
    below = bounds[max(at - 1, 0)]
    above = bounds[min(at, len(bounds) - 1)]
    return below if numerator - below * k <= above * k - numerator else above


def open_chunk_frames(
    key: VolumeKey,
    segment_uuid: bytes,
    kind: SegmentKind,
    location: Location,
    first: int,
    last: int,
    data: Buffer,
) -> bytes:
    """The plain bytes of frames ``first`` to ``last`` (within the chunk, inclusive) of a chunk.

    ``data`` are exactly their sealed bytes.  Raises Corrupt, NewerFormat.
    """
    lengths = location.frames[first : last + 1]
    if not 0 <= first <= last < len(location.frames) or sum(lengths) != len(data):
        raise Corrupt(
            f"segment {segment_uuid.hex()}: {len(data)} bytes are not frames {first} to {last} "
            f"of a chunk of {len(location.frames)} frames"
        )
    sealer, view, offset, plain = FrameSealer(key, segment_uuid, kind), memoryview(data), 0, []
    for number, length in enumerate(lengths, first):
        opened = sealer.open(location.first_frame + number, bytes(view[offset : offset + length]))
        expected = min(FRAME_SIZE, location.size - number * FRAME_SIZE)
        if len(opened) != expected:
            raise Corrupt(
                f"segment {segment_uuid.hex()} frame {location.first_frame + number} holds "
                f"{len(opened)} bytes where {expected} belong"
            )
        plain.append(opened)
        offset += length
    return b"".join(plain)


def frame_span(location: Location, first: int, last: int) -> tuple[int, int]:
    """Payload offsets [start, end) of the sealed frames ``first`` to ``last`` of a chunk."""
    start = location.position + sum(location.frames[:first])
    return start, start + sum(location.frames[first : last + 1])


def read_index(key: VolumeKey, layout: Layout, data: Buffer) -> list[IndexEntry]:
    """The chunks of a segment from the sealed bytes of its index (``layout.index`` says where).

    Raises Corrupt, NewerFormat.
    """
    ref = layout.index
    if ref is None or len(data) != ref.length:
        raise Corrupt(f"segment {layout.uuid.hex()}: these {len(data)} bytes are not its index")
    sealer, view, offset, plain = FrameSealer(key, layout.uuid, layout.kind), memoryview(data), 0, []
    for number, length in enumerate(ref.frames, ref.first_frame):
        plain.append(sealer.open(number, bytes(view[offset : offset + length])))
        offset += length
    entries = unpack_index(b"".join(plain))
    for entry in entries:
        if entry.location.position + entry.location.length > ref.position:
            raise Corrupt(f"segment {layout.uuid.hex()}: its index places chunk {entry.chunk} outside")
    return entries
