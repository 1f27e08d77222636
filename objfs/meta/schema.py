"""The tables of the inode table, each explained where it is defined.

Owns the DDL and the schema's number (``PRAGMA user_version``).  Promises that the rules which no code path
may forget are kept by triggers: a row of a versioned table that is older than the present generation is
copied to its ``_old`` twin before it changes, and a chunk version that nothing names any more is deleted.
Knows no queries, and no former schema (``migrations``).

Generations. ``volume.generation`` counts from 1; a snapshot notes the present one, G, and raises it. A
row carries the generation it was ``born`` in. The first change of a row that the newest snapshot shows
(``born`` <= its G) copies it to the twin with ``died`` = generation; the row that stays is born now. So the
tree at the generation G of a snapshot is

    SELECT ... FROM inode     WHERE born <= G
    UNION ALL
    SELECT ... FROM inode_old WHERE born <= G AND died > G

and without a snapshot the twins stay empty.  The price is one comparison per change.  When a snapshot goes,
rows of the twins that no other shows are removed later: ``forgotten`` says that there may be some.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

import sqlite_utils

from objfs.errors import Corrupt, NewerFormat

APPLICATION_ID = 0x6F626A66
"""``objf``: tells file(1) and us what the database is."""
VERSION = 3
PAGE_SIZE = 2048
"""Bytes.  Half of SQLite's default: see docs/design/decisions/0007-pages-of-2-kib.md."""
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises over a damaged file; the second where it cannot even say what is wrong."""
LOCAL_TABLES = ("local_boot", "local_dirty", "local_freed")
"""What only this machine's cache directory gives a meaning; emptied after a recovery."""
WHOLE = -1
"""Sentinel of ``orphan.keep_from``: the inode itself goes, with all that it has."""

