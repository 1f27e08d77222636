"""An independent reader of objfs volumes, after SPEC.md; it imports nothing of objfs.

    python read_volume.py PASSPHRASE_FILE PATH DESTINATION BUCKET [BUCKET ...]

Extracts a file or directory of the newest moment in these directories, of which as many may be missing or
damaged as there are parity shards; lists it when DESTINATION is "-".  Modes and times, no owners or devices.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sqlite3
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import reedsolo
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zstandard import ZstdDecompressor, ZstdError, get_frame_parameters

HEADER, LABEL, MANIFEST, SHARD = 1, 2, 4, 5
UNREADABLE = (ValueError, KeyError, TypeError, OSError, InvalidTag, ZstdError, struct.error)
CHUNKS = """
    SELECT map.idx, lower(hex(uuid)) AS uuid, kind, key_id AS key, cuts, placement,
        position, first_frame, coalesce(frames, c.length) AS frames, lower(hex(identity)) AS identity
    FROM map JOIN chunk c USING (chunk) LEFT JOIN segment s USING (segment) WHERE map.ino = ? AND NOT EXISTS
        (SELECT 1 FROM orphan o WHERE o.ino = map.ino AND keep_from BETWEEN 0 AND map.idx AND chunk < below)
"""
INODE = "SELECT mode, size, mtime_s * 1000000000 + mtime_ns, target FROM inode WHERE ino = ?"
ENTRIES = "SELECT ino, name FROM entry WHERE parent = ? AND name = coalesce(?, name) ORDER BY name"
SEGMENT = "INSERT OR IGNORE INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, 0, NULL)"
PLACE = "UPDATE chunk SET segment=?, position=?, first_frame=?, frames=?, identity=? WHERE chunk=?"


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def whole(path: Path, kind: int) -> bytes:
    """An object; nothing where it is not there, or its envelope is not right (section 4.1)."""
    data = path.read_bytes() if path.exists() else b""
    expected = struct.pack(">8sHBBQQ", b"\x8bobjfs\r\n", 1, kind, 0, max(0, len(data) - 32), 0)
    return data if data[:12] + data[16:32] == expected else b""


def unseal(uuid: bytes, ring: dict[int, bytes], name: str, data: bytes) -> bytes:
    """The payload of a sealed object (section 4.2)."""
    aes = AESGCM(hkdf(ring[int.from_bytes(data[12:16], "big")], data[32:48], b"objfs object"))
    return aes.decrypt(bytes(12), data[48:], data[:32] + uuid + name.encode())


def unzstd(body: bytes, limit: int) -> bytes:
    if not 0 < get_frame_parameters(body).content_size <= limit:
        raise ValueError("a zstd frame of impossible length")
    return bytes(ZstdDecompressor().decompress(body, allow_extra_data=False))


def unlock(slot: dict[str, Any], volume: bytes, passphrase: bytes) -> dict[int, bytes]:
    """The ring of keys (section 8.3); empty when the slot does not open."""
    kdf, wrapped = slot["kdf"], bytes.fromhex(slot["wrapped"])
    bound = b"objfs slot" + volume + struct.pack(">IBQ", slot["slot"], 1, slot["created_ns"])
    if kdf["name"] != "argon2id" or max(kdf["memory_kib"] >> 16, kdf["passes"], kdf["lanes"]) > 16:
        return {}
    cost = {"iterations": kdf["passes"], "lanes": kdf["lanes"], "memory_cost": kdf["memory_kib"]}
    with suppress(InvalidTag):
        aes = AESGCM(Argon2id(salt=bytes.fromhex(kdf["salt"]), length=32, **cost).derive(passphrase))
        return dict(struct.iter_unpack(">I32s", aes.decrypt(bytes(12), wrapped, bound)))
    return {}


def rebuild(k: int, m: int, found: dict[int, bytes]) -> list[bytes]:
    """The data shards from any k (section 7.3): the code is linear, so unit vectors give the factors."""
    codec, erased = reedsolo.RSCodec(m, nsize=k + m), [i for i in range(k + m) if i not in found]
    factors = {i: codec.decode(bytes(i) + b"\1" + bytes(k + m - 1 - i), erase_pos=erased)[0] for i in found}
    sums = [0] * k
    for number, shard in found.items():
        for i in range(k):
            products = bytes(reedsolo.gf_mul(factors[number][i], x) for x in range(256))
            sums[i] ^= int.from_bytes(shard.translate(products), "big")
    return [value.to_bytes(len(shard), "big") for value in sums]


def numbers(form: str, value: Any) -> tuple[int, ...]:
    """A list in JSON, a column of packed numbers, or one number."""
    if isinstance(value, bytes):
        return struct.unpack(f">{len(value) // struct.calcsize(form)}{form}", value)
    return (value,) if isinstance(value, int) else tuple(value)


class Volume:
    """The header of the highest generation that opens, and what it leads to."""

    def __init__(self, directories: list[Path], passphrase: bytes) -> None:
        self.directories, generation = directories, 0
        for data in {whole(place / "header", HEADER) for place in directories}:
            with suppress(*UNREADABLE):
                clear = json.loads(data[32:])
                uuid, sealed = bytes.fromhex(clear["volume"]), base64.b64decode(clear.pop("sealed"))
                ring = next(filter(None, (unlock(slot, uuid, passphrase) for slot in clear["slots"])), {})
                body = json.loads(unseal(uuid, ring, "header", sealed))
                half = {name: clear[name] for name in ("format", "volume", "generation", "features", "slots")}
                digest = hashlib.sha256(json.dumps(half, sort_keys=True, separators=(",", ":")).encode())
                if body["clear"] == digest.hexdigest() and clear["generation"] > generation:
                    generation, features = clear["generation"], clear["features"]
                    self.uuid, self.ring, self.chunk_size = uuid, ring, body["chunk_size"]
                    self.voters = {bucket["uuid"] for bucket in body["buckets"] if bucket["voter"]}
        if not generation or features["incompat"]:
            raise ValueError("no bucket holds a header that this passphrase and this reader open")
        self.db = self.database(self.newest())

    def load(self, kind: int, name: str, place: Path) -> dict[str, Any]:
        """What a sealed object in one bucket says; nothing where it does not open."""
        with suppress(*UNREADABLE):
            plain = unseal(self.uuid, self.ring, name, whole(place / name, kind))
            return dict(json.loads(unzstd(plain, 2**26) if kind == MANIFEST else plain))
        return {}

    def newest(self) -> dict[str, Any]:
        """The newest manifest (section 11.1)."""
        found = {self.load(LABEL, "label", place).get("bucket"): place for place in self.directories}
        voters = [place for uuid, place in found.items() if uuid in self.voters]
        names = {path.name for place in voters for path in place.glob("manifest/" + "[0-9a-f]" * 16)}
        for name in (f"manifest/{name}" for name in sorted(names, reverse=True)):
            read = [self.load(MANIFEST, name, place) for place in voters if (place / name).exists()]
            opened = [(read.count(item) > len(self.voters) // 2, item) for item in read if item]
            if opened:
                opened.sort(key=lambda one: (one[0], not int(one[1]["copy_of"], 16), one[1]["epoch"]))
                return opened[-1][1]
            if len(self.voters) - len(voters) + len(read) >= (len(self.voters) + 1) // 2:
                raise ValueError(f"{name} may be the newest moment, and no copy of it opens")
        raise ValueError("the buckets hold no manifest")

    @lru_cache(maxsize=2)  # noqa: B019  # one volume lives as long as the program
    def payload(self, uuid: bytes, key: bytes, m: int, cuts: tuple[int, ...]) -> bytes:
        """The bytes of a segment, from any k shards that are whole, every tag verified (section 7)."""
        sizes, name, k = [b - a for a, b in pairwise(cuts)], uuid.hex(), len(cuts) - 1
        tag_key, found = hkdf(key, self.uuid, b"objfs tag"), dict[int, bytes]()
        for number, size in enumerate(sizes + [max(sizes)] * m):
            for place in self.directories:
                data, plain = whole(place / f"segment/{name[:2]}/{name}.{number:02x}", SHARD), b""
                for block, at in enumerate(range(288, len(data), 32784)):
                    bound = self.uuid + uuid + struct.pack(">BI", number, block)
                    part, tag = data[at : at + 32784][:-16], data[at : at + 32784][-16:]
                    plain += part if blake3(bound + part, key=tag_key).digest(16) == tag else b""
                found |= {number: plain.ljust(max(sizes), b"\0")} if len(plain) == size else {}
            if len(found) == k:
                shards = found.values() if k == 1 or number < k else rebuild(k, m, found)
                return b"".join(shard[:size] for shard, size in zip(shards, sizes, strict=True))
        raise ValueError(f"segment {name}: {len(found)} of {k} shards are sound")

    def chunk(self, ref: dict[str, Any] | sqlite3.Row) -> bytes:
        """The plain bytes of a chunk or blob, frames and identity verified (sections 5 and 6)."""
        uuid, key, at, plain = bytes.fromhex(ref["uuid"]), self.ring[ref["key"]], ref["position"], b""
        cuts = numbers("Q", ref["cuts"])
        payload = self.payload(uuid, key, len(ref["placement"]) - len(cuts) + 1, cuts)
        aes = AESGCM(hkdf(key, uuid, b"objfs segment"))
        for number, length in enumerate(numbers("I", ref["frames"]), ref["first_frame"]):
            bound = self.uuid + uuid + struct.pack(">BI", ref["kind"], number)
            packed = aes.decrypt(number.to_bytes(12, "big"), payload[at : at + length], bound)
            plain, at = plain + (unzstd(packed[1:], 131072) if packed[0] else packed[1:]), at + length
        if blake3(plain, key=hkdf(key, self.uuid, b"objfs identity")).hexdigest() != ref["identity"]:
            raise ValueError(f"segment {uuid.hex()}: a chunk is not what its identity says")
        return plain

    def database(self, manifest: dict[str, Any]) -> sqlite3.Connection:
        """The inode table: base and deltas, the digest verified, and the patch (section 11.1)."""
        size, pages = manifest["page_size"], dict[int, bytes]()
        for ref in manifest["base"] + [ref for delta in manifest["deltas"] for ref in delta["blobs"]]:
            data = self.chunk(ref)
            for at in range(9, len(data), 4 + size):
                pages[int.from_bytes(data[at : at + 4], "big")] = data[at + 4 : at + 4 + size]
        image = [pages.get(number, bytes(size)) for number in range(1, manifest["page_count"] + 1)]
        key = hkdf(self.ring[manifest["digest_key"]], self.uuid, b"objfs pages")
        hashes = (blake3(struct.pack(">I", number) + page, key=key) for number, page in enumerate(image, 1))
        if sum(int(page.hexdigest(), 16) for page in hashes) % 2**256 != int(manifest["digest"], 16):
            raise ValueError("the pages of the inode table do not give the manifest's digest")
        data, db = b"".join(image), sqlite3.connect(":memory:")
        db.row_factory = sqlite3.Row
        db.deserialize(data[:18] + b"\1\1" + data[20:])  # a database in memory cannot be in WAL mode
        for plain in [base64.b64decode(manifest["inline_patch"]), *map(self.chunk, manifest["patch"])]:
            part = io.BytesIO(plain or bytes(9))
            _, segments, placed = struct.unpack(">BII", part.read(9))
            for _ in range(segments):
                *row, generation, shards, missing = struct.unpack(">Q16sBIBBQIBB", part.read(45))
                row += [part.read(8 * row[4] + 8), part.read(shards + missing)[:shards], generation]
                db.execute(SEGMENT, row)
            for _ in range(placed):
                chunk, *row, count, _, identity = struct.unpack(">QQQIHI32s", part.read(66))
                db.execute(PLACE, (*row, part.read(4 * count), identity, chunk))
        return db

    def tree(self, ino: int, path: bytes) -> Iterator[tuple[Any, ...]]:
        """An inode and all below it: path, inode, mode, size, time, target."""
        yield path, ino, *self.db.execute(INODE, (ino,)).fetchone()
        for child, name in self.db.execute(ENTRIES, (ino, None)).fetchall():
            yield from self.tree(child, path + b"/" + name)

    def extract(self, root: int, destination: bytes) -> None:
        made: dict[int, tuple[bytes, int, int]] = {}
        for path, ino, mode, size, mtime, target in self.tree(root, destination):
            if ino in made:
                os.link(made[ino][0], path, follow_symlinks=False)
            elif stat.S_ISDIR(mode):
                os.mkdir(path)
            elif stat.S_ISLNK(mode):
                os.symlink(target, path)
            elif stat.S_ISREG(mode):
                with open(path, "xb") as file:  # noqa: PTH123  # names are bytes
                    for row in self.db.execute(CHUNKS, (ino,)):
                        file.seek(row["idx"] * self.chunk_size)
                        file.write(self.chunk(row))
                    file.truncate(size)
            else:
                continue
            made.setdefault(ino, (path, mode, mtime))
        for path, mode, mtime in reversed(made.values()):
            if not stat.S_ISLNK(mode):
                os.chmod(path, mode & 0o777)
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def main(passphrase: str, path: str, destination: str, *buckets: str) -> None:
    volume = Volume([Path(bucket) for bucket in buckets], Path(passphrase).read_bytes().rstrip(b"\r\n"))
    root = 1
    for name in filter(None, path.split("/")):
        row = volume.db.execute(ENTRIES, (root, os.fsencode(name))).fetchone()
        root, _ = row or sys.exit(f"the volume has no {path}")
    if destination != "-":
        return volume.extract(root, os.fsencode(destination))
    for found, _, mode, size, *_ in volume.tree(root, os.fsencode(path).rstrip(b"/")):
        sys.stdout.buffer.write(f"{stat.filemode(mode)} {size:>12} ".encode() + (found or b"/") + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
