"""References to blobs: segments that hold pages or patches, named from outside the inode table.

Owns their JSON form inside manifests.  Promises that a reference that parses can be given to the store
without further checks of type and range.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from objfs.errors import Corrupt
from objfs.model import Code, Location, Segment, SegmentKind, SegmentNo, Slot
from objfs.volume.fields import JSON, Fields

BLOB_MAX = 16 * 1024 * 1024
"""The most plain bytes in one blob."""


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Enough to read one blob."""

    segment: Segment
    location: Location

    def to_json(self) -> dict[str, JSON]:
        location = self.location
        return segment_to_json(self.segment) | {
            "position": location.position,
            "first_frame": location.first_frame,
            "frames": list(location.frames),
            "size": location.size,
            "identity": location.identity.hex(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> BlobRef:
        """Raises Corrupt."""
        location = Location(
            SegmentNo(0),
            fields.integer("position"),
            fields.integer("first_frame", 0, 2**32 - 1),
            fields.integers("frames", 1024, 1, 2**20),
            fields.integer("size", 1, BLOB_MAX),
            fields.hexbytes("identity", 32),
        )
        return cls(segment_from_json(fields), location)


def segment_to_json(segment: Segment) -> dict[str, JSON]:
    return {
        "uuid": segment.uuid.hex(),
        "kind": int(segment.kind),
        "key": segment.key_id,
        "code": [segment.code.k, segment.code.m],
        "length": segment.length,
        "cuts": list(segment.cuts),
        "placement": list(segment.placement),
        "missing": [*sorted(segment.missing)],
        "generation": segment.generation,
    }


def segment_from_json(fields: Fields) -> Segment:
    """Raises Corrupt."""
    code = fields.integers("code", 2, 0, 255)
    kind = fields.integer("kind")
    if len(code) != 2 or code[0] < 1 or kind not in set(SegmentKind):
        raise Corrupt(f"{fields.where}: its code or kind means nothing")
    segment = Segment(
        uuid=fields.hexbytes("uuid", 16),
        kind=SegmentKind(kind),
        key_id=fields.integer("key", 0, 2**32 - 1),
        code=Code(*code),
        length=fields.integer("length", 1, 2**40),
        cuts=fields.integers("cuts", 256),
        placement=tuple(Slot(slot) for slot in fields.integers("placement", 512, 0, 255)),
        missing=frozenset(fields.integers("missing", 512, 0, 511)),
        generation=fields.integer("generation", 0, 2**32 - 1),
    )
    check_segment(segment, fields.where)
    return segment


def check_segment(segment: Segment, where: str) -> None:
    """Raises Corrupt when a segment's numbers do not fit together."""
    cuts = segment.cuts
    ascending = all(low <= high for low, high in pairwise(cuts))
    if len(cuts) != segment.code.k + 1 or not ascending or cuts[0] != 0 or cuts[-1] != segment.length:
        raise Corrupt(f"{where}: the cuts of segment {segment.uuid.hex()} do not fit its length")
    if len(segment.placement) != segment.code.n or any(shard >= segment.code.n for shard in segment.missing):
        raise Corrupt(f"{where}: the placement of segment {segment.uuid.hex()} does not fit its code")
