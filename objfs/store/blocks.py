"""Blocks of shards as they came from buckets: which are sound, and how the others are rebuilt.

Owns the verdict per block: one damaged block does not spoil its neighbours.  Promises that bytes
of a block that failed its tag are never handed out.  Pure; knows no bucket.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from objfs.codec import BLOCK, TAG, Layout, VolumeKey, block_range, open_blocks, rebuild
from objfs.errors import Corrupt

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of one shard from ``first`` on; ``bad`` are those whose bytes could not be had.

    Beyond the shard's own end all blocks are sound and empty: they count as zeros in the code.
    """

    first: int
    data: Buffer = field(repr=False)
    bad: frozenset[int] = frozenset()

    def sound(self, number: int) -> bool:
        """Whether the bytes of a block can be used."""
        return number >= self.first and number not in self.bad

    def covers(self, numbers: range) -> bool:
        """Whether all these blocks, none beyond the shard's own end, were fetched."""
        held = self.first + -(-len(self.data) // BLOCK)
        return self.first <= numbers.start and numbers.stop <= held

    def block(self, number: int) -> memoryview:
        """The stored bytes of a sound block."""
        if not self.sound(number):
            raise Corrupt(f"block {number} is not among the sound ones from {self.first} on")
        offset = (number - self.first) * BLOCK
        return memoryview(self.data)[offset : offset + BLOCK]

    def cut(self, start: int, end: int) -> memoryview:
        """Bytes [start, end) of the shard; the caller has made sure that their blocks are sound."""
        base = self.first * BLOCK
        return memoryview(self.data)[start - base : end - base]

    def replaced(self, found: Mapping[int, Buffer]) -> Blocks:
        """The same with these blocks put right."""
        data = bytearray(self.data)
        for number, piece in found.items():
            offset = (number - self.first) * BLOCK
            data[offset : offset + len(piece)] = piece
        return Blocks(self.first, data, self.bad - found.keys())


def blocks_of(layout: Layout, shard: int, first: int, last: int) -> range:
    """Those of the blocks [first, last) that the shard really has."""
    end = -(-layout.shard_length(shard) // BLOCK)
    return range(min(first, end), min(last, end))


def nothing(layout: Layout, shard: int, first: int, last: int) -> Blocks:
    """What is left of blocks [first, last) when the shard could not be had at all."""
    numbers = blocks_of(layout, shard, first, last)
    length = min(numbers.stop * BLOCK, layout.shard_length(shard)) - numbers.start * BLOCK
    return Blocks(first, bytes(max(length, 0)), frozenset(numbers))


def verify(key: VolumeKey, layout: Layout, shard: int, first: int, last: int, data: Buffer) -> Blocks:
    """Checks the tags of what a bucket returned for blocks [first, last).

    The usual case is one pass over everything; only a failure is looked at block by block.
    """
    numbers = blocks_of(layout, shard, first, last)
    span = block_range(layout, shard, first * BLOCK, last * BLOCK)
    if len(data) == span.end - span.start:
        try:
            return Blocks(first, open_blocks(key, layout, shard, first, data))
        except Corrupt:
            pass
    view, found = memoryview(data), {}
    for number in numbers:
        offset = (number - first) * (BLOCK + TAG)
        size = min(BLOCK, layout.shard_length(shard) - number * BLOCK)
        try:
            found[number] = open_blocks(key, layout, shard, number, view[offset : offset + size + TAG])
        except Corrupt:
            continue
    # An empty piece passes as "no blocks": what was cut off entirely has no tag that could fail.
    return nothing(layout, shard, first, last).replaced({n: piece for n, piece in found.items() if piece})


def lacking(k: int, shard: int, wanted: Iterable[int], sources: Mapping[int, Blocks]) -> int:
    """How many more shards are needed at most, so that every wanted block can be rebuilt."""
    return max((_lacking_one(k, shard, block, sources) for block in wanted), default=0)


def beyond_help(k: int, shard: int, wanted: Iterable[int], sources: Mapping[int, Blocks]) -> list[int]:
    """The wanted blocks that cannot be rebuilt from these sources."""
    return [block for block in wanted if _lacking_one(k, shard, block, sources)]


def _lacking_one(k: int, shard: int, block: int, sources: Mapping[int, Blocks]) -> int:
    if shard in sources and sources[shard].sound(block):
        return 0
    return max(0, k - sum(blocks.sound(block) for blocks in sources.values()))


def rebuild_blocks(
    layout: Layout, shard: int, wanted: Collection[int], sources: Mapping[int, Blocks]
) -> dict[int, bytes]:
    """The wanted blocks of a shard, each from k others that are sound there."""
    return {block: _rebuild_one(layout, shard, block, sources) for block in wanted}


def _rebuild_one(layout: Layout, shard: int, block: int, sources: Mapping[int, Blocks]) -> bytes:
    own = min(BLOCK, layout.shard_length(shard) - block * BLOCK)
    if shard in sources and sources[shard].sound(block):
        return bytes(sources[shard].block(block))
    size = min(BLOCK, layout.longest - block * BLOCK)
    sound = [number for number, blocks in sources.items() if blocks.sound(block)][: layout.code.k]
    padded = {number: bytes(sources[number].block(block)).ljust(size, b"\0") for number in sound}
    return bytes(rebuild(layout.code.k, layout.code.m, padded, [shard])[0][:own])
