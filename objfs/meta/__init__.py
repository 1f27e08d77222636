"""The inode table: everything that is known about a volume, in one SQLite database.

``MetaDatabase`` is the table, ``PageLog`` says which of its pages changed since the last checkpoint,
``Replica`` is its image as last published, ``PageSet`` the pages that go from one to the other;
``SnapshotTable`` is the tree of a named moment, ``MomentsTable`` the directory of all of them.
"""

from objfs.meta.database import WAL_SOFT_LIMIT, settle
from objfs.meta.moments import Moment, MomentsTable
from objfs.meta.pages import PageSet
from objfs.meta.replica import Replica
from objfs.meta.schema import PAGE_SIZE
from objfs.meta.schema import VERSION as SCHEMA_VERSION
from objfs.meta.snapshot_view import SnapshotTable
from objfs.meta.table import MetaDatabase, MetaStatistics, new_root
from objfs.meta.wal import Backfilled, PageLog

__all__ = [
    "PAGE_SIZE",
    "SCHEMA_VERSION",
    "WAL_SOFT_LIMIT",
    "Backfilled",
    "MetaDatabase",
    "MetaStatistics",
    "Moment",
    "MomentsTable",
    "PageLog",
    "PageSet",
    "Replica",
    "SnapshotTable",
    "new_root",
    "settle",
]
