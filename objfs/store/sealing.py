"""Chunks to shard objects in one go: identity, compression, sealing, cutting, coding, tags.

Owns the one hop to a worker thread that a segment costs.  Promises a fresh random uuid at each
sealing, so that no frame number is ever sealed twice under one key.  Pure of input and output
except for the system's random numbers; knows no bucket.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from objfs.codec import KeyRing, Layout, SegmentBuilder, encode_shards, identify
from objfs.model import Code, Placed, SegmentKind
from objfs.ports import Sealable
from objfs.store.layout import UUID_SIZE


@dataclass(frozen=True, slots=True)
class Sealed:
    """A segment ready to be put: its layout, one object per shard, and where each chunk lies."""

    layout: Layout
    objects: list[bytes] = field(repr=False)
    placed: list[Placed]


def seal_segment(
    ring: KeyRing, kind: SegmentKind, chunks: Sequence[Sealable], code: Code, target_bytes: int
) -> Sealed:
    """Takes milliseconds per MiB: call it in a worker thread.

    Raises CodecError when the chunks do not fit one segment (8,192 chunks, 4 GiB).
    """
    key = ring.current
    builder = SegmentBuilder(key, os.urandom(UUID_SIZE), kind, target_bytes)
    placed = []
    for item in chunks:
        identity = identify(key, item.data)
        location = builder.add(item.chunk, item.ino, item.index, item.data, identity)
        placed.append(Placed(item.chunk, location))
    layout, payload = builder.finish(code)
    return Sealed(layout, encode_shards(key, layout, payload), placed)
