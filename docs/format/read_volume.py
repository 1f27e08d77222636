"""An independent reader of objfs volumes, after SPEC.md; it imports nothing of objfs.

    python read_volume.py PASSPHRASE_FILE DESTINATION BUCKET [BUCKET ...]

Extracts the newest moment in these directories (up to m may be missing or damaged) to a new directory, or
lists it when DESTINATION is "-".  Directories, files, links and symlinks with modes and times; neither owners
nor attributes nor snapshots.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sqlite3
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3
from read_object import (
    HEADER,
    LABEL,
    MANIFEST,
    UNREADABLE,
    Location,
    Objects,
    Segment,
    copies,
    envelope,
    hkdf,
    unlock,
    unzstd,
)

Placed = dict[int, tuple[Segment, Location]]
CHUNKS = """
    SELECT map.idx, chunk, position, first_frame, frames, c.length, identity,
           uuid, kind, key_id, k, m, s.length, cuts
    FROM map JOIN chunk c USING (chunk) LEFT JOIN segment s USING (segment)
    WHERE map.ino = ? AND NOT EXISTS (SELECT 1 FROM orphan o WHERE o.ino = map.ino
        AND keep_from BETWEEN 0 AND map.idx AND map.chunk < below)
"""
ENTRIES = """
    SELECT name, ino, mode, size, mtime_s * 1000000000 + mtime_ns, target
    FROM entry JOIN inode USING (ino) WHERE entry.parent = ? ORDER BY name
