"""Identities and page hashes are keyed, and a database's hash can be kept up page by page."""

from __future__ import annotations

from blake3 import blake3

from objfs.codec import IDENTITY_SIZE, PAGE_HASH_MODULUS, VolumeKey, identify, page_hash
from tests.codec.conftest import VOLUME


def test_an_identity_tells_nothing_without_the_key(key: VolumeKey) -> None:
    other = VolumeKey(3, bytes(32), VOLUME)
    assert identify(key, b"data") == identify(key, bytearray(b"data"))
    assert len(identify(key, b"data")) == IDENTITY_SIZE
    assert len({identify(key, b"data"), identify(other, b"data"), blake3(b"data").digest()}) == 3


def test_a_page_counts_at_its_number(key: VolumeKey) -> None:
    page = bytes(4096)
    assert page_hash(key, 1, page) != page_hash(key, 2, page)
    assert 0 <= page_hash(key, 1, page) < PAGE_HASH_MODULUS


def test_replacing_a_page_is_one_subtraction_and_one_addition(key: VolumeKey) -> None:
    pages = {number: bytes([number]) * 4096 for number in range(1, 6)}
    total = sum(page_hash(key, n, page) for n, page in pages.items()) % PAGE_HASH_MODULUS
    total += page_hash(key, 3, b"new" * 1000) - page_hash(key, 3, pages[3])
    pages[3] = b"new" * 1000
    assert total % PAGE_HASH_MODULUS == (
        sum(page_hash(key, n, page) for n, page in pages.items()) % PAGE_HASH_MODULUS
    )
