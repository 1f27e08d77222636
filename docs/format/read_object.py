"""An independent reader of single objects of an objfs volume, after SPEC.md; it imports nothing of objfs.

Sealed objects, key slots, and chunks out of segments whose shards lie in directories, of which up to m may
be missing or damaged.  ``read_volume.py`` beside it reads whole volumes with it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import reedsolo
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

BLOCK, TAG, DATA_OFFSET = 32768, 16, 288
HEADER, LABEL, MANIFEST, SHARD = 1, 2, 4, 5
UNREADABLE = (ValueError, KeyError, InvalidTag, OSError, zstandard.ZstdError)


class Segment(NamedTuple):
    uuid: bytes
    kind: int
    key: int
    k: int
    m: int
    length: int
    cuts: tuple[int, ...]


class Location(NamedTuple):
    position: int
    first: int
    frames: tuple[int, ...]
    identity: bytes


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def envelope(data: bytes, kind: int) -> int:
    """Section 4.1; the key id."""
    magic, version, found, flags, key, length, rest = struct.unpack_from(">8sHBBIQ8s", data.ljust(32, b"\0"))
    if (
        magic != b"\x8bobjfs\r\n"
        or (version, found, flags, length) != (1, kind, 0, len(data) - 32)
        or any(rest)
    ):
        raise ValueError("not an object of this kind and version, or cut short")
    return int(key)


def unzstd(body: bytes, limit: int) -> bytes:
    if not 0 < zstandard.get_frame_parameters(body).content_size <= limit:
        raise ValueError("a zstd frame of impossible length")
    return bytes(zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False))


def rebuild(k: int, m: int, found: dict[int, bytes]) -> list[bytes]:
    """The data shards from any k (section 7.3): Gauss and Jordan over coefficients and shards at once."""
    codec = reedsolo.RSCodec(m, nsize=k + m)
    columns = [codec.encode(bytes(i) + b"\x01" + bytes(k - 1 - i)) for i in range(k)]
    rows = [bytes(column[number] for column in columns) + found[number] for number in sorted(found)]

    def scale(row: bytes, factor: int) -> bytes:
        return row.translate(bytes(reedsolo.gf_mul(factor, x) for x in range(256)))

    for at in range(k):
        pivot = next(i for i in range(at, k) if rows[i][at])
        rows[at], rows[pivot] = rows[pivot], rows[at]
        rows[at] = scale(rows[at], reedsolo.gf_inverse(rows[at][at]))
        for i in (i for i in range(k) if i != at and rows[i][at]):
            change = int.from_bytes(scale(rows[at], rows[i][at]), "big")
            rows[i] = (int.from_bytes(rows[i], "big") ^ change).to_bytes(len(rows[i]), "big")
    return [row[k:] for row in rows]


def copies(directories: list[Path], name: str, kind: int) -> Iterator[bytes]:
    """What the buckets hold under a name, as far as the envelope is right."""
    for path in (directory / name for directory in directories):
        try:
            envelope(data := path.read_bytes(), kind)
        except UNREADABLE:
            continue
        yield data


def unlock(slot: dict[str, Any], volume: bytes, passphrase: bytes) -> dict[int, bytes]:
    """The ring of keys (section 8.3); empty when the slot does not open."""
    kdf, bound = slot["kdf"], struct.pack(">IBQ", slot["slot"], 1, slot["created_ns"])
    if kdf["name"] != "argon2id" or kdf["memory_kib"] > 2**20 or kdf["passes"] > 16 or kdf["lanes"] > 16:
        return {}
    salt, memory = bytes.fromhex(kdf["salt"]), kdf["memory_kib"]
    argon = Argon2id(salt=salt, length=32, iterations=kdf["passes"], lanes=kdf["lanes"], memory_cost=memory)
    try:
        wrapped = bytes.fromhex(slot["wrapped"])
        plain = AESGCM(argon.derive(passphrase)).decrypt(bytes(12), wrapped, b"objfs slot" + volume + bound)
    except InvalidTag:
        return {}
    return dict(struct.iter_unpack(">I32s", plain))


class Objects:
    """The objects of one volume in some of its buckets."""

    def __init__(self, directories: list[Path], volume: bytes, ring: dict[int, bytes]) -> None:
        self.directories, self.uuid, self.ring = directories, volume, ring

    def open(self, kind: int, name: str, data: bytes) -> bytes:
        aes = AESGCM(hkdf(self.ring[envelope(data, kind)], data[32:48], b"objfs object"))
        return aes.decrypt(bytes(12), data[48:], data[:32] + self.uuid + name.encode())

    def shard(self, segment: Segment, number: int, stored: int) -> bytes | None:
        """The bytes of a shard from any bucket that has it whole, every tag verified (section 7.4)."""
        key, uuid = hkdf(self.ring[segment.key], self.uuid, b"objfs tag"), segment.uuid.hex()
        for data in copies(self.directories, f"segment/{uuid[:2]}/{uuid}.{number:02x}", SHARD):
            plain, bound = [], self.uuid + segment.uuid + bytes([number])
            for i, at in enumerate(range(DATA_OFFSET, len(data), BLOCK + TAG)):
                block, tag = data[at : at + BLOCK + TAG][:-TAG], data[at : at + BLOCK + TAG][-TAG:]
                if blake3(bound + struct.pack(">I", i) + block, key=key).digest(TAG) == tag:
                    plain.append(block)
            if len(found := b"".join(plain)) == stored:
                return found
        return None

    @lru_cache(maxsize=2)  # noqa: B019  # one volume lives as long as the program
    def payload(self, segment: Segment) -> bytes:
        sizes, found = [b - a for a, b in pairwise(segment.cuts)], dict[int, bytes]()
        for number in range(segment.k + segment.m):
            data = self.shard(segment, number, sizes[number] if number < segment.k else max(sizes))
            found |= {} if data is None else {number: data.ljust(max(sizes), b"\0")}
            if len(found) == segment.k:
                shards = [*found.values()] if segment.k == 1 else rebuild(segment.k, segment.m, found)
                return b"".join(shard[:size] for shard, size in zip(shards, sizes, strict=True))
        raise ValueError(f"segment {segment.uuid.hex()}: {len(found)} of {segment.k} shards are sound")

    def chunk(self, segment: Segment, where: Location) -> bytes:
        """The plain bytes of a chunk or blob, frames and identity verified (sections 5 and 6)."""
        secret, at, plain = self.ring[segment.key], where.position, b""
        aes = AESGCM(hkdf(secret, segment.uuid, b"objfs segment"))
        for number, length in enumerate(where.frames, where.first):
            sealed, bound = self.payload(segment)[at : at + length], self.uuid + segment.uuid
            bound += struct.pack(">BI", segment.kind, number)
            packed = aes.decrypt(number.to_bytes(12, "big"), sealed, bound)
            plain += unzstd(packed[1:], 131072) if packed[0] else packed[1:]
            at += length
        if blake3(plain, key=hkdf(secret, self.uuid, b"objfs identity")).digest() != where.identity:
            raise ValueError(f"segment {segment.uuid.hex()}: a chunk is not what its identity says")
        return plain
