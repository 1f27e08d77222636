"""How much of each segment is still in use.

Owns the sums over the places of a segment, each counted once however many versions were stored by reference
to it.  Of snapshots as of the living tree: a version has a row as long as anything names it.  For worker
threads, in batches, like all of ``view``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from objfs.meta.rule import UNSOUND_LOCATION
from objfs.meta.view import TableView
from objfs.model import Code, Segment, SegmentNo

_USED = (
    "SELECT segment, count(*), sum(frames), sum(stored), sum(plain) FROM ("
    "SELECT c.segment, max(coalesce(length(c.frames) / 4, 1)) AS frames, "
    "max(coalesce(c.length, sealed_length(c.frames))) AS stored, max(c.size) AS plain FROM chunk c "
    "WHERE c.segment IN (SELECT segment FROM segment WHERE segment > ? ORDER BY segment LIMIT ?) "
    f"AND c.state = 1 AND NOT {UNSOUND_LOCATION} GROUP BY c.segment, c.position) GROUP BY segment"
)


_OTHER_CODE = (
    "SELECT count(*), coalesce(sum(length), 0) FROM segment s WHERE state = 0 AND kind = 1 "
    "AND (missing IS NULL OR length(missing) < k + m) "
    "AND (m != ? OR k != CASE WHEN length < ? THEN 1 ELSE ? END) "
    "AND EXISTS (SELECT 1 FROM chunk c WHERE c.segment = s.segment)"
)


class Usage(NamedTuple):
    """One segment: ``places`` in use, their ``frames``, and in bytes what they take sealed and plain."""

    number: SegmentNo
    segment: Segment
    condemned: bool
    places: int = 0
    frames: int = 0
    stored: int = 0
    plain: int = 0


class UsageView(TableView):
    """The look of ``TableView``, and these sums."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._connection.create_function("sealed_length", 1, _sealed_length, deterministic=True)

    def usage(self, after: int, limit: int) -> list[Usage]:
        """Sound rows with numbers above ``after``, ascending, those out of ``limit`` rows."""
        rows = self.segments(after, limit)
        used = {row[0]: row[1:] for row in self._all(_USED, (after, limit))}
        return [
            Usage(row.number, row.segment, row.condemned, *used.get(row.number, ()))
            for row in rows
            if row.segment is not None
        ]

    def sound_segments(self, batch: int = 512) -> list[Segment]:
        """Every segment whose row is of a possible form."""
        found: list[Segment] = []
        after = 0
        while rows := self.segments(after, batch):
            found += [row.segment for row in rows if row.segment is not None]
            after = rows[-1].number
        return found

    def other_code(self, code: Code, striped: int) -> tuple[int, int]:
        """How many segments with content have not the code that they would get today, and the bytes of their
        payloads.  ``striped``: from so many bytes on a payload is not stored as copies.  Looks at every
        row."""
        segments, nbytes = self._all(_OTHER_CODE, (code.m, striped, code.k))[0]
        return segments, nbytes

    def uuids(self) -> set[bytes]:
        """Of every row, sound or not."""
        return {bytes(row[0]) for row in self._all("SELECT uuid FROM segment")}

    def all_usage(self, batch: int = 512) -> list[Usage]:
        """Of every segment, in batches: no statement holds the log for long."""
        found: list[Usage] = []
        after = 0
        while rows := self.segments(after, batch):
            found += self.usage(after, batch)
            after = rows[-1].number
        return found


def read_usage(path: Path) -> list[Usage]:
    """Every sound row of the table at a path, ascending, over a connection of its own.  Blocking."""
    with UsageView(path) as view:
        return view.all_usage()


def _sealed_length(frames: bytes) -> int:
    return sum(struct.unpack(f">{len(frames) // 4}I", frames))
