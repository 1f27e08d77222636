"""Headers and labels: whether every bucket says which bucket of which volume it is, and opens.

Owns these two checks and their mending.  A label is put back only where a shard in the bucket proves which
slot it is: its header is authentic, and the volume places that shard there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from objfs.backends.base import Bucket
from objfs.codec import DATA_OFFSET, KeyRing, open_header
from objfs.errors import BucketError, CodecError, NoSuchObject, ObjfsError
from objfs.model import Segment, Slot
from objfs.store import layout
from objfs.volume import header as headers
from objfs.volume import label as labels
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import Subject
from objfs.volume.header import HEADER_MAX, VolumeHeader
from objfs.volume.label import Label
from objfs.volume.table import BucketEntry

PROBES = 64
"""Shards looked at to learn which slot a bucket without a label is."""


@dataclass(slots=True)
class Identities:
    """Which slots need their header or label again, and the bytes of a sound header."""

    header: bytes | None = None
    headers: list[Slot] = field(default_factory=list)
    labels: list[Slot] = field(default_factory=list)


async def check_identities(subject: Subject, report: Report) -> Identities:
    """One GET of the header and one of the label from every bucket that has a URL here."""
    found = Identities()
    for entry in subject.header.buckets:
        bucket = subject.raw.get(entry.uuid)
        if bucket is None:
            continue  # the walk over its objects says that it is not seen
        report.seen["buckets"] += 1
        why = await _wrong(_header_check(subject, found), bucket, layout.HEADER)
        if why:
            found.headers.append(entry.slot)
            report.add("header", Grade.DAMAGE, layout.HEADER, why, bucket=bucket.url)
        why = await _wrong(_label_check(subject, entry), bucket, layout.LABEL)
        if why:
            found.labels.append(entry.slot)
            report.add("label", Grade.DAMAGE, layout.LABEL, why, bucket=bucket.url)
    return found


async def _wrong(check: Callable[[bytes], str], bucket: Bucket, name: str) -> str:
    """Why an object is not what it should be; empty where it is, or where the bucket does not answer."""
    try:
        return check(await bucket.get(name, 0, HEADER_MAX + 1))
    except NoSuchObject:
        return "is not there"
    except BucketError:
        return ""
    except ObjfsError as error:
        return str(error)


def _header_check(subject: Subject, found: Identities) -> Callable[[bytes], str]:
    def check(data: bytes) -> str:
        header = headers.decode(headers.read_clear(data), subject.ring)
        if header.generation < subject.header.generation:
            return f"is of generation {header.generation}, and {subject.header.generation} is the newest"
        found.header = data
        return ""

    return check


def _label_check(subject: Subject, entry: BucketEntry) -> Callable[[bytes], str]:
    def check(data: bytes) -> str:
        labels.require(labels.decode(data, subject.ring), entry, subject.header.volume, "it")
        return ""

    return check


# --- mending -------------------------------------------------------------------------------


async def mend_headers(found: Identities, header: VolumeHeader, raw: Mapping[bytes, Bucket]) -> list[str]:
    """Puts the newest header where it is missing, damaged or old."""
    done = []
    for entry in header.buckets:
        if entry.slot in found.headers and found.header is not None:
            bucket = raw[entry.uuid]
            await bucket.put(layout.HEADER, found.header)
            done.append(f"{layout.HEADER} is put into {bucket.url} again")
    return done


async def mend_labels(
    found: Identities,
    header: VolumeHeader,
    ring: KeyRing,
    raw: Mapping[bytes, Bucket],
    segment_of: Callable[[bytes], Segment | None],
) -> list[str]:
    """Puts labels where shards prove the bucket; ``segment_of`` gives what the volume knows of a segment."""
    done = []
    for entry in header.buckets:
        if entry.slot not in found.labels:
            continue
        bucket = raw[entry.uuid]
        if await _proven(bucket, entry.slot, ring, segment_of):
            await bucket.put(layout.LABEL, labels.encode(Label(ring.volume, entry.uuid, entry.slot), ring))
            done.append(f"{layout.LABEL} of slot {entry.slot} is put into {bucket.url} again")
    return done


async def _proven(
    bucket: Bucket, slot: Slot, ring: KeyRing, segment_of: Callable[[bytes], Segment | None]
) -> bool:
    """Whether some shard in the bucket is where the volume has it, and none is where it does not."""
    agreed = 0
    for info in (await bucket.list(layout.SEGMENT_PREFIX))[:PROBES]:
        name = layout.parse_shard(info.key)
        segment = segment_of(name.uuid) if name is not None else None
        if name is None or segment is None:
            continue
        try:
            found, shard = open_header(ring, await bucket.get(info.key, 0, DATA_OFFSET))
        except (BucketError, CodecError):
            continue
        if (found.uuid, shard) != name or segment.placement[shard] != slot:
            return False
        agreed += 1
    return agreed > 0
