"""Mending the block map: what brings back each rule of ``audit_map``, under the same name.

Promises that a version which says where its bytes are is not removed: what no file names lies in
``lost+found`` afterwards.  Where a version is gone or some of its bytes are, the file's chunk becomes one
that reads as an error, and what there still is of it is kept in ``lost+found`` at its place.  What the
segments themselves tell of versions and places has been brought in before (``Repairs.restore_version``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from objfs.meta import held as held_bytes
from objfs.meta.database import Database, Row
from objfs.meta.held import LENGTH
from objfs.meta.lostfound import LostFound, Mender, Repaired
from objfs.meta.rule import BEYOND, MALFORMED_SEGMENT, UNSOUND_LOCATION
from objfs.model import ChunkId, Ino

_NO_PLACE = (
    "segment = NULL, position = NULL, first_frame = NULL, size = NULL, frames = NULL, length = NULL, "
    "identity = NULL"
)
_BASELESS = (
    "SELECT c.chunk, c.base, c.base_size FROM chunk c WHERE c.base IS NOT NULL AND c.state = 0 "
    "AND NOT EXISTS (SELECT 1 FROM chunk b WHERE b.chunk = c.base)"
)
_HAS_RANGES = "EXISTS (SELECT 1 FROM local_dirty d WHERE d.chunk = c.chunk)"


def dirty(aside: LostFound) -> Iterator[Repaired]:
    """Ranges of a version that has no row give it one; those of a stored one go."""
    database = aside.database
    for chunk, ino, idx in database.all(
        "SELECT DISTINCT d.chunk, m.ino, m.idx FROM local_dirty d LEFT JOIN map m ON m.chunk = d.chunk "
        "WHERE NOT EXISTS (SELECT 1 FROM chunk c WHERE c.chunk = d.chunk) GROUP BY d.chunk"
    ):
        database.run(
            "INSERT INTO chunk (chunk, ino, idx, state, refs) VALUES (?, ?, ?, 0, 1)",
            (chunk, ino or 0, idx or 0),
        )
        yield Repaired("dirty", f"chunk {chunk} has its row again: it was written here and not uploaded")
        if ino is not None and not _covers(database, chunk, _expected(database, Ino(ino), idx)):
            yield from split(aside, "dirty", ChunkId(chunk))
    gone = database.run(
        f"DELETE FROM local_dirty WHERE chunk IN (SELECT c.chunk FROM chunk c WHERE c.state <> 0 "
        f"AND NOT {UNSOUND_LOCATION})"
    )
    if gone:
        yield Repaired("dirty", f"{gone} rows that spoke of what is stored or gone are removed")


def _expected(database: Database, ino: Ino, index: int) -> int:
    """How many bytes the chunk at a place has, by the size of its file."""
    row = database.one("SELECT size FROM inode WHERE ino = ?", (ino,))
    rest = (0 if row is None else int(row[0])) - index * database.chunk_size
    return min(max(rest, 0), database.chunk_size)


def _covers(database: Database, chunk: int, length: int) -> bool:
    """Whether a version's own ranges hold all of its first ``length`` bytes."""
    at = 0
    for offset, size in database.all(
        "SELECT offset, length FROM local_dirty WHERE chunk = ? ORDER BY offset", (chunk,)
    ):
        if offset > at:
            break
        at = max(at, offset + size)
    return at >= length


def keep_beneath(aside: LostFound, rule: str, chunk: ChunkId) -> Iterator[Repaired]:
    """What lies under a version that is about to be split, and that nothing else names, is kept as it was."""
    row = aside.database.one(
        "SELECT c.ino, c.idx, c.base FROM chunk c JOIN chunk b ON b.chunk = c.base "
        "WHERE c.chunk = ? AND b.refs = 1",
        (chunk,),
    )
    if row is not None:
        where = aside.keep(Ino(row[0]), row[1], ChunkId(row[2]))
        yield Repaired(rule, f"chunk {row[2]}, over which chunk {chunk} lay, is kept as it was in {where}")


