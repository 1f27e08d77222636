"""Pages of the inode table as blobs: groups of page images in one run of bytes.

Owns that form (version, page size, count, then number and image of each).  Promises Corrupt for anything
that is not exactly that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from objfs.errors import Corrupt

VERSION = 1
GROUP_BYTES = 8 * 1024 * 1024
"""Plain bytes of page images in one blob."""
_HEAD = struct.Struct(">BII")
_NUMBER = struct.Struct(">I")


def encode(page_size: int, pages: Sequence[tuple[int, bytes]]) -> bytes:
    """One blob from the pages of one group, as (number, image)."""
    parts = [_HEAD.pack(VERSION, page_size, len(pages))]
    for number, image in pages:
        parts += (_NUMBER.pack(number), image)
    return b"".join(parts)


def decode(data: bytes, page_size: int) -> list[tuple[int, bytes]]:
    """Raises Corrupt."""
    if len(data) < _HEAD.size:
        raise Corrupt("pages: cut short")
    version, size, count = _HEAD.unpack_from(data)
    if version != VERSION or size != page_size or len(data) != _HEAD.size + count * (4 + size):
        raise Corrupt(f"pages: not {count} pages of {page_size} bytes in version {VERSION}")
    step = 4 + size
    return [
        (_NUMBER.unpack_from(data, at)[0], data[at + 4 : at + step])
        for at in range(_HEAD.size, len(data), step)
    ]


def grouped(numbers: Iterable[int], page_size: int) -> Iterator[list[int]]:
    """Page numbers in ascending groups, one blob each."""
    ordered = sorted(numbers)
    step = max(1, GROUP_BYTES // page_size)
    for start in range(0, len(ordered), step):
        yield ordered[start : start + step]


def count_in(size: int, page_size: int) -> int:
    """How many pages a blob of ``size`` bytes holds."""
    return (size - _HEAD.size) // (page_size + _NUMBER.size)
