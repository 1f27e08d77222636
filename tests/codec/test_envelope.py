"""What an envelope refuses, and by which error."""

from __future__ import annotations

import pytest

from objfs.codec import ENVELOPE_SIZE, Envelope, Kind, pack_envelope, unpack_envelope
from objfs.errors import Corrupt, NewerFormat


def test_reads_back_what_was_packed() -> None:
    packed = pack_envelope(Kind.MANIFEST, 7, 2**40)
    assert len(packed) == ENVELOPE_SIZE
    assert unpack_envelope(packed + b"payload", Kind.MANIFEST) == Envelope(Kind.MANIFEST, 7, 2**40)


@pytest.mark.parametrize(
    ("offset", "error"),
    [
        (0, Corrupt),
        (7, Corrupt),
        (8, NewerFormat),
        (9, NewerFormat),
        (10, NewerFormat),
        (11, Corrupt),
        (31, Corrupt),
    ],
)
def test_each_field_is_guarded(offset: int, error: type[Exception]) -> None:
    packed = bytearray(pack_envelope(Kind.LABEL, 0, 10))
    packed[offset] ^= 0x40
    with pytest.raises(error):
        unpack_envelope(bytes(packed), None)


def test_another_kind_is_refused() -> None:
    with pytest.raises(Corrupt, match="LABEL where a LEASE"):
        unpack_envelope(pack_envelope(Kind.LABEL, 0, 0), Kind.LEASE)


def test_short_input_is_refused() -> None:
    with pytest.raises(Corrupt, match="too short"):
        unpack_envelope(pack_envelope(Kind.LABEL, 0, 0)[:-1], None)
