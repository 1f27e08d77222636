"""A POSIX tree in dicts: what every operation must do, without any thought of how.

The reference for ``tests/fs/test_model.py``.  Nodes are plain objects, names are dict keys, contents are
bytearrays.  An operation raises the class of ``objfs.errors`` that POSIX asks for.  Whole trees are compared
by ``image()``: names, kinds, modes, owners, link counts, sizes, contents, targets and attributes, with hard
links shown as the same number.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from objfs.errors import (
    Exists,
    InvalidArgument,
    IsDirectory,
    NameTooLong,
    NoAttribute,
    NotDirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
)
from objfs.model import NAME_MAX, RenameFlag

Path = tuple[bytes, ...]
Image = dict[Path, tuple[object, ...]]


@dataclass(eq=False)
class Node:
    """One inode; ``names`` of a directory, ``content`` of a file, ``target`` of a symlink."""

    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    nlink: int = 1
    names: dict[bytes, Node] | None = None
    content: bytearray = field(default_factory=bytearray)
    target: bytes | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    above: Node | None = None

    @property
    def is_dir(self) -> bool:
        return self.names is not None

    @property
    def size(self) -> int:
        return len(self.content) if self.target is None else len(self.target)


class ModelTree:
    """The tree.  Parents are given as nodes, as the kernel gives them as inodes."""

    def __init__(self) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, nlink=2, names={})
        self.root.above = self.root

    # --- names -------------------------------------------------------------------------

    def lookup(self, parent: Node, name: bytes) -> Node:
        names = _names(parent)
        if len(name) > NAME_MAX:
            raise NameTooLong(repr(name))
        if name not in names:
            raise NotFound(repr(name))
        return names[name]

    def make(
        self,
        parent: Node,
        name: bytes,
        mode: int,
        uid: int,
        gid: int,
        *,
        rdev: int = 0,
        target: bytes | None = None,
    ) -> Node:
        """Any kind of inode; ``mode`` carries the type."""
        self._free_name(parent, name)
        folder = stat.S_ISDIR(mode)
        if parent.mode & stat.S_ISGID:
            gid = parent.gid
            mode |= stat.S_ISGID if folder else 0
        node = Node(mode, uid, gid, rdev, target=target)
        if folder:
            node.nlink, node.names, node.above = 2, {}, parent
            parent.nlink += 1
        _names(parent)[name] = node
        return node

    def link(self, node: Node, parent: Node, name: bytes) -> None:
        if node.is_dir:
            raise NotPermitted("a directory")
        if node.nlink == 0:
            raise NotFound("an orphan")
        self._free_name(parent, name)
        _names(parent)[name] = node
        node.nlink += 1

    def adopt(self, node: Node, parent: Node, name: bytes) -> None:
        """A tree that was made elsewhere gets its name."""
        self._free_name(parent, name)
        self._give(parent, name, node)

    def unlink(self, parent: Node, name: bytes) -> Node:
        node = self.lookup(parent, name)
        if node.is_dir:
            raise IsDirectory(repr(name))
        del _names(parent)[name]
        node.nlink -= 1
        return node

    def rmdir(self, parent: Node, name: bytes) -> Node:
        node = self.lookup(parent, name)
        if not node.is_dir:
            raise NotDirectory(repr(name))
        if node.names:
            raise NotEmpty(repr(name))
        self._take(parent, name)
        node.nlink = 0
        return node

    def rename(self, parent: Node, name: bytes, to: Node, new_name: bytes, flag: RenameFlag) -> None:
        node = self.lookup(parent, name)
        other = _names(to).get(new_name)
        self._may_rename(node, parent, other, to, flag)
        if other is node:
            return
        self._take(parent, name)
        if other is not None:
            self._take(to, new_name)
            if flag is RenameFlag.EXCHANGE:
                self._give(parent, name, other)
            else:
                other.nlink = 0 if other.is_dir else other.nlink - 1
        self._give(to, new_name, node)

    def _may_rename(self, node: Node, parent: Node, other: Node | None, to: Node, flag: RenameFlag) -> None:
        """In the order of the kernel: names first, then the shape of the tree, then kinds."""
        if to.nlink == 0:
            raise NotFound("the directory is gone")
        if flag is RenameFlag.NOREPLACE and other is not None:
            raise Exists("the target")
        if flag is RenameFlag.EXCHANGE and other is None:
            raise NotFound("the target")
        if node.is_dir and _inside(to, node):
            raise InvalidArgument("into its own subtree")
        if flag is RenameFlag.EXCHANGE:
            if other is not None and other.is_dir and _inside(parent, other):
                raise InvalidArgument("into its own subtree")
        elif other is not None and other is not node:
            _may_replace(node, other)

    def _take(self, parent: Node, name: bytes) -> None:
        node = _names(parent).pop(name)
        parent.nlink -= node.is_dir

    def _give(self, parent: Node, name: bytes, node: Node) -> None:
        _names(parent)[name] = node
        parent.nlink += node.is_dir
        node.above = parent if node.is_dir else None

    def _free_name(self, parent: Node, name: bytes) -> None:
        names = _names(parent)
        if len(name) > NAME_MAX:
            raise NameTooLong(repr(name))
        if parent.nlink == 0:
            raise NotFound("the directory is gone")
        if name in names:
            raise Exists(repr(name))

    # --- content and attributes --------------------------------------------------------

    def write(self, node: Node, offset: int, data: bytes) -> None:
        if data:
            self.truncate(node, max(node.size, offset + len(data)))
            node.content[offset : offset + len(data)] = data

    def truncate(self, node: Node, size: int) -> None:
        if node.is_dir:
            raise IsDirectory("a directory")
        if not stat.S_ISREG(node.mode):
            raise InvalidArgument("not a file")
        del node.content[size:]
        node.content.extend(bytes(size - len(node.content)))

    def read(self, node: Node, offset: int, length: int) -> bytes:
        return bytes(node.content[offset : offset + length])

    def chmod(self, node: Node, mode: int) -> None:
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)

    def chown(self, node: Node, uid: int | None, gid: int | None) -> None:
        node.uid = node.uid if uid is None else uid
        node.gid = node.gid if gid is None else gid
        if (uid, gid) != (None, None) and not node.is_dir:
            node.mode &= ~stat.S_ISUID
            node.mode &= ~stat.S_ISGID if node.mode & stat.S_IXGRP else ~0

    def set_xattr(self, node: Node, name: bytes, value: bytes, flags: int) -> None:
        if flags == 1 and name in node.xattrs:
            raise Exists(repr(name))
        if flags == 2 and name not in node.xattrs:
            raise NoAttribute(repr(name))
        node.xattrs[name] = value

    def remove_xattr(self, node: Node, name: bytes) -> None:
        if name not in node.xattrs:
            raise NoAttribute(repr(name))
        del node.xattrs[name]

    # --- the whole ---------------------------------------------------------------------

    def directories(self) -> list[Node]:
        """All directories with a name, the root first."""
        found = [self.root]
        for node in found:
            found.extend(each for each in _names(node).values() if each.is_dir)
        return found

    def image(self) -> Image:
        """Everything that a walk would see, by path; inodes numbered in the order of the walk."""
        numbers: dict[int, int] = {}
        image: Image = {}

        def walk(path: Path, node: Node) -> None:
            number = numbers.setdefault(id(node), len(numbers))
            size = 0 if node.is_dir else node.size
            facts = (number, node.mode, node.nlink, node.uid, node.gid, node.rdev, size)
            image[path] = (*facts, node.target, bytes(node.content), tuple(sorted(node.xattrs.items())))
            for name in sorted(node.names or ()):
                walk((*path, name), _names(node)[name])

        walk((), self.root)
        return image


def _names(node: Node) -> dict[bytes, Node]:
    if node.names is None:
        raise NotDirectory("not a directory")
    return node.names


def _inside(node: Node, top: Node) -> bool:
    while node is not top:
        if node.above is node or node.above is None:
            return False
        node = node.above
    return True


def _may_replace(node: Node, other: Node) -> None:
    if other.is_dir and not node.is_dir:
        raise IsDirectory("the target")
    if node.is_dir and not other.is_dir:
        raise NotDirectory("the target")
    if other.names:
        raise NotEmpty("the target")
