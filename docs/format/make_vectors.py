"""Makes docs/format/vectors/*.json: inputs and exact bytes of every structure the codec owns.

Run it as ``python docs/format/make_vectors.py``; ``tests/codec/test_vectors.py`` checks that the
committed files are what it makes.  Nothing in them depends on a version of the zstd library: what
must be reproduced holds only raw frames, and one zstd frame is there to be opened.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args

from blake3 import blake3

from objfs.codec import (
    FRAME_OVERHEAD,
    Cost,
    FrameSealer,
    IndexRef,
    KeyRing,
    Kind,
    Layout,
    Slot,
    SlotKind,
    VolumeKey,
    choose_cuts,
    encode,
    encode_shards,
    identify,
    make_slot,
    pack_envelope,
    page_hash,
    parity_matrix,
    seal_object,
)
from objfs.codec.index import IndexEntry, pack_index
from objfs.model import FRAME_SIZE, ChunkId, Code, Ino, Location, SegmentKind, SegmentNo

VOLUME = bytes.fromhex("00112233445566778899aabbccddeeff")
SECRET = bytes(range(32))
KEY_ID = 1
UUID = bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf")
SALT = bytes.fromhex("b0b1b2b3b4b5b6b7b8b9babbbcbdbebf")
PASSPHRASE = b"correct horse battery staple"
NAME = "manifest/000000000000002a"

ZSTD_FRAME = (7, b"a line that repeats\n" * 50)
"""Number and plain bytes of the frame that is only to be opened."""


def noise(label: str, length: int) -> bytes:
    """The first ``length`` bytes of BLAKE3's extended output over a label."""
    return blake3(label.encode()).digest(length)


def key() -> VolumeKey:
    return KeyRing(VOLUME, {KEY_ID: SECRET}, KEY_ID).current


def keys_vector() -> dict[str, object]:
    k = key()
    return {
        "volume": VOLUME.hex(),
        "key_id": KEY_ID,
        "secret": SECRET.hex(),
        "tag_key": k.tag_key.hex(),
        "identity_key": k.identity_key.hex(),
        "pages_key": k.pages_key.hex(),
        "segment_key": {"uuid": UUID.hex(), "key": k.segment_key(UUID).hex()},
        "object_key": {"salt": SALT.hex(), "key": k.object_key(SALT).hex()},
        "slots": [_slot(number, kind) for number, kind in enumerate(get_args(SlotKind))],
        "slot_secret": PASSPHRASE.hex(),
        "recovery_key": "000G4-0R40M-30E20-9185G-R38E1-W8124-GKG1F-1HTTX",
        "recovery_secret": bytes(range(20)).hex(),
    }


def _slot(number: int, kind: SlotKind) -> dict[str, object]:
    slot: Slot = make_slot(
        *(number, kind, PASSPHRASE, {KEY_ID: SECRET, 2: bytes(32)}, VOLUME),
        cost=Cost(memory_kib=1024, passes=2, lanes=1),
        label=f"vector {number}",
        now_ns=1_700_000_000_000_000_000,
        salt=SALT,
    )
    return slot.to_json()


def objects_vector() -> dict[str, object]:
    payload = b"payload of a manifest"
    return {
        "envelopes": [
            {
                "kind": kind.name,
                "key_id": 5,
                "payload_length": 300,
                "bytes": pack_envelope(kind, 5, 300).hex(),
            }
            for kind in Kind
        ],
        "sealed": {
            "kind": "MANIFEST",
            "name": NAME,
            "salt": SALT.hex(),
            "payload": payload.hex(),
            "bytes": seal_object(key(), Kind.MANIFEST, NAME, payload, salt=SALT).hex(),
        },
    }


def frames_vector() -> dict[str, object]:
    sealer = FrameSealer(key(), UUID, SegmentKind.DATA)
    plains = {0: b"x", 1: noise("frame", 100), 2**32 - 1: b"last number"}
    number, plain = ZSTD_FRAME
    return {
        "segment": UUID.hex(),
        "kind": SegmentKind.DATA,
        "raw": [
            {"number": n, "plain": p.hex(), "sealed": sealer.seal(n, p).hex()} for n, p in plains.items()
        ],
        "zstd": {"number": number, "plain": plain.hex(), "sealed": sealer.seal(number, plain).hex()},
    }


