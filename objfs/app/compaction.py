"""Compaction in a running mount: when it makes way, and when nothing must be rewritten.

Owns the reasons for waiting.  Knows nothing of how segments are chosen or rewritten.
"""

from __future__ import annotations

from collections.abc import Callable

from objfs.cache import ChunkCache
from objfs.model import Slot
from objfs.ports import Clock
from objfs.volume.compact import Compactor, Surroundings, Terms
from objfs.volume.guard import GuardedBucket
from objfs.volume.open import OpenVolume
from objfs.volume.reaper import Reaper
from objfs.volume.settings import VolumeSettings


def make_compactor(
    volume: OpenVolume, cache: ChunkCache, reaper: Reaper, settings: VolumeSettings, clock: Clock
) -> Compactor:
    """The one of a mount that writes."""
    around = Surroundings(
        volume.meta, volume.store, reaper, volume.gate, clock, busy(cache), lambda: away(volume)
    )
    return Compactor(around, terms_of(volume, settings))


def terms_of(volume: OpenVolume, settings: VolumeSettings) -> Terms:
    """By which rules this volume's segments are rewritten."""
    return Terms(
        settings.compact_below,
        volume.ring.current.key_id,
        volume.store.target_bytes,
        float(settings.compact_rate),
    )


def busy(cache: ChunkCache) -> Callable[[], bool]:
    """Whether programs wait, or segments of theirs are on their way."""

    def look() -> bool:
        seen = cache.statistics()
        return bool(seen.uploading or seen.waiting_writers)

    return look


def away(volume: OpenVolume) -> str:
    """Which buckets for data do not answer; empty where all do.  What is written without them has less
    redundancy than what it would replace."""
    silent = [
        volume.buckets.name(entry.slot)
        for entry in volume.buckets.entries
        if entry.shards and not _answers(volume, entry.slot)
    ]
    return f"{' and '.join(silent)} must answer first" if silent else ""


def _answers(volume: OpenVolume, slot: Slot) -> bool:
    bucket = volume.buckets.buckets.get(slot)
    if bucket is None or (isinstance(bucket, GuardedBucket) and not bucket.identified):
        return False
    return not volume.store.health.down(slot)
