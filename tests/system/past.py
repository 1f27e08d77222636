"""Snapshots in the tree of a history.

Owns where they are and how their things are numbered: each is a thing below ``.snapshots``, and below that is
everything of its moment once more.  So what is said of a tree is said of its snapshots, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.system.history import Tree

PAST = b".snapshots/"
MOMENTS = (b"s1", b"s2")
UNDO = b"before-restore"
"""The snapshot that a restore leaves."""
_APART = 32


def apart(number: int, moment: int) -> int:
    """What has a number in the present, as it is numbered in a snapshot."""
    return moment << _APART | number


def parts(number: int) -> tuple[int, int]:
    """The moment, 0 for the present, and the number in the present."""
    return divmod(number, 1 << _APART)


def live(tree: Tree) -> Tree:
    """The present alone."""
    return {path: thing for path, thing in tree.items() if not path.startswith(PAST)}


def moments(tree: Tree) -> list[bytes]:
    """Names of the snapshots, oldest first."""
    tops = [(thing.number, path) for path, thing in tree.items() if thing.kind == "s"]
    return [path.removeprefix(PAST) for _, path in sorted(tops)]


def without(tree: Tree, name: bytes) -> Tree:
    """A tree that lacks one snapshot."""
    top = PAST + name
    return {path: thing for path, thing in tree.items() if path != top and not path.startswith(top + b"/")}