def hashes_vector() -> dict[str, object]:
    data, page = noise("chunk", 5000), noise("page", 4096)
    return {
        "chunk": "BLAKE3 output of 'chunk', 5000 bytes",
        "identity": identify(key(), data).hex(),
        "page": "BLAKE3 output of 'page', 4096 bytes",
        "page_number": 7,
        "page_hash": f"{page_hash(key(), 7, page):064x}",
    }


def erasure_vector() -> dict[str, object]:
    codes = [(1, 2), (2, 1), (3, 2), (4, 2), (10, 4), (32, 16)]
    return {
        "polynomial": 0x11D,
        "matrices": [{"k": k, "m": m, "rows": [row.hex() for row in parity_matrix(k, m)]} for k, m in codes],
        "example": _erasure_example(),
    }


def _erasure_example() -> dict[str, object]:
    data = [noise(f"shard {i}", 20) for i in range(4)]
    return {
        "k": 4,
        "m": 2,
        "data": [d.hex() for d in data],
        "parity": [p.hex() for p in encode(4, 2, data)],
    }


def segment_vector(code: Code, size: int) -> dict[str, object]:
    """One chunk of incompressible bytes and a raw frame with its index, as laid over its shards."""
    plain = noise("segment", size)
    layout, payload = build_segment(plain, code)
    objects = encode_shards(key(), layout, payload)
    assert layout.index is not None
    return {
        "plain": f"BLAKE3 output of 'segment', {size} bytes",
        "uuid": UUID.hex(),
        "kind": SegmentKind.DATA,
        "k": code.k,
        "m": code.m,
        "length": layout.length,
        "cuts": list(layout.cuts),
        "index": {"position": layout.index.position, "frames": list(layout.index.frames)},
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
        "objects": [
            {"size": len(o), "first_288": o[:288].hex(), "sha256": hashlib.sha256(o).hexdigest()}
            for o in objects
        ],
    }


def build_segment(plain: bytes, code: Code) -> tuple[Layout, bytes]:
    """A segment by hand rather than by SegmentBuilder, whose index frame zstd would shrink."""
    sealer = FrameSealer(key(), UUID, SegmentKind.DATA)
    pieces = [plain[i : i + FRAME_SIZE] for i in range(0, len(plain), FRAME_SIZE)]
    frames = [sealer.seal(number, piece) for number, piece in enumerate(pieces)]
    lengths = tuple(len(frame) for frame in frames)
    location = Location(SegmentNo(0), 0, 0, lengths, len(plain), identify(key(), plain))
    # Numbers with all bytes set leave zstd nothing to gain.
    chunk, ino, index = (int.from_bytes(noise(name, 8), "big") for name in ("chunk", "ino", "index"))
    plain_index = pack_index([IndexEntry(ChunkId(chunk), Ino(ino), index, location)])
    sealed = sealer.seal(len(frames), plain_index)
    assert len(sealed) == len(plain_index) + FRAME_OVERHEAD, "the index frame must stay raw"
    ref = IndexRef(sum(lengths), len(sealed), len(frames), (len(sealed),))
    payload = b"".join(frames) + sealed
    cuts = choose_cuts([*lengths, len(sealed)], code.k)
    return Layout(UUID, SegmentKind.DATA, KEY_ID, code, len(payload), cuts, 0, ref), payload


def build() -> dict[str, dict[str, object]]:
    """File name to content."""
    return {
        "keys.json": keys_vector(),
        "objects.json": objects_vector(),
        "frames.json": frames_vector(),
        "hashes.json": hashes_vector(),
        "erasure.json": erasure_vector(),
        "segment-copies.json": segment_vector(Code(1, 2), 1000),
        "segment-2+1.json": segment_vector(Code(2, 1), 300_000),
        "segment-4+2.json": segment_vector(Code(4, 2), 400_000),
    }


def main() -> None:
    directory = Path(__file__).parent / "vectors"
    directory.mkdir(exist_ok=True)
    for name, content in build().items():
        (directory / name).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
