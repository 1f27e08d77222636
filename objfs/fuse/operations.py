"""The handlers of pyfuse3: unpack, call the file system, translate.

Owns nothing but the mapping, the accounting of lookups that the protocol asks for, and the decision
about the page cache.  Knows no rule of POSIX.

- Every answer that carries an inode counts as one lookup of it, but for '.' and '..' of a listing.
- Offsets of a listing: 0 begins, 1 is after '.', 2 after '..', above that the cookies of entries.
- The kernel looks '.' up, of files too, when it opens a file handle (open_by_handle_at(2), an NFS server)
  whose inode it has forgotten.
- ``flush`` and ``poll`` are left to pyfuse3, which answers ENOSYS once: the kernel then stops asking,
  and a close costs no request.
- The page cache is kept from one open to the next, because all changes pass through it; except while
  the kernel remembers an inode that was opened with O_DIRECT for writing: asynchronous direct writes do
  not update pages that are read meanwhile, and every later open must begin with an empty cache.
  O_DIRECT set later, by fcntl(2), is not seen here.  What changed behind the kernel's back begins with an
  empty cache at its next open too (``distrust``).
- After a read, a listing or a readlink the kernel asks for the access time again.  Reads that its own pages
  answer are not seen here: opening counts for them, and the kernel is told of it at the close, when it keeps
  nobody waiting.
- The kernel clears set-ID bits at a write by a setattr of its own, and capabilities (which it looks for
  before every write) by a removexattr; write requests name no caller.
- With ``acl`` the kernel checks access by the lists that it asks for, and remembers them and their absence
  as long as it knows the inode; but not for the root of a mount, which it knows before it has heard of
  lists.  Keeping lists, modes and what is inherited in step is the file system's.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import pyfuse3

from objfs.errors import NotFound, ReadOnly, StaleHandle
from objfs.fs import Caller, FileSystem, Handle
from objfs.fs.acl import ACCESS
from objfs.fuse.browse import LIVE, Browser, Browsing, View, is_door, slot_of
from objfs.fuse.translate import (
    HANDLE_MASK,
    SLOT_SHIFT,
    FuseSettings,
    Translator,
    Views,
    change_of,
    guarded,
    rename_flag,
    statvfs_of,
)
from objfs.model import Attr, Ino

log = logging.getLogger(__name__)

DOT, DOTDOT = 1, 2
_COOKIE_MAX = 2**63 - 1
"""The offset of the directory of snapshots, after everything else."""
_PAGE_MIN = 16


class Operations(pyfuse3.Operations):
    """The adapter of one mount.  Without ``acl`` the kernel checks the mode alone; without ``browsing`` no
    snapshots are seen."""

    def __init__(
        self,
        fs: FileSystem,
        settings: FuseSettings | None = None,
        *,
        writeback: bool = False,
        acl: bool = True,
        browsing: Browsing | None = None,
    ) -> None:
        super().__init__()
        self.enable_writeback_cache = writeback
        self.enable_acl = acl
        self._settings = settings or FuseSettings()
        self.views = Views(fs.settings.root)
        self._trees: dict[int, View] = {}
        self._direct: set[int] = set()
        self._distrusted: set[int] = set()
        self.outdated: Callable[[int], None] = lambda number: None
        """Told of inodes whose attributes the kernel should ask for again."""
        self.add_view(LIVE, fs)
        self._browser: Browser | None = None
        if browsing is not None:
            self._browser = Browser(browsing, self._trees, self.views, self._settings)

    # --- views -------------------------------------------------------------------------

    def add_view(self, slot: int, fs: FileSystem) -> None:
        """Shows another tree under its own inode numbers."""
        self._trees[slot] = View(slot, fs, Translator(self.views, slot, self._settings))

    def remove_view(self, slot: int) -> None:
        """What the kernel still knows of the tree answers ESTALE from now on."""
        del self._trees[slot]

    def distrust(self, inodes: Iterable[Ino], slot: int = 0) -> None:
        """The next open of each finds an empty page cache: its content changed, and nothing else tells so."""
        self._distrusted.update(self.views.encode(slot, ino) for ino in inodes)

    def located(self, number: int) -> tuple[FileSystem, Ino]:
        """The tree and the inode in it that a program knows by an ``st_ino``.  Raises StaleHandle."""
        view, ino = self._inside(number)
        return view.fs, ino

    # --- names -------------------------------------------------------------------------

    @guarded
    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        view, parent = self._at(parent_inode)
        if name == b".":
            return view.known(_living(view.fs.getattr(parent)))
        if name == b"..":
            view, above = view.above(parent)
            return view.known(above)
        view, parent = self._inside(parent_inode)
        try:
            return view.known(view.fs.lookup(parent, name))
        except NotFound:
            return self._absent(view, parent, name)

    def _absent(self, view: View, parent: Ino, name: bytes) -> pyfuse3.EntryAttributes:
        """What is not in the tree is not there, or is the directory of snapshots."""
        if self._browser is not None:
            if self._browser.named(view, parent, name):
                return self._browser.known()
            self._browser.settle(view.slot)
        return view.translate.absent()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        # Nobody waits for an answer, so nothing may leave from here either.
        try:
            for number, count in inode_list:
                self._forget(number, count)
        except Exception:
            log.exception("internal error operation=forget")

    def _forget(self, number: int, count: int) -> None:
        slot, ino = self.views.decode(number)
        view = self._trees.get(slot)
        if view is None or view.fs.forget(ino, count):
            self._direct.discard(number)
            self._distrusted.discard(number)
            self._settle(slot)

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        view, ino = self._at(inode)
        return view.fs.readlink(ino)

    @guarded
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        view, parent = self._entry_at(parent_inode, name)
        return view.known(view.fs.mknod(parent, name, mode, rdev, _caller(ctx)))

    @guarded
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        view, parent = self._entry_at(parent_inode, name)
        return view.known(view.fs.mkdir(parent, name, mode, _caller(ctx)))

    @guarded
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        view, parent = self._entry_at(parent_inode, name)
        return view.known(view.fs.symlink(parent, name, target, _caller(ctx)))

    @guarded
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        view, ino, parent = self._both(inode, new_parent_inode)
        self._entry_at(new_parent_inode, new_name)
        return view.known(view.fs.link(ino, parent, new_name))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        view, parent = self._entry_at(parent_inode, name)
        view.fs.unlink(parent, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        view, parent = self._entry_at(parent_inode, name)
        view.fs.rmdir(parent, name)

    @guarded
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        view, parent, new_parent = self._both(parent_inode_old, parent_inode_new)
        self._entry_at(parent_inode_old, name_old)
        self._entry_at(parent_inode_new, name_new)
        view.fs.rename(parent, name_old, new_parent, name_new, rename_flag(flags))

    # --- attributes --------------------------------------------------------------------

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        view, ino = self._at(inode)
        return view.entry(view.fs.getattr(ino))

    @guarded
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        view, ino = self._at(inode)
        size = attr.st_size if fields.update_size else None
        changed = await view.fs.setattr(ino, change_of(attr, fields), size, _caller(ctx))
        return view.entry(changed)

    @guarded
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        view, ino = self._at(inode)
        return view.fs.access(ino, mode, _caller(ctx), _groups(ctx))

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return statvfs_of(self._trees[0].fs.statfs())

    # --- extended attributes -----------------------------------------------------------

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        view, ino = self._attributed(inode)
        return view.fs.get_xattr(ino, name)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        # XATTR_CREATE and XATTR_REPLACE were looked after by pyfuse3, through getxattr.
        view, ino = self._attributed(inode)
        groups = _groups(ctx) if name == ACCESS else frozenset()
        view.fs.set_xattr(ino, name, value, caller=_caller(ctx), groups=groups)

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        view, ino = self._attributed(inode)
        return view.fs.list_xattr(ino, _caller(ctx))

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        view, ino = self._attributed(inode)
        view.fs.remove_xattr(ino, name)

    def _attributed(self, number: int) -> tuple[View, Ino]:
        if not self._settings.xattrs:
            raise pyfuse3.FUSEError(errno.ENOSYS)  # the kernel stops asking
        return self._at(number)

    # --- files -------------------------------------------------------------------------

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        view, parent = self._entry_at(parent_inode, name)
        handle, attr = view.fs.create(parent, name, mode, flags, _caller(ctx))
        entry = view.known(attr)
        return self._opened(view, entry.st_ino, handle), entry

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        view, ino = self._at(inode)
        return self._opened(view, inode, await view.fs.open(ino, flags, _caller(ctx)))

    def _opened(self, view: View, number: int, handle: Handle) -> pyfuse3.FileInfo:
        if handle.writes and handle.flags & os.O_DIRECT:
            self._direct.add(number)
        keep = self._settings.keep_cache and number not in self._direct and number not in self._distrusted
        self._distrusted.discard(number)
        return pyfuse3.FileInfo(fh=_handle_number(view.slot, handle), keep_cache=keep)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        fs, fh = self._by_handle(fh)
        return await fs.read(fh, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        fs, fh = self._by_handle(fh)
        return await fs.write(fh, off, buf)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        fs, fh = self._by_handle(fh)
        await fs.fsync(fh)

    @guarded
    async def release(self, fh: int) -> None:
        view = self._view_of(fh)
        handle = view.fs.release(fh & HANDLE_MASK)
        if handle.marked:
            self.outdated(self.views.encode(slot_of(fh), handle.ino))
        self._settle(view.slot)

    # --- directories -------------------------------------------------------------------

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        view, ino = self._inside(inode)
        return _handle_number(view.slot, view.fs.opendir(ino))

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        view = self._view_of(fh)
        handle = view.fs.handle(fh & HANDLE_MASK)
        if start_id < DOTDOT and not _list_dots(view, handle.ino, start_id, token):
            return
        if _list_entries(view, handle, max(start_id, DOTDOT), token):
            self._list_snapshots(view, handle.ino, start_id, token)

    def _list_snapshots(self, view: View, ino: Ino, after: int, token: pyfuse3.ReaddirToken) -> None:
        """Their directory, last of the root, where that is wanted."""
        browser = self._browser
        if browser is None or not browser.listed or after == _COOKIE_MAX:
            return
        if not browser.named(view, ino, browser.name):
            return
        if pyfuse3.readdir_reply(token, browser.name, browser.entry(), _COOKIE_MAX):
            browser.known()

    @guarded
    async def releasedir(self, fh: int) -> None:
        view = self._view_of(fh)
        view.fs.release(fh & HANDLE_MASK)
        self._settle(view.slot)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        fs, fh = self._by_handle(fh)
        await fs.fsync(fh)

    # --- views -------------------------------------------------------------------------

    def _at(self, number: int) -> tuple[View, Ino]:
        slot, ino = self.views.decode(number)
        try:
            return self._trees[slot], ino
        except KeyError:
            raise StaleHandle(f"view {slot} is no longer shown") from None

    def _inside(self, number: int) -> tuple[View, Ino]:
        """The same for who looks into a directory: through a door into the tree behind it."""
        slot, ino = self.views.decode(number)
        if self._browser is not None and is_door(slot, ino):
            tree = self._browser.behind(ino)
            return tree, tree.fs.settings.root
        return self._at(number)

    def _entry_at(self, number: int, name: bytes) -> tuple[View, Ino]:
        """A directory in which the entry ``name`` is to come or go.  Raises ReadOnly for the taken name."""
        view, parent = self._at(number)
        if self._browser is not None and self._browser.named(view, parent, name):
            raise ReadOnly(f"{name!r} is where snapshots are read; mount with another snapshot_dir")
        return view, parent

    def _settle(self, slot: int) -> None:
        if self._browser is not None:
            self._browser.settle(slot)

    def _both(self, first: int, second: int) -> tuple[View, Ino, Ino]:
        view, ino = self._at(first)
        other, other_ino = self._at(second)
        if other is not view:
            raise ReadOnly("a snapshot cannot be changed")
        return view, ino, other_ino

    def _view_of(self, fh: int) -> View:
        try:
            return self._trees[slot_of(fh)]
        except KeyError:
            raise StaleHandle(f"view {slot_of(fh)} is no longer shown") from None

    def _by_handle(self, fh: int) -> tuple[FileSystem, int]:
        return self._view_of(fh).fs, fh & HANDLE_MASK


def _living(attr: Attr) -> Attr:
    """An inode that still has a name: by number alone nobody gets hold of another."""
    if not attr.nlink:
        raise StaleHandle(f"inode {attr.ino} has no name any more")
    return attr


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask)


def _groups(ctx: pyfuse3.RequestContext) -> frozenset[int]:
    """The caller's supplementary groups, read from /proc; none where its process cannot be seen."""
    with suppress(OSError):
        return frozenset(pyfuse3.get_sup_groups(ctx.pid))
    return frozenset()


