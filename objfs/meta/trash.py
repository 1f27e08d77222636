"""The trash as rows: which snapshots it is made of, and what a removal would lose.

Owns the mark of such snapshots in queries.  Which moments are taken, and how long they are kept, is the
caller's business.
"""

from __future__ import annotations

from objfs.meta.changes import DIRECTORY, TYPE
from objfs.meta.database import Database
from objfs.meta.restore import Plan, Restored
from objfs.meta.snapshots import COLUMNS, IS_TRASH, to_snapshot
from objfs.meta.undelete import Undeletes
from objfs.model import Ino, Snapshot, SnapshotFlag

_LOSES = (
    f"SELECT CASE (i.mode & {TYPE}) WHEN {DIRECTORY} THEN e.born > ?3 "
    "ELSE i.nlink = 1 AND (e.born > ?3 OR i.born > ?3) END "
    "FROM entry e JOIN inode i ON i.ino = e.ino WHERE e.parent = ?1 AND e.name = ?2"
)
_LET_GO = f"flags & {SnapshotFlag.TRASH | SnapshotFlag.HELD:d} = {SnapshotFlag.TRASH:d}"
_OLD = f"SELECT {COLUMNS} FROM snapshot WHERE {_LET_GO} AND created_s < ? ORDER BY generation LIMIT ?"


class TrashRows:
    """The trash of one table."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._undeletes = Undeletes(database)

    def keeps(self, generation: int) -> bool:
        """Whether the snapshot of a generation is still there."""
        return self._db.one("SELECT 1 FROM snapshot WHERE generation = ?", (generation,)) is not None

    def loses(self, parent: Ino, name: bytes, generation: int) -> bool:
        """Whether removing a name loses what the snapshot of ``generation`` does not have as it is; 0 has
        nothing.  A file with another name is not lost, and a directory only its name: what it held was
        removed before."""
        row = self._db.one(_LOSES, (parent, name, generation))
        return row is not None and bool(row[0])

    def count(self) -> int:
        row = self._db.one(f"SELECT count(*) FROM snapshot WHERE {IS_TRASH}")
        return 0 if row is None else int(row[0])

    def newest_other(self) -> Snapshot | None:
        """The newest snapshot that is not of the trash."""
        row = self._db.one(
            f"SELECT {COLUMNS} FROM snapshot WHERE NOT {IS_TRASH} ORDER BY generation DESC LIMIT 1"
        )
        return None if row is None else to_snapshot(row)

    def older(self, before_s: int, limit: int) -> list[Snapshot]:
        """At most ``limit`` of those taken before a second since 1970, oldest first, without those held."""
        return [to_snapshot(row) for row in self._db.all(_OLD, (before_s, limit))]

    def plan(self, snapshot: Snapshot, root: Ino, path: bytes, to: bytes | None) -> Plan:
        """See ``Undeletes.plan_back``."""
        return self._undeletes.plan_back(snapshot, root, path, to)

    def undelete(self, plan: Plan, now_ns: int) -> Restored:
        """Brings back what was planned; atomic."""
        return self._undeletes.restore(plan, now_ns)
