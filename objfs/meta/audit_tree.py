"""What must hold of inodes and names, one invariant a function.

Each is mended by the function of the same name in ``repair_tree``.
"""

from __future__ import annotations

import sqlite3

from objfs.meta.rule import DIRECTORY, NAMED, TYPES, Check, found
from objfs.model import FILE_SIZE_MAX, NAME_MAX, ROOT


def root(connection: sqlite3.Connection, limit: int) -> list[str]:
    """There is a root directory, its own parent."""
    row = connection.execute(
        f"SELECT 1 FROM inode WHERE ino = {ROOT} AND parent = {ROOT} AND {DIRECTORY}"
    ).fetchone()
    return [] if row else [f"inode {ROOT} is not a root directory"]


def types(connection: sqlite3.Connection, limit: int) -> list[str]:
    """An inode is of a type that exists, and a symlink alone has a target."""
    return found(
        connection,
        limit,
        "inode {0}: mode {1:o} is of no type",
        f"SELECT ino, mode FROM inode WHERE (mode & 61440) NOT IN {TYPES}",
    ) + found(
        connection,
        limit,
        "inode {0}: mode {1:o} does not fit its target",
        f"SELECT ino, mode FROM inode WHERE (mode & 61440) IN {TYPES} "
        "AND ((mode & 61440) = 40960) <> (target IS NOT NULL)",
    )


def sizes(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A file's size is possible, a directory's is 0, a symlink's that of its target."""
    return found(
        connection,
        limit,
        "inode {0}: a size of {1} bytes",
        f"SELECT ino, size FROM inode WHERE size NOT BETWEEN 0 AND {FILE_SIZE_MAX} "
        f"OR ({DIRECTORY} AND size <> 0) "
        "OR ((mode & 61440) = 40960 AND size <> coalesce(length(target), 0))",
    )


def names(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A name is 1 to 255 bytes, neither '.' nor '..', without a slash or a zero."""
    return found(
        connection,
        limit,
        "directory {0}: entry {1!r} has a name that no entry can have",
        f"SELECT parent, name FROM entry WHERE typeof(name) <> 'blob' "
        f"OR length(name) NOT BETWEEN 1 AND {NAME_MAX} OR name IN (x'2e', x'2e2e') "
        "OR instr(name, x'2f') OR instr(name, x'00')",
    )


def entries(connection: sqlite3.Connection, limit: int) -> list[str]:
    """An entry lies in a living directory and leads to an inode."""
    return found(
        connection,
        limit,
        "directory {0}: entry {1!r} leads to inode {2}, which does not exist",
        "SELECT parent, name, ino FROM entry e WHERE NOT EXISTS (SELECT 1 FROM inode i WHERE i.ino = e.ino)",
    ) + found(
        connection,
        limit,
        "entry {1!r} lies in inode {0}, which is no living directory",
        "SELECT parent, name FROM entry e WHERE NOT EXISTS "
        f"(SELECT 1 FROM inode i WHERE i.ino = e.parent AND i.nlink > 0 AND {DIRECTORY})",
    )


def links(connection: sqlite3.Connection, limit: int) -> list[str]:
    """nlink of what is no directory is the number of its names."""
    return found(
        connection,
        limit,
        "inode {0}: nlink {1}, but {2} names",
        f"{NAMED} SELECT i.ino, i.nlink, coalesce(n, 0) FROM inode i LEFT JOIN named ON named.ino = i.ino "
        f"WHERE NOT {DIRECTORY} AND i.nlink <> coalesce(n, 0)",
    )


def directory_links(connection: sqlite3.Connection, limit: int) -> list[str]:
    """nlink of a living directory is 2 and one for each directory in it."""
    return found(
        connection,
        limit,
        "directory {0}: nlink {1}, but {2} directories in it",
        "SELECT ino, nlink, children FROM (SELECT d.ino, d.nlink, "
        "(SELECT count(*) FROM entry e JOIN inode i ON i.ino = e.ino "
        "WHERE e.parent = d.ino AND (i.mode & 61440) = 16384) "
        f"AS children FROM inode d WHERE {DIRECTORY} AND d.nlink > 0) WHERE nlink <> 2 + children",
    )


def parents(connection: sqlite3.Connection, limit: int) -> list[str]:
    """A living directory but the root has exactly one name, in the directory that it says."""
    return found(
        connection,
        limit,
        "directory {0}: says that it lies in {1}, has {2} names, one of them in {3}",
        f"{NAMED} SELECT d.ino, d.parent, coalesce(n, 0), named.parent FROM inode d "
        f"LEFT JOIN named ON named.ino = d.ino WHERE {DIRECTORY} AND nlink > 0 AND d.ino <> {ROOT} "
        "AND (n IS NOT 1 OR named.parent IS NOT d.parent)",
    )


def loops(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Every living directory is below the root."""
    return found(
        connection,
        limit,
        "directory {0} is not below the root",
        f"WITH RECURSIVE below(ino) AS (SELECT {ROOT} UNION SELECT e.ino FROM below b "
        "JOIN entry e ON e.parent = b.ino JOIN inode i ON i.ino = e.ino WHERE (i.mode & 61440) = 16384) "
        f"SELECT ino FROM inode WHERE {DIRECTORY} AND nlink > 0 AND ino NOT IN (SELECT ino FROM below)",
    )


def cookies(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Entry offsets are at least 3 and below the directory's next one."""
    return found(
        connection,
        limit,
        "directory {0}: entry {1!r} has cookie {2}, the next one is {3}",
        "SELECT e.parent, e.name, e.cookie, i.next_cookie FROM entry e JOIN inode i ON i.ino = e.parent "
        "WHERE e.cookie < 3 OR e.cookie >= i.next_cookie",
    )


def orphans(connection: sqlite3.Connection, limit: int) -> list[str]:
    """An inode without a name is on the list of orphans, and only such is listed to be purged whole."""
    return found(
        connection,
        limit,
        "inode {0} has no name and is no orphan",
        "SELECT ino FROM inode i WHERE nlink <= 0 AND NOT EXISTS "
        "(SELECT 1 FROM orphan o WHERE o.ino = i.ino AND o.keep_from = -1)",
    ) + found(
        connection,
        limit,
        "orphan {0} has a name or does not exist",
        "SELECT o.ino FROM orphan o LEFT JOIN inode i ON i.ino = o.ino WHERE i.ino IS NULL OR "
        "(o.keep_from = -1 AND (i.nlink > 0 OR EXISTS (SELECT 1 FROM entry e WHERE e.ino = o.ino)))",
    )


def attached(connection: sqlite3.Connection, limit: int) -> list[str]:
    """Extended attributes and access times belong to inodes."""
    return found(
        connection,
        limit,
        "inode {0} has extended attributes and does not exist",
        "SELECT DISTINCT ino FROM xattr WHERE ino NOT IN (SELECT ino FROM inode)",
    ) + found(
        connection,
        limit,
        "inode {0} has an access time and does not exist",
        "SELECT ino FROM atime WHERE ino NOT IN (SELECT ino FROM inode)",
    )


CHECKS: tuple[Check, ...] = (
    root,
    types,
    sizes,
    names,
    entries,
    links,
    directory_links,
    parents,
    loops,
    cookies,
    orphans,
    attached,
)
