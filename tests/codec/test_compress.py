"""Frames shrink where it pays, and never grow beyond their limit when unpacked."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from objfs.codec import pack, unpack
from objfs.codec.compress import pays
from objfs.errors import CodecError, Corrupt, NewerFormat
from objfs.model import FRAME_SIZE
from tests.codec.conftest import noise


@given(st.binary(min_size=1, max_size=4096), st.integers(1, 40))
def test_round_trip(piece: bytes, times: int) -> None:
    plain = (piece * times)[:FRAME_SIZE]
    packed = pack(plain)
    assert unpack(packed, FRAME_SIZE) == plain
    assert packed[0] == 0 or pays(len(plain), len(packed) - 1)


@pytest.mark.parametrize("size", [1, 1000, FRAME_SIZE])
def test_incompressible_frames_stay_raw(size: int) -> None:
    plain = noise(size)
    assert pack(plain) == b"\x00" + plain


def test_a_text_is_compressed_also_behind_an_incompressible_front() -> None:
    plain = noise(FRAME_SIZE // 3) + b"the same line again and again\n" * 2900
    assert pack(plain[:FRAME_SIZE])[0] == 1


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = b"\x01" + zstandard.ZstdCompressor().compress(bytes(1 << 28))
    with pytest.raises(Corrupt, match="declares"):
        unpack(bomb, FRAME_SIZE)


def test_a_body_without_declared_length_is_refused() -> None:
    body = zstandard.ZstdCompressor(write_content_size=False).compress(b"a" * 1000)
    with pytest.raises(Corrupt):
        unpack(b"\x01" + body, FRAME_SIZE)


def test_bytes_after_the_body_are_refused() -> None:
    with pytest.raises(Corrupt):
        unpack(pack(b"a" * 1000) + b"x", FRAME_SIZE)


def test_a_raw_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(Corrupt, match="limit"):
        unpack(b"\x00" + bytes(11), 10)


def test_an_unknown_codec_is_newer() -> None:
    with pytest.raises(NewerFormat):
        unpack(b"\x02body", FRAME_SIZE)


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_codec_errors(data: bytes) -> None:
    for candidate in (data, b"\x01" + data, b"\x01\x28\xb5\x2f\xfd" + data, b"\x01\x50\x2a\x4d\x18" + data):
        try:
            assert 1 <= len(unpack(candidate, 200)) <= 200
        except CodecError:
            continue
