"""Random histories: the file system does what the model tree does, and the trees stay equal.

``OBJFS_MODEL_EXAMPLES`` and ``OBJFS_MODEL_STEPS`` scale the search (100 histories of 40 steps otherwise).  A
failure prints the history, shrunk; keep it as a test with a name of its own.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from objfs.errors import NotFound, PosixError
from objfs.fs import Caller, FileSystem
from objfs.model import ROOT, Attr, AttrChange, Ino, RenameFlag
from tests.doubles.model_tree import Image, ModelTree, Node, Path
from tests.fs.memory import CHUNK, World
from tests.fs.real import RealWorld

EXAMPLES = int(os.environ.get("OBJFS_MODEL_EXAMPLES", "100"))
STEPS = int(os.environ.get("OBJFS_MODEL_STEPS", "40"))
COMPARE_EVERY = 4

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"n" * 255])
PLACES = st.integers(0, 5)


def offsets(chunk: int) -> st.SearchStrategy[int]:
    """In a file of chunks of this size: anywhere, and where they meet."""
    return st.one_of(st.integers(0, 3 * chunk), st.sampled_from([0, chunk - 1, chunk, chunk + 1, 2 * chunk]))


def lengths(chunk: int) -> st.SearchStrategy[int]:
    """Few bytes, and about as many as chunks have."""
    return st.one_of(st.integers(0, 64), st.sampled_from([chunk - 1, chunk, chunk + 1, 2 * chunk + 5]))


OFFSETS, LENGTHS = offsets(CHUNK), lengths(CHUNK)
MODES = st.sampled_from([0o644, 0o755, 0o2775, 0o6755, 0o600])
IDS = st.sampled_from([None, 0, 1000])
XATTRS = st.sampled_from([b"user.a", b"user.b", b"trusted.c"])

ROOT_USER = Caller(0, 0)

T = TypeVar("T")


def outcome(function: Callable[[], T]) -> T | type[PosixError]:
    """What a call returns, or the class of what POSIX calls its failure."""
    try:
        return function()
    except PosixError as error:
        return type(error)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine of the file system; nothing of it is left running afterwards."""

    async def main() -> T:
        return await coroutine

    return trio.run(main)


class Open:
    """A handle on both sides."""

    def __init__(self, node: Node, fh: int) -> None:
        self.node, self.fh = node, fh


