"""The sealed label of a bucket: which bucket of which volume this is.

Owns the object ``label``.  Promises that a bucket that was swapped with another, belongs to another
volume or is given twice is refused by name before anything is read from or written to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from objfs.codec.envelope import Kind
from objfs.codec.keys import KeyRing
from objfs.codec.seal import open_object, seal_object
from objfs.errors import ForeignBucket, NewerFormat
from objfs.model import Slot
from objfs.volume.fields import Fields, canonical
from objfs.volume.table import BucketEntry

NAME = "label"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Label:
    """What a bucket says it is."""

    volume: bytes
    bucket: bytes
    slot: Slot


def encode(label: Label, ring: KeyRing) -> bytes:
    """The object's bytes."""
    body = canonical(
        {"format": FORMAT, "volume": label.volume.hex(), "bucket": label.bucket.hex(), "slot": label.slot}
    )
    return seal_object(ring.current, Kind.LABEL, NAME, body)


def decode(data: bytes, ring: KeyRing) -> Label:
    """Raises Corrupt, UnknownKey, NewerFormat."""
    fields = Fields.parse(open_object(ring, Kind.LABEL, NAME, data), "label")
    if fields.integer("format") != FORMAT:
        raise NewerFormat("label: needs a newer objfs")
    return Label(
        fields.hexbytes("volume", 16), fields.hexbytes("bucket", 16), Slot(fields.integer("slot", 0, 255))
    )


def require(label: Label, entry: BucketEntry, volume: bytes, where: str) -> None:
    """Raises ForeignBucket unless the label found at ``where`` is that of ``entry``."""
    if label.volume != volume:
        raise ForeignBucket(f"{where} belongs to volume {label.volume.hex()}, not to {volume.hex()}")
    if label.bucket != entry.uuid or label.slot != entry.slot:
        raise ForeignBucket(
            f"{where} is bucket {label.bucket.hex()} of slot {label.slot}, but is configured as "
            f"{entry.uuid.hex()} of slot {entry.slot}; are two buckets swapped in volume.toml?"
        )


def match(
    labels: Mapping[str, Label], entries: Sequence[BucketEntry], volume: bytes
) -> dict[str, BucketEntry]:
    """Finds each labelled place (URL -> label) in the table.  Raises ForeignBucket for a place that is
    not in it, belongs to another volume, or is a copy of one given before."""
    table = {entry.uuid: entry for entry in entries}
    found: dict[str, BucketEntry] = {}
    seen: dict[bytes, str] = {}
    for where, label in labels.items():
        entry = table.get(label.bucket)
        if entry is None and label.volume == volume:
            raise ForeignBucket(f"{where} was removed from this volume (bucket {label.bucket.hex()})")
        require(label, entry or BucketEntry(label.slot, label.bucket), volume, where)
        if label.bucket in seen:
            raise ForeignBucket(f"{where} and {seen[label.bucket]} are the same bucket, or one is a copy")
        seen[label.bucket] = where
        if entry is not None:
            found[where] = entry
    return found
