"""Manifests, patches and page groups: round trips, and refusal of everything else."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import zstandard

from objfs.codec.envelope import Kind
from objfs.codec.seal import open_object, seal_object
from objfs.errors import Corrupt, NewerFormat, UnknownKey
from objfs.model import (
    ChunkId,
    Code,
    Location,
    Placed,
    Segment,
    SegmentKind,
    SegmentNo,
    Slot,
)
from objfs.store import layout
from objfs.volume import manifest as manifests
from objfs.volume import pages, patch
from objfs.volume.features import Features
from objfs.volume.manifest import Condemned, Delta, Manifest
from tests.volume.support import START_NS, VOLUME, blob, ring


def manifest(sequence: int = 5) -> Manifest:
    return Manifest(
        volume=VOLUME,
        epoch=3,
        sequence=sequence,
        previous=b"p" * 32,
        state_id=b"s" * 16,
        wall_ns=START_NS,
        page_size=4096,
        page_count=77,
        digest=2**256 - 5,
        base=(blob(1), blob(2)),
        deltas=(Delta(1, 12, (blob(3),)), Delta(0, 1, (blob(4),))),
        inline_patch=b"patch",
        schema=2,
        condemned=(Condemned(b"c" * 16, 4, START_NS),),
    )


def resealed(data: bytes, **changes: object) -> bytes:
    """A manifest with fields replaced by somebody who has the key."""
    name = layout.manifest_name(5)
    plain = zstandard.ZstdDecompressor().decompress(open_object(ring(), Kind.MANIFEST, name, data))
    packed = zstandard.ZstdCompressor().compress(json.dumps(json.loads(plain) | changes).encode())
    return seal_object(ring().current, Kind.MANIFEST, name, packed)


def test_what_is_written_is_read() -> None:
    for wanted in (manifest(), replace(manifest(), inline_patch=b"", patch=(blob(9, SegmentKind.PATCH),))):
        assert manifests.decode(manifests.encode(wanted, ring()), 5, ring()) == wanted


def test_a_manifest_under_another_sequence_is_refused() -> None:
    with pytest.raises(Corrupt):
        manifests.decode(manifests.encode(manifest(5), ring()), 6, ring())


def test_flipped_bytes_are_noticed() -> None:
    data = manifests.encode(manifest(), ring())
    for position in range(0, len(data), 13):
        broken = data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]
        with pytest.raises((Corrupt, NewerFormat, UnknownKey)):
            manifests.decode(broken, 5, ring())


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": 0},
        {"epoch": "3"},
        {"sequence": 6},
        {"page_size": 1000},
        {"page_count": 2**40},
        {"digest": "00"},
        {"base": [{}]},
        {"base": None},
        {"deltas": [{"level": 0, "pages": 0, "blobs": []}]},
        {"inline_patch": "%%%"},
        {"condemned": [[1, 2]]},
        {"wall_ns": True},
        {"volume": "00" * 16},
    ],
)
def test_fields_out_of_bounds_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(Corrupt):
        manifests.decode(resealed(manifests.encode(manifest(), ring()), **change), 5, ring())


def test_a_segment_whose_numbers_do_not_fit_is_refused() -> None:
    good = blob(1).to_json()
    for change in ({"cuts": [0, 999]}, {"cuts": [0]}, {"placement": [0]}, {"missing": [3]}, {"code": [0, 1]}):
        with pytest.raises(Corrupt):
            manifests.decode(resealed(manifests.encode(manifest(), ring()), base=[good | change]), 5, ring())


def test_newer_formats_and_features_are_told_apart_from_damage() -> None:
    with pytest.raises(NewerFormat):
        manifests.decode(resealed(manifests.encode(manifest(), ring()), format=2), 5, ring())
    newer = replace(manifest(), features=Features(incompat=frozenset({"x"})))
    with pytest.raises(NewerFormat):
        manifests.decode(manifests.encode(newer, ring()), 5, ring())


def test_a_decompression_bomb_is_refused() -> None:
    bomb = zstandard.ZstdCompressor().compress(b" " * (manifests.PLAIN_MAX + 1))
    data = seal_object(ring().current, Kind.MANIFEST, layout.manifest_name(5), bomb)
    with pytest.raises(Corrupt, match="impossible length"):
        manifests.decode(data, 5, ring())


# --- patches -------------------------------------------------------------------------------


def made_patch(chunks: int, segments: int) -> patch.Patch:
    generator = random.Random(chunks)
    table = {
        SegmentNo(n + 10): Segment(
            generator.randbytes(16),
            SegmentKind.DATA,
            1,
            Code(2, 1),
            2**33,
            (0, 5, 2**33),
            (Slot(3), Slot(0), Slot(200)),
            frozenset({1}) if n else frozenset(),
            n,
        )
        for n in range(segments)
    }
    placed = [
        Placed(
            ChunkId(n + 1),
            Location(
                SegmentNo(10 + n % segments), n * 100, n, (17,) * (1 + n % 9), 2**20, generator.randbytes(32)
            ),
        )
        for n in range(chunks)
    ]
    return patch.Patch(table, placed)


@pytest.mark.parametrize("limit", [400, 3000, 2**24])
def test_patches_come_back_in_parts_of_any_size(limit: int) -> None:
    wanted = made_patch(100, 3)
    parts = patch.encode(wanted, limit)
    assert all(len(part) <= limit for part in parts)
    found = patch.decode(parts)
    assert dict(found.segments) == dict(wanted.segments)
    assert list(found.placed) == list(wanted.placed)


def test_an_empty_patch_has_no_parts() -> None:
    assert patch.encode(patch.Patch({}, [])) == []
    assert not patch.decode([])


def test_damaged_patches_are_refused() -> None:
    (data,) = patch.encode(made_patch(3, 1))
    for broken in (data[:-1], data + b"x", b"", b"\x09" + data[1:], data[:20]):
        with pytest.raises(Corrupt):
            patch.decode([broken])


def test_pages_come_back() -> None:
    wanted = [(1, b"a" * 512), (900, b"b" * 512)]
    data = pages.encode(512, wanted)
    assert pages.decode(data, 512) == wanted
    for broken in (data[:-1], data + b"x", b"", b"\x02" + data[1:]):
        with pytest.raises(Corrupt):
            pages.decode(broken, 512)
    with pytest.raises(Corrupt):
        pages.decode(data, 1024)


def test_groups_are_ascending_and_bounded() -> None:
    groups = list(pages.grouped(range(5000, 0, -1), 4096))
    assert [len(group) for group in groups] == [2048, 2048, 904]
    assert groups[0][0] == 1
