"""A whole tree at one moment, as a value: what a snapshot must go on showing, and a restore bring back.

Owns the reading of a file system into a picture, and the making of a model tree out of one.  A picture holds
all that a snapshot promises to keep: names, contents, attributes, extended attributes, hard links (as equal
inodes) and times, access times left out.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from objfs.fs import Caller, FileSystem
from objfs.model import ROOT, Attr, Ino
from tests.doubles.model_tree import Image, ModelTree, Node
from tests.doubles.model_tree import Path as Names

READER = Caller(0, 0)
TOP = b"/"
MOST_ENTRIES = 1000


class Thing(NamedTuple):
    """What is under a name."""

    ino: Ino
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int
    ctime_ns: int
    target: bytes | None
    content: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]

    @property
    def type(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.mode)


Picture = dict[bytes, Thing]
"""By path, each directory before what is in it; the root is a slash."""


def joined(above: bytes, name: bytes) -> bytes:
    return (b"" if above == TOP else above) + b"/" + name


def above(path: bytes) -> bytes:
    """The directory of a path."""
    return path.rpartition(b"/")[0] or TOP


async def pictured(fs: FileSystem) -> Picture:
    """All of a file system, read as a program would."""
    found: Picture = {}
    pending = [(TOP, fs.getattr(ROOT))]
    while pending:
        path, attr = pending.pop()
        found[path] = await _thing(fs, attr)
        if attr.is_dir:
            entries = fs.readdir(attr.ino, 2, MOST_ENTRIES)
            pending += [(joined(path, entry.name), fs.lookup(attr.ino, entry.name)) for entry in entries]
    return found


async def _thing(fs: FileSystem, attr: Attr) -> Thing:
    xattrs = tuple((name, fs.get_xattr(attr.ino, name)) for name in sorted(fs.list_xattr(attr.ino)))
    return Thing(
        attr.ino,
        attr.mode,
        attr.nlink,
        attr.uid,
        attr.gid,
        attr.rdev,
        0 if attr.is_dir else attr.size,
        attr.mtime_ns,
        attr.ctime_ns,
        attr.target,
        await _content(fs, attr),
        xattrs,
    )


async def _content(fs: FileSystem, attr: Attr) -> bytes:
    if not attr.is_regular or not attr.size:
        return b""
    handle = await fs.open(attr.ino, os.O_RDONLY, READER)
    try:
        return await fs.read(handle.fh, 0, attr.size + 1)
    finally:
        fs.release(handle.fh)


def image_of(picture: Picture) -> Image:
    """In the form of ``ModelTree.image``: inodes numbered in the order of a walk, no times."""
    numbers: dict[Ino, int] = {}
    found: Image = {}
    for names, thing in sorted((_names(path), thing) for path, thing in picture.items()):
        number = numbers.setdefault(thing.ino, len(numbers))
        facts = (number, thing.mode, thing.nlink, thing.uid, thing.gid, thing.rdev, thing.size)
        found[names] = (*facts, thing.target, thing.content, thing.xattrs)
    return found


def _names(path: bytes) -> Names:
    return tuple(name for name in path.split(b"/") if name)


def model_of(picture: Picture) -> tuple[ModelTree, dict[Node, Ino]]:
    """The model tree that looks like it, and the inode of each node."""
    model = ModelTree()
    nodes: dict[Ino, Node] = {ROOT: model.root}
    at: dict[bytes, Node] = {TOP: model.root}
    for path, thing in sorted(picture.items(), key=lambda item: _names(item[0])):
        node = at[path] = nodes.setdefault(thing.ino, Node(0))
        node.mode, node.uid, node.gid, node.rdev = thing.mode, thing.uid, thing.gid, thing.rdev
        node.nlink, node.target, node.xattrs = thing.nlink, thing.target, dict(thing.xattrs)
        node.content = bytearray(thing.content)
        node.names = {} if thing.is_dir else None
        if path != TOP:
            parent = at[above(path)]
            assert parent.names is not None
            parent.names[path.rpartition(b"/")[2]] = node
            node.above = parent if thing.is_dir else None
    return model, {node: ino for ino, node in nodes.items()}
