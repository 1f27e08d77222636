"""What the tests of ``fs`` stand on: an inode table, a chunk cache, a clock, a barrier, in dicts.

``MemoryTables`` keeps to the ports of ``objfs.model`` and nothing more; a transaction that fails is put
back as it was.  ``MemoryCache`` keeps each version's bytes in a bytearray; ``freeze`` makes versions
unwritable, as an upload or a cut does, ``chill`` makes reads wait, ``full`` makes writes fail.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import trio

from objfs.errors import (
    Exists,
    InvalidArgument,
    IsDirectory,
    NameTooLong,
    NoAttribute,
    NoSpace,
    NotDirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    StaleHandle,
)
from objfs.fs import Capacity, FileSystem, FsSettings
from objfs.model import (
    ROOT,
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
from objfs.ports import WriteGate

CHUNK = 4096
START_NS = 1_700_000_000 * 10**9


class TickingClock:
    """Each look at the wall clock is a millisecond later than the one before."""

    def __init__(self) -> None:
        self.now = START_NS
        self.seconds = 0.0

    def now_ns(self) -> int:
        self.now += 1_000_000
        return self.now

    def monotonic(self) -> float:
        return self.seconds


class RealClock:
    """The machine's own."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic(self) -> float:
        return time.monotonic()


class CountingBarrier:
    def __init__(self) -> None:
        self.flushes = 0

    async def flush(self) -> None:
        self.flushes += 1
        await trio.lowlevel.checkpoint()


def _copied(rows: object) -> object:
    """Two levels deep: what lies below is frozen."""
    if isinstance(rows, dict):
        return {key: dict(row) if isinstance(row, dict) else row for key, row in rows.items()}
    return list(rows) if isinstance(rows, list) else rows


