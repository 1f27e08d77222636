"""Trees of every kind of inode, planted into a rig's table and cache, and what a restore of them must show.

Owns the description of a tree that is independent of the table: ``described`` of a real directory and
``Grove.expected`` are compared as they are.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from objfs.model import ROOT, AttrChange, Ino, NewInode, RenameFlag
from tests.volume.rigs import Rig

Described = dict[bytes, tuple[object, ...]]
START_NS = 1_500_000_000_123_456_789


@dataclass(eq=False)
class Plant:
    """One inode: ``parts`` are written at their offsets, then the file ends at ``size`` (0: at their end)."""

    kind: int
    mode: int = 0o644
    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    parts: Mapping[int, bytes] = field(default_factory=dict)
    size: int = 0
    target: bytes | None = None
    rdev: int = 0
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    ino: Ino | None = None
    mtime_ns: int = 0

    @property
    def content(self) -> bytes:
        data = bytearray(self.size)
        for offset, part in self.parts.items():
            data.extend(bytes(max(0, offset + len(part) - len(data))))
            data[offset : offset + len(part)] = part
        return bytes(data)


class Grove:
    """Paths to plants; several paths to one plant are hard links."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.plants: dict[bytes, Plant] = {b"": Plant(stat.S_IFDIR, 0o750, ino=ROOT)}

    def plant(self, path: bytes, plant: Plant) -> None:
        """One more name; a plant that is there already gets a link."""
        table, now = self._rig.table, self._rig.tick
        above, _, name = path.rpartition(b"/")
        parent = self.plants[above].ino or ROOT
        self._rig.tick += 1
        if plant.ino is not None:
            table.link(plant.ino, parent, name, now)
        elif plant.kind == stat.S_IFREG:
            plant.ino = self._write(plant, parent, name)
        else:
            new = NewInode(plant.kind | plant.mode, plant.uid, plant.gid, now, plant.rdev, plant.target)
            plant.ino = table.create(parent, name, new).ino
        self.plants[path] = plant

    def _write(self, plant: Plant, parent: Ino, name: bytes) -> Ino:
        table, rig = self._rig.table, self._rig
        rig.create(b"\xffdraft")
        for offset, data in plant.parts.items():
            rig.write(b"\xffdraft", offset, data)
        table.rename(ROOT, b"\xffdraft", parent, name, RenameFlag.REPLACE, rig.tick)
        ino = table.lookup(parent, name).ino
        if plant.size:
            table.truncate(ino, plant.size, rig.tick, 100)
        return ino

    def finish(self) -> None:
        """Owners, modes, attributes and times, which everything before changes."""
        table = self._rig.table
        for number, plant in enumerate(dict.fromkeys(self.plants.values()), 1):
            assert plant.ino is not None
            plant.mtime_ns = START_NS + number * 1_000_000_007
            for name, value in plant.xattrs.items():
                table.set_xattr(plant.ino, name, value, 0, number)
            mode = plant.kind | plant.mode
            table.set_attr(
                plant.ino,
                AttrChange(mode, plant.uid, plant.gid, plant.mtime_ns, plant.mtime_ns, plant.mtime_ns),
            )

    def expected(self) -> Described:
        names = Counter(id(plant) for plant in self.plants.values())
        first: dict[int, bytes] = {}
        for path in sorted(self.plants):
            first.setdefault(id(self.plants[path]), path)
        return {
            path: (
                *(plant.kind, 0 if plant.kind == stat.S_IFLNK else plant.mode, plant.uid, plant.gid),
                plant.mtime_ns,
                first[id(plant)] if names[id(plant)] > 1 else b"",
                dict(plant.xattrs),
                self._bytes_of(plant),
            )
            for path, plant in self.plants.items()
        }

    @staticmethod
    def _bytes_of(plant: Plant) -> object:
        if plant.kind == stat.S_IFREG:
            return plant.content
        return plant.target if plant.kind == stat.S_IFLNK else plant.rdev


def described(root: str | os.PathLike[str]) -> Described:
    """The same of a real directory, its own path empty."""
    top, found, first = os.fsencode(root), Described(), dict[tuple[int, int], bytes]()
    paths = [top]
    for above, directories, names in os.walk(top):
        paths += [os.path.join(above, name) for name in (*directories, *names)]
    for full in sorted(paths):
        info, path = os.lstat(full), full[len(top) + 1 :]
        links = info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)
        kind = stat.S_IFMT(info.st_mode)
        found[path] = (
            *(kind, 0 if kind == stat.S_IFLNK else stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid),
            info.st_mtime_ns,
            first.setdefault((info.st_dev, info.st_ino), path) if links else b"",
            _xattrs(full),
            _bytes_at(full, info),
        )
    return found


def _xattrs(full: bytes) -> dict[bytes, bytes]:
    names = os.listxattr(full, follow_symlinks=False)
    return {os.fsencode(name): os.getxattr(full, name, follow_symlinks=False) for name in names}


def _bytes_at(full: bytes, info: os.stat_result) -> object:
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(full)
    if not stat.S_ISREG(info.st_mode):
        return info.st_rdev if stat.S_IFMT(info.st_mode) in (stat.S_IFCHR, stat.S_IFBLK) else 0
    with open(full, "rb") as stream:  # noqa: PTH123
        return stream.read()
