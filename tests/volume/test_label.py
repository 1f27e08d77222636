"""Labels: swapped, foreign and doubled buckets are refused by name."""

from __future__ import annotations

import pytest

from objfs.errors import Corrupt, ForeignBucket
from objfs.model import Slot
from objfs.volume.label import Label, decode, encode, match, require
from tests.volume.support import VOLUME, entries, ring

TABLE = entries(3)


def label(number: int, volume: bytes = VOLUME) -> Label:
    return Label(volume, TABLE[number].uuid, TABLE[number].slot)


def test_what_is_written_is_read() -> None:
    assert decode(encode(label(1), ring()), ring()) == label(1)


def test_a_flipped_byte_and_another_key_are_refused() -> None:
    data = encode(label(1), ring())
    with pytest.raises(Corrupt):
        decode(data[:-1] + bytes([data[-1] ^ 1]), ring())
    with pytest.raises(Corrupt):
        decode(data, ring(secret=8))


def test_swapped_buckets_are_refused() -> None:
    with pytest.raises(ForeignBucket, match="swapped"):
        require(label(1), TABLE[0], VOLUME, "s3://a/b")


def test_a_bucket_of_another_volume_is_refused() -> None:
    with pytest.raises(ForeignBucket, match="belongs to volume"):
        require(label(0, b"v" * 16), TABLE[0], VOLUME, "s3://a/b")


def test_places_are_found_in_the_table() -> None:
    found = match({"u2": label(2), "u0": label(0)}, TABLE, VOLUME)
    assert {url: entry.slot for url, entry in found.items()} == {"u2": 2, "u0": 0}


def test_a_doubled_bucket_is_refused() -> None:
    with pytest.raises(ForeignBucket, match="same bucket"):
        match({"u1": label(1), "u2": label(1)}, TABLE, VOLUME)


def test_a_removed_bucket_is_refused() -> None:
    with pytest.raises(ForeignBucket, match="removed"):
        match({"u9": Label(VOLUME, b"gone" * 4, Slot(9))}, TABLE, VOLUME)
