"""A tar archive into a directory, from a stream.

Owns what a member becomes.  Promises, with ``Destination``, that nothing outside of the directory is written
or followed, whatever the archive says: a member whose name leads out is refused and named.  What is there
under a member's name is replaced, but for a directory, which takes the member's attributes.  Owners are the
archive's numbers.  Blocking.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import IO, Self, cast

from objfs.errors import InvalidArgument, UsageError
from objfs.fs import acl
from objfs.model import NS, Attr, Ino
from objfs.volume.acl_text import from_text
from objfs.volume.attributes import Kept
from objfs.volume.destination import DRAFTS, Destination
from objfs.volume.pax import ACL, XATTR
from objfs.volume.restore import ENDING
from objfs.volume.restored import Restored

STEP = 4 << 20
IMPOSSIBLE = (InvalidArgument, ValueError, OverflowError)
"""What a member raises that says what no file can be: a name with a zero in it, an owner below zero."""
_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
}
_LISTS = {b"access": acl.ACCESS, b"default": acl.DEFAULT}


class _Member(tarfile.TarInfo):
    """tarfile takes a header that is cut off, or none at all, for the end of an archive; this does not."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the blocks of zeros at the end
                raise
            raise tarfile.ReadError(f"no header where one should be ({error})") from None


class Unpack:
    """One archive; ``report`` hears after each member."""

    def __init__(
        self, stream: IO[bytes], destination: Destination, report: Callable[[Restored], None]
    ) -> None:
        self._stream = stream
        self._destination = destination
        self._report = report
        self._directories: dict[bytes, Kept] = {}
        self.done = Restored(0)

    def run(self) -> Restored:
        """Raises UsageError for what is no archive or is cut off, OSError where nothing more is taken."""
        try:
            with tarfile.open(
                fileobj=self._stream,
                mode="r|*",
                encoding="utf-8",
                errors="surrogateescape",
                tarinfo=_Member,
            ) as archive:
                while (info := archive.next()) is not None:
                    self._one(archive, info)
                    vars(archive)["members"].clear()  # it would remember all of them
                    self._report(self.done)
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise UsageError(f"the archive cannot be read to its end: {error}") from None
        return self.done

    def _one(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        path = _inside(_bytes(info.name))
        if path is None:
            self.done.refuse(_bytes(info.name), "its name leads out of the directory")
            return
        try:
            self._make(archive, info, path)
        except OSError as error:
            if error.errno in ENDING:
                raise
            self.done.refuse(path, error.strerror or str(error))
        except IMPOSSIBLE as error:
            self.done.refuse(path, str(error))

    def _make(self, archive: tarfile.TarFile, info: tarfile.TarInfo, path: bytes) -> None:
        if info.islnk():
            first = _inside(_bytes(info.linkname))
            if not first:
                raise InvalidArgument(f"it is another name of {info.linkname!r}, which leads out")
            self._destination.link(first, path)
            self.done.linked()
            return
        what = _kept(info)
        if info.isdir():
            self._destination.make_directory(path)
            self._directories[path] = what
        elif not path:
            raise InvalidArgument("it has no name")
        elif info.isreg():
            self._file(archive, info, path, what)
        elif info.type in _KINDS:
            self.done.remark(self._destination.make_other(path, what))
        else:
            raise InvalidArgument(f"it is of a kind that no file has ({info.type!r})")
        self.done.made(what.attr)

    def _file(self, archive: tarfile.TarFile, info: tarfile.TarInfo, path: bytes, what: Kept) -> None:
        draft = b"import"
        self._destination.write(draft, 0, [], sparse=False)
        for offset, data in _contents(archive, info):
            self._destination.write(
                draft, max(offset + len(data), 0), [(offset, data)], sparse=info.issparse()
            )
        self._destination.write(draft, info.size, [], sparse=False)
        self.done.remark(self._destination.finish(draft, path, what))

    def finish(self) -> None:
        """Directories get what is their own: when nothing is put into them any more."""
        for path, what in self._directories.items():
            try:
                self.done.remark(self._destination.finish_directory(path, what))
            except IMPOSSIBLE as error:
                self.done.refuse(path, str(error))


def _contents(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
    """Of a file, in pieces with their offsets; holes are left out."""
    reader = archive.extractfile(info)
    assert reader is not None
    raw = getattr(reader, "raw", reader)  # a buffer would read ahead, and a stream does not go back
    extents = _extents(info)
    for start, length in extents:
        raw.seek(start)
        at, end = start, start + length
        while at < end:
            data = raw.read(min(STEP, end - at))
            if not data:
                raise tarfile.ReadError(f"{info.name} is cut off")
            yield at, data
            at += len(data)


def _extents(info: tarfile.TarInfo) -> Sequence[tuple[int, int]]:
    return cast("Sequence[tuple[int, int]]", info.sparse) if info.issparse() else [(0, info.size)]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _inside(path: bytes) -> bytes | None:
    """A member's name as a path below the directory, empty for the directory; None for one that leads out."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if any(name == b".." or b"\0" in name for name in names) or names[:1] == [DRAFTS]:
        return None
    return b"/".join(names)


# --- what an archive says of an inode ------------------------------------------------------


def _kept(info: tarfile.TarInfo) -> Kept:
    kind = _KINDS.get(info.type, stat.S_IFREG)
    mtime = _time(info.pax_headers.get("mtime"), int(info.mtime * NS))
    attr = Attr(
        ino=Ino(0),
        mode=kind | stat.S_IMODE(info.mode),
        nlink=1,
        uid=info.uid,
        gid=info.gid,
        rdev=os.makedev(info.devmajor, info.devminor) if info.isdev() and not info.isfifo() else 0,
        size=info.size if info.isreg() else 0,
        atime_ns=_time(info.pax_headers.get("atime"), mtime),
        mtime_ns=mtime,
        ctime_ns=mtime,
        btime_ns=mtime,
        target=_bytes(info.linkname) if info.issym() else None,
        held=sum(length for _, length in _extents(info)) if info.isreg() else 0,
    )
    return Kept(attr, list(_xattrs(info)))


def _time(text: str | None, other: int) -> int:
    """Nanoseconds of a record; a number in the header has none."""
    try:
        return other if text is None else int(Decimal(text) * NS)
    except (InvalidOperation, ValueError, OverflowError):
        return other


def _xattrs(info: tarfile.TarInfo) -> Iterator[tuple[bytes, bytes]]:
    for key, value in info.pax_headers.items():
        name, data = _bytes(key), _bytes(value)
        if name.startswith(XATTR):
            yield name[len(XATTR) :].replace(b"%3D", b"=").replace(b"%25", b"%"), data
        elif name.startswith(ACL) and name[len(ACL) :] in _LISTS:
            yield _LISTS[name[len(ACL) :]], acl.encode(from_text(value))
