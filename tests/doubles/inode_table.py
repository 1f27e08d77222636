"""The inode table in dicts: what the ports of ``model`` mean, as short as it can be said.

Passes the suite that the SQLite table passes (``tests/meta/contract.py``).  A transaction that fails is put
back by copies of everything, so it is for small trees.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from objfs.errors import (
    AttributeTooBig,
    Exists,
    FileTooBig,
    InvalidArgument,
    IsDirectory,
    NameTooLong,
    NoAttribute,
    NotDirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    ObjfsError,
    StaleHandle,
    StoreError,
    TooManyLinks,
)
from objfs.model import (
    FILE_SIZE_MAX,
    LINK_MAX,
    NAME_MAX,
    ROOT,
    SYMLINK_MAX,
    XATTR_NAME_MAX,
    XATTR_SIZE_MAX,
    Attr,
    AttrChange,
    Chunk,
    ChunkId,
    ChunkState,
    DirEntry,
    DirtyRange,
    Ino,
    NewInode,
    Placed,
    Renamed,
    RenameFlag,
    Segment,
    SegmentNo,
)


@dataclass
class _Rows:
    """Everything that a transaction puts back."""

    inodes: dict[Ino, Attr] = field(default_factory=dict)
    entries: dict[tuple[Ino, bytes], tuple[int, Ino]] = field(default_factory=dict)
    cookies: dict[Ino, int] = field(default_factory=dict)
    xattrs: dict[tuple[Ino, bytes], bytes] = field(default_factory=dict)
    live: dict[tuple[Ino, int], ChunkId] = field(default_factory=dict)
    chunks: dict[ChunkId, Chunk] = field(default_factory=dict)
    dirty: dict[ChunkId, tuple[DirtyRange, ...]] = field(default_factory=dict)
    segments: dict[SegmentNo, Segment] = field(default_factory=dict)
    cuts: dict[Ino, frozenset[tuple[Ino, int]]] = field(default_factory=dict)
    """Places that a truncate has taken and not yet removed: holes for every reader."""
    freed: dict[ChunkId, None] = field(default_factory=dict)

    def copy(self) -> _Rows:
        return _Rows(**{name: dict(rows) for name, rows in vars(self).items()})


class MemoryInodeTable:
    """``InodeTable`` and ``ChunkTable``; ``chunk_size`` in bytes."""

    def __init__(self, chunk_size: int, root: NewInode, boot: bytes = b"boot") -> None:
        self._chunk_size = chunk_size
        self._boot = boot
        self._rows = _Rows()
        self._depth = 0
        self._number = int(ROOT)
        self._insert(ROOT, root, ROOT)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        before = self._rows.copy() if self._depth == 0 else None
        self._depth += 1
        try:
            yield
        except BaseException:
            if before is not None:
                self._rows = before
            raise
        finally:
            self._depth -= 1

    def _new_number(self) -> int:
        self._number += 1
        return self._number

    # --- inodes ------------------------------------------------------------------------

    def get(self, ino: Ino) -> Attr:
        if ino not in self._rows.inodes:
            raise StaleHandle(f"inode {ino}")
        return self._rows.inodes[ino]

    def _insert(self, ino: Ino, new: NewInode, parent: Ino) -> Attr:
        is_dir, now = stat.S_ISDIR(new.mode), new.now_ns
        links, above = (2, parent) if is_dir else (1, Ino(0))
        size = len(new.target or b"")
        attr = Attr(
            ino, new.mode, links, new.uid, new.gid, new.rdev, size, now, now, now, now, new.target, above
        )
        self._rows.inodes[ino] = attr
        if is_dir:
            self._rows.cookies[ino] = 3
        return attr

    def _touch(self, ino: Ino, now_ns: int, *, links: int = 0, content: bool = False) -> Attr:
        attr = self.get(ino)
        mtime = now_ns if content else attr.mtime_ns
        attr = attr._replace(ctime_ns=now_ns, mtime_ns=mtime, nlink=attr.nlink + links)
        self._rows.inodes[ino] = attr
        return attr

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr:
        attr = self.get(ino)
        given = {name: getattr(change, name) for name in change.__slots__}
        found = {name: value for name, value in given.items() if value is not None}
        if change.mode is not None:
            found["mode"] = stat.S_IFMT(attr.mode) | stat.S_IMODE(change.mode)
        self._rows.inodes[ino] = attr._replace(**found)
        return self._rows.inodes[ino]

    def set_atimes(self, times: Sequence[tuple[Ino, int]]) -> None:
        for ino, atime_ns in times:
            if ino in self._rows.inodes:
                self.set_attr(ino, AttrChange(atime_ns=atime_ns))

    def count(self) -> tuple[int, int]:
        return len(self._rows.inodes), sum(attr.held for attr in self._rows.inodes.values())

    # --- names -------------------------------------------------------------------------

    def _directory(self, ino: Ino) -> Attr:
        attr = self.get(ino)
        if not attr.is_dir:
            raise NotDirectory(f"inode {ino}")
        return attr

    def _living(self, ino: Ino) -> Attr:
        attr = self._directory(ino)
        if attr.nlink == 0:
            raise NotFound(f"directory {ino} was removed")
        return attr

    @staticmethod
    def _check_name(name: bytes) -> None:
        if len(name) > NAME_MAX:
            raise NameTooLong(f"{len(name)} bytes")
        if not name:
            raise NotFound("an empty name")
        if name in (b".", b"..") or b"/" in name or b"\0" in name:
            raise InvalidArgument(repr(name))

    def _find(self, parent: Ino, name: bytes) -> Attr:
        self._check_name(name)
        self._directory(parent)
        if (parent, name) not in self._rows.entries:
            raise NotFound(repr(name))
        return self.get(self._rows.entries[parent, name][1])

    def _add(self, parent: Ino, name: bytes, ino: Ino) -> None:
        cookie = self._rows.cookies[parent]
        self._rows.cookies[parent] = cookie + 1
        self._rows.entries[parent, name] = (cookie, ino)

    def _drop(self, attr: Attr, now_ns: int) -> Attr:
        """One name less; a directory has only one."""
        return self._touch(attr.ino, now_ns, links=-attr.nlink if attr.is_dir else -1)

    def _empty(self, ino: Ino) -> bool:
        return all(parent != ino for parent, _ in self._rows.entries)

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        self._directory(parent)
        if len(name) > NAME_MAX:
            raise NameTooLong(f"{len(name)} bytes")
        if (parent, name) not in self._rows.entries:
            raise NotFound(repr(name))
        return self.get(self._rows.entries[parent, name][1])

    def create(self, parent: Ino, name: bytes, new: NewInode) -> Attr:
        self._check_name(name)
        if new.target is not None and not 0 < len(new.target) <= SYMLINK_MAX:
            raise (NameTooLong if new.target else NotFound)("the target")
        above = self._living(parent)
        links = 1 if stat.S_ISDIR(new.mode) else 0
        if above.nlink + links > LINK_MAX:
            raise TooManyLinks(f"directory {parent}")
        if (parent, name) in self._rows.entries:
            raise Exists(repr(name))
        attr = self._insert(Ino(self._new_number()), new, parent)
        self._add(parent, name, attr.ino)
        self._touch(parent, new.now_ns, links=links, content=True)
        return attr

    def link(self, ino: Ino, parent: Ino, name: bytes, now_ns: int) -> Attr:
        self._check_name(name)
        attr = self.get(ino)
        if attr.is_dir:
            raise NotPermitted(f"directory {ino}")
        if attr.nlink == 0:
            raise NotFound(f"inode {ino}")
        if attr.nlink >= LINK_MAX:
            raise TooManyLinks(f"inode {ino}")
        self._living(parent)
        if (parent, name) in self._rows.entries:
            raise Exists(repr(name))
        self._add(parent, name, ino)
        self._touch(parent, now_ns, content=True)
        return self._touch(ino, now_ns, links=1)

    def unlink(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        attr = self._find(parent, name)
        if attr.is_dir:
            raise IsDirectory(repr(name))
        del self._rows.entries[parent, name]
        self._touch(parent, now_ns, content=True)
        return self._drop(attr, now_ns)

    def rmdir(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        attr = self._find(parent, name)
        if not attr.is_dir:
            raise NotDirectory(repr(name))
        if not self._empty(attr.ino):
            raise NotEmpty(repr(name))
        del self._rows.entries[parent, name]
        self._touch(parent, now_ns, links=-1, content=True)
        return self._drop(attr, now_ns)

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        self._directory(parent)
        found = [
            DirEntry(name, cookie, self.get(ino))
            for (where, name), (cookie, ino) in self._rows.entries.items()
            if where == parent and cookie > after_cookie
        ]
        return sorted(found, key=lambda entry: entry.cookie)[:limit]

    # --- rename ------------------------------------------------------------------------

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flag: RenameFlag, now_ns: int
    ) -> Renamed:
        moved = self._find(parent, name)
        self._check_name(new_name)
        above = self._living(new_parent)
        known = self._rows.entries.get((new_parent, new_name))
        there = None if known is None else self.get(known[1])
        if flag is RenameFlag.NOREPLACE and there is not None:
            raise Exists(repr(new_name))
        if flag is RenameFlag.EXCHANGE and there is None:
            raise NotFound(repr(new_name))
        if there is not None and there.ino == moved.ino:
            return Renamed(moved.ino, None)
        self._check_subtree(moved, new_parent)
        if flag is RenameFlag.EXCHANGE:
            assert there is not None
            self._check_subtree(there, parent)
            self._exchange((parent, name), moved, (new_parent, new_name), there, now_ns)
            return Renamed(moved.ino, None)
        if there is not None:
            self._check_replaceable(moved, there)
        elif moved.is_dir and parent != new_parent and above.nlink >= LINK_MAX:
            raise TooManyLinks(f"directory {new_parent}")
        self._move((parent, name), moved, (new_parent, new_name), there, now_ns)
        return Renamed(moved.ino, None if there is None else self.get(there.ino))

    def _check_subtree(self, moved: Attr, at: Ino) -> None:
        while moved.is_dir:
            if at == moved.ino:
                raise InvalidArgument(f"directory {at} into itself")
            if at in (ROOT, self.get(at).parent):
                return
            at = self.get(at).parent

    def _check_replaceable(self, moved: Attr, there: Attr) -> None:
        if moved.is_dir and not there.is_dir:
            raise NotDirectory(f"inode {there.ino}")
        if there.is_dir and not moved.is_dir:
            raise IsDirectory(f"inode {there.ino}")
        if there.is_dir and not self._empty(there.ino):
            raise NotEmpty(f"directory {there.ino}")

    def _move(
        self, old: tuple[Ino, bytes], moved: Attr, new: tuple[Ino, bytes], there: Attr | None, now_ns: int
    ) -> None:
        del self._rows.entries[old]
        lost = 0
        if there is None:
            self._add(*new, moved.ino)
        else:
            self._rows.entries[new] = (self._rows.entries[new][0], moved.ino)
            lost = int(there.is_dir)
            self._drop(there, now_ns)
        self._touch(old[0], now_ns, links=-int(moved.is_dir), content=True)
        self._touch(new[0], now_ns, links=int(moved.is_dir) - lost, content=True)
        self._arrive(moved, new[0], now_ns)

    def _exchange(
        self, one: tuple[Ino, bytes], first: Attr, other: tuple[Ino, bytes], second: Attr, now_ns: int
    ) -> None:
        entries = self._rows.entries
        entries[one], entries[other] = (entries[one][0], second.ino), (entries[other][0], first.ino)
        gained = int(second.is_dir) - int(first.is_dir)
        self._touch(one[0], now_ns, links=gained, content=True)
        self._touch(other[0], now_ns, links=-gained, content=True)
        self._arrive(first, other[0], now_ns)
        self._arrive(second, one[0], now_ns)

    def _arrive(self, moved: Attr, parent: Ino, now_ns: int) -> None:
        attr = self._touch(moved.ino, now_ns)
        if attr.is_dir:
            self._rows.inodes[moved.ino] = attr._replace(parent=parent)

    # --- extended attributes -----------------------------------------------------------

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        self.get(ino)
        if (ino, name) not in self._rows.xattrs:
            raise NoAttribute(repr(name))
        return self._rows.xattrs[ino, name]

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int, now_ns: int) -> None:
        if not name or flags not in (0, 1, 2):
            raise InvalidArgument(repr(name))
        if len(name) > XATTR_NAME_MAX:
            raise NameTooLong(f"{len(name)} bytes")
        if len(value) > XATTR_SIZE_MAX:
            raise AttributeTooBig(f"{len(value)} bytes")
        self.get(ino)
        present = (ino, name) in self._rows.xattrs
        if present and flags == 1:
            raise Exists(repr(name))
        if not present and flags == 2:
            raise NoAttribute(repr(name))
        self._rows.xattrs[ino, name] = value
        self._touch(ino, now_ns)

    def list_xattr(self, ino: Ino) -> list[bytes]:
        self.get(ino)
        return sorted(name for where, name in self._rows.xattrs if where == ino)

    def remove_xattr(self, ino: Ino, name: bytes, now_ns: int) -> None:
        self.get_xattr(ino, name)
        del self._rows.xattrs[ino, name]
        self._touch(ino, now_ns)

    # --- orphans -----------------------------------------------------------------------

    def orphans(self, limit: int) -> list[Ino]:
        nameless = {ino for ino, attr in self._rows.inodes.items() if attr.nlink == 0}
        return sorted(nameless | set(self._rows.cuts))[:limit]

    def purge(self, ino: Ino, limit: int) -> bool:
        attr = self._rows.inodes.get(ino)
        if attr is None:
            return True
        if attr.nlink > 0:
            return self._cut(ino, limit)
        self._unmap([place for place in self._rows.live if place[0] == ino][:limit])
        if any(place[0] == ino for place in self._rows.live):
            return False
        self._rows.xattrs = {key: value for key, value in self._rows.xattrs.items() if key[0] != ino}
        for rows in (self._rows.inodes, self._rows.cookies, self._rows.cuts):
            rows.pop(ino, None)
        return True

    def _cut(self, ino: Ino, limit: int) -> bool:
        """Removes some of what a truncate has taken."""
        places = sorted(self._rows.cuts.pop(ino, ()))
        self._unmap(places[:limit])
        if len(places) > limit:
            self._rows.cuts[ino] = frozenset(places[limit:])
        return len(places) <= limit

    def _unmap(self, places: Sequence[tuple[Ino, int]]) -> None:
        for place in places:
            chunk = self._rows.live.pop(place, None)
            if chunk is not None:
                self._hold(place[0], -self._length(chunk))
        self._collect()

    def _length(self, chunk: ChunkId) -> int:
        row = self._rows.chunks[chunk]
        if row.location is not None:
            return row.location.size
        ends = [one.offset + one.length for one in self._rows.dirty.get(chunk, ())]
        return max([row.base_size, *ends])

    def _hold(self, ino: Ino, more: int) -> None:
        attr = self.get(ino)
        self._rows.inodes[ino] = attr._replace(held=attr.held + more)

    # --- chunks ------------------------------------------------------------------------

    def _visible(self, ino: Ino, index: int) -> Chunk | None:
        chunk = self._rows.live.get((ino, index))
        if chunk is None or (ino, index) in self._rows.cuts.get(ino, ()):
            return None
        return self._rows.chunks[chunk]

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        return self._visible(ino, index)

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        indices = sorted(index for where, index in self._rows.live if where == ino and first <= index <= last)
        found = [self._visible(ino, index) for index in indices]
        return [chunk for chunk in found if chunk is not None][:limit]

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        return self._rows.chunks.get(chunk)

    def begin_chunk(self, ino: Ino, index: int, base: ChunkId | None, base_size: int) -> Chunk:
        if base is not None and base not in self._rows.chunks:
            raise ObjfsError(f"base {base}")
        row = Chunk(ChunkId(self._new_number()), ino, index, ChunkState.DIRTY, None, base, base_size)
        old = self._rows.live.get((ino, index))
        if base is None and old is not None:
            self._hold(ino, -self._length(old))
        self._rows.chunks[row.chunk] = row
        self._rows.live[ino, index] = row.chunk
        if ino in self._rows.cuts:
            self._rows.cuts[ino] -= {(ino, index)}
        self._collect()
        return row

    def record_write(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], *, clear_suid: bool = False
    ) -> None:
        if size > FILE_SIZE_MAX:
            raise FileTooBig(str(size))
        attr = self.get(ino)
        mode = attr.mode
        if clear_suid:
            mode &= ~(stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0))
        self._rows.inodes[ino] = attr._replace(
            size=max(size, attr.size), mtime_ns=now_ns, ctime_ns=now_ns, mode=mode
        )
        self._hold(ino, sum(one.grown for one in ranges))
        for one in ranges:
            self._add_range(one._replace(size_before=attr.size if size > attr.size else None))

    def _add_range(self, one: DirtyRange) -> None:
        before = self._rows.dirty.get(one.chunk, ())
        self._rows.dirty[one.chunk] = (*before, one._replace(boot=self._boot, grown=0))

    def truncate(self, ino: Ino, size: int, now_ns: int, limit: int) -> bool:
        if not 0 <= size <= FILE_SIZE_MAX:
            raise (InvalidArgument if size < 0 else FileTooBig)(str(size))
        attr = self._touch(ino, now_ns, content=True)
        self._rows.inodes[ino] = attr._replace(size=size)
        keep_from = -(-size // self._chunk_size)
        beyond = {place for place in self._rows.live if place[0] == ino and place[1] >= keep_from}
        self._rows.cuts[ino] = self._rows.cuts.get(ino, frozenset()) | beyond
        before = {place for place in self._rows.cuts[ino] if place[1] < keep_from}
        self._unmap(sorted(beyond)[:limit])
        left = frozenset(before | set(sorted(beyond)[limit:]))
        self._rows.cuts[ino] = left
        if not left:
            del self._rows.cuts[ino]
        return len(beyond) <= limit

    def clip_chunk(self, chunk: ChunkId, length: int) -> None:
        row, before = self._rows.chunks[chunk], self._length(chunk)
        self._rows.chunks[chunk] = replace(row, base_size=min(row.base_size, length))
        kept = []
        for one in self._rows.dirty.get(chunk, ()):
            keep = min(one.length, length - one.offset)
            if keep == one.length:
                kept.append(one)
            elif keep > 0:
                data = None if one.data is None else one.data[:keep]
                kept.append(one._replace(length=keep, checksum=None, data=data))
        self._rows.dirty[chunk] = tuple(kept)
        self._hold(row.ino, self._length(chunk) - before)
        if not self._length(chunk):
            self._unmap([place for place, one in self._rows.live.items() if one == chunk])

    # --- dirty -------------------------------------------------------------------------

    def commit_inline(self, chunk: ChunkId, ranges: Sequence[tuple[int, bytes]]) -> None:
        for offset, data in ranges:
            self._add_range(DirtyRange(chunk, offset, len(data), None, data=data))

    def mark_synced(self, chunk: ChunkId, ranges: Sequence[tuple[int, int]]) -> None:
        self._rows.dirty[chunk] = ()
        for start, end in ranges:
            self._add_range(DirtyRange(chunk, start, end - start, None, synced=True))

    def dirty_ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        return list(self._rows.dirty.get(chunk, ()))

    def dirty_chunks(self) -> list[Chunk]:
        return sorted(
            (row for row in self._rows.chunks.values() if row.state is ChunkState.DIRTY),
            key=lambda row: row.chunk,
        )

    def dirty_ids(self) -> list[ChunkId]:
        return [row.chunk for row in self.dirty_chunks()]

    # --- placing -----------------------------------------------------------------------

    def place(self, segment: Segment | None, placed: Iterable[Placed]) -> SegmentNo | None:
        with self.transaction():
            number = None
            if segment is not None:
                number = SegmentNo(self._new_number())
                self._rows.segments[number] = segment
            for item in placed:
                self._store(item, number)
            self._collect()
            return number

    def _store(self, item: Placed, new: SegmentNo | None) -> None:
        number = item.location.segment or new
        if number is None or number not in self._rows.segments:
            raise StoreError(f"segment {number}")
        row = self._rows.chunks.get(item.chunk)
        if row is None:
            return
        location = item.location._replace(segment=number)
        self._rows.chunks[item.chunk] = replace(
            row, state=ChunkState.STORED, location=location, base=None, base_size=0
        )
        self._rows.dirty.pop(item.chunk, None)

    def _collect(self) -> None:
        """Frees versions that nothing names."""
        while True:
            named = set(self._rows.live.values()) | {row.base for row in self._rows.chunks.values()}
            gone = [chunk for chunk in self._rows.chunks if chunk not in named]
            if not gone:
                return
            for chunk in gone:
                del self._rows.chunks[chunk]
                self._rows.dirty.pop(chunk, None)
                self._rows.freed[chunk] = None

    def freed(self, limit: int) -> list[ChunkId]:
        return sorted(self._rows.freed)[:limit]

    def forget_freed(self, chunks: Sequence[ChunkId]) -> None:
        for chunk in chunks:
            self._rows.freed.pop(chunk, None)

    def segment(self, number: SegmentNo) -> Segment:
        if number not in self._rows.segments:
            raise StoreError(f"segment {number}")
        return self._rows.segments[number]

    def chunks_in_segment(self, number: SegmentNo) -> list[Chunk]:
        found = []
        for row in self._rows.chunks.values():
            if row.location is not None and row.location.segment == number:
                found.append((row.location.position, row.chunk, row))
        return [row for _, _, row in sorted(found, key=lambda item: item[:2])]
