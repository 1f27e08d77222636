-- The schema of number 2: copies of inodes lie in the order of their numbers.
PRAGMA application_id = 1868720742;
PRAGMA user_version = 2;
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
CREATE TABLE atime (
    ino INTEGER PRIMARY KEY,
    s   INTEGER NOT NULL,
    ns  INTEGER NOT NULL
);
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
CREATE TABLE orphan (
    ino       INTEGER NOT NULL,
    keep_from INTEGER NOT NULL,
    below     INTEGER NOT NULL,
    PRIMARY KEY (ino, keep_from)
) WITHOUT ROWID;
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
CREATE TABLE forgotten (generation INTEGER PRIMARY KEY);
CREATE TABLE local_boot (
    number INTEGER PRIMARY KEY,
    boot   BLOB NOT NULL
);
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
CREATE TABLE local_freed (chunk INTEGER PRIMARY KEY);
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
CREATE TABLE inode (ino INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, nlink INTEGER NOT NULL, rdev INTEGER NOT NULL, size INTEGER NOT NULL, held INTEGER NOT NULL DEFAULT 0, mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_s INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, btime_s INTEGER NOT NULL, btime_ns INTEGER NOT NULL, flags INTEGER NOT NULL DEFAULT 0, project INTEGER NOT NULL DEFAULT 0, policy INTEGER NOT NULL DEFAULT 0, parent INTEGER NOT NULL DEFAULT 0, next_cookie INTEGER NOT NULL DEFAULT 0, target BLOB, born INTEGER NOT NULL, PRIMARY KEY (ino));
CREATE TABLE inode_old (ino INTEGER NOT NULL, mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, nlink INTEGER NOT NULL, rdev INTEGER NOT NULL, size INTEGER NOT NULL, held INTEGER NOT NULL DEFAULT 0, mtime_s INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_s INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, btime_s INTEGER NOT NULL, btime_ns INTEGER NOT NULL, flags INTEGER NOT NULL DEFAULT 0, project INTEGER NOT NULL DEFAULT 0, policy INTEGER NOT NULL DEFAULT 0, parent INTEGER NOT NULL DEFAULT 0, next_cookie INTEGER NOT NULL DEFAULT 0, target BLOB, born INTEGER NOT NULL, died INTEGER NOT NULL, PRIMARY KEY (ino, born)) WITHOUT ROWID;
CREATE INDEX inode_old_died ON inode_old (died, born);
CREATE TABLE entry (parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, cookie INTEGER NOT NULL, born INTEGER NOT NULL, PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TABLE entry_old (parent INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, cookie INTEGER NOT NULL, born INTEGER NOT NULL, died INTEGER NOT NULL, PRIMARY KEY (parent, name, born)) WITHOUT ROWID;
CREATE INDEX entry_old_died ON entry_old (died, born);
CREATE TABLE xattr (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, born INTEGER NOT NULL, PRIMARY KEY (ino, name)) WITHOUT ROWID;
CREATE TABLE xattr_old (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, born INTEGER NOT NULL, died INTEGER NOT NULL, PRIMARY KEY (ino, name, born)) WITHOUT ROWID;
CREATE INDEX xattr_old_died ON xattr_old (died, born);
CREATE TABLE map (ino INTEGER NOT NULL, idx INTEGER NOT NULL, chunk INTEGER NOT NULL, born INTEGER NOT NULL, PRIMARY KEY (ino, idx)) WITHOUT ROWID;
CREATE TABLE map_old (ino INTEGER NOT NULL, idx INTEGER NOT NULL, chunk INTEGER NOT NULL, born INTEGER NOT NULL, died INTEGER NOT NULL, PRIMARY KEY (ino, idx, born)) WITHOUT ROWID;
CREATE INDEX map_old_died ON map_old (died, born);
CREATE UNIQUE INDEX entry_cookie ON entry (parent, cookie);
CREATE INDEX entry_old_cookie ON entry_old (parent, cookie, born, died);
CREATE TRIGGER inode_insert BEFORE INSERT ON inode WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of inode must be born in the present generation'); END;
CREATE TRIGGER inode_born BEFORE UPDATE OF born ON inode WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of inode can only be reborn in the present generation'); END;
CREATE TRIGGER inode_update AFTER UPDATE OF ino, mode, uid, gid, nlink, rdev, size, held, mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns, flags, project, policy, parent, next_cookie, target ON inode WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN INSERT OR IGNORE INTO inode_old (ino, mode, uid, gid, nlink, rdev, size, held, mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns, flags, project, policy, parent, next_cookie, target, born, died) SELECT old.ino, old.mode, old.uid, old.gid, old.nlink, old.rdev, old.size, old.held, old.mtime_s, old.mtime_ns, old.ctime_s, old.ctime_ns, old.btime_s, old.btime_ns, old.flags, old.project, old.policy, old.parent, old.next_cookie, old.target, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); UPDATE inode SET born = (SELECT generation FROM volume) WHERE ino = new.ino; END;
CREATE TRIGGER inode_delete AFTER DELETE ON inode WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN INSERT OR IGNORE INTO inode_old (ino, mode, uid, gid, nlink, rdev, size, held, mtime_s, mtime_ns, ctime_s, ctime_ns, btime_s, btime_ns, flags, project, policy, parent, next_cookie, target, born, died) SELECT old.ino, old.mode, old.uid, old.gid, old.nlink, old.rdev, old.size, old.held, old.mtime_s, old.mtime_ns, old.ctime_s, old.ctime_ns, old.btime_s, old.btime_ns, old.flags, old.project, old.policy, old.parent, old.next_cookie, old.target, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); END;
CREATE TRIGGER entry_insert BEFORE INSERT ON entry WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of entry must be born in the present generation'); END;
CREATE TRIGGER entry_born BEFORE UPDATE OF born ON entry WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of entry can only be reborn in the present generation'); END;
CREATE TRIGGER entry_update AFTER UPDATE OF parent, name, ino, cookie ON entry WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN INSERT OR IGNORE INTO entry_old (parent, name, ino, cookie, born, died) SELECT old.parent, old.name, old.ino, old.cookie, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); UPDATE entry SET born = (SELECT generation FROM volume) WHERE parent = new.parent AND name = new.name; END;
CREATE TRIGGER entry_delete AFTER DELETE ON entry WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN INSERT OR IGNORE INTO entry_old (parent, name, ino, cookie, born, died) SELECT old.parent, old.name, old.ino, old.cookie, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); END;
CREATE TRIGGER xattr_insert BEFORE INSERT ON xattr WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of xattr must be born in the present generation'); END;
CREATE TRIGGER xattr_born BEFORE UPDATE OF born ON xattr WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of xattr can only be reborn in the present generation'); END;
CREATE TRIGGER xattr_update AFTER UPDATE OF ino, name, value ON xattr WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN INSERT OR IGNORE INTO xattr_old (ino, name, value, born, died) SELECT old.ino, old.name, old.value, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); UPDATE xattr SET born = (SELECT generation FROM volume) WHERE ino = new.ino AND name = new.name; END;
CREATE TRIGGER xattr_delete AFTER DELETE ON xattr WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN INSERT OR IGNORE INTO xattr_old (ino, name, value, born, died) SELECT old.ino, old.name, old.value, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); END;
CREATE TRIGGER map_insert BEFORE INSERT ON map WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of map must be born in the present generation'); END;
CREATE TRIGGER map_born BEFORE UPDATE OF born ON map WHEN new.born IS NOT (SELECT generation FROM volume) BEGIN SELECT raise(ABORT, 'a row of map can only be reborn in the present generation'); END;
CREATE TRIGGER map_update AFTER UPDATE OF ino, idx, chunk ON map WHEN old.born <= (SELECT max(generation) FROM snapshot) BEGIN UPDATE map SET born = (SELECT generation FROM volume) WHERE ino = new.ino AND idx = new.idx; END;
CREATE TRIGGER map_count_insert AFTER INSERT ON map BEGIN UPDATE chunk SET refs = refs + 1 WHERE chunk = new.chunk; END;
CREATE TRIGGER map_count_update AFTER UPDATE OF ino, idx, chunk ON map BEGIN UPDATE chunk SET refs = refs + 1 WHERE chunk = new.chunk; INSERT OR IGNORE INTO map_old (ino, idx, chunk, born, died) SELECT old.ino, old.idx, old.chunk, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); UPDATE chunk SET refs = refs - 1 WHERE chunk = old.chunk; END;
CREATE TRIGGER map_delete AFTER DELETE ON map BEGIN INSERT OR IGNORE INTO map_old (ino, idx, chunk, born, died) SELECT old.ino, old.idx, old.chunk, old.born, generation FROM volume WHERE old.born <= (SELECT max(generation) FROM snapshot); UPDATE chunk SET refs = refs - 1 WHERE chunk = old.chunk; END;
CREATE TRIGGER map_old_count_insert AFTER INSERT ON map_old BEGIN UPDATE chunk SET refs = refs + 1 WHERE chunk = new.chunk; END;
CREATE TRIGGER map_old_count_delete AFTER DELETE ON map_old BEGIN UPDATE chunk SET refs = refs - 1 WHERE chunk = old.chunk; END;