def split(aside: LostFound, rule: str, chunk: ChunkId) -> Iterator[Repaired]:
    """Some bytes of a version are lost: what it holds itself goes to ``lost+found``, and wherever it was
    used reading is an error.  So it is with versions over it that need bytes of it."""
    database = aside.database
    row = database.one("SELECT ino, idx FROM chunk WHERE chunk = ?", (chunk,))
    assert row is not None
    where = _lose_everywhere(aside, chunk)
    database.run("UPDATE chunk SET base = NULL, base_size = 0 WHERE chunk = ?", (chunk,))
    left = "nothing is left"
    if aside.length_of(chunk):
        left = f"what is left is in {aside.keep(Ino(row[0]), row[1], chunk)}"
    yield Repaired(rule, f"chunk {chunk}, {where}: bytes of it are lost; {left}", lost=True)
    yield from _split_above(aside, rule, chunk)
    if not aside.length_of(chunk):
        database.run("DELETE FROM chunk WHERE chunk = ?", (chunk,))


def _split_above(aside: LostFound, rule: str, chunk: ChunkId) -> Iterator[Repaired]:
    """Versions over one that lost bytes: those that cover it need it not."""
    database = aside.database
    for above, size in database.all("SELECT chunk, base_size FROM chunk WHERE base = ?", (chunk,)):
        if _covers(database, above, size):
            database.run("UPDATE chunk SET base = NULL, base_size = 0 WHERE chunk = ?", (above,))
        else:
            yield from split(aside, rule, ChunkId(above))


def _lose_everywhere(aside: LostFound, chunk: ChunkId) -> str:
    """Every place that names a version names a lost one; says which places these are."""
    database = aside.database
    # Nobody may be the last to let it go before it has a place in lost+found.
    database.run("UPDATE chunk SET refs = refs + 1 WHERE chunk = ?", (chunk,))
    live = database.all("SELECT ino, idx FROM map WHERE chunk = ?", (chunk,))
    for ino, idx in live:
        aside.lose(Ino(ino), idx)
    old = database.all("SELECT ino, idx, born FROM map_old WHERE chunk = ?", (chunk,))
    for ino, idx, born in old:
        lost = aside.lost_version(Ino(ino), idx)
        database.run(
            "UPDATE map_old SET chunk = ? WHERE ino = ? AND idx = ? AND born = ?", (lost, ino, idx, born)
        )
    return _say_places([row[:2] for row in (*live, *old)])


def _say_places(places: Iterable[Row]) -> str:
    said = [f"chunk {idx} of inode {ino}" for ino, idx in places]
    return " and ".join(said) or "of no file"


def stored(aside: LostFound) -> Iterator[Repaired]:
    """The state follows what there is: ranges here, or a place in a segment."""
    database = aside.database
    changed = database.run(
        f"UPDATE chunk AS c SET state = 0, {_NO_PLACE} WHERE state NOT IN (0, 1) AND {_HAS_RANGES} "
        f"OR (state = 1 AND {UNSOUND_LOCATION} AND (base IS NOT NULL OR {_HAS_RANGES})) "
        "OR (state = 0 AND segment IS NOT NULL "
        f"AND (base IS NOT NULL OR {_HAS_RANGES} OR {UNSOUND_LOCATION}))"
    )
    changed += database.run(
        f"UPDATE chunk AS c SET state = 1 WHERE state <> 1 AND NOT {UNSOUND_LOCATION} AND NOT {_HAS_RANGES}"
    )
    if changed:
        yield Repaired("stored", f"{changed} chunk versions: their state follows their bytes again")
    condemned = database.run(
        "UPDATE segment SET state = 0, condemned_seq = NULL WHERE state <> 0 "
        "AND EXISTS (SELECT 1 FROM chunk c WHERE c.segment = segment.segment)"
    )
    if condemned:
        yield Repaired("stored", f"{condemned} segments with chunks are not condemned any more")