class MemoryTables:
    """InodeTable and ChunkTable in dicts."""

    def __init__(self, chunk_size: int = CHUNK, *, rollback: bool = True) -> None:
        self.chunk_size = chunk_size
        self.rollback = rollback
        root = Attr(ROOT, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 0, 1, 1, 1, 1, None, ROOT)
        self.inodes: dict[Ino, Attr] = {ROOT: root}
        self.entries: dict[Ino, dict[bytes, tuple[int, Ino]]] = {ROOT: {}}
        self.cookies: dict[Ino, int] = {ROOT: 3}
        self.xattrs: dict[Ino, dict[bytes, bytes]] = {}
        self.live: dict[Ino, dict[int, ChunkId]] = {}
        self.versions: dict[ChunkId, Chunk] = {}
        self.written: dict[ChunkId, tuple[tuple[int, int], ...]] = {}
        self.unfinished: dict[Ino, int] = {}
        self.dropped: list[ChunkId] = []
        self.last = 1
        self.depth = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        outer = self.rollback and not self.depth
        before = {name: _copied(rows) for name, rows in vars(self).items()} if outer else None
        self.depth += 1
        try:
            yield
        except BaseException:
            if before is not None:
                vars(self).update(before, depth=1)
            raise
        finally:
            self.depth -= 1

    def _number(self) -> int:
        self.last += 1
        return self.last

    def _touch(self, ino: Ino, now: int, *, content: bool = False, links: int = 0) -> Attr:
        attr = self.get(ino)
        mtime = now if content else attr.mtime_ns
        self.inodes[ino] = attr._replace(ctime_ns=now, mtime_ns=mtime, nlink=attr.nlink + links)
        return self.inodes[ino]

    # --- namespace ---------------------------------------------------------------------

    def get(self, ino: Ino) -> Attr:
        if ino not in self.inodes:
            raise StaleHandle(str(ino))
        return self.inodes[ino]

    def _names(self, parent: Ino) -> dict[bytes, tuple[int, Ino]]:
        if not self.get(parent).is_dir:
            raise NotDirectory(str(parent))
        return self.entries[parent]

    def lookup(self, parent: Ino, name: bytes) -> Attr:
        names = self._names(parent)
        if len(name) > 255:
            raise NameTooLong(str(len(name)))
        if name not in names:
            raise NotFound(repr(name))
        return self.inodes[names[name][1]]

    def _add(self, parent: Ino, name: bytes, ino: Ino, now: int, links: int = 0) -> None:
        self._names(parent)[name] = (self.cookies[parent], ino)
        self.cookies[parent] += 1
        self._touch(parent, now, content=True, links=links)

    def _absent(self, parent: Ino, name: bytes) -> None:
        names = self._names(parent)
        if self.get(parent).nlink == 0:
            raise NotFound(str(parent))
        if name in names:
            raise Exists(repr(name))

    def create(self, parent: Ino, name: bytes, new: NewInode) -> Attr:
        self._absent(parent, name)
        ino = Ino(self._number())
        folder = stat.S_ISDIR(new.mode)
        if folder:
            self.entries[ino], self.cookies[ino] = {}, 3
        times = (new.now_ns,) * 4
        size = len(new.target or b"")
        above = parent if folder else Ino(0)
        links = 2 if folder else 1
        attr = Attr(ino, new.mode, links, new.uid, new.gid, new.rdev, size, *times, new.target, above)
        self.inodes[ino] = attr
        self._add(parent, name, ino, new.now_ns, links=int(folder))
        return attr

    def link(self, ino: Ino, parent: Ino, name: bytes, now_ns: int) -> Attr:
        attr = self.get(ino)
        if attr.is_dir:
            raise NotPermitted(str(ino))
        if attr.nlink == 0:
            raise NotFound(str(ino))
        self._absent(parent, name)
        self._add(parent, name, ino, now_ns)
        return self._touch(ino, now_ns, links=1)

    def _remove(self, parent: Ino, name: bytes, now: int) -> Attr:
        attr = self.lookup(parent, name)
        del self.entries[parent][name]
        self._touch(parent, now, content=True, links=-int(attr.is_dir))
        return self._touch(attr.ino, now, links=-2 if attr.is_dir else -1)

    def unlink(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        if self.lookup(parent, name).is_dir:
            raise IsDirectory(repr(name))
        return self._remove(parent, name, now_ns)

    def rmdir(self, parent: Ino, name: bytes, now_ns: int) -> Attr:
        attr = self.lookup(parent, name)
        if not attr.is_dir:
            raise NotDirectory(repr(name))
        if self.entries[attr.ino]:
            raise NotEmpty(repr(name))
        return self._remove(parent, name, now_ns)

    def _inside(self, ino: Ino, top: Ino) -> bool:
        while ino != ROOT:
            if ino == top:
                return True
            ino = self.get(ino).parent
        return top == ROOT

    def rename(
        self, parent: Ino, name: bytes, new_parent: Ino, new_name: bytes, flag: RenameFlag, now_ns: int
    ) -> Renamed:
        moved = self.lookup(parent, name)
        there = self._names(new_parent).get(new_name)
        target = self.inodes[there[1]] if there else None
        self._may_rename(moved, parent, target, new_parent, flag)
        if target is not None and target.ino == moved.ino:
            return Renamed(moved.ino, None)
        displaced = None
        if target is not None:
            displaced = self._remove(new_parent, new_name, now_ns)
        self._remove(parent, name, now_ns)
        self._put(moved, new_parent, new_name, now_ns)
        if flag is RenameFlag.EXCHANGE and target is not None:
            self._put(target, parent, name, now_ns)
            displaced = None
        return Renamed(moved.ino, displaced)

    def _put(self, attr: Attr, parent: Ino, name: bytes, now: int) -> None:
        self._add(parent, name, attr.ino, now, links=int(attr.is_dir))
        above = parent if attr.is_dir else Ino(0)
        self.inodes[attr.ino] = attr._replace(ctime_ns=now, parent=above)

    def _may_rename(
        self, moved: Attr, parent: Ino, target: Attr | None, new_parent: Ino, flag: RenameFlag
    ) -> None:
        if self.get(new_parent).nlink == 0:
            raise NotFound(str(new_parent))
        if flag is RenameFlag.NOREPLACE and target is not None:
            raise Exists("target")
        if flag is RenameFlag.EXCHANGE and target is None:
            raise NotFound("target")
        if moved.is_dir and self._inside(new_parent, moved.ino):
            raise InvalidArgument("into itself")
        if flag is RenameFlag.EXCHANGE:
            if target is not None and target.is_dir and self._inside(parent, target.ino):
                raise InvalidArgument("into itself")
        elif target is not None and target.ino != moved.ino:
            self._may_replace(moved, target)

    def _may_replace(self, moved: Attr, target: Attr) -> None:
        if target.is_dir and not moved.is_dir:
            raise IsDirectory("target")
        if moved.is_dir and not target.is_dir:
            raise NotDirectory("target")
        if target.is_dir and self.entries[target.ino]:
            raise NotEmpty("target")

    def readdir(self, parent: Ino, after_cookie: int, limit: int) -> list[DirEntry]:
        found = sorted((c, n, i) for n, (c, i) in self._names(parent).items() if c > after_cookie)
        return [DirEntry(name, cookie, self.inodes[ino]) for cookie, name, ino in found[:limit]]

    def set_attr(self, ino: Ino, change: AttrChange) -> Attr:
        given = {k: getattr(change, k) for k in AttrChange.__dataclass_fields__}
        attr = self.get(ino)
        if change.mode is not None:
            given["mode"] = stat.S_IFMT(attr.mode) | stat.S_IMODE(change.mode)
        self.inodes[ino] = attr._replace(**{k: v for k, v in given.items() if v is not None})
        return self.inodes[ino]

    def set_atimes(self, times: Sequence[tuple[Ino, int]]) -> None:
        for ino, atime_ns in times:
            if ino in self.inodes:
                self.set_attr(ino, AttrChange(atime_ns=atime_ns))

    def get_xattr(self, ino: Ino, name: bytes) -> bytes:
        self.get(ino)
        if name not in self.xattrs.get(ino, {}):
            raise NoAttribute(repr(name))
        return self.xattrs[ino][name]

    def set_xattr(self, ino: Ino, name: bytes, value: bytes, flags: int, now_ns: int) -> None:
        self._touch(ino, now_ns)
        there = self.xattrs.setdefault(ino, {})
        if flags == 1 and name in there:
            raise Exists(repr(name))
        if flags == 2 and name not in there:
            raise NoAttribute(repr(name))
        there[name] = value

    def list_xattr(self, ino: Ino) -> list[bytes]:
        self.get(ino)
        return sorted(self.xattrs.get(ino, {}))

    def remove_xattr(self, ino: Ino, name: bytes, now_ns: int) -> None:
        self.get_xattr(ino, name)
        del self.xattrs[ino][name]
        self._touch(ino, now_ns)

    def orphans(self, limit: int) -> list[Ino]:
        nameless = {ino for ino, attr in self.inodes.items() if attr.nlink == 0}
        return sorted(nameless | set(self.unfinished))[:limit]

    def purge(self, ino: Ino, limit: int) -> bool:
        if self.get(ino).nlink > 0:
            return self._cut(ino, self.unfinished.get(ino, self.get(ino).size), limit)
        chunks = self.live.get(ino, {})
        for index in sorted(chunks, reverse=True)[:limit]:
            self._free(chunks.pop(index))
        if chunks:
            return False
        for rows in (self.inodes, self.entries, self.cookies, self.xattrs, self.live, self.unfinished):
            rows.pop(ino, None)
        return True

    def count(self) -> tuple[int, int]:
        return len(self.inodes), sum(attr.held for attr in self.inodes.values())

    # --- chunks ------------------------------------------------------------------------

    def _free(self, number: ChunkId) -> None:
        chunk: Chunk | None = self.versions.pop(number, None)
        self.dropped.append(number)
        if chunk is not None and chunk.base is not None:
            self._free(chunk.base)

    def chunk_at(self, ino: Ino, index: int) -> Chunk | None:
        number = self.live.get(ino, {}).get(index)
        return None if number is None else self.versions[number]

    def chunks_between(self, ino: Ino, first: int, last: int, limit: int) -> list[Chunk]:
        chunks = self.live.get(ino, {})
        return [self.versions[chunks[i]] for i in sorted(chunks) if first <= i <= last][:limit]

    def chunk(self, chunk: ChunkId) -> Chunk | None:
        return self.versions.get(chunk)

    def begin_chunk(self, ino: Ino, index: int, base: ChunkId | None, base_size: int) -> Chunk:
        chunks = self.live.setdefault(ino, {})
        old = chunks.get(index)
        if old is not None and old != base:
            self._free(old)
        chunk = Chunk(ChunkId(self._number()), ino, index, ChunkState.DIRTY, None, base, base_size)
        self.versions[chunk.chunk] = chunk
        chunks[index] = chunk.chunk
        return chunk

    def record_write(
        self, ino: Ino, size: int, now_ns: int, ranges: Sequence[DirtyRange], *, clear_suid: bool = False
    ) -> None:
        attr = self._touch(ino, now_ns, content=True)
        self.inodes[ino] = attr._replace(size=max(attr.size, size))
        for one in ranges:
            self._hold(ino, one.grown)
            before = self.written.get(one.chunk, ())
            self.written[one.chunk] = (*before, (one.offset, one.offset + one.length))
        if clear_suid:
            self.inodes[ino] = self.inodes[ino]._replace(mode=attr.mode & ~stat.S_ISUID)

    def truncate(self, ino: Ino, size: int, now_ns: int, limit: int) -> bool:
        attr = self._touch(ino, now_ns, content=True)
        self.inodes[ino] = attr._replace(size=size)
        return self._cut(ino, size, limit)

    def _cut(self, ino: Ino, size: int, limit: int) -> bool:
        chunks = self.live.get(ino, {})
        beyond = sorted((i for i in chunks if i * self.chunk_size >= size), reverse=True)
        for index in beyond[:limit]:
            self._hold(ino, -self._length(chunks[index]))
            self._free(chunks.pop(index))
        if len(beyond) > limit:
            self.unfinished[ino] = size
            return False
        self.unfinished.pop(ino, None)
        return True

    def clip_chunk(self, chunk: ChunkId, length: int) -> None:
        row, before = self.versions[chunk], self._length(chunk)
        self.versions[chunk] = replace(row, base_size=min(row.base_size, length))
        kept = [(start, min(end, length)) for start, end in self.written.get(chunk, ()) if start < length]
        self.written[chunk] = tuple(kept)
        self._hold(row.ino, self._length(chunk) - before)

    def _length(self, chunk: ChunkId) -> int:
        return max([self.versions[chunk].base_size, *(end for _, end in self.written.get(chunk, ()))])

    def _hold(self, ino: Ino, more: int) -> None:
        attr = self.inodes[ino]
        self.inodes[ino] = attr._replace(held=attr.held + more)

    def commit_inline(self, chunk: ChunkId, ranges: Sequence[tuple[int, bytes]]) -> None:
        raise AssertionError("not for fs")

    def mark_synced(self, chunk: ChunkId, ranges: Sequence[tuple[int, int]]) -> None:
        raise AssertionError("not for fs")

    def dirty_ranges(self, chunk: ChunkId) -> list[DirtyRange]:
        return []

    def dirty_chunks(self) -> list[Chunk]:
        return list(self.versions.values())

    def dirty_ids(self) -> list[ChunkId]:
        return [row.chunk for row in self.dirty_chunks()]

    def place(self, segment: Segment | None, placed: Iterable[Placed]) -> SegmentNo | None:
        raise AssertionError("not for fs")

    def freed(self, limit: int) -> list[ChunkId]:
        return self.dropped[:limit]

    def forget_freed(self, chunks: Sequence[ChunkId]) -> None:
        self.dropped = [number for number in self.dropped if number not in chunks]

    def segment(self, number: SegmentNo) -> Segment:
        raise AssertionError("not for fs")

    def chunks_in_segment(self, number: SegmentNo) -> list[Chunk]:
        raise AssertionError("not for fs")


class MemoryCache:
    """Versions as bytearrays over their bases."""

    def __init__(self, table: MemoryTables, chunk_size: int = CHUNK) -> None:
        self.table = table
        self.chunk_size = chunk_size
        self.bytes: dict[ChunkId, bytearray] = {}
        self.held: dict[ChunkId, list[tuple[int, int]]] = {}
        self.frozen: set[ChunkId] = set()
        self.synced: list[Ino] = []
        self.full_after: int | None = None
        self.cold: set[ChunkId] = set()
        self.arrive = trio.Event()
        self.reading = trio.Event()
        self.doors = 0
        self.door: trio.Event | None = None

    async def admit(self, nbytes: int) -> None:
        self.doors += 1
        if self.door is not None:
            await self.door.wait()

    def freeze(self) -> None:
        """Every version of now is being uploaded: nobody may write to it again."""
        self.frozen.update(self.bytes)
        self.frozen.update(self.table.versions)

    def writable(self, chunk: Chunk) -> bool:
        return chunk.chunk not in self.frozen

    def write(self, chunk: Chunk, offset: int, data: bytes) -> DirtyRange:
        assert self.writable(chunk)
        assert offset + len(data) <= self.chunk_size
        if self.full_after is not None:
            if self.full_after == 0:
                raise NoSpace("full")
            self.full_after -= 1
        content = self.bytes.setdefault(chunk.chunk, bytearray())
        end = offset + len(data)
        grown = max(0, end - self.visible_length(chunk))
        row = DirtyRange(chunk.chunk, offset, len(data), None, grown=grown)
        content.extend(bytes(max(0, end - len(content))))
        content[offset:end] = data
        held = self.held.setdefault(chunk.chunk, [])
        if held and held[-1][0] <= offset <= held[-1][1]:  # a file that grows
            offset, last = held.pop()
            end = max(end, last)
        held.append((offset, end))
        return row

    def _image(self, number: ChunkId, base: ChunkId | None, base_size: int) -> bytearray:
        image = bytearray(self.chunk_size)
        if base is not None:
            row = self.table.versions.get(base) or Chunk(base, Ino(0), 0, ChunkState.DIRTY)
            image[:base_size] = self._image(base, row.base, row.base_size)[:base_size]
        own = self.bytes.get(number, bytearray())
        for start, end in self.held.get(number, []):
            image[start:end] = own[start:end]
        return image

    def read_nowait(self, chunk: Chunk, offset: int, length: int) -> bytes | None:
        if chunk.chunk in self.cold:
            return None
        row = self.table.versions.get(chunk.chunk, chunk)
        return bytes(self._image(chunk.chunk, row.base, row.base_size)[offset : offset + length])

    async def read(self, chunk: Chunk, offset: int, length: int) -> bytes:
        self.reading.set()
        await self.arrive.wait()
        if chunk.chunk not in self.table.versions:
            raise StaleHandle("the version was freed")
        self.cold.discard(chunk.chunk)
        local = self.read_nowait(chunk, offset, length)
        assert local is not None
        return local

    def clip(self, chunk: Chunk, length: int) -> None:
        assert self.writable(chunk)
        cut = [(start, min(end, length)) for start, end in self.held.get(chunk.chunk, []) if start < length]
        self.held[chunk.chunk] = cut

    def visible_length(self, chunk: Chunk) -> int:
        row = self.table.versions.get(chunk.chunk, chunk)
        return max([row.base_size, *(end for _, end in self.held.get(chunk.chunk, []))])

    async def fsync(self, ino: Ino) -> None:
        self.synced.append(ino)
        await trio.lowlevel.checkpoint()

    async def sync(self) -> None:
        await trio.lowlevel.checkpoint()


class World:
    """A file system over all of the above, with its parts in reach."""

    def __init__(
        self,
        settings: FsSettings | None = None,
        table: MemoryTables | None = None,
        clock: TickingClock | RealClock | None = None,
    ) -> None:
        self.settings = settings or FsSettings(CHUNK)
        self.table = table or MemoryTables(self.settings.chunk_size)
        self.cache = MemoryCache(self.table, self.settings.chunk_size)
        self.gate = WriteGate()
        self.clock = clock or TickingClock()
        self.barrier = CountingBarrier()
        self.fs = self.mount()

    def mount(self, settings: FsSettings | None = None) -> FileSystem:
        """Another view of the same volume, or the same after a remount."""
        room = Capacity(total=1 << 40, free=1 << 39, available=1 << 38, inodes_free=1 << 30)
        chosen = settings or self.settings
        return FileSystem(self.table, self.cache, chosen, self.gate, self.clock, self.barrier, lambda: room)

    def restart(self) -> None:
        """A new process over the same volume."""
        self.fs = self.mount()

    def freeze(self) -> None:
        self.cache.freeze()

    async def flush(self) -> None:
        self.cache.freeze()

    async def sync(self) -> None:
        await self.cache.sync()

    def inodes(self) -> int:
        return len(self.table.inodes)

    def close(self) -> None:
        assert {chunk.ino for chunk in self.table.versions.values()} <= set(self.table.inodes)
