"""How freed memory goes back to the system: the C library's settings of this process.

Owns two settings of glibc's allocator, made once before there are threads.  Other C libraries have neither
and are left as they are.  See docs/design/decisions/0012-a-heap-that-shrinks.md.
"""

from __future__ import annotations

import ctypes

MIB = 1024 * 1024
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
LARGE_BYTES = 2 * MIB
"""From here on a buffer is mapped by itself, and is gone when it is freed."""
ARENAS = 2
"""Heaps that threads share."""


def shrink_when_freed() -> None:
    """Buffers of segments and shards leave no holes in the heap."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)
