"""The independent reader reads what objfs writes, run as a program, also with a bucket missing."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from objfs.codec import Cost, KeyRing, SegmentBuilder, encode_shards, identify, make_slot, page_hash
from objfs.meta import schema
from objfs.model import (
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
from objfs.store import layout as names
from objfs.volume import header, label, manifest, pages, patch
from objfs.volume.blobs import BlobRef
from objfs.volume.features import Features
from objfs.volume.table import BucketEntry
from tests.codec.conftest import SECRET, VOLUME, noise

READER = Path(__file__).parents[2] / "docs" / "format" / "read_volume.py"
RING = KeyRing(VOLUME, {3: SECRET}, 3)
CODE = Code(2, 1)
CHUNK_SIZE = 65536
FILE = noise(3 * CHUNK_SIZE + 1000, b"file")
PATCHED = b"placed after the cut " * 100


class Maker:
    """Writes one small volume into three directories, by objfs's own encoders."""

    def __init__(self, root: Path) -> None:
        self.places = [root / f"bucket{number}" for number in range(3)]
        self.entries = [BucketEntry(Slot(n), noise(16, bytes([n]))) for n in range(3)]

    def put(self, place: Path, name: str, data: bytes) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)

    def put_segment(
        self, kind: SegmentKind, plains: list[tuple[int, bytes]]
    ) -> tuple[Segment, list[Location]]:
        uuid = hashlib.md5(repr((kind, plains)).encode(), usedforsecurity=False).digest()
        builder = SegmentBuilder(RING.current, uuid, kind, 8 << 20)
        placed = [
            builder.add(ChunkId(chunk), Ino(0), 0, plain, identify(RING.current, plain))
            for chunk, plain in plains
        ]
        found, payload = builder.finish(CODE)
        for number, data in enumerate(encode_shards(RING.current, found, payload)):
            self.put(self.places[number], names.shard_name(uuid, number), data)
        slots = tuple(Slot(number) for number in range(found.code.n))
        return Segment(uuid, kind, 3, found.code, found.length, found.cuts, slots), placed

    def put_blob(self, kind: SegmentKind, plain: bytes) -> BlobRef:
        segment, (location,) = self.put_segment(kind, [(0, plain)])
        return BlobRef(segment, location)

    def make(self, database: bytes, patched: patch.Patch) -> None:
        images = {n + 1: database[n * 4096 : (n + 1) * 4096] for n in range(len(database) // 4096)}
        # The base holds a stale first page, the delta the true one.
        stale = [(number, bytes(4096) if number == 1 else image) for number, image in images.items()]
        base = self.put_blob(SegmentKind.PAGES, pages.encode(4096, stale))
        delta = self.put_blob(SegmentKind.PAGES, pages.encode(4096, [(1, images[1])]))
        (part,) = patch.encode(patched)
        moment = manifest.Manifest(
            VOLUME, 1, 5, manifest.NO_HASH, bytes(16), 1, 4096, len(images),
            sum(page_hash(RING.current, n, image) for n, image in images.items()) % 2**256,
            (base,), (manifest.Delta(0, 1, (delta,)),), (self.put_blob(SegmentKind.PATCH, part),),
            digest_key=3,
        )  # fmt: skip
        slot = make_slot(
            0, "passphrase", b"secret", RING.secrets(), VOLUME, cost=Cost(64, 1, 1), label="ü", now_ns=1
        )
        head = header.VolumeHeader(
            VOLUME, 1, Features(), (slot,), CHUNK_SIZE, CODE, tuple(self.entries), (3,), 3, 1, 1
        )
        for place, entry in zip(self.places, self.entries, strict=True):
            self.put(place, "header", header.encode(head, RING))
            self.put(place, "label", label.encode(label.Label(VOLUME, entry.uuid, entry.slot), RING))
            self.put(place, names.manifest_name(5), manifest.encode(moment, RING))


def make_database(path: Path, maker: Maker) -> patch.Patch:
    """The tree: file (with a hole at chunk 1), its hard link, dir/late (in the patch only), symlink."""
    stored = {0: FILE[:CHUNK_SIZE], 2: FILE[2 * CHUNK_SIZE : 3 * CHUNK_SIZE], 3: FILE[3 * CHUNK_SIZE :]}
    segment, placed = maker.put_segment(
        SegmentKind.DATA, [(10 + index, data) for index, data in stored.items()]
    )
    late, (moved,) = maker.put_segment(SegmentKind.DATA, [(20, PATCHED)])
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA page_size = 4096")
    db.execute("PRAGMA journal_mode = WAL")
    schema.create(db)
    db.execute("INSERT INTO volume VALUES (1, 1, ?, ?, 0, 0, 99, 99, 99)", (VOLUME, CHUNK_SIZE))
    for ino, mode, size, target in (
        (1, 0o40755, 0, None),
        (2, 0o100640, len(FILE), None),
        (3, 0o40700, 0, None),
        (4, 0o100600, len(PATCHED), None),
        (5, 0o120777, 4, b"file"),
    ):
        db.execute(
            "INSERT INTO inode (ino, mode, uid, gid, nlink, rdev, size, mtime_s, mtime_ns, ctime_s, ctime_ns,"
            " btime_s, btime_ns, target, born) VALUES (?, ?, 0, 0, 1, 0, ?, ?, 5, 0, 0, 0, 0, ?, 1)",
            (ino, mode, size, 1_600_000_000 + ino, target),
        )
    tree = [(1, b"file", 2), (1, b"again", 2), (1, b"dir", 3), (3, b"late \xff", 4), (1, b"link", 5)]
    for cookie, (parent, name, ino) in enumerate(tree, 3):
        db.execute("INSERT INTO entry VALUES (?, ?, ?, ?, 1)", (parent, name, ino, cookie))
    cuts = struct.pack(f">{len(segment.cuts)}Q", *segment.cuts)
    db.execute(
        "INSERT INTO segment VALUES (7, ?, 1, 3, ?, ?, ?, ?, ?, NULL, 0, 0, NULL)",
        (segment.uuid, segment.code.k, segment.code.m, segment.length, cuts, bytes(segment.placement)),
    )
    for index, at in zip(stored, placed, strict=True):
        db.execute(
            "INSERT INTO chunk VALUES (?, 2, ?, 1, NULL, 0, 0, 7, ?, ?, ?, NULL, ?, ?)",
            (
                10 + index,
                index,
                at.position,
                at.first_frame,
                at.size,
                at.frames[0],
                at.identity,
            ),
        )
        db.execute("INSERT INTO map VALUES (2, ?, ?, 1)", (index, 10 + index))
    db.execute("INSERT INTO chunk (chunk, ino, idx, state) VALUES (20, 4, 0, 0)")
    db.execute("INSERT INTO map VALUES (4, 0, 20, 1)")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    named = moved._replace(segment=SegmentNo(8))
    return patch.Patch({SegmentNo(8): late}, [Placed(ChunkId(20), named)])


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    root = tmp_path_factory.mktemp("volume")
    maker = Maker(root)
    found = make_database(root / "meta.db", maker)
    maker.make((root / "meta.db").read_bytes(), found)
    (root / "passphrase").write_text("secret\n")
    return maker


def run(
    maker: Maker, places: list[Path], destination: str, path: str = "/"
) -> subprocess.CompletedProcess[bytes]:
    passphrase = maker.places[0].parent / "passphrase"
    arguments = [sys.executable, str(READER), str(passphrase), path, destination, *map(str, places)]
    return subprocess.run(arguments, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("missing", [None, 0, 1, 2])
def test_the_tree_comes_out_with_any_one_bucket_missing(
    volume: Maker, tmp_path: Path, missing: int | None
) -> None:
    places = [place for number, place in enumerate(volume.places) if number != missing]
    done = run(volume, places, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr.decode()
    out = tmp_path / "out"
    expected = bytearray(FILE)
    expected[CHUNK_SIZE : 2 * CHUNK_SIZE] = bytes(CHUNK_SIZE)
    assert (out / "file").read_bytes() == bytes(expected)
    assert (out / "again").samefile(out / "file")
    assert (out / "link").readlink() == Path("file")
    assert (out / os.fsdecode(b"dir/late \xff")).read_bytes() == PATCHED
    assert (out / "file").stat().st_mode == 0o100640
    assert (out / "dir").stat().st_mtime_ns == 1_600_000_003 * 10**9 + 5


def test_it_lists_without_extracting(volume: Maker) -> None:
    names = [line[24:] for line in run(volume, volume.places, "-").stdout.splitlines()]
    assert names == [b"/", b"/again", b"/dir", b"/dir/late \xff", b"/file", b"/link"]


def test_one_directory_or_one_file_comes_out(volume: Maker, tmp_path: Path) -> None:
    assert run(volume, volume.places, str(tmp_path / "dir"), "/dir").returncode == 0
    assert [os.fsencode(path.name) for path in (tmp_path / "dir").iterdir()] == [b"late \xff"]
    assert run(volume, volume.places, str(tmp_path / "late"), os.fsdecode(b"dir/late \xff")).returncode == 0
    assert (tmp_path / "late").read_bytes() == PATCHED


def test_a_path_that_is_not_there_is_named(volume: Maker) -> None:
    done = run(volume, volume.places, "-", "/dir/early")
    assert (done.returncode, done.stderr) == (1, b"the volume has no /dir/early\n")


def test_a_lying_bucket_is_outvoted_by_its_tags(volume: Maker, tmp_path: Path) -> None:
    bad = shutil.copytree(volume.places[0], tmp_path / "bad")
    for shard in bad.glob("segment/*/*"):
        data = bytearray(shard.read_bytes())
        data[400] ^= 1
        shard.write_bytes(data)
    done = run(volume, [bad, *volume.places[1:]], str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "out" / "file").stat().st_size == len(FILE)


def test_two_missing_buckets_are_too_many(volume: Maker, tmp_path: Path) -> None:
    done = run(volume, volume.places[:1], str(tmp_path / "out"))
    assert done.returncode != 0
    assert b"shards are sound" in done.stderr


def test_the_reader_imports_nothing_of_objfs() -> None:
    assert "import objfs" not in READER.read_text()
    assert "from objfs" not in READER.read_text()
    assert len(READER.read_text().splitlines()) <= 250
