"""Snapshots below one directory of a mount: ``.snapshots/NAME/...``.

Owns the trees of a mount besides the live one, and the inode numbers that they get (see ``translate``):

- slot 1 is the directory of snapshots.  What stands in it are doors: a directory for each snapshot, with a
  number of its own for ever, so that listing thousands opens none of them.
- a tree gets a slot when somebody first looks behind its door, and gives it back when the kernel has
  forgotten everything of it and nothing of it is open.  Its root is the door.

Promises that a real entry of the directory's name in the root of the mount wins, and that while there is none
nobody makes one: the name is taken.  The kernel remembers little of slot 1, so a snapshot that came or went
is seen without anybody being told; and of the trees everything, because they never change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyfuse3

from objfs.errors import NotFound, ObjfsError
from objfs.fs import FileSystem
from objfs.fuse.translate import SLOT_SHIFT, FuseSettings, Translator, Views
from objfs.model import ROOT, Attr, Ino

LIVE, DOORS, FIRST = 0, 1, 2
"""Slots: the live tree, the directory of snapshots, the first of the trees."""
LAST = (1 << 16) - 1
REMEMBERED_S = 1.0
"""How long the kernel remembers a door; never that there is none."""


@dataclass(frozen=True, slots=True)
class Browsing:
    """What a mount shows of snapshots: their directory, the tree behind a door of it, and under which name;
    ``listed``: also in a listing of the root."""

    directory: FileSystem
    tree: Callable[[Ino], FileSystem]
    name: bytes = b".snapshots"
    listed: bool = False


class View:
    """One tree of the mount."""

    def __init__(self, slot: int, fs: FileSystem, translate: Translator) -> None:
        self.slot = slot
        self.fs = fs
        self.translate = translate

    def entry(self, attr: Attr) -> pyfuse3.EntryAttributes:
        """An answer for the kernel."""
        return self.translate.entry(attr)

    def known(self, attr: Attr) -> pyfuse3.EntryAttributes:
        """An answer that makes the kernel know the inode once more."""
        entry = self.translate.entry(attr)
        self.fs.looked_up(attr.ino)
        return entry

    def above(self, ino: Ino) -> tuple[View, Attr]:
        """The directory above one, and the tree that it belongs to."""
        return self, self.fs.parent_of(ino)

    @property
    def idle(self) -> bool:
        """Whether the kernel knows nothing of the tree and nothing of it is open."""
        held = self.fs.statistics()
        return not held.open and not held.known


class Directory(View):
    """The directory of snapshots; above it is the root of the mount."""

    def __init__(self, fs: FileSystem, translate: Translator, live: View) -> None:
        super().__init__(DOORS, fs, translate)
        self._live = live

    def above(self, ino: Ino) -> tuple[View, Attr]:
        if ino != ROOT:
            return super().above(ino)
        return self._live, self._live.fs.getattr(self._live.fs.settings.root)


class Tree(View):
    """What is behind a door.  The kernel knows its root as the door."""

    def __init__(
        self, slot: int, fs: FileSystem, translate: Translator, directory: Directory, door: Ino
    ) -> None:
        super().__init__(slot, fs, translate)
        self._directory = directory
        self.door = door

    def _at_door(self, attr: Attr) -> bool:
        return attr.ino == self.fs.settings.root

    def entry(self, attr: Attr) -> pyfuse3.EntryAttributes:
        if self._at_door(attr):
            return self._directory.entry(self._directory.fs.getattr(self.door))
        return super().entry(attr)

    def known(self, attr: Attr) -> pyfuse3.EntryAttributes:
        if self._at_door(attr):
            return self._directory.known(self._directory.fs.getattr(self.door))
        return super().known(attr)

    def above(self, ino: Ino) -> tuple[View, Attr]:
        if ino == self.fs.settings.root:
            return self._directory, self._directory.fs.getattr(ROOT)
        return super().above(ino)


class Browser:
    """The snapshots of one mount; ``trees`` are its views by slot, which it adds to and takes from."""

    def __init__(
        self, browsing: Browsing, trees: dict[int, View], views: Views, settings: FuseSettings
    ) -> None:
        self.name = browsing.name
        self.listed = browsing.listed
        self._tree = browsing.tree
        self._trees = trees
        self._views = views
        self._settings = settings
        self._live = trees[LIVE]
        brief = replace(settings, entry_timeout=REMEMBERED_S, attr_timeout=REMEMBERED_S, negative_timeout=0.0)
        self._directory = Directory(browsing.directory, Translator(views, DOORS, brief), self._live)
        trees[DOORS] = self._directory
        self._slots: dict[Ino, int] = {}
        self._last = LAST

    # --- the directory's name ----------------------------------------------------------

    def named(self, view: View, parent: Ino, name: bytes) -> bool:
        """Whether an entry of the mount is the directory of snapshots."""
        if name != self.name or view is not self._live or parent != view.fs.settings.root:
            return False
        try:
            view.fs.lookup(parent, name)
        except NotFound:
            return True
        return False

    def entry(self) -> pyfuse3.EntryAttributes:
        """The directory, for a listing."""
        return self._directory.entry(self._directory.fs.getattr(ROOT))

    def known(self) -> pyfuse3.EntryAttributes:
        """The directory, which the kernel then knows once more."""
        return self._directory.known(self._directory.fs.getattr(ROOT))

    # --- trees -------------------------------------------------------------------------

    def behind(self, door: Ino) -> Tree:
        """The tree behind a door.  Raises StaleHandle when the snapshot was deleted."""
        tree = self._trees.get(self._slots.get(door, LIVE))
        if isinstance(tree, Tree):
            return tree
        slot, fs = self._free_slot(), self._tree(door)
        translate = Translator(self._views, slot, self._settings, generation=door)
        self._trees[slot] = tree = Tree(slot, fs, translate, self._directory, door)
        self._slots[door] = self._last = slot
        return tree

    def settle(self, slot: int) -> None:
        """Gives a slot back where nobody has anything of its tree."""
        tree = self._trees.get(slot)
        if isinstance(tree, Tree) and tree.idle:
            del self._trees[slot], self._slots[tree.door]

    def _free_slot(self) -> int:
        """The one that was given back the longest ago, or was never given."""
        count = LAST - FIRST + 1
        for step in range(1, count + 1):
            slot = FIRST + (self._last - FIRST + step) % count
            if slot not in self._trees:
                return slot
        raise ObjfsError(f"{count} snapshots are in use on this mount: leave some of them")


def is_door(slot: int, ino: Ino) -> bool:
    """Whether a number of the kernel, decoded, is a snapshot's."""
    return slot == DOORS and ino != ROOT


def slot_of(number: int) -> int:
    """The slot in an inode number or the number of a handle."""
    return number >> SLOT_SHIFT
