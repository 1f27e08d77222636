"""Sealing with AES-256-GCM: whole small objects, and the frames of segments.

Owns what is bound by authentication: an object to its volume, kind, key and name; a frame to
its volume, segment, kind and number.  Promises Corrupt for whatever was changed, moved or cut.
Nonces never repeat because no key does: an object's key has a random salt, a segment's its UUID.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from objfs.codec.compress import pack, unpack
from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope, unpack_envelope
from objfs.codec.keys import SALT_SIZE, KeyRing, VolumeKey
from objfs.errors import CodecError, Corrupt
from objfs.model import FRAME_SIZE, SegmentKind

GCM_TAG = 16
FRAME_OVERHEAD = 1 + GCM_TAG
MAX_SEALED_FRAME = FRAME_SIZE + FRAME_OVERHEAD
OBJECT_OVERHEAD = ENVELOPE_SIZE + SALT_SIZE + GCM_TAG
MAX_FRAME_NUMBER = 2**32 - 1

_ZERO_NONCE = bytes(12)


def seal_object(key: VolumeKey, kind: Kind, name: str, payload: bytes, *, salt: bytes | None = None) -> bytes:
    """A sealed object: envelope | salt 16 | ciphertext | tag 16.

    ``name`` is the object's name below the bucket's prefix.  ``salt`` is drawn at random; give
    one only to make test vectors, since one salt must never seal two payloads.
    """
    salt = secrets.token_bytes(SALT_SIZE) if salt is None else salt
    envelope = pack_envelope(kind, key.key_id, SALT_SIZE + len(payload) + GCM_TAG)
    sealed = AESGCM(key.object_key(salt)).encrypt(
        _ZERO_NONCE, payload, _object_aad(envelope, key.volume, name)
    )
    return envelope + salt + sealed


def open_object(ring: KeyRing, kind: Kind, name: str, data: bytes) -> bytes:
    """The payload of a sealed object.  Raises Corrupt, NewerFormat, UnknownKey."""
    envelope = unpack_envelope(data, kind)
    if len(data) < OBJECT_OVERHEAD or envelope.payload_length != len(data) - ENVELOPE_SIZE:
        raise Corrupt(f"object {name} has {len(data)} bytes, not what its envelope says: cut short or padded")
    key = ring.get(envelope.key_id)
    salt = data[ENVELOPE_SIZE : ENVELOPE_SIZE + SALT_SIZE]
    aad = _object_aad(data[:ENVELOPE_SIZE], key.volume, name)
    try:
        return AESGCM(key.object_key(salt)).decrypt(_ZERO_NONCE, data[ENVELOPE_SIZE + SALT_SIZE :], aad)
    except InvalidTag:
        raise Corrupt(f"object {name} fails authentication: damaged, forged or of another volume") from None


def _object_aad(envelope: bytes, volume: bytes, name: str) -> bytes:
    return envelope + volume + name.encode("ascii", "backslashreplace")


class FrameSealer:
    """Seals and opens the frames of one segment; may be shared between threads."""

    def __init__(self, key: VolumeKey, segment: bytes, kind: SegmentKind) -> None:
        self._aes = AESGCM(key.segment_key(segment))
        self._bound = key.volume + segment + bytes([kind])
        self._name = segment.hex()

    def seal(self, number: int, plain: bytes) -> bytes:
        """Codec byte and body, encrypted, and the tag.  A number must be sealed only once."""
        if not 1 <= len(plain) <= FRAME_SIZE or not 0 <= number <= MAX_FRAME_NUMBER:
            raise CodecError(f"frame {number} of {len(plain)} bytes cannot be sealed: 1 to {FRAME_SIZE} fit")
        return self._aes.encrypt(number.to_bytes(12, "big"), pack(plain), self._aad(number))

    def open(self, number: int, sealed: bytes) -> bytes:
        """The plain bytes, 1 to 131,072.  Raises Corrupt, NewerFormat."""
        if not FRAME_OVERHEAD < len(sealed) <= MAX_SEALED_FRAME or not 0 <= number <= MAX_FRAME_NUMBER:
            raise Corrupt(f"frame {number} of segment {self._name} has an impossible length {len(sealed)}")
        try:
            packed = self._aes.decrypt(number.to_bytes(12, "big"), sealed, self._aad(number))
        except InvalidTag:
            raise Corrupt(
                f"frame {number} of segment {self._name} fails authentication: damaged or misplaced"
            ) from None
        return unpack(packed, FRAME_SIZE)

    def _aad(self, number: int) -> bytes:
        return self._bound + number.to_bytes(4, "big")
