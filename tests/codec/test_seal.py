"""I4 and I7 for sealed objects and frames: what was changed, moved or cut does not open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objfs.codec import FrameSealer, KeyRing, Kind, VolumeKey, open_object, seal_object
from objfs.errors import CodecError, Corrupt, UnknownKey
from objfs.model import FRAME_SIZE, SegmentKind
from tests.codec.conftest import SECRET, VOLUME, noise

KEY = VolumeKey(3, SECRET, VOLUME)
RING = KeyRing(VOLUME, {3: SECRET, 4: SECRET}, current=3)
NAME = "manifest/0000000000000001"


def test_an_object_opens_under_its_name_only() -> None:
    data = seal_object(KEY, Kind.MANIFEST, NAME, b"payload")
    assert open_object(RING, Kind.MANIFEST, NAME, data) == b"payload"
    with pytest.raises(Corrupt, match="000002"):
        open_object(RING, Kind.MANIFEST, "manifest/0000000000000002", data)
    with pytest.raises(Corrupt):
        open_object(RING, Kind.LEASE, NAME, data)
    with pytest.raises(Corrupt):
        open_object(KeyRing(bytes(16), {3: SECRET}, 3), Kind.MANIFEST, NAME, data)
    with pytest.raises(UnknownKey):
        open_object(KeyRing(VOLUME, {9: SECRET}, 9), Kind.MANIFEST, NAME, data)


def test_equal_payloads_are_not_equal_objects() -> None:
    assert seal_object(KEY, Kind.LEASE, NAME, b"x") != seal_object(KEY, Kind.LEASE, NAME, b"x")


@given(st.binary(max_size=200), st.integers(min_value=0), st.integers(0, 7))
def test_any_flipped_bit_of_an_object_is_noticed(payload: bytes, at: int, bit: int) -> None:
    data = bytearray(seal_object(KEY, Kind.LABEL, "label", payload))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(CodecError):
        open_object(RING, Kind.LABEL, "label", bytes(data))


@given(st.binary(max_size=100), st.integers(-64, 64))
def test_any_other_length_of_an_object_is_noticed(payload: bytes, change: int) -> None:
    data = seal_object(KEY, Kind.LABEL, "label", payload)
    other = data[:change] if change < 0 else data + bytes(change)
    if other == data:
        assert open_object(RING, Kind.LABEL, "label", other) == payload
        return
    with pytest.raises(CodecError):
        open_object(RING, Kind.LABEL, "label", other)


@given(st.binary(max_size=200))
def test_random_objects_raise_only_codec_errors(data: bytes) -> None:
    front = seal_object(KEY, Kind.LABEL, "label", b"")[:32]
    for candidate in (data, front + data):
        with pytest.raises(CodecError):
            open_object(RING, Kind.LABEL, "label", candidate)


SEGMENT = noise(16)


@pytest.mark.parametrize("plain", [b"x", b"text " * 1000, noise(FRAME_SIZE), bytes(FRAME_SIZE)])
def test_a_frame_opens_at_its_place_only(plain: bytes) -> None:
    sealer = FrameSealer(KEY, SEGMENT, SegmentKind.DATA)
    sealed = sealer.seal(5, plain)
    assert sealer.open(5, sealed) == plain
    others = (
        (sealer, 6),
        (FrameSealer(KEY, noise(16, b"other"), SegmentKind.DATA), 5),
        (FrameSealer(KEY, SEGMENT, SegmentKind.PAGES), 5),
        (FrameSealer(VolumeKey(3, bytes(32), VOLUME), SEGMENT, SegmentKind.DATA), 5),
        (FrameSealer(VolumeKey(3, SECRET, bytes(16)), SEGMENT, SegmentKind.DATA), 5),
    )
    for other, number in others:
        with pytest.raises(Corrupt):
            other.open(number, sealed)


@given(st.binary(max_size=300), st.integers(0, 2**40))
def test_random_frames_raise_only_codec_errors(data: bytes, number: int) -> None:
    with pytest.raises(CodecError):
        FrameSealer(KEY, SEGMENT, SegmentKind.DATA).open(number, data)


@given(st.integers(min_value=0), st.integers(0, 7))
def test_any_flipped_bit_of_a_frame_is_noticed(at: int, bit: int) -> None:
    sealer = FrameSealer(KEY, SEGMENT, SegmentKind.DATA)
    sealed = bytearray(sealer.seal(0, b"some plain bytes"))
    sealed[at % len(sealed)] ^= 1 << bit
    with pytest.raises(Corrupt):
        sealer.open(0, bytes(sealed))


@pytest.mark.parametrize("size", [0, FRAME_SIZE + 1])
def test_frames_have_their_size(size: int) -> None:
    with pytest.raises(CodecError):
        FrameSealer(KEY, SEGMENT, SegmentKind.DATA).seal(0, bytes(size))