UNVERSIONED = """
-- The volume: one row.  next_* are high-water marks: every number below may have been used, none at or
-- above has.  They are raised in blocks, so that most allocations write nothing; numbers lost with a crash
-- stay lost.
CREATE TABLE volume (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    generation   INTEGER NOT NULL,       -- the present one, from 1
    uuid         BLOB    NOT NULL,       -- 16 random bytes
    chunk_size   INTEGER NOT NULL,       -- bytes, fixed for the volume's life
    created_s    INTEGER NOT NULL,
    created_ns   INTEGER NOT NULL,
    next_ino     INTEGER NOT NULL,
    next_chunk   INTEGER NOT NULL,
    next_segment INTEGER NOT NULL
);

-- Access times, apart because reading must not copy rows of a snapshot.  No row: the time of birth.
CREATE TABLE atime (
    ino INTEGER PRIMARY KEY,
    s   INTEGER NOT NULL,
    ns  INTEGER NOT NULL
);

-- Chunk versions.  Numbers ascend with time, so that files written together lie together here, and so
-- that 'older than' is a comparison.  refs counts the rows of map, map_old and chunk.base that name the
-- version; triggers keep it, and at 0 the row is deleted and its number goes to local_freed.
CREATE TABLE chunk (
    chunk       INTEGER PRIMARY KEY,
    ino         INTEGER NOT NULL,           -- the file that it was written for
    idx         INTEGER NOT NULL,           -- its place there, in chunks
    state       INTEGER NOT NULL,           -- model.ChunkState: 0 dirty, 1 stored
    base        INTEGER,                    -- dirty only: the version below; NULL: zeros
    base_size   INTEGER NOT NULL DEFAULT 0, -- how much of the base shows, in bytes
    refs        INTEGER NOT NULL DEFAULT 0,
    segment     INTEGER,                    -- from here on stored only: where it lies
    position    INTEGER,                    -- byte offset of its first frame in the segment's payload
    first_frame INTEGER,                    -- the number of that frame (the nonce)
    size        INTEGER,                    -- plain bytes
    frames      BLOB,                       -- sealed lengths, u32 big-endian each; NULL for one frame
    length      INTEGER,                    -- sealed length of that one frame; NULL for several
    identity    BLOB                        -- keyed BLAKE3 of the plain bytes; never indexed: an index over
                                            -- random values would dirty one page per chunk
);
CREATE INDEX chunk_segment ON chunk (segment) WHERE segment IS NOT NULL;
CREATE INDEX chunk_dirty ON chunk (chunk) WHERE state = 0;

-- Segments as placed in buckets.
CREATE TABLE segment (
    segment       INTEGER PRIMARY KEY,
    uuid          BLOB    NOT NULL,      -- its name in the buckets; random, so never indexed
    kind          INTEGER NOT NULL,      -- model.SegmentKind
    key_id        INTEGER NOT NULL,
    k             INTEGER NOT NULL,
    m             INTEGER NOT NULL,
    length        INTEGER NOT NULL,      -- payload bytes
    cuts          BLOB    NOT NULL,      -- k+1 payload offsets, u64 big-endian each
    placement     BLOB    NOT NULL,      -- bucket slot of each shard, one byte each
    missing       BLOB,                  -- shards that wait for repair, one byte each; NULL: none
    generation    INTEGER NOT NULL,      -- of the placement; has nothing to do with snapshots
    state         INTEGER NOT NULL,      -- 0 placed, 1 condemned
    condemned_seq INTEGER                -- the manifest that condemned it
);
CREATE INDEX segment_missing ON segment (segment) WHERE missing IS NOT NULL;

-- Work on inodes that is too long for one transaction.  keep_from -1: the inode has no name and is purged
-- when nobody uses it.  Else a truncate goes on: of its chunks those with idx >= keep_from and a
-- number under 'below' are gone for every reader already, and are removed piece by piece.
CREATE TABLE orphan (
    ino       INTEGER NOT NULL,
    keep_from INTEGER NOT NULL,
    below     INTEGER NOT NULL,
    PRIMARY KEY (ino, keep_from)
) WITHOUT ROWID;

-- Named moments: the tree as of ``generation``.
CREATE TABLE snapshot (
    name       BLOB    PRIMARY KEY,
    generation INTEGER NOT NULL,
    created_s  INTEGER NOT NULL,
    created_ns INTEGER NOT NULL,
    comment    TEXT    NOT NULL DEFAULT '',
    flags      INTEGER NOT NULL DEFAULT 0,  -- model.SnapshotFlag
    inodes     INTEGER NOT NULL DEFAULT 0,  -- how many the tree had
    bytes      INTEGER NOT NULL DEFAULT 0   -- the sum of their 'held'
) WITHOUT ROWID;
CREATE INDEX snapshot_generation ON snapshot (generation);

-- Generations of snapshots that are gone, while the twins may have rows that only those showed.
CREATE TABLE forgotten (generation INTEGER PRIMARY KEY);

-- Boots of this machine that rows of local_dirty speak of; a number is shorter than a boot id.
CREATE TABLE local_boot (
    number INTEGER PRIMARY KEY,
    boot   BLOB NOT NULL
);

-- Ranges of dirty versions in the order they were written.
CREATE TABLE local_dirty (
    chunk    INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    offset   INTEGER NOT NULL,
    length   INTEGER NOT NULL,
    boot     INTEGER NOT NULL,           -- local_boot.number
    synced   INTEGER NOT NULL,           -- 1: on the disk for certain
    checksum INTEGER,                    -- xxh3-64 as a signed number; NULL: not known
    data     BLOB,                       -- the bytes themselves where they ride in the log
    size_before INTEGER,                 -- the file's size before the write, where that made it grow
    PRIMARY KEY (chunk, seq)
) WITHOUT ROWID;

-- Versions whose rows are gone: the cache may drop their bytes.
CREATE TABLE local_freed (chunk INTEGER PRIMARY KEY);

-- Whoever names a version is counted.  A deletion cascades down the chain of bases.
CREATE TRIGGER chunk_insert AFTER INSERT ON chunk WHEN new.base IS NOT NULL BEGIN
    UPDATE chunk SET refs = refs + 1 WHERE chunk = new.base;
END;
CREATE TRIGGER chunk_rebase AFTER UPDATE OF base ON chunk WHEN old.base IS NOT new.base BEGIN
    UPDATE chunk SET refs = refs + 1 WHERE chunk = new.base;
    UPDATE chunk SET refs = refs - 1 WHERE chunk = old.base;
END;
CREATE TRIGGER chunk_unnamed AFTER UPDATE OF refs ON chunk WHEN new.refs <= 0 BEGIN
    DELETE FROM chunk WHERE chunk = new.chunk;
END;
CREATE TRIGGER chunk_delete AFTER DELETE ON chunk BEGIN
    DELETE FROM local_dirty WHERE chunk = old.chunk;
    INSERT INTO local_freed (chunk) VALUES (old.chunk);
    UPDATE chunk SET refs = refs - 1 WHERE chunk = old.base;
END;
CREATE TRIGGER segment_delete BEFORE DELETE ON segment
    WHEN EXISTS (SELECT 1 FROM chunk WHERE segment = old.segment) BEGIN
    SELECT raise(ABORT, 'a segment with chunks cannot be dropped');
END;
"""


