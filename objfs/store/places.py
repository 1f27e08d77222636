"""The buckets of a volume by slot, as they stand now.

Owns which of them may be given new shards.  Promises that replacing the set (a bucket added,
removed or drained while mounted) holds for every request begun after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from objfs.backends.base import Bucket
from objfs.model import Slot
from objfs.store.placement import Domains


class Places:
    """Slot to bucket; a slot that is not here cannot be asked."""

    def __init__(self, buckets: Mapping[Slot, Bucket], writable: Collection[Slot] | None = None) -> None:
        self.replace(buckets, writable)

    def replace(
        self,
        buckets: Mapping[Slot, Bucket],
        writable: Collection[Slot] | None = None,
        domains: Domains | None = None,
    ) -> None:
        """New shards go to ``writable`` slots only (default: to all); reads and deletes to all."""
        self._buckets = dict(buckets)
        self.domains = dict(domains or {})
        self.writable = frozenset(self._buckets if writable is None else writable) & self._buckets.keys()

    def bucket(self, slot: Slot) -> Bucket | None:
        """None where the volume names a slot that this machine has no bucket for."""
        return self._buckets.get(slot)

    def url(self, slot: Slot) -> str:
        """What to call the bucket of a slot in messages; holds no secret."""
        bucket = self._buckets.get(slot)
        return bucket.url if bucket is not None else f"slot-{slot}-not-attached"

    def items(self) -> list[tuple[Slot, Bucket]]:
        """All of them, by slot."""
        return sorted(self._buckets.items())
