"""Random histories of an inode table, and its tree as it stands, for tests of moments.

Owns the operations and the image of a tree.  A step is a verb and three numbers that pick what it is done to
among what there is, so that any list of steps means something and a failure shrinks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from hypothesis import strategies as st

from objfs.errors import PosixError
from objfs.meta import MetaDatabase
from objfs.model import ROOT, Attr, AttrChange, DirtyRange, Ino, RenameFlag, Snapshot
from tests.meta.support import CHUNK, START, directory, placed, regular, segment, symlink

NAMES = (b"a", b"b", b"c", b"d", b"\xff")
ATTRIBUTES = (b"user.x", b"user.y")
VERBS = (
    *("mkfile", "mkdir", "symlink", "link", "remove", "rename", "exchange", "write", "write", "truncate"),
    *("chmod", "xattr", "purge"),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(VERBS), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)), max_size=25
)
HISTORY = st.lists(STEPS, min_size=2, max_size=4)
"""With a moment after each part but the last."""
Step = tuple[str, int, int, int]


class Thing(NamedTuple):
    """What a name leads to.  ``chunks`` are (index, version)."""

    attr: Attr
    xattrs: tuple[tuple[bytes, bytes], ...]
    chunks: tuple[tuple[int, int], ...]

    @property
    def shown(self) -> tuple[object, ...]:
        """What a difference tells of: all but link counts, change times and the times of directories."""
        attr = self.attr
        mtime = None if attr.is_dir else attr.mtime_ns
        return attr.mode, attr.uid, attr.gid, attr.size, mtime, attr.target, self.xattrs, self.chunks


Image = dict[bytes, Thing]
"""Path -> what is there; the root is a slash."""


def image(table: MetaDatabase, top: Ino = ROOT) -> Image:
    """The whole tree now.  Access times are not versioned: they are left out."""
    return dict(_walk(table, top, b""))


def _walk(table: MetaDatabase, ino: Ino, path: bytes) -> Iterator[tuple[bytes, Thing]]:
    attr = table.get(ino)
    xattrs = tuple((name, table.get_xattr(ino, name)) for name in table.list_xattr(ino))
    chunks = tuple((chunk.index, chunk.chunk) for chunk in table.chunks_between(ino, 0, 2**40, 1000))
    yield path or b"/", Thing(attr._replace(atime_ns=0), xattrs, chunks)
    if attr.is_dir:
        for entry in table.readdir(ino, 0, 1000):
            yield from _walk(table, entry.attr.ino, path + b"/" + entry.name)


class History:
    """A table and the steps that were made in it."""

    def __init__(self, table: MetaDatabase) -> None:
        self.table = table
        self._now = START

    def perform(self, steps: Sequence[Step]) -> None:
        """What cannot be done is left out."""
        for verb, *numbers in steps:
            self._now += 1
            with suppress(PosixError):
                getattr(self, f"_{verb}")(*numbers)

    def _pick(self, number: int, *, directories: bool) -> Ino:
        found = [thing.attr.ino for thing in image(self.table).values() if thing.attr.is_dir is directories]
        return found[number % len(found)] if found else ROOT

    def _directory(self, number: int) -> Ino:
        return self._pick(number, directories=True)

    def _file(self, number: int) -> Ino:
        return self._pick(number, directories=False)

    def _mkfile(self, where: int, name: int, _: int) -> None:
        self.table.create(self._directory(where), NAMES[name % 5], regular(self._now))

    def _mkdir(self, where: int, name: int, _: int) -> None:
        self.table.create(self._directory(where), NAMES[name % 5], directory(self._now))

    def _symlink(self, where: int, name: int, target: int) -> None:
        new = symlink(b"to %d" % target, self._now)
        self.table.create(self._directory(where), NAMES[name % 5], new)

    def _link(self, where: int, name: int, what: int) -> None:
        self.table.link(self._file(what), self._directory(where), NAMES[name % 5], self._now)

    def _remove(self, where: int, name: int, _: int) -> None:
        parent = self._directory(where)
        if self.table.lookup(parent, NAMES[name % 5]).is_dir:
            self.table.rmdir(parent, NAMES[name % 5], self._now)
        else:
            self.table.unlink(parent, NAMES[name % 5], self._now)

    def _rename(self, where: int, name: int, to: int, flag: RenameFlag = RenameFlag.REPLACE) -> None:
        source, target = self._directory(where), self._directory(to)
        self.table.rename(source, NAMES[name % 5], target, NAMES[(name + to) % 5], flag, self._now)

    def _exchange(self, where: int, name: int, to: int) -> None:
        self._rename(where, name, to, RenameFlag.EXCHANGE)

    def _write(self, what: int, index: int, length: int) -> None:
        ino, table = self._file(what), self.table
        if not table.get(ino).is_regular:
            return
        old, length = table.chunk_at(ino, index % 4), min(CHUNK, 50 * (length + 1))
        with table.transaction():
            if old is None or old.location is not None:
                size = 0 if old is None or old.location is None else old.location.size
                base = None if old is None else old.chunk
                chunk = table.begin_chunk(ino, index % 4, base, size)
                grown = max(0, length - size)
                end = (index % 4) * CHUNK + length
                table.record_write(ino, end, self._now, [DirtyRange(chunk.chunk, 0, length, 7, grown=grown)])
                size = max(size, length)
                table.place(segment(), [placed(chunk, size)])

    def _truncate(self, what: int, size: int, _: int) -> None:
        ino = self._file(what)
        if self.table.get(ino).is_regular:
            self.table.truncate(ino, size % 5 * CHUNK, self._now, 1000)

    def _chmod(self, what: int, mode: int, is_dir: int) -> None:
        ino = self._pick(what, directories=bool(is_dir % 2))
        self.table.set_attr(ino, AttrChange(mode=0o600 | mode, ctime_ns=self._now))

    def _xattr(self, what: int, name: int, value: int) -> None:
        ino = self._file(what)
        if value % 3:
            self.table.set_xattr(ino, ATTRIBUTES[name % 2], b"%d" % value, 0, self._now)
        else:
            self.table.remove_xattr(ino, ATTRIBUTES[name % 2], self._now)

    def _purge(self, *_: int) -> None:
        for ino in self.table.orphans(100):
            self.table.purge(ino, 1000)


def lived(table: MetaDatabase, history: Sequence[Sequence[Step]]) -> list[tuple[Snapshot, Image]]:
    """Performs a history; its moments, and the tree as it was at each."""
    steps, moments = History(table), []
    for number, part in enumerate(history):
        if number > 0:
            moments.append((table.create_snapshot(b"%d" % number, number), image(table)))
        steps.perform(part)
    return moments
