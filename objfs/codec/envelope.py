"""The 32 bytes in front of every object: what it is, under which key, how long.

Owns the magic, the format version and the registry of object kinds.  Promises that bytes which
are no objfs object are told from objects of a newer objfs.  Knows nothing of what follows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from objfs.errors import Corrupt, NewerFormat

MAGIC = b"\x8bobjfs\r\n"
"""A byte above 127 and a CR LF pair: a transfer that mangles text is noticed at once."""

FORMAT_VERSION = 1
ENVELOPE_SIZE = 32

_LAYOUT = struct.Struct(">8sHBBIQ8s")
_RESERVED = bytes(8)


class Kind(IntEnum):
    """What an object is; the number stands in its envelope."""

    HEADER = 1
    LABEL = 2
    LEASE = 3
    MANIFEST = 4
    SHARD = 5
    READER = 6


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope; ``payload_length`` counts the bytes of the object after the envelope."""

    kind: Kind
    key_id: int
    payload_length: int


def pack_envelope(kind: Kind, key_id: int, payload_length: int) -> bytes:
    """The 32 bytes of an envelope, big-endian as in SPEC "Envelope"."""
    return _LAYOUT.pack(MAGIC, FORMAT_VERSION, kind, 0, key_id, payload_length, _RESERVED)


def unpack_envelope(data: bytes, expect: Kind | None) -> Envelope:
    """Reads the envelope at the front of ``data``, which may be a prefix of the object.

    Raises NewerFormat for an unknown version or kind, Corrupt for anything else that is wrong,
    also for a known kind other than ``expect``.
    """
    if len(data) < ENVELOPE_SIZE:
        raise Corrupt(f"object of {len(data)} bytes is too short for an objfs envelope: cut short")
    magic, version, kind, flags, key_id, length, reserved = _LAYOUT.unpack_from(data)
    if magic != MAGIC:
        raise Corrupt("object does not begin with the objfs magic: damaged, or not an objfs object")
    if version != FORMAT_VERSION:
        raise NewerFormat(f"object has format version {version}, this objfs reads {FORMAT_VERSION}: upgrade")
    known = _known_kind(kind)
    if flags != 0 or reserved != _RESERVED:
        raise Corrupt(f"envelope of a {known.name} object has reserved bits set: damaged")
    if expect is not None and known is not expect:
        raise Corrupt(f"object is a {known.name} where a {expect.name} belongs: misplaced")
    return Envelope(known, key_id, length)


def _known_kind(kind: int) -> Kind:
    try:
        return Kind(kind)
    except ValueError:
        raise NewerFormat(f"object kind {kind} is unknown to this objfs: upgrade") from None
