"""Pure bytes to bytes: envelope, compress, seal, erasure, shards, segments and keys.

Owns every byte that lies in a bucket (``docs/format/SPEC.md``), except the JSON of the volume
layer.  Promises that decoders raise only CodecError for whatever they are given (a wrong secret
of a key slot: WrongPassphrase), and that nothing here does input or output or waits.
"""

from __future__ import annotations

from objfs.codec.compress import pack, unpack
from objfs.codec.envelope import (
    ENVELOPE_SIZE,
    FORMAT_VERSION,
    MAGIC,
    Envelope,
    Kind,
    pack_envelope,
    unpack_envelope,
)
from objfs.codec.erasure import MAX_K, MAX_M, check_code, decode, encode, parity_matrix, rebuild
from objfs.codec.gf256 import Engine, IsaEngine, TableEngine, default_engine
from objfs.codec.identity import IDENTITY_SIZE, PAGE_HASH_MODULUS, identify, page_hash
from objfs.codec.index import MAX_CHUNKS, IndexEntry
from objfs.codec.keys import (
    DEFAULT_COST,
    Cost,
    KeyRing,
    Slot,
    SlotKind,
    VolumeKey,
    make_slot,
    new_recovery_key,
    open_slot,
    parse_recovery_key,
    rewrap,
)
from objfs.codec.seal import FRAME_OVERHEAD, FrameSealer, open_object, seal_object
from objfs.codec.segment import (
    COPY_LIMIT,
    SegmentBuilder,
    choose_cuts,
    frame_span,
    open_chunk_frames,
    read_index,
)
from objfs.codec.shard import (
    BLOCK,
    DATA_OFFSET,
    HEADER_SIZE,
    TAG,
    ByteRange,
    IndexRef,
    Layout,
    block_range,
    encode_shard,
    encode_shards,
    open_blocks,
    open_header,
    open_shard,
)

__all__ = [
    "BLOCK",
    "COPY_LIMIT",
    "DATA_OFFSET",
    "DEFAULT_COST",
    "ENVELOPE_SIZE",
    "FORMAT_VERSION",
    "FRAME_OVERHEAD",
    "HEADER_SIZE",
    "IDENTITY_SIZE",
    "MAGIC",
    "MAX_CHUNKS",
    "MAX_K",
    "MAX_M",
    "PAGE_HASH_MODULUS",
    "TAG",
    "ByteRange",
    "Cost",
    "Engine",
    "Envelope",
    "FrameSealer",
    "IndexEntry",
    "IndexRef",
    "IsaEngine",
    "KeyRing",
    "Kind",
    "Layout",
    "SegmentBuilder",
    "Slot",
    "SlotKind",
    "TableEngine",
    "VolumeKey",
    "block_range",
    "check_code",
    "choose_cuts",
    "decode",
    "default_engine",
    "encode",
    "encode_shard",
    "encode_shards",
    "frame_span",
    "identify",
    "make_slot",
    "new_recovery_key",
    "open_blocks",
    "open_chunk_frames",
    "open_header",
    "open_object",
    "open_shard",
    "open_slot",
    "pack",
    "pack_envelope",
    "page_hash",
    "parity_matrix",
    "parse_recovery_key",
    "read_index",
    "rebuild",
    "rewrap",
    "seal_object",
    "unpack",
    "unpack_envelope",
]