def bases(aside: LostFound) -> Iterator[Repaired]:
    """A stored version needs none, nor does a dirty one that holds all that would show of it."""
    database = aside.database
    changed = database.run("UPDATE chunk SET base = NULL, base_size = 0 WHERE state = 1 AND base IS NOT NULL")
    if changed:
        yield Repaired("bases", f"{changed} stored chunk versions name no base any more")
    for chunk, base, base_size in database.all(_BASELESS):
        if _covers(database, chunk, base_size):
            database.run("UPDATE chunk SET base = NULL, base_size = 0 WHERE chunk = ?", (chunk,))
            yield Repaired("bases", f"chunk {chunk} covers its base {base}, which is gone, and needs it not")


def mapped(aside: LostFound) -> Iterator[Repaired]:
    """Chunks of what is no file move to ``lost+found``."""
    database = aside.database
    for ino, idx, chunk in database.all(
        "SELECT m.ino, m.idx, m.chunk FROM map m LEFT JOIN inode i ON i.ino = m.ino "
        "WHERE coalesce(i.mode & 61440, 0) <> 32768"
    ):
        kept = aside.keep(Ino(ino), idx, ChunkId(chunk))
        database.run("DELETE FROM map WHERE ino = ? AND idx = ?", (ino, idx))
        yield Repaired("mapped", f"chunk {idx} of inode {ino}, which is no file, is in {kept}")


def references(aside: LostFound) -> Iterator[Repaired]:
    """Counted anew; what nothing names is kept in ``lost+found``."""
    database = aside.database
    sql = (
        "WITH named AS (SELECT chunk FROM map UNION ALL SELECT chunk FROM map_old UNION ALL "
        "SELECT base FROM chunk WHERE base IS NOT NULL), "
        "counted AS (SELECT chunk, count(*) AS n FROM named GROUP BY chunk) "
        "SELECT c.chunk, c.ino, c.idx, c.refs, coalesce(n, 0) FROM chunk c "
        "LEFT JOIN counted ON counted.chunk = c.chunk WHERE c.refs <> coalesce(n, 0)"
    )
    changed = 0
    for chunk, ino, idx, _refs, count in database.all(sql):
        if count == 0 and _put_back(database, chunk, Ino(ino), idx):
            count = 1
            yield Repaired("references", f"chunk {chunk} is chunk {idx} of inode {ino} again")
        elif count == 0:
            # At nought the row would go as soon as it is counted.
            database.run("UPDATE chunk SET refs = 1 WHERE chunk = ?", (chunk,))
            kept = aside.keep(Ino(ino), idx, ChunkId(chunk))
            count = 1
            yield Repaired("references", f"chunk {chunk} was in no file: it is in {kept} now")
        changed += database.run("UPDATE chunk SET refs = ?1 WHERE chunk = ?2 AND refs <> ?1", (count, chunk))
    if changed:
        yield Repaired("references", f"{changed} chunk versions: what names them is counted anew")


def _put_back(database: Database, chunk: int, ino: Ino, index: int) -> bool:
    """Whether a version could go back to the place that it was written for: it is a hole now, and the file
    says that it holds as much more."""
    database.run("UPDATE chunk SET refs = max(refs, 1) WHERE chunk = ?", (chunk,))
    return database.run(
        "INSERT INTO map (ino, idx, chunk, born) SELECT i.ino, ?1, ?2, v.generation FROM inode i, volume v "
        f"WHERE i.ino = ?3 AND (i.mode & 61440) = 32768 AND i.nlink > 0 AND ?1 * v.chunk_size < i.size "
        "AND NOT EXISTS (SELECT 1 FROM map m WHERE m.ino = i.ino AND m.idx = ?1) "
        f"AND i.held >= (SELECT {LENGTH} FROM chunk c WHERE c.chunk = ?2) + coalesce((SELECT sum({LENGTH}) "
        "FROM map m JOIN chunk c ON c.chunk = m.chunk WHERE m.ino = i.ino), 0)",
        (index, chunk, ino),
    ) > 0  # fmt: skip


