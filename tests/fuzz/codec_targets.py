"""Decoders of the codec: envelopes, frames, indexes, shards, key slots."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from objfs.codec import shard
from objfs.codec.compress import pack, unpack
from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope, unpack_envelope
from objfs.codec.erasure import encode, rebuild
from objfs.codec.index import unpack_index
from objfs.codec.keys import Cost, Slot, make_slot, open_slot, parse_recovery_key
from objfs.codec.seal import FrameSealer
from objfs.codec.segment import SegmentBuilder, read_index
from objfs.codec.shard import DATA_OFFSET, HEADER_SIZE, TAG, Layout, encode_shards
from objfs.errors import CodecError, WrongPassphrase
from objfs.model import FRAME_SIZE, ChunkId, Code, Ino, SegmentKind
from tests.fuzz.target import KEY, RING, SALT, UUID, Target
from tests.volume.support import CHEAP, START_NS, VOLUME

SECRET = bytes(range(32))
PLAIN = b"a line that repeats\n" * 50


def _segment(length: int, code: Code) -> tuple[Layout, bytes]:
    builder = SegmentBuilder(KEY, UUID, SegmentKind.DATA, 1 << 20)
    noise = b"".join(number.to_bytes(4, "big") for number in range(length // 4))
    builder.add(ChunkId(1), Ino(2), 0, bytes(reversed(noise)), bytes(32))
    builder.add(ChunkId(2), Ino(2), 1, b"more", bytes(32))
    return builder.finish(code)


LAYOUT, PAYLOAD = _segment(400, Code(2, 1))
OBJECTS = [bytes(one) for one in encode_shards(KEY, LAYOUT, PAYLOAD)]
_SEALER = FrameSealer(KEY, UUID, SegmentKind.DATA)
_CIPHER = AESGCM(KEY.segment_key(UUID))


def _frame_content(packed: bytes) -> bytes:
    """A frame that opens, whatever codec and body it holds."""
    bound = KEY.volume + UUID + bytes([SegmentKind.DATA])
    return _SEALER.open(0, _CIPHER.encrypt(bytes(12), packed, bound + bytes(4)))


def _index() -> list[bytes]:
    ref = LAYOUT.index
    assert ref is not None
    return [PAYLOAD[ref.position : ref.position + ref.length]]


def _index_plain() -> list[bytes]:
    ref = LAYOUT.index
    assert ref is not None
    return [_SEALER.open(ref.first_frame, _index()[0])]


def _shard_header(content: bytes) -> object:
    """A header with a good tag, whatever its fields say."""
    header = content.ljust(HEADER_SIZE - TAG, b"\0")[: HEADER_SIZE - TAG]
    envelope = pack_envelope(Kind.SHARD, KEY.key_id, len(OBJECTS[0]) - ENVELOPE_SIZE)
    return shard.open_header(RING, envelope + header + shard._header_tag(KEY, envelope, header))


def _header_fields() -> list[bytes]:
    return [one[ENVELOPE_SIZE : ENVELOPE_SIZE + HEADER_SIZE - TAG].rstrip(b"\0") for one in OBJECTS[:2]]


def _rebuild(data: bytes) -> object:
    """Three numbered pieces of the input as shards of a code that the input names."""
    k, m, *numbers = data[:5].ljust(5, b"\0")
    rest = data[5:]
    third = len(rest) // 3
    pieces = {number: rest[at * third : (at + 1) * third] for at, number in enumerate(numbers)}
    return rebuild(k, m, pieces, range(min(k, 8)))


def _slots() -> list[Slot]:
    ring = {1: SECRET}
    return [
        make_slot(0, "passphrase", SECRET, ring, VOLUME, cost=CHEAP, label="l", now_ns=START_NS, salt=SALT),
        make_slot(1, "keyfile", SECRET, ring, VOLUME, label="", now_ns=START_NS, salt=SALT),
    ]


def _slot(data: bytes) -> object:
    """A slot of the header's JSON, which is in the clear; costs that are allowed but slow are left out."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    slot = Slot.from_json(value)
    if slot.kdf["name"] == "argon2id" and Cost(*_costs(slot)) != CHEAP:
        return None
    return open_slot(slot, SECRET, VOLUME)


def _costs(slot: Slot) -> tuple[int, int, int]:
    return int(slot.kdf["memory_kib"]), int(slot.kdf["passes"]), int(slot.kdf["lanes"])


TARGETS = {
    "envelope": Target(
        lambda data: unpack_envelope(data, None),
        lambda: [pack_envelope(kind, 1, 100) for kind in Kind],
    ),
    "frame": Target(lambda data: _SEALER.open(0, data), lambda: [_SEALER.seal(0, PLAIN)]),
    "frame_content": Target(_frame_content, lambda: [pack(PLAIN), pack(b"short")]),
    "frame_body": Target(lambda data: unpack(data, FRAME_SIZE), lambda: [pack(PLAIN), pack(b"short")]),
    "index": Target(lambda data: read_index(KEY, LAYOUT, data), _index),
    "index_content": Target(unpack_index, _index_plain),
    "shard": Target(lambda data: shard.open_shard(RING, data), lambda: OBJECTS[:2]),
    "shard_header": Target(_shard_header, _header_fields),
    "shard_blocks": Target(
        lambda data: shard.open_blocks(KEY, LAYOUT, 0, 0, data), lambda: [OBJECTS[0][DATA_OFFSET:]]
    ),
    "erasure": Target(
        _rebuild, lambda: [bytes([2, 1, 0, 1, 2]) + b"".join([b"ab", b"cd", *encode(2, 1, [b"ab", b"cd"])])]
    ),
    "key_slot": Target(
        _slot,
        lambda: [json.dumps(slot.to_json()).encode() for slot in _slots()],
        (CodecError, WrongPassphrase),
    ),
    "recovery_key": Target(
        lambda data: parse_recovery_key(data.decode("utf-8", "replace")),
        lambda: [b"000G4-0R40M-30E20-9185G-R38E1-W8124-GKG1F-1HTTX"],
        (WrongPassphrase,),
    ),
}
