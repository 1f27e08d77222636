"""What can be set about the cache, and what it reports about itself.

Owns the documented defaults.  Knows nothing of how they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from objfs.errors import BadSetting

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Sizes in bytes, times in seconds.  Raises BadSetting where a value makes no sense."""

    cache_bytes: int = 10 * GIB
    """The most that versions' files, segments in flight and the caller's ``extra`` may hold together."""
    max_entries: int = 100_000
    """The most versions known in memory (each about 600 bytes)."""
    reserve_bytes: int = 1 * GIB
    """Free space of the host's file system that the cache never uses up; 0 switches the check off."""
    full_timeout_s: float | None = None
    """How long a writer waits, since it or anybody before it was let in, until it gets NoSpace; None: as
    long as it takes."""
    writeback_bytes: int = 512 * MIB
    """Dirty bytes above which uploading starts without waiting for age or a cut; a quarter of
    ``cache_bytes`` where that is less.  A burst below it does not share the machine with its upload."""
    dirty_age_s: float = 30.0
    """Age at which a dirty chunk is uploaded in any case."""
    segment_bytes: int = 8 * MIB
    """Plain bytes that make a segment worth its requests."""
    segment_chunks: int = 8192
    """The most chunks in one segment (the format's limit)."""
    uploads: int = 2
    """Segments on their way at the same time."""
    retry_first_s: float = 1.0
    """Wait after the first failed upload; it doubles with each failure, with jitter."""
    retry_most_s: float = 60.0
    """The longest wait between two tries."""
    sync_interval_s: float = 3.0
    """How often written data are made durable without being asked; at most 5 s can be lost."""
    inline_limit: int = 64 * 1024
    """An fsync of at most this many bytes rides in the log of the inode table."""
    inline_total: int = 16 * MIB
    """The most bytes riding in the log at once; beyond it they move to their files."""
    open_files: int = 1024
    """Files of versions kept open."""
    readahead_bytes: int = 8 * MIB
    """The largest window that sequential reading fetches ahead; 0 switches it off."""
    dedup_entries: int = 100_000
    """Recent identities remembered to find equal chunks; 0 switches deduplication off."""

    @property
    def upload_above(self) -> int:
        """Dirty bytes that start uploading."""
        return min(self.writeback_bytes, self.cache_bytes // 4)

    def __post_init__(self) -> None:
        positive = ("cache_bytes", "max_entries", "segment_bytes", "segment_chunks", "uploads", "open_files")
        for name in positive:
            if getattr(self, name) < 1:
                raise BadSetting(f"cache setting {name} is {getattr(self, name)}: it must be at least 1")
        if not 0 < self.sync_interval_s <= 5:
            raise BadSetting(f"cache setting sync_interval_s is {self.sync_interval_s}: over 0, at most 5")
        if self.segment_chunks > 8192:
            raise BadSetting(f"cache setting segment_chunks is {self.segment_chunks}: at most 8192")


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """The cache at one instant; sizes in bytes, ages in seconds."""

    cached_bytes: int
    dirty_bytes: int
    dirty_chunks: int
    oldest_dirty_age_s: float
    entries: int
    hits: int
    misses: int
    uploading: int
    """Bytes in segments on their way."""
    waiting_writers: int
    inline_bytes: int
    upload_failures: int
    """Failures in a row; 0 when the last upload went well."""
    last_error: str | None