STRAY = """
-- Copies of shards that were moved elsewhere and that older moments may still name.  No part of a new table:
-- the first move of a shard makes it, and a program that does not know it leaves the copies where they are.
CREATE TABLE stray (
    uuid     BLOB    NOT NULL,      -- of the segment
    shard    INTEGER NOT NULL,
    slot     INTEGER NOT NULL,      -- the bucket that it was moved away from
    since_ns INTEGER NOT NULL,      -- wall time of the move
    PRIMARY KEY (uuid, shard, slot)
) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A table whose older rows a snapshot must keep: columns as (name, declaration), key first."""

    name: str
    key: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    rowid: bool = False
    """Its rows and those of its twin are ordered by row number.  For wide rows: of the twin, which grows all
    over its key after a snapshot, only the narrow index is split then; see decisions/0013."""
    counted: str = ""
    """The column that names a chunk version and is counted in its refs."""


INODE = Versioned(
    "inode",
    (("ino", "INTEGER"),),
    (
        ("mode", "INTEGER NOT NULL"),  # type and permissions
        ("uid", "INTEGER NOT NULL"),
        ("gid", "INTEGER NOT NULL"),
        ("nlink", "INTEGER NOT NULL"),  # 0: an orphan
        ("rdev", "INTEGER NOT NULL"),  # the kernel's encoding
        ("size", "INTEGER NOT NULL"),  # bytes; 0 for directories
        ("held", "INTEGER NOT NULL DEFAULT 0"),  # bytes in the versions of its map: size without holes
        ("mtime_s", "INTEGER NOT NULL"),  # seconds since 1970, rounded down: 1901 to 2400 and beyond
        ("mtime_ns", "INTEGER NOT NULL"),  # 0 to 999,999,999
        ("ctime_s", "INTEGER NOT NULL"),
        ("ctime_ns", "INTEGER NOT NULL"),
        ("btime_s", "INTEGER NOT NULL"),
        ("btime_ns", "INTEGER NOT NULL"),
        ("flags", "INTEGER NOT NULL DEFAULT 0"),  # reserved: immutable, append only
        ("project", "INTEGER NOT NULL DEFAULT 0"),  # reserved: project quotas
        ("policy", "INTEGER NOT NULL DEFAULT 0"),  # reserved: 0 inherits the directory's
        (
            "parent",
            "INTEGER NOT NULL DEFAULT 0",
        ),  # a directory's one directory (the root's is itself), else 0
        ("next_cookie", "INTEGER NOT NULL DEFAULT 0"),  # a directory's next entry offset, from 3; else 0
        ("target", "BLOB"),  # a symlink's content, else NULL
    ),
    rowid=True,
)
ENTRY = Versioned(
    "entry",
    (("parent", "INTEGER"), ("name", "BLOB")),
    (("ino", "INTEGER NOT NULL"), ("cookie", "INTEGER NOT NULL")),
)
XATTR = Versioned("xattr", (("ino", "INTEGER"), ("name", "BLOB")), (("value", "BLOB NOT NULL"),))
MAP = Versioned(
    "map",
    (("ino", "INTEGER"), ("idx", "INTEGER")),
    (("chunk", "INTEGER NOT NULL"),),
    counted="chunk",
)
VERSIONED = (INODE, ENTRY, XATTR, MAP)
_NOW = "(SELECT generation FROM volume)"
# Directory offsets of what was copied aside: the order of readdir in a moment, without a look at the rows
# that it does not show.
OLD_COOKIES = "CREATE INDEX entry_old_cookie ON entry_old (parent, cookie, born, died)"
_SHOWN = "old.born <= (SELECT max(generation) FROM snapshot)"
"""Whether a snapshot shows the row that changes: if any does, the newest does."""


def table_statements(table: Versioned) -> Iterator[str]:
    """The table, its twin, and the index of the twin."""
    columns = [f"{name} {kind} NOT NULL" for name, kind in table.key]
    columns += [f"{name} {kind}" for name, kind in table.columns] + ["born INTEGER NOT NULL"]
    key = ", ".join(name for name, _ in table.key)
    rowid = "" if table.rowid else " WITHOUT ROWID"
    yield f"CREATE TABLE {table.name} ({', '.join(columns)}, PRIMARY KEY ({key})){rowid}"
    columns.append("died INTEGER NOT NULL")
    yield f"CREATE TABLE {table.name}_old ({', '.join(columns)}, PRIMARY KEY ({key}, born)){rowid}"
    yield died_index(table)


