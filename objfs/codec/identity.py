"""Keyed hashes that name contents without telling them: chunk identities and page hashes.

Owns both definitions.  Promises that nobody without the volume key can test whether a content
is stored.  Knows nothing of tables or caches.
"""

from __future__ import annotations

from blake3 import blake3

from objfs.codec.gf256 import Buffer
from objfs.codec.keys import VolumeKey

IDENTITY_SIZE = 32
PAGE_HASH_MODULUS = 2**256


def identify(key: VolumeKey, data: Buffer) -> bytes:
    """The 32-byte keyed BLAKE3 of a chunk's plain bytes; equal only for equal bytes and keys."""
    return blake3(data, key=key.identity_key).digest()


def page_hash(key: VolumeKey, page_no: int, page: Buffer) -> int:
    """256-bit integer of the keyed BLAKE3 over page number (u32, from 1) | page.

    The sum of all pages' hashes modulo 2**256 is the incremental hash of a database: replacing a
    page subtracts the old term and adds the new (Bellare and Micciancio's AdHash, keyed).
    """
    hasher = blake3(page_no.to_bytes(4, "big"), key=key.pages_key)
    return int.from_bytes(hasher.update(page).digest(), "big")
