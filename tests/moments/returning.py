"""What a restore of one path must make of a tree, out of what its page promises.

Owns the rule once more, without tables: what lay at and below the path lies there again, and nothing else
does; a directory that was moved out is moved back; a file that has a name elsewhere too is one file.
"""

from __future__ import annotations

from objfs.errors import InvalidArgument, NotFound
from objfs.model import ROOT, Ino
from tests.moments.picture import TOP, Picture, Thing, above, joined

Entries = dict[tuple[Ino, bytes], Ino]


def restored(now: Picture, then: Picture, path: bytes) -> Picture:
    """The tree afterwards; times of what lies outside the path, and change times, are those of before.

    Raises NotFound where the snapshot does not have the path, or the present not its directory, and
    InvalidArgument where that directory lay below the path.
    """
    if path == TOP:
        return then
    if path not in then:
        raise NotFound("not in the snapshot")
    parent = now.get(above(path))
    if parent is None or not parent.is_dir:
        raise NotFound("no directory now")
    back = {thing.ino: thing for where, thing in then.items() if _at_or_below(where, path)}
    if any(thing.ino in back for where, thing in now.items() if _at_or_below(above(path), where)):
        raise InvalidArgument("the directory lay below the path")
    entries = _entries(now)
    emptied = _below(entries, {now[path].ino} if path in now else set()) | _below(entries, set(back))
    folders = {ino for ino, thing in back.items() if thing.is_dir}
    kept = {key: ino for key, ino in entries.items() if key[0] not in emptied and ino not in folders}
    wanted = {key: ino for key, ino in _entries(then).items() if key[0] in folders}
    top = {(parent.ino, path.rpartition(b"/")[2]): then[path].ino}
    things = {thing.ino: thing for thing in now.values()} | back
    return _walked(kept | wanted | top, things)


def _at_or_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(b"/" if top == TOP else top + b"/")


def _entries(picture: Picture) -> Entries:
    return {
        (picture[above(path)].ino, path.rpartition(b"/")[2]): thing.ino
        for path, thing in picture.items()
        if path != TOP
    }


def _below(entries: Entries, tops: set[Ino]) -> set[Ino]:
    """These and all that lies below them."""
    found = set(tops)
    while more := {ino for (parent, _), ino in entries.items() if parent in found} - found:
        found |= more
    return found


def _walked(entries: Entries, things: dict[Ino, Thing]) -> Picture:
    """The tree of all that can be reached, with as many links as there are names."""
    found: Picture = {}
    pending = [(TOP, ROOT)]
    while pending:
        path, ino = pending.pop()
        found[path] = things[ino]
        pending += [(joined(path, name), below) for (parent, name), below in entries.items() if parent == ino]
    names = [thing.ino for thing in found.values()]
    folders = [found[above(path)].ino for path, thing in found.items() if thing.is_dir and path != TOP]
    return {
        path: thing._replace(nlink=2 + folders.count(thing.ino) if thing.is_dir else names.count(thing.ino))
        for path, thing in found.items()
    }
