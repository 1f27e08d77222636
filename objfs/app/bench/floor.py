"""A file system that keeps everything in dictionaries: what the binding itself costs.

``python -m objfs.app.bench.floor MOUNTPOINT`` mounts it until it is unmounted or told to end.  It is as
little as answers the workloads correctly: no checks that the kernel does already, kernel
write-through, nothing written anywhere.  No file system on pyfuse3 can be faster by much.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

TIMEOUT_S = 86400.0


@dataclass(eq=False, slots=True)
class Node:
    """An inode; what it does not need stays empty."""

    attr: EntryAttributes
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, int] = field(default_factory=dict)
    target: bytes = b""
    handles: int = 0


class Floor(pyfuse3.Operations):
    """Inode numbers are dictionary keys and file handles are inode numbers."""

    enable_writeback_cache = False

    def __init__(self) -> None:
        super().__init__()
        self._nodes: dict[int, Node] = {}
        self._listings: dict[int, list[tuple[bytes, int]]] = {}
        self._next = int(pyfuse3.ROOT_INODE)
        self._make(stat.S_IFDIR | 0o755, os.getuid(), os.getgid())

    # --- inodes ---

    def _make(self, mode: int, uid: int, gid: int) -> Node:
        attr = EntryAttributes()
        attr.st_ino = pyfuse3.InodeT(self._next)
        attr.st_mode = pyfuse3.ModeT(mode)
        attr.st_nlink = 2 if stat.S_ISDIR(mode) else 1
        attr.st_uid, attr.st_gid = uid, gid
        attr.st_blksize = 4096
        attr.st_atime_ns = attr.st_mtime_ns = attr.st_ctime_ns = time.time_ns()
        attr.entry_timeout = attr.attr_timeout = TIMEOUT_S
        node = self._nodes[self._next] = Node(attr)
        self._next += 1
        return node

    def _add(self, parent: int, name: bytes, mode: int, ctx: RequestContext) -> Node:
        directory = self._nodes[parent]
        if name in directory.children:
            raise FUSEError(errno.EEXIST)
        node = self._make(mode, ctx.uid, ctx.gid)
        directory.children[name] = node.attr.st_ino
        self._touch(directory)
        return node

    def _child(self, parent: int, name: bytes) -> Node:
        try:
            return self._nodes[self._nodes[parent].children[name]]
        except KeyError:
            raise FUSEError(errno.ENOENT) from None

    def _drop(self, node: Node) -> None:
        node.attr.st_nlink -= 1
        if node.attr.st_nlink <= 0 and not node.handles:
            del self._nodes[node.attr.st_ino]

    def _touch(self, node: Node) -> None:
        node.attr.st_mtime_ns = node.attr.st_ctime_ns = time.time_ns()

    def _resize(self, node: Node, size: int) -> None:
        if size < len(node.data):
            del node.data[size:]
        else:
            node.data.extend(bytes(size - len(node.data)))
        node.attr.st_size = size
        node.attr.st_blocks = (size + 511) // 512

    # --- names ---

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        return self._child(parent_inode, name).attr

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        return

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        return self._add(parent_inode, name, mode, ctx).attr

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext) -> EntryAttributes:
        node = self._add(parent_inode, name, stat.S_IFDIR | mode, ctx)
        self._nodes[parent_inode].attr.st_nlink += 1
        return node.attr

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        node = self._add(parent_inode, name, stat.S_IFLNK | 0o777, ctx)
        node.target, node.attr.st_size = target, len(target)
        return node.attr

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self._nodes[inode].target

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        node = self._nodes[inode]
        self._nodes[new_parent_inode].children[new_name] = inode
        node.attr.st_nlink += 1
        return node.attr

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        node = self._child(parent_inode, name)
        directory = self._nodes[parent_inode]
        del directory.children[name]
        self._touch(directory)
        self._drop(node)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        node = self._child(parent_inode, name)
        if node.children:
            raise FUSEError(errno.ENOTEMPTY)
        directory = self._nodes[parent_inode]
        del directory.children[name]
        directory.attr.st_nlink -= 1
        self._touch(directory)
        node.attr.st_nlink = 1
        self._drop(node)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        if flags:
            raise FUSEError(errno.EINVAL)
        node = self._child(parent_inode_old, name_old)
        old, new = self._nodes[parent_inode_old], self._nodes[parent_inode_new]
        replaced = new.children.get(name_new)
        del old.children[name_old]
        new.children[name_new] = node.attr.st_ino
        if stat.S_ISDIR(node.attr.st_mode):
            old.attr.st_nlink -= 1
            new.attr.st_nlink += 1
        if replaced is not None:
            self._drop(self._nodes[replaced])
        self._touch(old)
        self._touch(new)

    # --- attributes ---

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._nodes[inode].attr

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self._nodes[inode]
        if fields.update_size:
            self._resize(node, attr.st_size)
            self._touch(node)
        if fields.update_mode:
            node.attr.st_mode = attr.st_mode
        if fields.update_uid:
            node.attr.st_uid = attr.st_uid
        if fields.update_gid:
            node.attr.st_gid = attr.st_gid
        if fields.update_atime:
            node.attr.st_atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            node.attr.st_mtime_ns = attr.st_mtime_ns
        node.attr.st_ctime_ns = time.time_ns()
        return node.attr

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        raise FUSEError(pyfuse3.ENOATTR)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        status = pyfuse3.StatvfsData()
        status.f_bsize = status.f_frsize = 4096
        status.f_blocks = status.f_bfree = status.f_bavail = 1 << 30
        status.f_files = status.f_ffree = status.f_favail = 1 << 30
        status.f_namemax = 255
        return status

    # --- content ---

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        node = self._nodes[inode]
        node.handles += 1
        if flags & os.O_TRUNC:
            self._resize(node, 0)
        return FileInfo(fh=pyfuse3.FileHandleT(inode), keep_cache=True)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        node = self._add(parent_inode, name, stat.S_IFREG | mode, ctx)
        node.handles += 1
        return FileInfo(fh=pyfuse3.FileHandleT(node.attr.st_ino), keep_cache=True), node.attr

    async def read(self, fh: int, off: int, size: int) -> bytes:
        with memoryview(self._nodes[fh].data) as data:
            return bytes(data[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        node = self._nodes[fh]
        if off > len(node.data):
            self._resize(node, off)
        node.data[off : off + len(buf)] = buf
        if len(node.data) != node.attr.st_size:
            node.attr.st_size = len(node.data)
            node.attr.st_blocks = (len(node.data) + 511) // 512
        self._touch(node)
        return len(buf)

    async def flush(self, fh: int) -> None:
        return

    async def fsync(self, fh: int, datasync: bool) -> None:
        return

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        return

    async def release(self, fh: int) -> None:
        node = self._nodes[fh]
        node.handles -= 1
        if node.attr.st_nlink <= 0 and not node.handles:
            del self._nodes[fh]

    # --- listings ---

    async def opendir(self, inode: int, ctx: RequestContext) -> pyfuse3.FileHandleT:
        self._next += 1
        self._listings[self._next] = list(self._nodes[inode].children.items())
        return pyfuse3.FileHandleT(self._next)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._listings[fh]
        for number in range(start_id, len(listing)):
            name, inode = listing[number]
            node = self._nodes.get(inode)
            if node is not None and not pyfuse3.readdir_reply(
                token, pyfuse3.FileNameT(name), node.attr, number + 1
            ):
                return

    async def releasedir(self, fh: int) -> None:
        del self._listings[fh]


def main(mountpoint: Path) -> None:
    """Mounts, says so on standard output, serves until SIGTERM, SIGINT or an unmount from outside."""
    options = {"fsname=objfs-bench-floor", "subtype=floor", "default_permissions"}
    pyfuse3.init(Floor(), str(mountpoint), options)
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    try:
        trio.run(_serve)
    finally:
        pyfuse3.close(unmount=True)


async def _serve() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


async def _end_on_signal() -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            pyfuse3.terminate()
            return


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m objfs.app.bench.floor MOUNTPOINT")
    main(Path(sys.argv[1]))
