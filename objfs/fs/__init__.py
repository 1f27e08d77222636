"""POSIX meaning: names, bytes and handles over the inode table and the chunk cache."""

from objfs.fs.filesystem import FileSystem
from objfs.fs.handles import Handle
from objfs.fs.ports import (
    OPERATION,
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
    "OPERATION",
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
