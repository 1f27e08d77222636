"""Shard objects: envelope | header of 256 bytes | blocks of 32 KiB, each followed by its tag.

Owns the layout of a segment over its shards and the tags.  Promises that any aligned range of a
shard proves itself, and that a shard which lies is known by segment, number and block.  Does not
know which bucket holds which shard, nor what the payload means.
"""

from __future__ import annotations

import hmac
import struct
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from blake3 import blake3

from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope, unpack_envelope
from objfs.codec.erasure import MAX_K, MAX_M, check_code, parity
from objfs.codec.gf256 import POLYNOMIAL, Buffer, Engine
from objfs.codec.index import MAX_INDEX_FRAMES
from objfs.codec.keys import KeyRing, VolumeKey
from objfs.codec.seal import FRAME_OVERHEAD, MAX_SEALED_FRAME
from objfs.errors import CodecError, Corrupt, NewerFormat
from objfs.model import Code, Segment, SegmentKind

BLOCK = 32768
TAG = 16
HEADER_SIZE = 256
DATA_OFFSET = ENVELOPE_SIZE + HEADER_SIZE
"""Where the first block of a shard begins in its object."""

MAX_PAYLOAD = 2**32 - 1

_FIXED = struct.Struct(">16sBBBBBHIQIQIIH")
_COPIES, _REED_SOLOMON = 0, 1


@dataclass(frozen=True, slots=True)
class IndexRef:
    """Where a segment's index lies: payload offset, length, first frame number, sealed lengths."""

    position: int
    length: int
    first_frame: int
    frames: tuple[int, ...]


class ByteRange(NamedTuple):
    """Bytes [start, end) of an object, and the number of the block that begins at ``start``."""

    start: int
    end: int
    first_block: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a payload of ``length`` bytes lies over k+m shards; ``cuts`` are k+1 payload offsets.

    ``index`` is None where only the inode table was asked, which does not keep it.
    """

    uuid: bytes
    kind: SegmentKind
    key_id: int
    code: Code
    length: int
    cuts: tuple[int, ...]
    generation: int = 0
    index: IndexRef | None = None

    @classmethod
    def from_segment(cls, segment: Segment) -> Layout:
        """The layout of a segment as the inode table knows it."""
        return cls(
            segment.uuid, segment.kind, segment.key_id, segment.code, segment.length, segment.cuts,
            segment.generation,
        )  # fmt: skip

    @property
    def longest(self) -> int:
        """L: the length of the longest data shard, and of every parity shard."""
        return max(end - start for start, end in pairwise(self.cuts))

    def shard_length(self, shard: int) -> int:
        """Stored bytes of a shard, without tags and padding."""
        if self.code.k == 1:
            return self.length
        if shard < self.code.k:
            return self.cuts[shard + 1] - self.cuts[shard]
        return self.longest

    def object_size(self, shard: int) -> int:
        """Bytes of a shard's object."""
        stored = self.shard_length(shard)
        return DATA_OFFSET + stored + TAG * block_count(stored)

    def locate(self, start: int, end: int) -> tuple[int, int]:
        """The data shard that holds payload [start, end) and the offset of ``start`` in it.

        Raises Corrupt when the range leaves the payload or crosses a cut: no frame does.
        """
        if not 0 <= start <= end <= self.length:
            raise Corrupt(
                f"range {start} to {end} is outside segment {self.uuid.hex()} of {self.length} bytes"
            )
        shard = min(bisect_right(self.cuts, start), self.code.k) - 1
        if end > self.cuts[shard + 1]:
            raise Corrupt(f"range {start} to {end} of segment {self.uuid.hex()} crosses a cut at {self.cuts}")
        return shard, start - self.cuts[shard]


