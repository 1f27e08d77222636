"""Object names: what the format says, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objfs.backends.base import check_key
from objfs.store import layout

UUID = bytes(range(0xA0, 0xB0))
NUMBERS = st.integers(0, 2**64 - 1)


def test_names_are_as_the_format_says() -> None:
    assert layout.HEADER == "header"
    assert layout.LABEL == "label"
    assert layout.lease_name(17) == "lease/0000000000000011"
    assert layout.manifest_name(2**64 - 1) == "manifest/ffffffffffffffff"
    assert layout.shard_name(UUID, 5) == "segment/a0/a0a1a2a3a4a5a6a7a8a9aaabacadaeaf.05"
    assert layout.reader_name(b"\x01\xff") == "readers/01ff"
    assert layout.probe_name(b"\x02") == "probe/02"
    assert layout.shard_name(UUID, 5).startswith(layout.shard_prefix(UUID))
    assert layout.shard_prefix(UUID).startswith(layout.fan_prefix(0xA0))


@given(a=NUMBERS, b=NUMBERS)
def test_numbers_come_back_and_sort(a: int, b: int) -> None:
    assert layout.parse_lease(layout.lease_name(a)) == a
    assert layout.parse_manifest(layout.manifest_name(a)) == a
    assert (layout.manifest_name(a) < layout.manifest_name(b)) == (a < b)
    check_key(layout.manifest_name(a))


@given(uuid=st.binary(min_size=16, max_size=16), shard=st.integers(0, 255))
def test_shards_come_back(uuid: bytes, shard: int) -> None:
    assert layout.parse_shard(layout.shard_name(uuid, shard)) == (uuid, shard)
    check_key(layout.shard_name(uuid, shard))


@given(identity=st.binary(min_size=1, max_size=32))
def test_ids_come_back(identity: bytes) -> None:
    assert layout.parse_reader(layout.reader_name(identity)) == identity
    assert layout.parse_probe(layout.probe_name(identity)) == identity
    check_key(layout.reader_name(identity))


@pytest.mark.parametrize(
    "name",
    [
        *("", "header", "lease/", "lease/11", "lease/000000000000001G", "lease/00000000000000111"),
        *("LEASE/0000000000000011", "x/lease/0000000000000011", "lease/0000000000000011\n"),
        "lease/+000000000000011",
        "segment/a1/a0a1a2a3a4a5a6a7a8a9aaabacadaeaf.05",
        "segment/a0/a0a1a2a3a4a5a6a7a8a9aaabacadaeaf.5",
        "segment/a0/A0a1a2a3a4a5a6a7a8a9aaabacadaeaf.05",
        *("readers/", "readers/0", "readers/xx", "probe/" + "00" * 33),
    ],
)
def test_other_names_are_nobodys(name: str) -> None:
    parsers = (
        layout.parse_lease,
        layout.parse_manifest,
        layout.parse_shard,
        layout.parse_reader,
        layout.parse_probe,
    )
    assert [parse(name) for parse in parsers] == [None] * 5


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        layout.lease_name(-1)
    with pytest.raises(ValueError, match="255"):
        layout.shard_name(UUID, 256)
    with pytest.raises(ValueError, match="16 bytes"):
        layout.shard_name(b"short", 0)
    with pytest.raises(ValueError, match="1 to 32"):
        layout.reader_name(b"")
    with pytest.raises(ValueError, match="0 to 255"):
        layout.fan_prefix(256)