def died_index(table: Versioned) -> str:
    """Finds what a snapshot that goes was the last to show."""
    return f"CREATE INDEX {table.name}_old_died ON {table.name}_old (died, born)"


def trigger_statements(table: Versioned) -> Iterator[str]:
    """What keeps the twin, and counts who names a version."""
    name, keys = table.name, [key for key, _ in table.key]
    values = keys + [column for column, _ in table.columns]
    same = " AND ".join(f"{key} = new.{key}" for key in keys)
    old = ", ".join(f"old.{value}" for value in values)
    # A SELECT with WHERE instead of WHEN: copying and counting must happen in this order, in one trigger.
    copy = (
        f"INSERT OR IGNORE INTO {name}_old ({', '.join(values)}, born, died) "
        f"SELECT {old}, old.born, generation FROM volume WHERE {_SHOWN};"
    )
    yield (
        f"CREATE TRIGGER {name}_insert BEFORE INSERT ON {name} WHEN new.born IS NOT {_NOW} BEGIN "
        f"SELECT raise(ABORT, 'a row of {name} must be born in the present generation'); END"
    )
    yield (
        f"CREATE TRIGGER {name}_born BEFORE UPDATE OF born ON {name} WHEN new.born IS NOT {_NOW} BEGIN "
        f"SELECT raise(ABORT, 'a row of {name} can only be reborn in the present generation'); END"
    )
    # WHEN keeps the usual case, a row that no snapshot shows, free of any work.
    reborn = f"UPDATE {name} SET born = {_NOW} WHERE {same};"
    changed = f"AFTER UPDATE OF {', '.join(values)} ON {name}"
    if not table.counted:
        yield f"CREATE TRIGGER {name}_update {changed} WHEN {_SHOWN} BEGIN {copy} {reborn} END"
        yield f"CREATE TRIGGER {name}_delete AFTER DELETE ON {name} WHEN {_SHOWN} BEGIN {copy} END"
        return
    # The copy names the version before the living row lets go of it, so one trigger does all three.
    up, down = _counting(table)
    yield f"CREATE TRIGGER {name}_update {changed} WHEN {_SHOWN} BEGIN {reborn} END"
    yield f"CREATE TRIGGER {name}_count_insert AFTER INSERT ON {name} BEGIN {up} END"
    yield f"CREATE TRIGGER {name}_count_update {changed} BEGIN {up} {copy} {down} END"
    yield f"CREATE TRIGGER {name}_delete AFTER DELETE ON {name} BEGIN {copy} {down} END"
    yield f"CREATE TRIGGER {name}_old_count_insert AFTER INSERT ON {name}_old BEGIN {up} END"
    yield f"CREATE TRIGGER {name}_old_count_delete AFTER DELETE ON {name}_old BEGIN {down} END"


def _counting(table: Versioned) -> tuple[str, str]:
    """One up for what the new row names, one down for what the old one named."""
    column = table.counted
    return (
        f"UPDATE chunk SET refs = refs + 1 WHERE chunk = new.{column};",
        f"UPDATE chunk SET refs = refs - 1 WHERE chunk = old.{column};",
    )


def statements() -> list[str]:
    """The whole schema of version ``VERSION``, but for the text of ``UNVERSIONED``."""
    found: list[str] = []
    for table in VERSIONED:
        found += table_statements(table)
    # Directory offsets: unique, and the order of readdir.
    found.append("CREATE UNIQUE INDEX entry_cookie ON entry (parent, cookie)")
    found.append(OLD_COOKIES)
    for table in VERSIONED:
        found += trigger_statements(table)
    return found


def create(connection: sqlite3.Connection) -> None:
    """Makes the schema in an empty database.  ``connection`` is in autocommit mode."""
    connection.executescript("BEGIN;" + UNVERSIONED + ";\n".join(statements()) + ";")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def check_version(connection: sqlite3.Connection) -> int:
    """The schema's number.  Raises Corrupt for a foreign database, NewerFormat for one of a newer objfs."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID or version < 1:
        raise Corrupt("this database is not an inode table; run objfs fsck --repair")
    if version > VERSION:
        raise NewerFormat(
            f"the inode table has schema {version}, this objfs knows {VERSION}: use a newer objfs"
        )
    return version


def row_counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Rows of each table, for people; reads every table."""
    return {table.name: table.count for table in sqlite_utils.Database(connection).tables}