def block_count(length: int) -> int:
    """How many blocks ``length`` shard bytes take."""
    return -(-length // BLOCK)


def block_range(layout: Layout, shard: int, start: int, end: int) -> ByteRange:
    """The object range of whole blocks that cover bytes [start, end) of a shard.

    Cut off at the end of the shard; empty where the shard has none of these bytes.
    """
    stored = layout.shard_length(shard)
    end = min(end, stored)
    first = min(start, stored) // BLOCK
    if start >= end:
        return ByteRange(DATA_OFFSET, DATA_OFFSET, first)
    last = block_count(end)
    object_end = min(DATA_OFFSET + last * (BLOCK + TAG), layout.object_size(shard))
    return ByteRange(DATA_OFFSET + first * (BLOCK + TAG), object_end, first)


# --- tags ----------------------------------------------------------------------------------


def _hasher(key: VolumeKey, *parts: Buffer) -> blake3:
    hasher = blake3(key=key.tag_key)
    for part in parts:
        hasher.update(part)
    return hasher


def _block_prefix(key: VolumeKey, layout: Layout, shard: int) -> bytes:
    return key.volume + layout.uuid + bytes([shard])


def _block_tag(key: VolumeKey, prefix: bytes, block: int, data: Buffer) -> bytes:
    return _hasher(key, prefix + block.to_bytes(4, "big"), data).digest(TAG)


def _header_tag(key: VolumeKey, envelope: Buffer, header: Buffer) -> bytes:
    return _hasher(key, key.volume, envelope, header).digest(TAG)


# --- writing -------------------------------------------------------------------------------


def encode_shards(
    key: VolumeKey, layout: Layout, payload: Buffer, *, engine: Engine | None = None
) -> list[bytes]:
    """The k+m objects of a segment, ready to be put.  Raises CodecError for an impossible layout."""
    if len(payload) != layout.length or key.key_id != layout.key_id:
        raise CodecError(f"payload of {len(payload)} bytes does not fit the layout of {layout.uuid.hex()}")
    _check_layout(layout)
    view, code = memoryview(payload), layout.code
    if code.k == 1:
        shards: list[Buffer] = [view] * code.n
    else:
        shards = [view[a:b] for a, b in pairwise(layout.cuts)]
        shards += parity(code.k, code.m, shards, layout.longest, engine=engine)
    return [_shard_object(key, layout, number, data) for number, data in enumerate(shards)]


def encode_shard(key: VolumeKey, layout: Layout, shard: int, data: Buffer) -> bytes:
    """The object of one shard from its stored bytes: what repair puts in place of a lost one."""
    if len(data) != layout.shard_length(shard) or key.key_id != layout.key_id:
        raise CodecError(f"shard {shard} of segment {layout.uuid.hex()} cannot hold {len(data)} bytes")
    _check_layout(layout)
    return _shard_object(key, layout, shard, data)


def _shard_object(key: VolumeKey, layout: Layout, shard: int, data: Buffer) -> bytes:
    view, prefix = memoryview(data), _block_prefix(key, layout, shard)
    parts: list[Buffer] = [pack_header(key, layout, shard)]
    for block in range(block_count(len(view))):
        piece = view[block * BLOCK : (block + 1) * BLOCK]
        parts += (piece, _block_tag(key, prefix, block, piece))
    return b"".join(parts)


def pack_header(key: VolumeKey, layout: Layout, shard: int) -> bytes:
    """Envelope and shard header: the first 288 bytes of a shard's object."""
    envelope = pack_envelope(Kind.SHARD, layout.key_id, layout.object_size(shard) - ENVELOPE_SIZE)
    code, index = layout.code, layout.index or IndexRef(0, 0, 0, ())
    fixed = _FIXED.pack(
        *(layout.uuid, layout.kind, shard, code.k, code.m),
        *(_COPIES if code.k == 1 else _REED_SOLOMON, POLYNOMIAL, layout.generation),
        *(layout.length, layout.longest, index.position, index.length, index.first_frame, len(index.frames)),
    )
    numbers = (*layout.cuts, *index.frames)
    header = (fixed + struct.pack(f">{len(numbers)}I", *numbers)).ljust(HEADER_SIZE - TAG, b"\0")
    return envelope + header + _header_tag(key, envelope, header)


# --- reading -------------------------------------------------------------------------------


def open_blocks(key: VolumeKey, layout: Layout, shard: int, first_block: int, data: Buffer) -> bytes:
    """The shard bytes of consecutive whole blocks, every tag verified.

    Raises Corrupt with segment, shard and block, also for bytes cut short or beyond the shard.
    """
    stored, view = layout.shard_length(shard), memoryview(data)
    prefix, pieces, offset, block = _block_prefix(key, layout, shard), [], 0, first_block
    while offset < len(view):
        size = min(BLOCK, stored - block * BLOCK)
        piece, tag = view[offset : offset + max(size, 0)], view[offset + max(size, 0) :][:TAG]
        if size <= 0 or not hmac.compare_digest(_block_tag(key, prefix, block, piece), tag):
            raise Corrupt(
                f"segment {layout.uuid.hex()} shard {shard} block {block} fails its tag: "
                "damaged, cut short or misplaced"
            )
        pieces.append(piece)
        offset, block = offset + size + TAG, block + 1
    return b"".join(pieces)


def open_header(keys: VolumeKey | KeyRing, data: Buffer) -> tuple[Layout, int]:
    """Layout and shard number from the first 288 bytes of a shard's object.

    Raises Corrupt, NewerFormat (an unknown code or segment kind), UnknownKey.
    """
    head = bytes(data[:DATA_OFFSET])
    envelope = unpack_envelope(head, Kind.SHARD)
    if len(head) < DATA_OFFSET:
        raise Corrupt(f"shard object is cut short inside its header, at {len(head)} bytes")
    key = keys.get(envelope.key_id) if isinstance(keys, KeyRing) else keys
    header, tag = head[ENVELOPE_SIZE:-TAG], head[-TAG:]
    if key.key_id != envelope.key_id or not hmac.compare_digest(
        _header_tag(key, head[:ENVELOPE_SIZE], header), tag
    ):
        raise Corrupt("shard header fails its tag: damaged, forged or of another volume")
    layout, shard = _parse_header(envelope.key_id, header)
    if envelope.payload_length != layout.object_size(shard) - ENVELOPE_SIZE:
        raise Corrupt(f"shard {shard} of segment {layout.uuid.hex()} has an envelope of another length")
    return layout, shard


def open_shard(keys: VolumeKey | KeyRing, data: Buffer) -> tuple[Layout, int, bytes]:
    """A whole shard object: layout, shard number and its stored bytes, all verified."""
    layout, shard = open_header(keys, data)
    if len(data) != layout.object_size(shard):
        raise Corrupt(
            f"shard {shard} of segment {layout.uuid.hex()} has {len(data)} bytes, not "
            f"{layout.object_size(shard)}: cut short or padded"
        )
    key = keys.get(layout.key_id) if isinstance(keys, KeyRing) else keys
    return layout, shard, open_blocks(key, layout, shard, 0, memoryview(data)[DATA_OFFSET:])


def _parse_header(key_id: int, header: bytes) -> tuple[Layout, int]:
    """Fields of an authenticated header; still checked, as a newer objfs may have written it."""
    (uuid, kind, shard, k, m, version, polynomial, generation, length, longest, *index) = _FIXED.unpack_from(
        header
    )
    if version != (_COPIES if k == 1 else _REED_SOLOMON) or polynomial != POLYNOMIAL:
        raise NewerFormat(f"segment {uuid.hex()} is coded in a way unknown to this objfs: upgrade")
    if kind not in set(SegmentKind):
        raise NewerFormat(f"segment {uuid.hex()} is of kind {kind}, unknown to this objfs: upgrade")
    position, index_length, first_frame, count = index
    if not 1 <= k <= MAX_K or m > MAX_M or shard >= k + m or count > MAX_INDEX_FRAMES:
        raise Corrupt(f"shard header of segment {uuid.hex()} has fields out of range")
    numbers = struct.unpack_from(f">{k + 1 + count}I", header, _FIXED.size)
    if any(header[_FIXED.size + 4 * len(numbers) :]):
        raise Corrupt(f"shard header of segment {uuid.hex()} has bytes in its padding")
    ref = IndexRef(position, index_length, first_frame, numbers[k + 1 :]) if count else None
    layout = Layout(
        uuid, SegmentKind(kind), key_id, Code(k, m), length, numbers[: k + 1], generation, ref
    )  # fmt: skip
    _check_layout(layout)
    if longest != layout.longest or (ref is None and (position or index_length or first_frame)):
        raise Corrupt(f"shard header of segment {uuid.hex()} contradicts itself")
    return layout, shard


def _check_layout(layout: Layout) -> None:
    """Raises Corrupt when cuts or index do not fit the payload."""
    check_code(layout.code.k, layout.code.m)
    cuts = layout.cuts
    ordered = all(a <= b for a, b in pairwise(cuts))
    if len(cuts) != layout.code.k + 1 or cuts[0] != 0 or cuts[-1] != layout.length or not ordered:
        raise Corrupt(f"segment {layout.uuid.hex()} of {layout.length} bytes has impossible cuts {cuts}")
    if layout.length > MAX_PAYLOAD:
        raise Corrupt(f"segment {layout.uuid.hex()} of {layout.length} bytes is too long")
    index = layout.index
    if index is None:
        return
    fits = all(FRAME_OVERHEAD < n <= MAX_SEALED_FRAME for n in index.frames)
    whole = index.length == sum(index.frames) and index.position + index.length == layout.length
    if not fits or not whole or len(index.frames) > MAX_INDEX_FRAMES:
        raise Corrupt(f"segment {layout.uuid.hex()} has an impossible index {index}")
