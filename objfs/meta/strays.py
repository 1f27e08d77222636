"""Moves of shards, and the copies that they leave behind.

Owns the table ``stray`` and the change of a segment's placement.  Promises that a placement is changed only
where the row still says what the mover saw, and that the copy which no row names any more is noted in the
same transaction.  The table is made by the first move of a volume.  Knows no bucket: when a stray may be
deleted is for ``volume`` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from objfs.meta import schema
from objfs.meta.database import Database
from objfs.meta.segments import SEGMENT_COLUMNS, Segments, to_segment
from objfs.model import Segment, SegmentNo, Slot, Stray

_COLUMNS = "uuid, shard, slot, since_ns"
_PLACE = "uuid = ? AND shard = ? AND slot = ?"
_ONE = f"{_PLACE} AND since_ns = ?"


class Strays:
    """Rows of copies that wait to be deleted."""

    def __init__(self, database: Database, segments: Segments) -> None:
        self._db = database
        self._segments = segments
        self._made = False
        self._fresh: list[Stray] = []

    def move(self, number: SegmentNo, before: Segment, after: Segment, now_ns: int) -> list[Stray] | None:
        """Changes the row from ``before`` to ``after``; what lies at former places is a stray from now on.

        Returns the strays; None, and nothing is changed, where the row is gone or another by now.
        """
        with self._db:
            row = self._db.one(f"SELECT {SEGMENT_COLUMNS} FROM segment WHERE segment = ?", (number,))
            if row is None or to_segment(row) != before:
                return None
            self._segments.update(number, after)
            left = left_behind(before, after, now_ns)
            self.note(left)
            for shard, slot in enumerate(after.placement):
                self._db.run(f"DELETE FROM stray WHERE {_PLACE}", (after.uuid, shard, slot))
            return left

    def note(self, strays: Iterable[Stray]) -> None:
        """Copies that nothing of this moment names; noting one twice is harmless."""
        with self._db:
            if not self._there():
                self._db.run(schema.STRAY)
                self._made = True
            noted = list(strays)
            for stray in noted:
                self._db.run(f"INSERT OR IGNORE INTO stray ({_COLUMNS}) VALUES (?, ?, ?, ?)", stray)
            self._fresh += noted

    def listed(self) -> list[Stray]:
        """All, oldest first."""
        if not self._there():
            return []
        rows = self._db.all(f"SELECT {_COLUMNS} FROM stray ORDER BY since_ns, uuid, shard, slot")
        return [Stray(uuid, shard, Slot(slot), since_ns) for uuid, shard, slot, since_ns in rows]

    def fresh(self) -> list[Stray]:
        """Those noted since the call before."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def has(self, stray: Stray) -> bool:
        """Whether it still is one, and has been since then."""
        sql = f"SELECT 1 FROM stray WHERE {_ONE}"
        return self._there() and self._db.one(sql, stray) is not None

    def forget(self, strays: Sequence[Stray]) -> None:
        """They are deleted."""
        if not self._there():
            return
        with self._db:
            for stray in strays:
                self._db.run(f"DELETE FROM stray WHERE {_ONE}", stray)

    def forget_slot(self, slot: Slot) -> None:
        """The bucket is none of the volume's any more, and what lies there is not ours to delete."""
        if self._there():
            self._db.run("DELETE FROM stray WHERE slot = ?", (slot,))

    def _there(self) -> bool:
        if not self._made:
            sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'stray'"
            return self._db.one(sql) is not None
        return True


def left_behind(before: Segment, after: Segment, now_ns: int) -> list[Stray]:
    """The copies at places that ``after`` does not name."""
    return [
        Stray(before.uuid, shard, old, now_ns)
        for shard, (old, new) in enumerate(zip(before.placement, after.placement, strict=True))
        if old != new
    ]
