"""The local write-back cache between programs and buckets.

``ChunkCache`` is the whole of it for other packages; ``GroupSync`` makes the inode table's log
durable for everybody who waits.  Imports only ``model`` and ``errors``.
"""

from objfs.cache.cache import ChunkCache
from objfs.cache.cut import Cut, CutResult
from objfs.cache.durability import GroupSync
from objfs.cache.loss import Loss
from objfs.cache.offline import CacheDirectory, Held
from objfs.cache.recovery import RecoveryReport, boot_id
from objfs.cache.settings import CacheSettings, CacheStatistics

__all__ = [
    "CacheDirectory",
    "CacheSettings",
    "CacheStatistics",
    "ChunkCache",
    "Cut",
    "CutResult",
    "GroupSync",
    "Held",
    "Loss",
    "RecoveryReport",
    "boot_id",
]
