"""One volume key for all codec tests; bytes that do not compress and bytes that do."""

from __future__ import annotations

import pytest
from blake3 import blake3

from objfs.codec import KeyRing, VolumeKey

VOLUME = bytes(range(16))
SECRET = bytes(range(100, 132))


def noise(length: int, seed: bytes = b"") -> bytes:
    """Deterministic bytes that do not compress."""
    return blake3(b"noise" + seed).digest(length)


@pytest.fixture(scope="session")
def key() -> VolumeKey:
    return VolumeKey(3, SECRET, VOLUME)


@pytest.fixture(scope="session")
def ring() -> KeyRing:
    return KeyRing(VOLUME, {3: SECRET, 4: bytes(32)}, current=3)