"""


def read_patch(part: bytes, placed: Placed) -> None:
    """Section 11.1."""
    at, segments = 0, dict[int, Segment]()

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, part, at - struct.calcsize(form))

    _, segment_count, placed_count = take(">BII")
    for _ in range(segment_count):
        row, uuid, kind, key, k, m, length, _, shards, missing = take(">Q16sBIBBQIBB")
        segments[row] = Segment(uuid, kind, key, k, m, length, take(f">{k + 1}Q"))
        take(f">{shards + missing}B")
    for _ in range(placed_count):
        chunk, row, position, first, count, _, identity = take(">QQQIHI32s")
        placed[chunk] = (segments[row], Location(position, first, take(f">{count}I"), identity))


def generation(header: bytes) -> int:
    try:
        return int(json.loads(header[32:])["generation"])
    except UNREADABLE:
        return 0


class Volume(Objects):
    """The newest header that opens, and what it leads to."""

    def __init__(self, directories: list[Path], passphrase: bytes) -> None:
        for data in sorted(copies(directories, "header", HEADER), key=generation, reverse=True):
            try:
                clear = json.loads(data[32:])
                uuid, sealed = bytes.fromhex(clear["volume"]), base64.b64decode(clear["sealed"])
                rings = (unlock(slot, uuid, passphrase) for slot in clear["slots"])
                super().__init__(directories, uuid, next(filter(None, rings), {}))
                body = json.loads(self.open(HEADER, "header", sealed))
            except UNREADABLE:
                continue
            half = {name: clear[name] for name in ("format", "volume", "generation", "features", "slots")}
            digest = hashlib.sha256(json.dumps(half, sort_keys=True, separators=(",", ":")).encode())
            if body["clear"] == digest.hexdigest() and not clear["features"]["incompat"]:
                self.chunk_size: int = body["chunk_size"]
                self.voters = {bucket["uuid"] for bucket in body["buckets"] if bucket["voter"]}
                return
        raise ValueError("no bucket holds a header that this passphrase opens")

    def votes(self, place: Path) -> bool:
        try:
            label = json.loads(self.open(LABEL, "label", (place / "label").read_bytes()))
        except UNREADABLE:
            return False
        return label["bucket"] in self.voters

    def newest(self) -> tuple[dict[str, Any], int]:
        """The newest manifest and the key id of its envelope (section 11.1)."""
        voters = [place for place in self.directories if self.votes(place)]
        names = {path.name for place in voters for path in place.glob("manifest/" + "[0-9a-f]" * 16)}
        for name in sorted(names, reverse=True):
            copies = [path.read_bytes() for place in voters if (path := place / "manifest" / name).exists()]
            ranked, damaged = [], len(self.voters) - len(voters)
            for data in set(copies):
                try:
                    found = json.loads(unzstd(self.open(MANIFEST, f"manifest/{name}", data), 2**26))
                except UNREADABLE:
                    damaged += copies.count(data)
                    continue
                votes, fence = copies.count(data), int(found["copy_of"], 16) > 0
                rank = (votes > len(self.voters) // 2, not fence, found["epoch"])
                ranked.append((rank, found, envelope(data, MANIFEST)))
            if ranked:
                return max(ranked, key=lambda item: item[0])[1:]
            if damaged >= (len(self.voters) + 1) // 2:
                raise ValueError(f"manifest/{name} may be the newest moment, and no copy of it opens")
        raise ValueError("the buckets hold no manifest")

    def blob(self, ref: dict[str, Any]) -> bytes:
        uuid, (k, m) = bytes.fromhex(ref["uuid"]), ref["code"]
        segment = Segment(uuid, ref["kind"], ref["key"], k, m, ref["length"], tuple(ref["cuts"]))
        identity = bytes.fromhex(ref["identity"])
        return self.chunk(segment, Location(ref["position"], ref["first_frame"], ref["frames"], identity))

    def database(self, manifest: dict[str, Any], key_id: int) -> bytes:
        """The inode table: base and deltas, the digest verified (section 11.1)."""
        size, pages, total = manifest["page_size"], dict[int, bytes](), 0
        for ref in manifest["base"] + [ref for delta in manifest["deltas"] for ref in delta["blobs"]]:
            data = self.blob(ref)
            for at in range(9, len(data), 4 + size):
                pages[int.from_bytes(data[at : at + 4], "big")] = data[at + 4 : at + 4 + size]
        image = [pages.get(number, bytes(size)) for number in range(1, manifest["page_count"] + 1)]
        key = hkdf(self.ring[key_id], self.uuid, b"objfs pages")
        for number, page in enumerate(image, 1):
            total += int.from_bytes(blake3(struct.pack(">I", number) + page, key=key).digest(), "big")
        if total % 2**256 != int(manifest["digest"], 16):
            raise ValueError("the pages of the inode table do not give the manifest's digest")
        return b"".join(image)


def walk(db: sqlite3.Connection, parent: int, path: bytes) -> Iterator[tuple[Any, ...]]:
    for name, ino, mode, *rest in db.execute(ENTRIES, (parent,)).fetchall():
        yield path + name, ino, mode, *rest
        if stat.S_ISDIR(mode):
            yield from walk(db, ino, path + name + b"/")


def copy_out(
    volume: Volume, db: sqlite3.Connection, placed: Placed, ino: int, size: int, place: bytes
) -> None:
    with open(place, "xb") as file:  # noqa: PTH123  # names are bytes
        for index, chunk, position, first, frames, length, identity, *where, cuts in db.execute(
            CHUNKS, (ino,)
        ):
            if chunk in placed:
                plain = volume.chunk(*placed[chunk])
            else:
                lengths = struct.unpack(f">{len(frames) // 4}I", frames) if frames is not None else (length,)
                segment = Segment._make([*where, struct.unpack(f">{len(cuts) // 8}Q", cuts)])
                plain = volume.chunk(segment, Location(position, first, lengths, identity))
            file.seek(index * volume.chunk_size)
            file.write(plain)
        file.truncate(size)


def extract(volume: Volume, db: sqlite3.Connection, placed: Placed, destination: bytes) -> None:
    os.mkdir(destination)
    made: dict[int, tuple[bytes, int, int]] = {}
    for path, ino, mode, size, mtime, target in walk(db, 1, destination + b"/"):
        if ino in made:
            os.link(made[ino][0], path, follow_symlinks=False)
        elif stat.S_ISDIR(mode):
            os.mkdir(path)
        elif stat.S_ISLNK(mode):
            os.symlink(target, path)
        elif stat.S_ISREG(mode):
            copy_out(volume, db, placed, ino, size, path)
        else:
            continue
        made.setdefault(ino, (path, mode, mtime))
    for path, mode, mtime in reversed(made.values()):
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
        if not stat.S_ISLNK(mode):
            os.chmod(path, mode & 0o777)


def main(passphrase: str, destination: str, *buckets: str) -> None:
    volume = Volume([Path(bucket) for bucket in buckets], Path(passphrase).read_bytes().rstrip(b"\r\n"))
    manifest, key_id = volume.newest()
    placed: Placed = {}
    for part in filter(
        None, [base64.b64decode(manifest["inline_patch"]), *map(volume.blob, manifest["patch"])]
    ):
        read_patch(part, placed)
    with tempfile.TemporaryDirectory() as scratch:
        (table := Path(scratch) / "meta.db").write_bytes(volume.database(manifest, key_id))
        with sqlite3.connect(table) as db:
            if destination != "-":
                extract(volume, db, placed, os.fsencode(destination))
            for path, _, mode, size, *_ in walk(db, 1, b""):
                sys.stdout.buffer.write(f"{stat.filemode(mode)} {size:>12} ".encode() + path + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
