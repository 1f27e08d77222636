"""What fsck looks at, and the few things that all of its parts do.

Owns the record of one run.  Looks only: nothing here changes a bucket or the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TypeVar

import trio

from objfs.backends.base import Bucket
from objfs.cache.offline import CacheDirectory
from objfs.codec.keys import KeyRing
from objfs.meta.view import Place, TableView
from objfs.model import ChunkId, Ino, Slot
from objfs.store.store import SegmentStore
from objfs.volume.fsck_map import Span
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.header import VolumeHeader
from objfs.volume.quorum import BucketSet

T = TypeVar("T")

BATCH = 512
"""Rows read at once."""
LIMIT = 1000
"""Findings listed of one rule."""


@dataclass(slots=True)
class Subject:
    """One volume.  ``raw`` are the buckets of ``volume.toml`` by uuid, also those without a sound label;
    ``left_out`` says why a slot is not in ``buckets``.  ``table`` None: no table could be had.  ``live``: a
    mount goes on using all of it, so a difference is believed only when it is there twice.  ``data``: every
    byte is to be read.
    """

    header: VolumeHeader
    ring: KeyRing
    raw: Mapping[bytes, Bucket]
    buckets: BucketSet
    left_out: Mapping[Slot, str]
    store: SegmentStore
    table: TableView | None
    cache: CacheDirectory
    live: bool = False
    data: bool = False
    note: Callable[[str], None] = field(default=lambda _text: None)
    owed: Mapping[Slot, Collection[str]] = field(default_factory=dict)
    """Deletes that are under way: a manifest among them is on some buckets yet, and nobody needs it."""

    def name(self, slot: int) -> str:
        """What to call a bucket in a finding."""
        entry = next((entry for entry in self.header.buckets if entry.slot == slot), None)
        bucket = None if entry is None else self.raw.get(entry.uuid)
        return bucket.url if bucket is not None else f"slot {slot} (no URL here)"

    @property
    def view(self) -> TableView:
        assert self.table is not None
        return self.table


async def ask(work: Callable[..., T], *values: object) -> T:
    """A question to the table or the local disk, in a worker."""
    return await trio.to_thread.run_sync(partial(work, *values))


async def say_lost(
    subject: Subject, report: Report, lost: Mapping[ChunkId, Sequence[Span]], why: Mapping[ChunkId, str]
) -> None:
    """One finding for each file that loses bytes: which ones, by its path."""
    if not lost:
        return
    places = await ask(subject.view.places, list(lost))
    paths = await ask(subject.view.paths, {place.ino for place in places})
    size = subject.header.chunk_size
    for (ino, live), group in groupby(sorted(places, key=_by_file), lambda place: (place.ino, place.live)):
        used = list(group)
        name = f"inode {ino}" + (f" ({_readable(paths[ino])})" if live and ino in paths else "")
        spans = joined(
            (place.idx * size + start, place.idx * size + end)
            for place in used
            for start, end in lost[place.chunk]
        )
        ranges = ", ".join(f"{start} to {end - 1}" for start, end in spans)
        moment = "" if live else "in a snapshot, "
        causes = "; ".join(sorted({why[place.chunk] for place in used}))
        report.add(
            "unreadable",
            Grade.LOSS,
            name,
            f"{moment}bytes {ranges} cannot be read: {causes}",
            todo="bring the buckets back, or restore the file",
        )


def _by_file(place: Place) -> tuple[Ino, bool, int]:
    return place.ino, not place.live, place.idx


def joined(spans: Iterator[Span]) -> list[Span]:
    """Ascending spans, those that touch made one."""
    found: list[Span] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            start = found.pop()[0]
        found.append((start, end))
    return found


def _readable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
