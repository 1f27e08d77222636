"""Equal chunks are stored once, as far as memory reaches.

Owns a bounded index of recent identities.  Promises to refer only to versions that the table still
shows as STORED with that identity, in a segment that is still there: an index that is
wrong, old or lost costs space and never a byte.
"""

from __future__ import annotations

from cachetools import LRUCache

from objfs.errors import ObjfsError
from objfs.model import ChunkId, Location, Segment
from objfs.ports import ChunkTable


class DedupIndex:
    """Recent identity -> the version that holds it."""

    def __init__(self, entries: int, table: ChunkTable) -> None:
        self._table = table
        self._recent: LRUCache[bytes, ChunkId] | None = LRUCache(entries) if entries else None

    def note(self, identity: bytes, chunk: ChunkId) -> None:
        if self._recent is not None:
            self._recent[identity] = chunk

    def forget(self, identity: bytes) -> None:
        if self._recent is not None:
            self._recent.pop(identity, None)

    def find(self, identity: bytes) -> tuple[Location, Segment] | None:
        """Where equal bytes lie, verified against the table in this very step."""
        chunk = self._recent.get(identity) if self._recent is not None else None
        if chunk is None:
            return None
        row = self._table.chunk(chunk)
        if row is not None and row.location is not None and row.location.identity == identity:
            try:
                return row.location, self._table.segment(row.location.segment)
            except ObjfsError:
                pass  # condemned or gone: as good as never seen
        self.forget(identity)
        return None