def _handle_number(slot: int, handle: Handle) -> int:
    """Handles of different views must differ: they carry the slot as inode numbers do."""
    return slot << SLOT_SHIFT | handle.fh


def _list_dots(view: View, ino: Ino, start: int, token: pyfuse3.ReaddirToken) -> bool:
    """'.' and '..', which do not count as lookups; False when the reply is full."""
    if start < DOT:
        here = view.entry(view.fs.getattr(ino))
        if not pyfuse3.readdir_reply(token, b".", here, DOT):
            return False
    other, above = view.above(ino)
    return pyfuse3.readdir_reply(token, b"..", other.entry(above), DOTDOT)


def _list_entries(view: View, handle: Handle, after: int, token: pyfuse3.ReaddirToken) -> bool:
    """Pages of as many entries as the last reply could take, so that few rows are read in vain; whether there
    are no more."""
    while page := view.fs.readdir(handle.ino, after, handle.page):
        for taken, entry in enumerate(page):
            answer = view.translate.entry(entry.attr)
            if not pyfuse3.readdir_reply(token, entry.name, answer, entry.cookie):
                handle.page = max(taken + 1, _PAGE_MIN)
                return False
            view.fs.looked_up(entry.attr.ino)
        if len(page) < handle.page:
            return True
        after = page[-1].cookie
    return True
