"""Random histories of file operations, and the tree as it stands after each of them.

Owns the operations that the tests of crashes and lost machines use, what each does to a tree, and which may
come next.  All of it is pure: a tree is a mapping that nobody changes, so that those after every operation
can be kept side by side.  Who performs operations: ``tests.system.performing`` on a directory,
``tests.crashes.hands`` on a file system without a mount.

A tree may have snapshots (``tests.system.past``); only who can take them asks for them (``WITH_SNAPSHOTS``).
"""

from __future__ import annotations

import random
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from tests.system.past import MOMENTS, PAST, UNDO, apart, live, moments, parts, without

FOLDERS = (b"d1", b"d2", b"d3")
NAMES = (*(b"f%d" % number for number in range(9)), b"\xff\xfe odd")
INSIDE = (b"a", b"b")
PAGE = 4096
SIZES = (1, 100, 4096, 70_000, 300_000, 1_500_000)
"""Of writes: most are small, and some cross many chunks."""
SMALL_SIZES = (1, 100, 4096, 20_000, 70_000, 150_000)
"""For chunks of 64 KiB."""


class Thing(NamedTuple):
    """A file, directory, symbolic link or snapshot: ``kind`` is ``f``, ``d``, ``l`` or ``s``; ``content`` is
    also a link's target."""

    number: int
    kind: str
    mode: int
    content: bytes = b""
    attributes: tuple[tuple[bytes, bytes], ...] = ()


