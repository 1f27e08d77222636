"""From wanted frames to few ranged requests.

Owns the plan of a read: which shards hold the frames, which blocks cover them, which blocks are
fetched together.  Pure; knows no bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from objfs.codec import BLOCK, Layout
from objfs.model import Segment

MAX_GAP = 1
"""Blocks nobody asked for that are fetched along rather than paid for with another request."""


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive frames of one segment: payload offset of the first, sealed length of each."""

    segment: Segment
    position: int
    frames: tuple[int, ...]


class Piece(NamedTuple):
    """Bytes [start, end) of a data shard."""

    shard: int
    start: int
    end: int

    @property
    def blocks(self) -> range:
        """The blocks that cover the piece."""
        return range(self.start // BLOCK, -(-self.end // BLOCK))


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks [first, last) of one shard of one segment, fetched with one request.

    ``wanted`` are the blocks that somebody asked for; the others only fill gaps.
    """

    segment: Segment
    shard: int
    first: int
    last: int
    wanted: frozenset[int]


def pieces(layout: Layout, span: Span) -> list[Piece]:
    """Where the frames of a span lie: no frame crosses a cut, but a chunk may.  Raises Corrupt."""
    found: list[Piece] = []
    for start, end in pairwise(accumulate(span.frames, initial=span.position)):
        shard, offset = layout.locate(start, end)
        piece = Piece(shard, offset, offset + end - start)
        if found and found[-1].shard == shard and found[-1].end == offset:
            piece = Piece(shard, found.pop().start, piece.end)
        found.append(piece)
    return found


def runs(segment: Segment, wanted: Iterable[Piece]) -> list[Run]:
    """The requests that cover all wanted pieces of a segment, by shard and block."""
    by_shard: dict[int, set[int]] = {}
    for piece in wanted:
        by_shard.setdefault(piece.shard, set()).update(piece.blocks)
    return [
        Run(segment, shard, first, last, frozenset(blocks.intersection(range(first, last))))
        for shard, blocks in sorted(by_shard.items())
        for first, last in merge(sorted(blocks))
    ]


def merge(blocks: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending block numbers to [first, last) ranges, joined over gaps of at most MAX_GAP."""
    found: list[tuple[int, int]] = []
    for block in blocks:
        if found and block - found[-1][1] <= MAX_GAP:
            found[-1] = (found[-1][0], block + 1)
        else:
            found.append((block, block + 1))
    return found
