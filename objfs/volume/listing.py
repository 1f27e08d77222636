"""What the buckets hold of segments: every object, part by part, and which buckets did not say.

Owns how the names of segments are split into parts, so that the memory of a walk over them stays small, and
the rule that a bucket that failed once is not asked again in the same walk: what it holds is unseen, never
missing.  Does not know which segments there should be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from objfs.backends.base import Bucket, ObjectInfo
from objfs.model import Slot
from objfs.store import layout
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.quorum import BucketSet

FEW = 2048
"""With so many segments or more, buckets are listed in 256 parts: a listing is a request."""
FAN = [layout.fan_prefix(first) for first in range(256)]
"""What the names of all segments begin with, by the first byte of their uuid."""
UNKNOWN_SHOWN = 100
"""Segments that nothing names are listed one by one up to so many."""

Places = Mapping[Slot, Mapping[int, int]]
"""Where shards of one segment are: slot -> shard -> bytes."""
Look = Callable[[Slot, Bucket, ObjectInfo], None]


@dataclass(slots=True)
class Part:
    """The objects of one part: ``places`` and when the newest object was put (``newest_ns``), by segment;
    bucket and name of each that is no object of objfs."""

    places: dict[bytes, dict[Slot, dict[int, int]]] = field(default_factory=dict)
    newest_ns: dict[bytes, int] = field(default_factory=dict)
    foreign: list[tuple[Bucket, str]] = field(default_factory=list)
    objects: int = 0


class Listing:
    """One walk over all buckets; ``left_out`` says why a slot is not among them."""

    def __init__(self, buckets: BucketSet, left_out: Mapping[Slot, str]) -> None:
        self._buckets = buckets
        self._left_out = left_out
        self.silent: dict[Slot, str] = {}
        """Why a bucket was not listed, or not to its end."""

    @property
    def seen(self) -> list[Slot]:
        """Buckets that have answered so far."""
        return [slot for slot in self._buckets.slots if slot not in self.silent]

    async def each(self, prefix: str, look: Look) -> None:
        """Calls ``look`` with every object whose name begins so, of every bucket that answers."""

        async def ask(slot: Slot, bucket: Bucket) -> None:
            for info in await bucket.list(prefix):
                look(slot, bucket, info)

        answers = await self._buckets.each(ask, slots=self.seen)
        for slot, error in answers.errors.items():
            self.silent[slot] = self._left_out.get(slot, str(error))

    async def part(self, prefix: str) -> Part:
        """All objects of the segments of one part, by segment."""
        part = Part(defaultdict(lambda: defaultdict(dict)))

        def look(slot: Slot, bucket: Bucket, info: ObjectInfo) -> None:
            name = layout.parse_shard(info.key)
            if name is None:
                part.foreign.append((bucket, info.key))
                return
            part.objects += 1
            part.places[name.uuid][slot][name.shard] = info.size
            part.newest_ns[name.uuid] = max(part.newest_ns.get(name.uuid, 0), info.mtime_ns)

        await self.each(prefix, look)
        part.places = dict(part.places)
        return part


def prefixes(segments: int) -> list[str]:
    """What the names of all segments begin with: one part where there are few segments, else 256."""
    return [layout.SEGMENT_PREFIX] if segments < FEW else FAN


def parts(uuids: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Prefix of objects' names -> the segments among ``uuids`` that it covers, in order."""
    ordered = sorted(set(uuids))
    split = prefixes(len(ordered))
    if len(split) == 1:
        return {split[0]: ordered}
    covered: dict[str, list[bytes]] = {prefix: [] for prefix in FAN}
    for uuid in ordered:
        covered[layout.fan_prefix(uuid[0])].append(uuid)
    return covered


def total_bytes(places: Places) -> int:
    """Of all objects of one segment."""
    return sum(size for shards in places.values() for size in shards.values())


# --- findings that every walk has ------------------------------------------------------


def say_foreign(report: Report, part: Part) -> None:
    """One remark for each object that is none of objfs."""
    for bucket, name in part.foreign:
        report.add(
            "foreign", Grade.REMARK, name, "is no object of objfs; it is left alone", bucket=bucket.url
        )


def say_unknown(report: Report, unknown: Mapping[bytes, int]) -> None:
    """One remark for each segment that nothing names, with its bytes; a few of them one by one."""
    for uuid in sorted(unknown)[:UNKNOWN_SHOWN]:
        what = f"nothing names it ({unknown[uuid]} bytes): left by a crash, or under way"
        report.add("unknown", Grade.REMARK, f"segment {uuid.hex()}", what)
    rest = len(unknown) - UNKNOWN_SHOWN
    if rest > 0:
        report.add("unknown", Grade.REMARK, f"{rest} more segments", "nothing names them")


def say_silent(report: Report, listing: Listing, name: Callable[[Slot], str], todo: str) -> None:
    """One finding for each bucket that was not listed; ``name`` is what to call it."""
    for slot, why in sorted(listing.silent.items()):
        report.add("bucket", Grade.UNSEEN, "its objects", why, bucket=name(slot), todo=todo)
