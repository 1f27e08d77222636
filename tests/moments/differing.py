"""What ``snapshot diff`` must say of two pictures, word for word, out of what its page promises.

Owns the meaning of a difference once more, without tables: names that an inode lost and names that it got
make a rename, names of which only one side knows are added or removed, another inode of the same type under
the same name is a change of what is there, and what kept its name may have changed in content or attributes.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from objfs.meta.diff import Change, ChangeKind
from objfs.model import ROOT, Ino
from tests.moments.picture import TOP, Picture, Thing, above

ADDED, REMOVED, RENAMED, MODIFIED, METADATA = ChangeKind
TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
}


class Key(NamedTuple):
    """An entry of a directory."""

    parent: Ino
    name: bytes


class _Side:
    """One of the two."""

    def __init__(self, picture: Picture) -> None:
        self.things = {thing.ino: thing for thing in picture.values()}
        self.paths: dict[Key, bytes] = {}
        self.entries: dict[Key, Ino] = {}
        for path, thing in picture.items():
            if path != TOP:
                key = Key(picture[above(path)].ino, path.rpartition(b"/")[2])
                self.paths[key], self.entries[key] = path, thing.ino


def differences(before: Picture, after: Picture, below: bytes = TOP) -> list[Change]:
    """In the order of paths."""
    found = _Comparison(_Side(before), _Side(after)).changes()
    inside = [one for one in found if _inside(one.path, below) or _inside(one.old_path, below)]
    return sorted(inside, key=lambda change: (change.path, change.kind))


def told(changes: list[Change], before: Picture, after: Picture) -> list[Change]:
    """What was said, without what two pictures cannot show: that a file was written with the bytes it had.

    Whether content differs is asked of the map: bytes that were written again count as other content.
    """
    olds, news = _Side(before), _Side(after)
    kept = (_without_same_content(one, olds, news, before) for one in changes)
    return [one for one in kept if one is not None]


def _without_same_content(one: Change, olds: _Side, news: _Side, before: Picture) -> Change | None:
    new = news.things.get(one.ino)
    if "content" not in one.fields or new is None or not new.is_regular:
        return one
    was = one.old_path or one.path
    old = before[was] if was in before and one.kind is not RENAMED else olds.things.get(one.ino)
    if old is None or old.content != new.content or (old.ino, old.mtime_ns) == (new.ino, new.mtime_ns):
        return one
    fields = tuple(field for field in one.fields if field != "content")
    if one.kind is RENAMED:
        return one._replace(fields=fields)
    return one._replace(kind=METADATA, fields=fields) if fields else None


class _Comparison:
    def __init__(self, before: _Side, after: _Side) -> None:
        self._before = before
        self._after = after

    def changes(self) -> Iterator[Change]:
        went, came = defaultdict[Ino, list[Key]](list), defaultdict[Ino, list[Key]](list)
        for key in self._before.entries.keys() | self._after.entries.keys():
            old, new = self._before.entries.get(key), self._after.entries.get(key)
            if old != new:
                if old is not None:
                    went[old].append(key)
                if new is not None:
                    came[new].append(key)
            elif old is not None:
                yield from self._in_place(key, key, old, old)
        yield from self._root()
        yield from self._moved(went, came)

    def _root(self) -> Iterator[Change]:
        fields = _fields(self._before.things[ROOT], self._after.things[ROOT])
        if fields:
            yield Change(METADATA, TOP, None, "directory", ROOT, 0, 0, fields)

    def _moved(self, went: dict[Ino, list[Key]], came: dict[Ino, list[Key]]) -> Iterator[Change]:
        """The first name lost became the first name got, and so on, as far as both go."""
        removed, added = dict[Key, Ino](), dict[Key, Ino]()
        for ino in went.keys() | came.keys():
            old, new = sorted(went.get(ino, ())), sorted(came.get(ino, ()))
            stays = ino in self._before.things and ino in self._after.things
            pairs = min(len(old), len(new)) if stays else 0
            for key, target in zip(old[:pairs], new[:pairs], strict=True):
                yield self._made(RENAMED, key, target, self._differ(ino, ino))
            removed |= dict.fromkeys(old[pairs:], ino)
            added |= dict.fromkeys(new[pairs:], ino)
        for key, ino in removed.items():
            other = added.get(key)
            if other is not None and self._before.things[ino].type == self._after.things[other].type:
                del added[key]
                yield from self._in_place(key, key, ino, other)
            else:
                yield self._made(REMOVED, key, None, ())
        for key in added:
            yield self._made(ADDED, None, key, ())

    def _in_place(self, old: Key, new: Key, was: Ino, now: Ino) -> Iterator[Change]:
        fields = self._differ(was, now)
        if fields:
            yield self._made(MODIFIED if "content" in fields else METADATA, old, new, fields)

    def _differ(self, was: Ino, now: Ino) -> tuple[str, ...]:
        return _fields(self._before.things[was], self._after.things[now])

    def _made(self, kind: ChangeKind, old: Key | None, new: Key | None, fields: tuple[str, ...]) -> Change:
        was = self._before.things[self._before.entries[old]] if old is not None else None
        now = self._after.things[self._after.entries[new]] if new is not None else None
        old_path = self._before.paths[old] if old is not None else None
        path = self._after.paths[new] if new is not None else old_path
        one = now or was
        assert one is not None
        assert path is not None
        return Change(
            kind,
            path,
            old_path if old_path != path else None,
            TYPES[one.type],
            one.ino,
            None if was is None else was.size,
            None if now is None else now.size,
            fields,
        )


def _fields(one: Thing, other: Thing) -> tuple[str, ...]:
    differs = {
        "content": (one.target, one.rdev, one.content) != (other.target, other.rdev, other.content),
        "mode": one.mode != other.mode,
        "owner": (one.uid, one.gid) != (other.uid, other.gid),
        "mtime": not one.is_dir and one.mtime_ns != other.mtime_ns,
        "xattrs": one.xattrs != other.xattrs,
    }
    return tuple(field for field, is_so in differs.items() if is_so)


def _inside(path: bytes | None, below: bytes) -> bool:
    top = below.rstrip(b"/")
    return path is not None and (path == top or path.startswith(top + b"/"))