Tree: TypeAlias = Mapping[bytes, Thing]
"""Path -> what is there; hard links have one number."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One system call, with opening and closing around it; ``synchronous``: durable when it returns."""

    verb: str
    name: bytes
    other: bytes = b""
    offset: int = 0
    length: int = 0
    fill: int = 0
    synchronous: bool = False

    @property
    def data(self) -> bytes:
        """Content that no other operation writes at the same place."""
        return (random.Random(self.fill).randbytes(PAGE) * (self.length // PAGE + 1))[: self.length]


# --- what an operation does ------------------------------------------------------------------


def applied(tree: Tree, operation: Operation) -> Tree:
    """The tree afterwards.  New things are numbered by ``fill``, which is another in each operation."""
    changed = dict(tree)
    _EFFECTS[operation.verb](changed, operation)
    return changed


def _replace(tree: dict[bytes, Thing], thing: Thing) -> None:
    """A file has several names, and all show the same."""
    for path, other in tree.items():
        if other.number == thing.number:
            tree[path] = thing


def _create(tree: dict[bytes, Thing], op: Operation) -> None:
    tree[op.name] = Thing(op.fill, "f", 0o644)


def _mkdir(tree: dict[bytes, Thing], op: Operation) -> None:
    tree[op.name] = Thing(op.fill, "d", 0o755)


def _symlink(tree: dict[bytes, Thing], op: Operation) -> None:
    tree[op.name] = Thing(op.fill, "l", 0o777, b"to %d" % op.fill)


def _write(tree: dict[bytes, Thing], op: Operation) -> None:
    old = tree[op.name].content
    padded = old.ljust(op.offset, b"\0")
    content = padded[: op.offset] + op.data + padded[op.offset + op.length :]
    _replace(tree, tree[op.name]._replace(content=content))


def _truncate(tree: dict[bytes, Thing], op: Operation) -> None:
    content = tree[op.name].content[: op.length].ljust(op.length, b"\0")
    _replace(tree, tree[op.name]._replace(content=content))


def _rename(tree: dict[bytes, Thing], op: Operation) -> None:
    if op.other in tree and tree[op.other].number == tree[op.name].number:
        return
    tree[op.other] = tree.pop(op.name)
    for path in [path for path in tree if path.startswith(op.name + b"/")]:
        tree[op.other + path[len(op.name) :]] = tree.pop(path)


def _remove(tree: dict[bytes, Thing], op: Operation) -> None:
    del tree[op.name]


def _link(tree: dict[bytes, Thing], op: Operation) -> None:
    tree[op.other] = tree[op.name]


def _chmod(tree: dict[bytes, Thing], op: Operation) -> None:
    _replace(tree, tree[op.name]._replace(mode=0o600 + op.fill % 0o100))


def _attribute(tree: dict[bytes, Thing], op: Operation) -> None:
    _replace(tree, tree[op.name]._replace(attributes=((b"user.a", b"%d" % op.fill),)))


def _nothing(_tree: dict[bytes, Thing], _op: Operation) -> None:
    """What only makes durable."""


def _snapshot(tree: dict[bytes, Thing], op: Operation) -> None:
    _name_moment(tree, op.name, op.fill)


def _name_moment(tree: dict[bytes, Thing], name: bytes, moment: int) -> None:
    now, top = live(tree), PAST + name
    tree[top] = Thing(apart(0, moment), "s", 0)
    for path, thing in now.items():
        tree[top + b"/" + path] = thing._replace(number=apart(thing.number, moment))


def _drop(tree: dict[bytes, Thing], op: Operation) -> None:
    rest = without(tree, op.name)
    for path in tree.keys() - rest.keys():
        del tree[path]


def _prune(tree: dict[bytes, Thing], op: Operation) -> None:
    """``length`` of the newest stay."""
    names = moments(tree)
    for name in names[: len(names) - op.length]:
        _drop(tree, Operation("drop", name))


def _restore(tree: dict[bytes, Thing], op: Operation) -> None:
    """All of it; ``other`` is the snapshot that undoes it, if any."""
    if op.other:
        _name_moment(tree, op.other, op.fill)
    for path in live(tree):
        del tree[path]
    below = PAST + op.name + b"/"
    for path, thing in [item for item in tree.items() if item[0].startswith(below)]:
        tree[path.removeprefix(below)] = thing._replace(number=parts(thing.number)[1])


_EFFECTS = {
    "create": _create,
    "mkdir": _mkdir,
    "symlink": _symlink,
    "write": _write,
    "truncate": _truncate,
    "rename": _rename,
    "unlink": _remove,
    "rmdir": _remove,
    "link": _link,
    "chmod": _chmod,
    "attribute": _attribute,
    "fsync": _nothing,
    "snapshot": _snapshot,
    "drop": _drop,
    "prune": _prune,
    "restore": _restore,
}


# --- which may come next ---------------------------------------------------------------------


WEIGHTS: Mapping[str, int] = {
    "create": 6,
    "mkdir": 1,
    "symlink": 1,
    "write": 24,
    "truncate": 4,
    "rename": 7,
    "unlink": 4,
    "rmdir": 1,
    "link": 2,
    "chmod": 2,
    "attribute": 1,
    "fsync": 4,
}
OF_SNAPSHOTS: Mapping[str, int] = {"snapshot": 4, "drop": 2, "restore": 2, "prune": 0}
"""A prune waits for the buckets, and a history for nothing."""
WITH_SNAPSHOTS = {**WEIGHTS, **OF_SNAPSHOTS}


def chosen(
    generator: random.Random,
    tree: Tree,
    number: int,
    sizes: Sequence[int] = SIZES,
    weights: Mapping[str, int] = WEIGHTS,
) -> Operation:
    """A random operation that is valid for the tree; ``number`` is another for each of a history."""
    now = live(tree)
    while True:
        verb = generator.choices(list(weights), list(weights.values()))[0]
        if verb in OF_SNAPSHOTS:
            operation = _some_moment(generator, tree, verb, number)
        else:
            operation = _candidate(generator, now, verb, number, sizes)
        if operation is not None:
            return operation


def _some_moment(generator: random.Random, tree: Tree, verb: str, number: int) -> Operation | None:
    """One undo at a time is kept."""
    taken = moments(tree)
    if verb == "snapshot":
        free = [name for name in MOMENTS if name not in taken]
        return Operation(verb, generator.choice(free), fill=number) if free else None
    known = [name for name in taken if verb == "drop" or name != UNDO]
    if not known:
        return None
    undo = UNDO if verb == "restore" and UNDO not in taken else b""
    return Operation(verb, generator.choice(known), undo, fill=number)


def _candidate(
    generator: random.Random, tree: Tree, verb: str, number: int, sizes: Sequence[int]
) -> Operation | None:
    files = [path for path, thing in sorted(tree.items()) if thing.kind == "f"]
    if verb in ("create", "mkdir", "symlink"):
        free = _free_names(tree, folders=verb == "mkdir")
        return Operation(verb, generator.choice(free), fill=number) if free else None
    if verb == "rmdir":
        empty = [path for path in tree if _is_empty_folder(tree, path)]
        return Operation(verb, generator.choice(sorted(empty))) if empty else None
    if verb == "rename":
        return _some_rename(generator, tree)
    if verb == "unlink":
        leaves = [path for path, thing in sorted(tree.items()) if thing.kind != "d"]
        return Operation(verb, generator.choice(leaves)) if leaves else None
    if not files:
        return None
    name = generator.choice(files)
    if verb == "write":
        size = len(tree[name].content)
        offset = generator.choice((0, size, generator.randint(0, size), generator.randint(0, size + 5000)))
        length = generator.choice(sizes)
        return Operation(verb, name, b"", offset, length, number, synchronous=generator.random() < 0.08)
    if verb == "truncate":
        size = len(tree[name].content)
        return Operation(verb, name, length=generator.choice((0, generator.randint(0, size + 5000))))
    if verb == "link":
        free = _free_names(tree)
        return Operation(verb, name, generator.choice(free)) if free else None
    return Operation(verb, name, fill=number, synchronous=verb == "fsync")


def _free_names(tree: Tree, *, folders: bool = False) -> list[bytes]:
    return [path for path in _places(tree, folders=folders) if path not in tree]


def _places(tree: Tree, *, folders: bool = False) -> list[bytes]:
    if folders:
        return list(FOLDERS)
    there = [folder for folder in FOLDERS if folder in tree]
    return [*NAMES, *(folder + b"/" + name for folder in there for name in INSIDE)]


def _is_empty_folder(tree: Tree, path: bytes) -> bool:
    return tree[path].kind == "d" and not any(other.startswith(path + b"/") for other in tree)


def _some_rename(generator: random.Random, tree: Tree) -> Operation | None:
    """Of a file over a file or a free name; of a directory over an empty one or a free name."""
    if not tree:
        return None
    name = generator.choice(sorted(tree))
    if tree[name].kind == "d":
        places = [path for path in FOLDERS if path not in tree or _is_empty_folder(tree, path)]
    else:
        places = _places(tree)
    targets = [path for path in places if path != name]
    return Operation("rename", name, generator.choice(targets)) if targets else None


# --- a whole history -------------------------------------------------------------------------


class History:
    """``trees[n]`` is the tree after ``n`` operations; ``operations[n]`` leads from there to the next."""

    def __init__(
        self,
        seed: object,
        start: Tree | None = None,
        sizes: Sequence[int] = SIZES,
        weights: Mapping[str, int] = WEIGHTS,
    ) -> None:
        self._random = random.Random(repr(seed))
        self._sizes = sizes
        self._weights = weights
        self.trees: list[Tree] = [start if start is not None else {}]
        self.operations: list[Operation] = []
        self.next_number = 1 + _highest(self.trees[0])

    def next(self) -> Operation:
        """One more operation, and the tree after it."""
        tree, number = self.trees[-1], self.next_number
        return self.do(chosen(self._random, tree, number, self._sizes, self._weights))

    def do(self, operation: Operation) -> Operation:
        """That one is the next."""
        self.next_number += 1
        self.operations.append(operation)
        self.trees.append(applied(self.trees[-1], operation))
        return operation

    def grow(self, length: int) -> None:
        """At least so many operations."""
        while len(self.operations) < length:
            self.next()

    def go_on_from(self, length: int, found: Tree | None = None) -> None:
        """Forgets what came after ``length`` operations, and with ``found`` goes on from that tree: as if
        what
        led there had been one more."""
        del self.operations[length:], self.trees[length + 1 :]
        if found is not None:
            self.operations.append(Operation("fsync", b""))
            self.trees.append(found)
            self.next_number += 1 + _highest(found)


def same(one: Tree, other: Tree) -> bool:
    """Whether two trees are equal but for the numbers of things."""
    return one.keys() == other.keys() and _canonical(one) == _canonical(other)


def _canonical(tree: Tree) -> list[Thing]:
    ranks: dict[int, int] = {}
    things = (tree[path] for path in sorted(tree))
    return [thing._replace(number=ranks.setdefault(thing.number, len(ranks))) for thing in things]


def kind_of(mode: int) -> str:
    """The kind of a thing, from what stat(2) says."""
    return {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l"}[stat.S_IFMT(mode)]


def renumbered(tree: Tree, first: int) -> Tree:
    """The same tree with numbers from ``first`` on, and moments, too."""
    ranks: dict[tuple[str, int], int] = {}

    def fresh(kind: str, number: int) -> int:
        return first + ranks.setdefault((kind, number), len(ranks))

    def again(number: int) -> int:
        moment, plain = parts(number)
        return apart(fresh("thing", plain), fresh("moment", moment)) if moment else fresh("thing", plain)

    return {path: thing._replace(number=again(thing.number)) for path, thing in tree.items()}


def _highest(tree: Tree) -> int:
    """Number of a thing or a moment."""
    return max((max(parts(thing.number)) for thing in tree.values()), default=0)
