"""What was deleted comes back from a moment: a file, or a directory with what was deleted below it.

Owns what is brought back.  It is a restore that touches nothing which is there now:

- inodes that have no name any more come back under their numbers, with attributes, extended attributes and
  the chunk versions that they had: rows are copied, no bytes;
- a name of a file that had several, of which some are left, comes back as a name of that file as it is now;
- what was moved out of a deleted directory before stays where it is, and is not in what comes back.

It costs what comes back.  Who holds what was deleted, and whom to tell, is the caller's care.
"""

from __future__ import annotations

from dataclasses import replace

from objfs.errors import Exists, InvalidArgument
from objfs.meta.changes import DIRECTORY, TYPE, at
from objfs.meta.restore import COPY, GAINS, Plan, Restored, Restores, names_of, shown_path
from objfs.model import Ino, Snapshot

REMEDY = "bring it back first, or say with --to where this is to go"
_ALIVE = "SELECT 1 FROM inode i WHERE i.ino = {ino} AND i.nlink > 0"
_WALK = (
    f"INSERT INTO inside_then WITH RECURSIVE below (ino) AS "
    f"(SELECT :top WHERE NOT EXISTS ({_ALIVE.format(ino=':top')}) UNION "
    f"SELECT o.ino FROM below b CROSS JOIN entry_old o ON o.parent = b.ino AND {COPY} "
    f"WHERE NOT EXISTS ({_ALIVE.format(ino='o.ino')})) SELECT ino FROM below"
)
_BACK = (
    f"INSERT INTO back SELECT t.ino FROM inside_then t CROSS JOIN inode_old o ON o.ino = t.ino AND {COPY} "
    "WHERE o.nlink > 0"
)
_LINKS_THEN = at("t.nlink", "inode", "t.ino = {ino}", ":then")
LINKED = f"EXISTS ({_ALIVE} AND (i.mode & {TYPE}) <> {DIRECTORY}) AND ({_LINKS_THEN}) > 1"
"""Whether an inode had several names and still has one."""
_NAMES = (
    "INSERT OR IGNORE INTO edit SELECT o.parent, o.name, NULL, o.ino, o.cookie FROM inside_then d "
    f"CROSS JOIN entry_old o ON o.parent = d.ino AND {COPY} "
    f"WHERE o.ino IN back OR ({LINKED.format(ino='o.ino')})"
)
_ENTRY = (
    f"SELECT i.ino, (i.mode & {TYPE}) = {DIRECTORY} FROM entry e JOIN inode i ON i.ino = e.ino "
    "WHERE e.parent = ? AND e.name = ?"
)


class Undeletes(Restores):
    """Restores of what has no name now."""

    def plan_back(self, snapshot: Snapshot, root: Ino, path: bytes, to: bytes | None) -> Plan:
        """What to bring back for a path below directory ``root``, in its place or to the path ``to``, which
        may be a directory that is there.  Raises NotFound where the moment does not have it, or the present
        not the directory that it goes to; Exists where its name is taken; InvalidArgument where it was not
        deleted."""
        names = names_of(path)
        if not names:
            raise InvalidArgument("the root of a volume is never deleted")
        then = self._then(snapshot, root, names)
        self._require_deleted(snapshot, then, names)
        parent, name = self._place(root, names, names if to is None else names_of(to))
        return Plan(snapshot.generation, parent, name, then)

    def _require_deleted(self, snapshot: Snapshot, then: Ino, names: list[bytes]) -> None:
        ways = f"SELECT NOT EXISTS ({_ALIVE}) OR ({LINKED})".format(ino=":ino")
        row = self._db.one(ways, {"ino": then, "then": snapshot.generation})
        if row is None or not row[0]:
            raise InvalidArgument(
                f"{shown_path(names)} was not deleted: it is there, or has another name now"
            )

    def _place(self, root: Ino, names: list[bytes], target: list[bytes]) -> tuple[Ino, bytes]:
        """Directory and name that it comes back to."""
        parent, name = self._directory_now(root, target[:-1], REMEDY), (target or names)[-1]
        found = self._db.one(_ENTRY, (parent, name))
        if found is not None and found[1] and target != names:
            parent, target, name = Ino(found[0]), [*target, names[-1]], names[-1]
            found = self._db.one(_ENTRY, (parent, name))
        if found is not None:
            raise Exists(f"{shown_path(target)} is there now: say with --to where this is to go")
        return parent, name

    def _prepare(self, plan: Plan) -> None:
        self._begin()
        self._run(_WALK, plan, top=plan.then)
        self._run(_BACK, plan)
        self._db.run("INSERT INTO edit VALUES (?, ?, NULL, ?, NULL)", (plan.parent, plan.name, plan.then))
        self._run(_NAMES, plan)
        self._db.run(GAINS)

    def _summary(self) -> Restored:
        """With the files that got a name more."""
        done = super()._summary()
        linked = self._db.all('SELECT DISTINCT "then" FROM edit WHERE "then" NOT IN back')
        return replace(done, touched=(*done.touched, *(Ino(row[0]) for row in linked)))
