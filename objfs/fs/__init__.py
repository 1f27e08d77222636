"""POSIX meaning: names, bytes and handles over the inode table and the chunk cache."""

from objfs.fs.filesystem import FileSystem
from objfs.fs.handles import Handle
from objfs.fs.ports import (
    AtimeRule,
    Barrier,
    Caller,
    Capacity,
    ChunkCachePort,
    FileSystemStats,
    FsSettings,
    Tables,
)

__all__ = [
    "AtimeRule",
    "Barrier",
    "Caller",
    "Capacity",
    "ChunkCachePort",
    "FileSystem",
    "FileSystemStats",
    "FsSettings",
    "Handle",
    "Tables",
]
