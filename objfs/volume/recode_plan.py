"""What changing the code of a volume would take, before it begins.

Owns the estimate: requests and bytes of each bucket.  Reading is counted as all that is in use of a segment
in one request a data shard; what is written is laid over the buckets as new segments are.  Pure: asks no
bucket.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from objfs.codec import Layout
from objfs.codec.segment import used_code
from objfs.meta.segment_usage import Usage
from objfs.model import Code, Segment, SegmentKind, Slot
from objfs.store.placement import Domains, place
from objfs.volume.compact import Terms, movable, needed, outdated, plan


@dataclass(slots=True)
class Demand:
    """Of one bucket: requests, bytes from it (``read``) and to it (``written``), and the bytes of what is
    deleted there in the end."""

    gets: int = 0
    puts: int = 0
    read: int = 0
    written: int = 0
    freed: int = 0


@dataclass(slots=True)
class Estimate:
    """Segments that have another code and their payload in bytes, those that will be made of them, and what
    each bucket has to do for it."""

    segments: int = 0
    size: int = 0
    new_segments: int = 0
    demand: dict[Slot, Demand] = field(default_factory=dict)

    def of(self, slot: Slot) -> Demand:
        return self.demand.setdefault(slot, Demand())


@dataclass(frozen=True, slots=True)
class Ground:
    """Where new segments go: ``slots`` take shards, ``domains`` name what fails together."""

    code: Code
    slots: Collection[Slot]
    domains: Domains


def estimate(found: Sequence[Usage], base: Sequence[Segment], ground: Ground, terms: Terms) -> Estimate:
    """``found``: all segments of the table; ``base``: those of the pages of the inode table, which are
    written anew where one has another code."""
    made, by_number = Estimate(), {usage.number: usage for usage in found}
    for usage in found:
        if movable(usage) and outdated(usage.segment, terms):
            made.segments += 1
            made.size += usage.segment.length
    units = plan(found, terms)
    for number, unit in enumerate(units):
        _rewrite(made, number, [by_number[one] for one in unit], ground)
    if any(has_other_code(blob, ground.code) for blob in base):
        for number, blob in enumerate(base, len(units)):
            _write(made, number, blob.length, ground)
    made.new_segments = len(units)
    made.demand = dict(sorted(made.demand.items()))
    return made


def has_other_code(segment: Segment, code: Code) -> bool:
    """Whether a volume of this code would have stored a segment otherwise."""
    return segment.code != used_code(code, segment.length)


def _rewrite(made: Estimate, number: int, unit: Sequence[Usage], ground: Ground) -> None:
    for usage in unit:
        _read(made, usage)
    _write(made, number, sum(map(needed, unit)), ground)


def _read(made: Estimate, usage: Usage) -> None:
    """The data shards, or what stands in for those that are missing; and all shards go in the end."""
    segment, layout = usage.segment, Layout.from_segment(usage.segment)
    there = [shard for shard in range(segment.code.n) if shard not in segment.missing]
    share = min(1.0, usage.stored / max(segment.length, 1))
    for shard in there[: min(segment.code.k, usage.places)]:
        demand = made.of(segment.placement[shard])
        demand.gets += 1
        demand.read += int(layout.object_size(shard) * share)
    for shard in there:
        made.of(segment.placement[shard]).freed += layout.object_size(shard)


def _write(made: Estimate, number: int, length: int, ground: Ground) -> None:
    code = used_code(ground.code, length)
    cuts = tuple(length * cut // code.k for cut in range(code.k + 1))
    # A number in the place of the random uuid spreads them as evenly as chance does in the long run.
    slots = place(number.to_bytes(16, "big"), code, ground.slots, ground.domains)
    layout = Layout.from_segment(Segment(bytes(16), SegmentKind.DATA, 0, code, length, cuts, slots))
    for shard, slot in enumerate(slots):
        demand = made.of(slot)
        demand.puts += 1
        demand.written += layout.object_size(shard)
