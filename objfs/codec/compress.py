"""A frame's plain bytes to codec byte | body and back.

Owns the registry of frame codecs (0 raw, 1 zstd).  Promises that unpacking never yields, nor
allocates, more than the limit it was given.  Knows nothing of keys.
"""

from __future__ import annotations

import threading

import zstandard

from objfs.errors import Corrupt, NewerFormat
from objfs.model import FRAME_SIZE

RAW = 0
ZSTD = 1
LEVEL = 3

SAMPLE = 4096
"""Plain bytes of each of the two samples that decide whether a long frame is worth compressing."""

_MIN_SAMPLED = 32 * 1024


class _Contexts(threading.local):
    """zstd contexts: costly to make, not to be shared between threads."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=LEVEL)
        self.sampler = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=FRAME_SIZE)


_contexts = _Contexts()


def pack(plain: bytes) -> bytes:
    """Codec byte and body; zstd where it shrinks the frame by at least 1/16, raw otherwise."""
    if _worth_trying(plain):
        body: bytes = _contexts.compressor.compress(plain)
        if pays(len(plain), len(body)):
            return b"\x01" + body
    return b"\x00" + plain


def pays(plain: int, packed: int) -> bool:
    """Whether ``packed`` bytes instead of ``plain`` save at least 1/16."""
    return packed <= plain - plain / 16


def _worth_trying(plain: bytes) -> bool:
    """A quick look: two samples of a long frame, compressed at the fastest level.

    Most incompressible data (media, archives, ciphertext) are told so at a tenth of the cost.
    The samples lie in the middle and at the end, since headers at the front are often text.
    """
    if len(plain) < _MIN_SAMPLED:
        return True
    middle = len(plain) // 2
    sample = bytes(plain[middle : middle + SAMPLE]) + bytes(plain[-SAMPLE:])
    return len(_contexts.sampler.compress(sample)) < len(sample) - len(sample) // 32


def unpack(data: bytes, limit: int) -> bytes:
    """The plain bytes, at most ``limit`` of them (itself at most a frame).

    Raises Corrupt for bytes that no ``pack`` yields, NewerFormat for an unknown codec.
    """
    if len(data) < 2:
        raise Corrupt("frame is empty: every frame holds at least one byte")
    codec, body = data[0], data[1:]
    if codec == RAW:
        if len(body) > limit:
            raise Corrupt(f"raw frame holds {len(body)} bytes, over its limit of {limit}")
        return bytes(body)
    if codec == ZSTD:
        return _unzstd(body, limit)
    raise NewerFormat(f"frame codec {codec} is unknown to this objfs: upgrade")


def _unzstd(body: bytes, limit: int) -> bytes:
    # The length in the zstd header is checked first: the library allocates by it.
    try:
        declared = zstandard.get_frame_parameters(body).content_size
        if not 0 < declared <= limit:
            raise Corrupt(f"zstd frame declares {declared} bytes, allowed are 1 to {limit}")
        plain: bytes = _contexts.decompressor.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"zstd frame cannot be decompressed: {error}") from None
    if len(plain) != declared:
        raise Corrupt(f"zstd frame holds {len(plain)} bytes and declares {declared}")
    return plain
