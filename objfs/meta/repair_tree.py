"""Mending inodes and names: what brings back each rule of ``audit_tree``, under the same name.

A mender is a function of the table's ``LostFound``; it says what it did, a line for each.  Promises that no
inode that holds anything is removed: what has no name gets one in ``lost+found``.  The order in ``MENDERS``
matters: what exists first, then what leads where, then what is counted.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from objfs.meta import held
from objfs.meta.lostfound import LostFound, Mender, Repaired
from objfs.meta.rule import DIRECTORY, NAMED, TYPES
from objfs.model import FILE_SIZE_MAX, NAME_MAX, ROOT, Ino, NewInode

_IS_DIRECTORY = "(i.mode & 61440) = 16384"


def root(aside: LostFound) -> Iterator[Repaired]:
    """Made anew where it is gone; what was in it comes back by its entries."""
    database = aside.database
    if database.one("SELECT 1 FROM inode WHERE ino = ?", (ROOT,)) is None:
        aside.inodes.insert_root(NewInode(stat.S_IFDIR | 0o755, 0, 0, aside.now_ns))
        yield Repaired("root", "the root directory was gone: made anew, mode 755, of root")
    if database.run(
        f"UPDATE inode SET mode = (mode & 4095) | 16384, parent = {ROOT}, nlink = max(nlink, 2), size = 0, "
        f"target = NULL WHERE ino = {ROOT} AND NOT (parent = {ROOT} AND nlink > 1 AND {DIRECTORY})"
    ):
        yield Repaired("root", f"inode {ROOT} is a directory and its own parent again")


def missing(aside: LostFound) -> Iterator[Repaired]:
    """Inodes that entries, chunks or attributes speak of: made anew with what these tell."""
    database = aside.database
    for (ino,) in database.all(
        "SELECT DISTINCT parent FROM entry WHERE parent NOT IN (SELECT ino FROM inode)"
    ):
        _make(aside, Ino(ino), stat.S_IFDIR | 0o700)
        yield Repaired("entries", f"directory {ino} was gone: made anew, mode 700, of root")
    for (ino,) in database.all("SELECT DISTINCT ino FROM map WHERE ino NOT IN (SELECT ino FROM inode)"):
        _make(aside, Ino(ino), stat.S_IFREG | 0o600)
        size = _end_of_map(aside, Ino(ino))
        database.run("UPDATE inode SET size = ? WHERE ino = ?", (size, ino))
        held.count_anew(database, Ino(ino))
        yield Repaired(
            "mapped", f"inode {ino} was gone: made anew as a file of {size} bytes, mode 600, of root"
        )
    for (ino,) in database.all("SELECT DISTINCT ino FROM xattr WHERE ino NOT IN (SELECT ino FROM inode)"):
        _make(aside, Ino(ino), stat.S_IFREG | 0o600)
        yield Repaired("attached", f"inode {ino} was gone: made anew, empty, for its extended attributes")


def _make(aside: LostFound, ino: Ino, mode: int) -> None:
    """With a link count and a parent that the rules after this one correct."""
    row = aside.database.one("SELECT parent FROM entry WHERE ino = ? ORDER BY parent LIMIT 1", (ino,))
    parent = Ino(row[0]) if row is not None else Ino(0)
    aside.inodes.insert(NewInode(mode, 0, 0, aside.now_ns), parent, ino)


def _end_of_map(aside: LostFound, ino: Ino) -> int:
    database = aside.database
    row = database.one("SELECT idx, chunk FROM map WHERE ino = ? ORDER BY idx DESC LIMIT 1", (ino,))
    if row is None:
        return 0
    return int(row[0] * database.chunk_size + (aside.length_of(row[1]) or database.chunk_size))


def types(aside: LostFound) -> Iterator[Repaired]:
    """A directory where it has entries, else a file where it has chunks or no target, else a symlink."""
    database = aside.database
    sql = (
        f"SELECT ino, mode, target, EXISTS (SELECT 1 FROM entry e WHERE e.parent = i.ino) AS entries, "
        f"EXISTS (SELECT 1 FROM map m WHERE m.ino = i.ino) AS chunks FROM inode i WHERE ino <> {ROOT} AND ("
        f"(mode & 61440) NOT IN {TYPES} OR ((mode & 61440) = 40960) <> (target IS NOT NULL) "
        f"OR (entries AND NOT {_IS_DIRECTORY} AND NOT (chunks AND (mode & 61440) = 32768)) "
        "OR (chunks AND NOT entries AND (mode & 61440) <> 32768))"
    )
    for ino, mode, target, entries, chunks in database.all(sql):
        kind = _kind(mode, target, bool(entries), bool(chunks))
        was_link = stat.S_ISLNK(mode) and target is None
        _set_type(aside, Ino(ino), (mode & 0o7777) | kind)
        text = f"inode {ino}: mode {mode:o} became {(mode & 0o7777) | kind:o}"
        yield Repaired("types", text + (", its target is lost" if was_link else ""), was_link)


def _kind(mode: int, target: bytes | None, entries: bool, chunks: bool) -> int:
    """The type that what belongs to an inode speaks for."""
    if entries:
        return stat.S_IFDIR
    if chunks:
        return stat.S_IFREG
    if target is not None:
        return stat.S_IFLNK
    known = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
    return stat.S_IFMT(mode) if known or stat.S_ISDIR(mode) else stat.S_IFREG


def _set_type(aside: LostFound, ino: Ino, mode: int) -> None:
    database = aside.database
    row = database.one("SELECT parent FROM entry WHERE ino = ? ORDER BY parent LIMIT 1", (ino,))
    parent = row[0] if row is not None and stat.S_ISDIR(mode) else 0
    cookie = 3 if stat.S_ISDIR(mode) else 0
    database.run(
        "UPDATE inode SET mode = ?1, parent = ?2, next_cookie = max(next_cookie, ?3), "
        "size = CASE WHEN (mode & 61440) = 40960 AND target IS NULL THEN 0 ELSE size END, "
        "target = CASE WHEN ?4 THEN target END, nlink = max(nlink, ?5) WHERE ino = ?6",
        (mode, parent, cookie, int(stat.S_ISLNK(mode)), 2 if stat.S_ISDIR(mode) else 0, ino),
    )


def sizes(aside: LostFound) -> Iterator[Repaired]:
    """As the chunks of a file, or the target of a symlink, say."""
    sql = (
        f"SELECT ino, mode, size, target FROM inode WHERE size NOT BETWEEN 0 AND {FILE_SIZE_MAX} "
        f"OR ({DIRECTORY} AND size <> 0) "
        "OR ((mode & 61440) = 40960 AND size <> coalesce(length(target), 0))"
    )
    for ino, mode, size, target in aside.database.all(sql):
        right = len(target or b"") if stat.S_ISLNK(mode) else 0
        if stat.S_ISREG(mode):
            right = _end_of_map(aside, Ino(ino))
        aside.database.run("UPDATE inode SET size = ? WHERE ino = ?", (right, ino))
        yield Repaired("sizes", f"inode {ino}: its size of {size} bytes became {right}")


def names(aside: LostFound) -> Iterator[Repaired]:
    """What has a name that cannot be moves to ``lost+found``."""
    sql = (
        f"SELECT parent, name, ino FROM entry WHERE typeof(name) <> 'blob' "
        f"OR length(name) NOT BETWEEN 1 AND {NAME_MAX} OR name IN (x'2e', x'2e2e') "
        "OR instr(name, x'2f') OR instr(name, x'00')"
    )
    for parent, name, ino in aside.database.all(sql):
        where = _move(aside, parent, name, Ino(ino))
        yield Repaired("names", f"inode {ino}, entry {name!r} of directory {parent}, is {where} now")


def _move(aside: LostFound, parent: int, name: bytes, ino: Ino) -> str:
    """An entry goes, its inode gets a name in ``lost+found``."""
    aside.database.run("DELETE FROM entry WHERE parent = ? AND name = ?", (parent, name))
    return aside.adopt(ino)


def entries(aside: LostFound) -> Iterator[Repaired]:
    """A name of nothing goes; what lies in no living directory moves."""
    database = aside.database
    for parent, name, ino in database.all(
        "SELECT parent, name, ino FROM entry e WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = e.ino)"
    ):
        database.run("DELETE FROM entry WHERE parent = ? AND name = ?", (parent, name))
        text = f"directory {parent}: entry {name!r} led to inode {ino}, of which nothing is left: removed"
        yield Repaired("entries", text, lost=True)
    sql = (
        "SELECT parent, name, ino FROM entry e WHERE NOT EXISTS "
        f"(SELECT 1 FROM inode i WHERE i.ino = e.parent AND i.nlink > 0 AND {_IS_DIRECTORY})"
    )
    for parent, name, ino in database.all(sql):
        if database.run(
            f"UPDATE inode SET nlink = 2 WHERE ino = ? AND nlink <= 0 AND {DIRECTORY} "
            "AND EXISTS (SELECT 1 FROM entry WHERE entry.ino = inode.ino)", (parent,)
        ):  # fmt: skip
            yield Repaired("entries", f"directory {parent} has a name and is alive again")
        elif (
            database.one(f"SELECT 1 FROM inode WHERE ino = ? AND nlink > 0 AND {DIRECTORY}", (parent,))
            is None
        ):
            where = _move(aside, parent, name, Ino(ino))
            yield Repaired("entries", f"inode {ino}, entry {name!r} of inode {parent}, is {where} now")


def parents(aside: LostFound) -> Iterator[Repaired]:
    """A directory keeps one name, the one where it says that it lies; one without gets one."""
    sql = (
        f"{NAMED} SELECT d.ino, d.parent, coalesce(n, 0) FROM inode d LEFT JOIN named ON named.ino = d.ino "
        f"WHERE {DIRECTORY} AND nlink > 0 AND d.ino <> {ROOT} "
        "AND (n IS NOT 1 OR named.parent IS NOT d.parent)"
    )
    for ino, parent, count in aside.database.all(sql):
        if count == 0:
            yield Repaired("parents", f"directory {ino} had no name: it is {aside.adopt(Ino(ino))} now")
            continue
        yield from _one_name(aside, Ino(ino), Ino(parent))
    for parent, name in aside.database.all(f"SELECT parent, name FROM entry WHERE ino = {ROOT}"):
        aside.database.run("DELETE FROM entry WHERE parent = ? AND name = ?", (parent, name))
        yield Repaired("parents", f"directory {parent}: entry {name!r} led to the root: removed")


def _one_name(aside: LostFound, ino: Ino, parent: Ino) -> Iterator[Repaired]:
    database = aside.database
    found = database.all("SELECT parent, name FROM entry WHERE ino = ? ORDER BY parent, cookie", (ino,))
    kept = next((one for one in found if one[0] == parent), found[0])
    for other in found:
        if other != kept:
            database.run("DELETE FROM entry WHERE parent = ? AND name = ?", other)
            text = f"directory {ino}: its second name {other[1]!r} in {other[0]} is removed"
            yield Repaired("parents", text)
    if kept[0] != parent:
        database.run("UPDATE inode SET parent = ? WHERE ino = ?", (kept[0], ino))
        yield Repaired("parents", f"directory {ino}: lies in {kept[0]}, not in {parent}")


def loops(aside: LostFound) -> Iterator[Repaired]:
    """Of each ring of directories the one of the lowest number moves to ``lost+found``."""
    database = aside.database
    while True:
        cut = _ring(database.all(
            f"WITH RECURSIVE below(ino) AS (SELECT {ROOT} UNION SELECT e.ino FROM below b "
            "JOIN entry e ON e.parent = b.ino JOIN inode i ON i.ino = e.ino "
            f"WHERE {_IS_DIRECTORY}) SELECT ino, parent FROM inode WHERE {DIRECTORY} AND nlink > 0 "
            "AND ino NOT IN (SELECT ino FROM below)"
        ))  # fmt: skip
        if cut is None:
            return
        database.run("DELETE FROM entry WHERE ino = ?", (cut,))
        yield Repaired("loops", f"directory {cut} was not below the root: it is {aside.adopt(Ino(cut))} now")


def _ring(unreached: list[tuple[int, ...]]) -> int | None:
    """The lowest number in a ring; None where every directory is below the root."""
    above = {row[0]: row[1] for row in unreached}
    if not above:
        return None
    seen: list[int] = []
    at = min(above)
    while at in above and at not in seen:
        seen.append(at)
        at = above[at]
    return min(seen[seen.index(at) :]) if at in seen else seen[-1]


def links(aside: LostFound) -> Iterator[Repaired]:
    """Counted anew; what has no name and was not being removed gets one."""
    database = aside.database
    sql = (
        f"{NAMED} SELECT i.ino, i.nlink, coalesce(n, 0) FROM inode i LEFT JOIN named ON named.ino = i.ino "
        f"WHERE NOT {DIRECTORY} AND i.nlink <> coalesce(n, 0)"
    )
    for ino, nlink, count in database.all(sql):
        if count == 0:
            yield Repaired("links", f"inode {ino} had no name: it is {aside.adopt(Ino(ino))} now")
            continue
        database.run("UPDATE inode SET nlink = ? WHERE ino = ?", (count, ino))
        database.run("DELETE FROM orphan WHERE ino = ? AND keep_from = -1", (ino,))
        yield Repaired("links", f"inode {ino}: nlink {nlink} became {count}")


def orphans(aside: LostFound) -> Iterator[Repaired]:
    """The list follows the inodes: whoever has a name stays, and nobody goes who is not on it."""
    database = aside.database
    for (ino,) in database.all(
        "SELECT DISTINCT o.ino FROM orphan o LEFT JOIN inode i ON i.ino = o.ino WHERE i.ino IS NULL OR "
        "(o.keep_from = -1 AND (i.nlink > 0 OR EXISTS (SELECT 1 FROM entry e WHERE e.ino = o.ino)))"
    ):
        database.run(
            "DELETE FROM orphan WHERE ino = ?1 AND (keep_from = -1 OR ?1 NOT IN (SELECT ino FROM inode))",
            (ino,),
        )
        database.run(f"UPDATE inode SET nlink = max(nlink, 2) WHERE ino = ? AND {DIRECTORY}", (ino,))
        yield Repaired("orphans", f"inode {ino} is no orphan")
    for (ino,) in database.all(
        "SELECT ino FROM inode i WHERE nlink <= 0 AND NOT EXISTS "
        "(SELECT 1 FROM orphan o WHERE o.ino = i.ino AND o.keep_from = -1)"
    ):
        yield Repaired("orphans", f"inode {ino} had no name: it is {aside.adopt(Ino(ino))} now")


def directory_links(aside: LostFound) -> Iterator[Repaired]:
    """2 and one for each directory in it."""
    children = (
        "(SELECT count(*) FROM entry e JOIN inode i ON i.ino = e.ino "
        f"WHERE e.parent = inode.ino AND {_IS_DIRECTORY})"
    )
    changed = aside.database.run(
        f"UPDATE inode SET nlink = 2 + {children} WHERE {DIRECTORY} AND nlink > 0 AND nlink <> 2 + {children}"
    )
    if changed:
        yield Repaired("directory_links", f"{changed} directories: nlink counted anew")


def cookies(aside: LostFound) -> Iterator[Repaired]:
    """The next offset is raised, or an entry gets a new one."""
    database = aside.database
    changed = database.run(
        "UPDATE inode SET next_cookie = 1 + (SELECT max(cookie) FROM entry WHERE parent = inode.ino) "
        "WHERE next_cookie <= (SELECT max(cookie) FROM entry WHERE parent = inode.ino) "
        f"OR (next_cookie < 3 AND {DIRECTORY} AND EXISTS (SELECT 1 FROM entry WHERE parent = inode.ino))"
    )
    changed += database.run(f"UPDATE inode SET next_cookie = 3 WHERE next_cookie < 3 AND {DIRECTORY}")
    if changed:
        yield Repaired("cookies", f"{changed} directories: the next offset is raised")
    for parent, name in database.all("SELECT parent, name FROM entry WHERE cookie < 3"):
        database.run(
            "UPDATE entry SET cookie = (SELECT next_cookie FROM inode WHERE ino = ?1) "
            "WHERE parent = ?1 AND name = ?2",
            (parent, name),
        )
        database.run("UPDATE inode SET next_cookie = next_cookie + 1 WHERE ino = ?", (parent,))
        yield Repaired("cookies", f"directory {parent}: entry {name!r} has another offset")


def attached(aside: LostFound) -> Iterator[Repaired]:
    """Access times of nobody go."""
    gone = aside.database.run("DELETE FROM atime WHERE ino NOT IN (SELECT ino FROM inode)")
    if gone:
        yield Repaired("attached", f"{gone} access times of no inode are removed")


MENDERS: tuple[Mender, ...] = (
    root, missing, types, sizes, cookies, names, entries, parents, loops, links, orphans,
    directory_links, attached,
)  # fmt: skip
