"""Random histories with clones in them: no write to one file is seen in another, also after a restart.

The machine is that of ``tests/fs/test_model.py``, with the same variables to scale it; a failure prints the
history, shrunk.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import rule

from objfs.app.cloning import Cloner
from objfs.errors import InvalidArgument
from objfs.meta.clone import Origin
from tests.app.exchanges import exchange_in
from tests.app.test_cloning import recovered
from tests.doubles.model_tree import ModelTree, Node
from tests.fs.real import RealWorld
from tests.fs.test_model import NAMES, PLACES, RealTree, wait

EXAMPLES = int(os.environ.get("OBJFS_MODEL_EXAMPLES", "25"))
STEPS = int(os.environ.get("OBJFS_MODEL_STEPS", "30"))
MOST = 8
"""Inodes of a tree that is cloned: else they double and double."""


class RecoveringWorld(RealWorld):
    """After a restart it does what a mount does before anybody writes."""

    def restart(self) -> None:
        super().restart()
        recovered(self)


class CloningTree(RealTree):
    """The tree over the real inode table and chunk cache, and clones in it."""

    def make_world(self) -> RealWorld:
        return RecoveringWorld()

    @rule(place=PLACES, name=NAMES, to=PLACES, new_name=NAMES)
    def clone(self, place: int, name: bytes, to: int, new_name: bytes) -> None:
        node, parent = self.folder(place).names.get(name), self.folder(to)  # type: ignore[union-attr]
        if node is None or len(inside(node)) > MOST:
            return
        real = self.real

        async def sync() -> None:
            await real.cache.sync()

        cloner = Cloner(exchange_in(real, sync=sync))
        made = self.same(
            lambda: clone_of(self.model, node, parent, new_name),
            lambda: wait(cloner.clone(Origin(self.inos[node]), self.inos[parent], new_name)),
        )
        if made is not None:
            self.learn_all(parent, new_name)

    def learn_all(self, parent: Node, name: bytes) -> None:
        node = self.model.lookup(parent, name)
        self.inos[node] = self.fs.lookup(self.inos[parent], name).ino
        for below in node.names or ():
            self.learn_all(node, below)


def inside(node: Node) -> list[Node]:
    return [node, *(found for below in (node.names or {}).values() for found in inside(below))]


def clone_of(model: ModelTree, node: Node, parent: Node, name: bytes) -> Node:
    """The same in the model.  Raises InvalidArgument, Exists."""
    if any(one is parent for one in inside(node)):
        raise InvalidArgument("into itself")
    copies: dict[Node, Node] = {}

    def copy(old: Node, above: Node) -> Node:
        if old in copies:
            copies[old].nlink += 1
            return copies[old]
        new = Node(old.mode, old.uid, old.gid, old.rdev, target=old.target)
        copies[old] = new
        new.content, new.xattrs = bytearray(old.content), dict(old.xattrs)
        if old.names is not None:
            new.nlink, new.above = old.nlink, above
            new.names = {below: copy(child, new) for below, child in old.names.items()}
        return new

    model.adopt(copy(node, parent), parent, name)
    return copies[node]


TestCloningTree = CloningTree.TestCase
TestCloningTree.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