class Tree(RuleBasedStateMachine):
    """The model and the file system, changed together."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ModelTree()
        self.world = self.make_world()
        self.inos: dict[Node, Ino] = {self.model.root: ROOT}
        self.opened: list[Open] = []
        self.steps = 0
        self.filler = 0

    def make_world(self) -> World | RealWorld:
        return World()

    @property
    def fs(self) -> FileSystem:
        return self.world.fs

    @initialize(length=LENGTHS)
    def begin(self, length: int) -> None:
        """Most of what can go wrong needs a file with something in it."""
        self.create(0, b"a", 0o644, 0, True)
        self.write(0, 0, length)

    # --- choosing ----------------------------------------------------------------------

    def folder(self, place: int) -> Node:
        folders = self.model.directories()
        return folders[place % len(folders)]

    def same(self, model: Callable[[], object], real: Callable[[], T]) -> T | None:
        """Both succeed, or both fail with the same class; the real result."""
        expected, got = outcome(model), outcome(real)
        failed = isinstance(expected, type), isinstance(got, type)
        if any(failed):
            assert expected == got
            return None
        return got if not isinstance(got, type) else None

    def fill(self, length: int) -> bytes:
        self.filler = self.filler % 250 + 1
        return bytes([self.filler]) * length

    # --- rules: names ------------------------------------------------------------------

    @rule(place=PLACES, name=NAMES, mode=MODES, uid=st.sampled_from([0, 1000]), keep=st.booleans())
    def create(self, place: int, name: bytes, mode: int, uid: int, keep: bool) -> None:
        parent = self.folder(place)
        fs, caller = self.fs, Caller(uid, uid)
        made = self.same(
            lambda: self.model.make(parent, name, stat.S_IFREG | mode, uid, uid),
            lambda: fs.create(self.inos[parent], name, mode, os.O_RDWR, caller),
        )
        if made is None:
            return
        handle, attr = made
        node = self.model.lookup(parent, name)
        self.inos[node] = attr.ino
        if keep:
            self.opened.append(Open(node, handle.fh))
        else:
            fs.release(handle.fh)

    @rule(place=PLACES, name=NAMES, mode=MODES)
    def mkdir(self, place: int, name: bytes, mode: int) -> None:
        parent = self.folder(place)
        made = self.same(
            lambda: self.model.make(parent, name, stat.S_IFDIR | mode, 5, 6),
            lambda: self.fs.mkdir(self.inos[parent], name, mode, Caller(5, 6)),
        )
        self.learn(parent, name, made)

    @rule(place=PLACES, name=NAMES, kind=st.sampled_from([stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR]))
    def mknod(self, place: int, name: bytes, kind: int) -> None:
        parent = self.folder(place)
        rdev = 0x103 if kind == stat.S_IFCHR else 0
        made = self.same(
            lambda: self.model.make(parent, name, kind | 0o600, 0, 0, rdev=rdev),
            lambda: self.fs.mknod(self.inos[parent], name, kind | 0o600, 0x103, Caller(0, 0)),
        )
        self.learn(parent, name, made)

    @rule(place=PLACES, name=NAMES, to=st.sampled_from([b"t", b"../\xff", b"l" * 4095]))
    def symlink(self, place: int, name: bytes, to: bytes) -> None:
        parent = self.folder(place)
        made = self.same(
            lambda: self.model.make(parent, name, stat.S_IFLNK | 0o777, 0, 0, target=to),
            lambda: self.fs.symlink(self.inos[parent], name, to, Caller(0, 0)),
        )
        self.learn(parent, name, made)

    def learn(self, parent: Node, name: bytes, made: Attr | None) -> None:
        if made is not None:
            self.inos[self.model.lookup(parent, name)] = made.ino

    @rule(place=PLACES, name=NAMES, to=PLACES, new_name=NAMES)
    def link(self, place: int, name: bytes, to: int, new_name: bytes) -> None:
        node = self.folder(place).names.get(name)  # type: ignore[union-attr]
        if node is not None:
            parent = self.folder(to)
            self.same(
                lambda: self.model.link(node, parent, new_name),
                lambda: self.fs.link(self.inos[node], self.inos[parent], new_name),
            )

    @rule(place=PLACES, name=NAMES)
    def unlink(self, place: int, name: bytes) -> None:
        parent = self.folder(place)
        ino = self.inos[parent]
        self.same(lambda: self.model.unlink(parent, name), lambda: self.fs.unlink(ino, name))

    @rule(place=PLACES, name=NAMES)
    def rmdir(self, place: int, name: bytes) -> None:
        parent = self.folder(place)
        ino = self.inos[parent]
        self.same(lambda: self.model.rmdir(parent, name), lambda: self.fs.rmdir(ino, name))

    @rule(place=PLACES, name=NAMES, to=PLACES, new_name=NAMES, flag=st.sampled_from(RenameFlag))
    def rename(self, place: int, name: bytes, to: int, new_name: bytes, flag: RenameFlag) -> None:
        parent, new_parent = self.folder(place), self.folder(to)
        old, new = self.inos[parent], self.inos[new_parent]
        self.same(
            lambda: self.model.rename(parent, name, new_parent, new_name, flag),
            lambda: self.fs.rename(old, name, new, new_name, flag),
        )

    # --- rules: handles and bytes ------------------------------------------------------

    @rule(place=PLACES, name=NAMES, cut=st.booleans())
    def open(self, place: int, name: bytes, cut: bool) -> None:
        node = self.folder(place).names.get(name)  # type: ignore[union-attr]
        if node is not None and stat.S_ISREG(node.mode):
            flags = os.O_RDWR | (os.O_TRUNC if cut else 0)
            handle = wait(self.fs.open(self.inos[node], flags, Caller(0, 0)))
            if cut:
                self.model.truncate(node, 0)
            self.opened.append(Open(node, handle.fh))

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS)
    def write(self, which: int, offset: int, length: int) -> None:
        file = self.opened[which % len(self.opened)]
        data = self.fill(length)
        self.model.write(file.node, offset, data)
        assert wait(self.fs.write(file.fh, offset, data)) == length

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS)
    def read(self, which: int, offset: int, length: int) -> None:
        file = self.opened[which % len(self.opened)]
        assert wait(self.fs.read(file.fh, offset, length)) == self.model.read(file.node, offset, length)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS, again=OFFSETS)
    def write_over_frozen(self, which: int, offset: int, length: int, again: int) -> None:
        self.write(which, offset, length)
        self.freeze()
        self.write(which, again, length)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, size=OFFSETS, more=OFFSETS)
    def cut_and_grow(self, which: int, size: int, more: int) -> None:
        self.truncate(which, size)
        self.truncate(which, size + more)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, size=OFFSETS)
    def truncate(self, which: int, size: int) -> None:
        file = self.opened[which % len(self.opened)]
        self.model.truncate(file.node, size)
        wait(self.fs.setattr(self.inos[file.node], AttrChange(), size, Caller(0, 0)))

    @precondition(lambda self: self.opened)
    @rule(which=PLACES)
    def close(self, which: int) -> None:
        self.fs.release(self.opened.pop(which % len(self.opened)).fh)

    @rule()
    def freeze(self) -> None:
        self.world.freeze()

    @rule()
    def flush(self) -> None:
        wait(self.world.flush())

    @rule()
    def sync(self) -> None:
        wait(self.world.sync())

    # --- rules: attributes -------------------------------------------------------------

    def named(self, place: int, name: bytes) -> Node:
        return self.folder(place).names.get(name, self.model.root)  # type: ignore[union-attr]

    @rule(place=PLACES, name=NAMES, mode=MODES)
    def chmod(self, place: int, name: bytes, mode: int) -> None:
        node = self.named(place, name)
        self.model.chmod(node, mode)
        wait(self.fs.setattr(self.inos[node], AttrChange(mode=mode), None, Caller(0, 0)))

    @rule(place=PLACES, name=NAMES, uid=IDS, gid=IDS)
    def chown(self, place: int, name: bytes, uid: int | None, gid: int | None) -> None:
        node = self.named(place, name)
        self.model.chown(node, uid, gid)
        wait(self.fs.setattr(self.inos[node], AttrChange(uid=uid, gid=gid), None, Caller(0, 0)))

    @rule(place=PLACES, name=NAMES, key=XATTRS, value=st.binary(max_size=4), flags=st.sampled_from([0, 1, 2]))
    def set_xattr(self, place: int, name: bytes, key: bytes, value: bytes, flags: int) -> None:
        node = self.named(place, name)
        if node.is_dir or stat.S_ISREG(node.mode):
            self.same(
                lambda: self.model.set_xattr(node, key, value, flags),
                lambda: self.fs.set_xattr(self.inos[node], key, value, flags),
            )

    @rule(place=PLACES, name=NAMES, key=XATTRS)
    def remove_xattr(self, place: int, name: bytes, key: bytes) -> None:
        node = self.named(place, name)
        ino = self.inos[node]
        self.same(lambda: self.model.remove_xattr(node, key), lambda: self.fs.remove_xattr(ino, key))

    # --- rules: listing and life -------------------------------------------------------

    @rule(place=PLACES, name=NAMES, limit=st.integers(1, 3))
    def list_while_changing(self, place: int, name: bytes, limit: int) -> None:
        """What is there all the time is listed once; what is removed meanwhile, at most once."""
        parent = self.folder(place)
        ino, seen, after = self.inos[parent], list[bytes](), 2
        before = set(parent.names or ())
        while page := self.fs.readdir(ino, after, limit):
            seen.extend(entry.name for entry in page)
            after = page[-1].cookie
            self.unlink(place, name)
        assert len(seen) == len(set(seen))
        assert set(parent.names or ()) <= set(seen) <= before

    @rule()
    def purge(self) -> None:
        while self.fs.orphans.waiting:
            self.fs.orphans.purge_batch()

    @rule()
    def remount(self) -> None:
        self.begin_again(self.world.restart)

    def begin_again(self, restart: Callable[[], None]) -> None:
        """The handles are gone, and with them the files that only they kept; the others are opened again."""
        kept = [file.node for file in self.opened if file.node.nlink]
        restart()
        wait(self.fs.recover())
        wait(self.fs.aclose())
        self.opened = [
            Open(node, wait(self.fs.open(self.inos[node], os.O_RDWR, ROOT_USER)).fh) for node in kept
        ]

    # --- comparing ---------------------------------------------------------------------

    @invariant()
    def equal(self) -> None:
        self.steps += 1
        if self.steps % COMPARE_EVERY == 0:
            self.compare()

    def compare(self) -> None:
        assert image(self.fs) == self.model.image()
        for file in self.opened:
            attr = self.fs.getattr(self.inos[file.node])
            assert (attr.size, attr.nlink) == (file.node.size, file.node.nlink)

    def teardown(self) -> None:
        try:
            self.compare()
            self.remount()
            self.compare()
            self.opened.clear()
            wait(self.fs.aclose())
            assert self.world.inodes() == len(all_nodes(self.model))
        finally:
            self.world.close()


class RealTree(Tree):
    """The same over the real inode table and chunk cache."""

    def make_world(self) -> RealWorld:
        return RealWorld()

    @property
    def real(self) -> RealWorld:
        assert isinstance(self.world, RealWorld)
        return self.world

    @rule()
    def evict(self) -> None:
        wait(self.world.flush())
        self.real.evict()

    @rule()
    def flush_at_last(self) -> None:
        wait(self.real.flush_at_last())


def all_nodes(model: ModelTree) -> set[Node]:
    return {node for folder in model.directories() for node in (folder, *(folder.names or {}).values())}


def image(fs: FileSystem) -> Image:
    """The tree as the file system shows it, in the model's form."""
    numbers: dict[Ino, int] = {}
    found: Image = {}

    def walk(path: Path, attr: Attr) -> None:
        number = numbers.setdefault(attr.ino, len(numbers))
        size = 0 if attr.is_dir else attr.size
        facts = (number, attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, size)
        xattrs = tuple((name, fs.get_xattr(attr.ino, name)) for name in sorted(fs.list_xattr(attr.ino)))
        found[path] = (*facts, attr.target, content(fs, attr), xattrs)
        if attr.is_dir:
            for entry in sorted(fs.readdir(attr.ino, 2, 1000), key=lambda entry: entry.name):
                walk((*path, entry.name), fs.lookup(attr.ino, entry.name))

    walk((), fs.getattr(ROOT))
    return found


def content(fs: FileSystem, attr: Attr) -> bytes:
    if not attr.is_regular or not attr.size:
        return b""
    handle = wait(fs.open(attr.ino, os.O_RDONLY, Caller(0, 0)))
    data = wait(fs.read(handle.fh, 0, attr.size + 1))
    fs.release(handle.fh)
    return data


TestTree = Tree.TestCase
TestTree.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRealTree = RealTree.TestCase
TestRealTree.settings = TestTree.settings


def test_the_comparison_sees_a_difference() -> None:
    machine = Tree()
    machine.create(0, b"a", 0o644, 0, True)
    machine.write(0, 5, 10)
    machine.compare()
    machine.model.lookup(machine.model.root, b"a").content[7] ^= 1
    with pytest.raises(AssertionError):
        machine.compare()
    with pytest.raises(NotFound):
        machine.fs.lookup(ROOT, b"b")