def beyond(aside: LostFound) -> Iterator[Repaired]:
    """The file is as long as its chunks."""
    database = aside.database
    for ino, size in database.all(
        f"SELECT DISTINCT m.ino, i.size FROM map m JOIN inode i ON i.ino = m.ino WHERE {BEYOND}"
    ):
        row = database.one(
            f"SELECT max(m.idx * ? + {LENGTH}) FROM map m JOIN chunk c ON c.chunk = m.chunk WHERE m.ino = ?",
            (database.chunk_size, ino),
        )
        end = 0 if row is None or row[0] is None else row[0]
        if not database.run("UPDATE inode SET size = ?1 WHERE ino = ?2 AND size < ?1", (end, ino)):
            continue
        yield Repaired("beyond", f"inode {ino}: has chunks up to {end} bytes, which is its size, not {size}")


def held(aside: LostFound) -> Iterator[Repaired]:
    """Counted anew."""
    sql = (
        f"SELECT i.ino, i.held, coalesce(sum({LENGTH}), 0) AS total, count(c.chunk) AS chunks FROM inode i "
        "LEFT JOIN map m ON m.ino = i.ino LEFT JOIN chunk c ON c.chunk = m.chunk WHERE i.nlink > 0 "
        "GROUP BY i.ino HAVING i.held NOT BETWEEN total - chunks AND total"
    )
    for ino, _held, total, _chunks in aside.database.all(sql):
        held_bytes.count_anew(aside.database, Ino(ino))
        yield Repaired("held", f"inode {ino}: holds {total} bytes")


def freed(aside: LostFound) -> Iterator[Repaired]:
    """What is in use is not on the list of what the cache may drop."""
    gone = aside.database.run("DELETE FROM local_freed WHERE chunk IN (SELECT chunk FROM chunk)")
    if gone:
        yield Repaired("freed", f"{gone} chunk versions in use are not listed as freed any more")


# --- giving up -----------------------------------------------------------------------------


def lost_versions(aside: LostFound) -> Iterator[Repaired]:
    """Stored versions that lie nowhere, and versions that are named and have no row."""
    database = aside.database
    for (chunk,) in database.all(
        "SELECT c.chunk FROM chunk c LEFT JOIN segment s ON s.segment = c.segment "
        f"WHERE c.state NOT IN (0, 1) OR (c.state = 1 AND "
        f"({UNSOUND_LOCATION} OR s.segment IS NULL OR {MALFORMED_SEGMENT}))"
    ):
        where = _lose_everywhere(aside, ChunkId(chunk))
        database.run("DELETE FROM chunk WHERE chunk = ?", (chunk,))
        yield Repaired("stored", f"chunk {chunk}, {where}: nothing says where it lies; it is lost", lost=True)
    sql = (
        "SELECT DISTINCT chunk FROM (SELECT chunk FROM map UNION ALL SELECT chunk FROM map_old) m "
        "WHERE NOT EXISTS (SELECT 1 FROM chunk c WHERE c.chunk = m.chunk)"
    )
    for (chunk,) in database.all(sql):
        where = _lose_everywhere(aside, ChunkId(chunk))
        yield Repaired("mapped", f"chunk {chunk}, {where}, is lost", lost=True)


def lost_bases(aside: LostFound) -> Iterator[Repaired]:
    """Dirty versions over one that is gone: what they hold themselves is kept."""
    for chunk, _base, _size in aside.database.all(_BASELESS):
        yield from split(aside, "bases", ChunkId(chunk))


def lost_segments(aside: LostFound) -> Iterator[Repaired]:
    """Rows of segments that mean nothing and hold nothing."""
    gone = aside.database.run(
        f"DELETE FROM segment AS s WHERE ({MALFORMED_SEGMENT} OR s.state NOT IN (0, 1)) "
        "AND NOT EXISTS (SELECT 1 FROM chunk c WHERE c.segment = s.segment)"
    )
    if gone:
        yield Repaired("segments", f"{gone} rows of segments that meant nothing are removed")


MENDERS: tuple[Mender, ...] = (freed, references, dirty, stored, bases, mapped, references, beyond, held)
"""Twice ``references``: triggers remove what they count down to nought, so the counts must be right first."""

LOSERS: tuple[Mender, ...] = (lost_versions, lost_bases, lost_segments)
"""What is left to do when nobody knows more."""
