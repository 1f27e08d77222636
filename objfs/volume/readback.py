"""Whether a file on this machine has the bytes that a moment says it has, without asking a bucket.

Owns the comparison: each chunk's keyed identity, zeros for holes and for what lies beyond a chunk.  Blocking.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from objfs.codec import KeyRing, identify
from objfs.model import Attr
from objfs.volume.pieces import Part

STEP = 1 << 20


def has_part(descriptor: int, part: Part, ring: KeyRing) -> bool:
    """Whether the bytes of one part are in an open file."""
    data = _read(descriptor, part.offset, part.offset + part.length)
    return len(data) == part.length and _is(data, part, ring)


def differs(descriptor: int, attr: Attr, parts: Iterable[Part], ring: KeyRing) -> str:
    """What is wrong with an open file; empty where it is the one that is meant.  ``parts`` in order."""
    if os.fstat(descriptor).st_size != attr.size:
        return f"it has {os.fstat(descriptor).st_size} bytes instead of {attr.size}"
    end = 0
    for part in parts:
        if not _is_hole(descriptor, end, part.offset):
            return f"there is something between {end} and {part.offset}, where a hole should be"
        end = part.offset + part.length
        if not has_part(descriptor, part, ring):
            return f"bytes {part.offset} to {end - 1} are not those that were stored"
    return (
        "" if _is_hole(descriptor, end, attr.size) else f"there is something beyond {end}, instead of a hole"
    )


def _is(data: bytes, part: Part, ring: KeyRing) -> bool:
    """By the key of the segment first: an identity may be older than the segment it lies in now."""
    keys = [part.segment.key_id, *sorted(ring.secrets(), reverse=True)]
    return any(identify(ring.get(key), data) == part.location.identity for key in dict.fromkeys(keys))


def _is_hole(descriptor: int, start: int, end: int) -> bool:
    """Whether only zeros are there; what the file system knows to be a hole is not read."""
    while start < end:
        try:
            start = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError:
            return True  # nothing but a hole up to the end
        stop = min(start + STEP, end)
        if start < end and any(_read(descriptor, start, stop)):
            return False
        start = stop
    return True


def _read(descriptor: int, start: int, end: int) -> bytes:
    found = []
    while start < end and (data := os.pread(descriptor, end - start, start)):
        found.append(data)
        start += len(data)
    return b"".join(found)
