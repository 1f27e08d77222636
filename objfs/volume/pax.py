"""Headers of a tar archive in the pax format, as bytes.

Owns the records: what ustar cannot say, and what GNU tar and star write for attributes (``SCHILY.xattr.``),
access control lists (``SCHILY.acl.``) and holes (``GNU.sparse.``, version 1.0).  Names and values go out as
the bytes that they are.
"""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Iterable, Sequence

from objfs.errors import InvalidArgument
from objfs.fs import acl
from objfs.model import NS, Attr
from objfs.volume.acl_text import to_text
from objfs.volume.attributes import Attributes

BLOCK = 512
END = bytes(2 * BLOCK)
XATTR, ACL = b"SCHILY.xattr.", b"SCHILY.acl."
_LISTS = {acl.ACCESS: ACL + b"access", acl.DEFAULT: ACL + b"default"}
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
}
_NUMBER_MAX = 0o7777777
_SIZE_MAX = 0o77777777777

Extents = Sequence[tuple[int, int]]
"""Offset and length of what a sparse file holds, ascending."""


def can_hold(attr: Attr) -> bool:
    """No archive can hold a socket."""
    return stat.S_IFMT(attr.mode) in _TYPES


def padding(length: int) -> bytes:
    """What fills the last block behind ``length`` bytes."""
    return bytes(-length % BLOCK)


def member(path: bytes, attr: Attr, xattrs: Attributes) -> bytes:
    """The headers of an inode under its first name; the bytes of a file follow."""
    kind = stat.S_IFMT(attr.mode)
    name = path + b"/" if kind == stat.S_IFDIR else path
    size = attr.size if kind == stat.S_IFREG else 0
    return _headers(name, attr, _TYPES[kind], size, attr.target or b"", _records(attr, xattrs))


def hard_link(path: bytes, first: bytes, attr: Attr) -> bytes:
    """The headers of another name."""
    return _headers(path, attr, tarfile.LNKTYPE, 0, first, _times(attr))


def sparse_member(path: bytes, attr: Attr, xattrs: Attributes, extents: Extents) -> bytes:
    """The headers of a file with holes, and the map; only the bytes of ``extents`` follow."""
    sizes = [len(extents), *(number for extent in extents for number in extent)]
    where = b"".join(b"%d\n" % number for number in sizes)
    where += padding(len(where))
    stored = len(where) + sum(length for _, length in extents)
    records = [
        *_records(attr, xattrs),
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", path),
        (b"GNU.sparse.realsize", b"%d" % attr.size),
    ]
    above, _, name = path.rpartition(b"/")
    shown = b"/".join((above, b"GNUSparseFile.0", name)).lstrip(b"/")
    return _headers(shown, attr, tarfile.REGTYPE, stored, b"", records) + where


Records = Iterable[tuple[bytes, bytes]]


def _records(attr: Attr, xattrs: Attributes) -> list[tuple[bytes, bytes]]:
    records = _times(attr)
    for name, value in xattrs:
        if name in _LISTS:
            records += _list(_LISTS[name], value)
        else:
            records.append((XATTR + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value))
    return records


def _list(key: bytes, value: bytes) -> list[tuple[bytes, bytes]]:
    try:
        found = acl.parse(value)
    except InvalidArgument:
        return []
    return [] if found is None else [(key, to_text(found).encode())]


def _times(attr: Attr) -> list[tuple[bytes, bytes]]:
    return [(b"mtime", _time(attr.mtime_ns)), (b"atime", _time(attr.atime_ns))]


def _time(ns: int) -> bytes:
    seconds, rest = divmod(abs(ns), NS)
    return b"%s%d.%09d" % (b"-" if ns < 0 else b"", seconds, rest)


def _headers(path: bytes, attr: Attr, kind: bytes, size: int, target: bytes, records: Records) -> bytes:
    wanted = list(records)
    for key, value, most in ((b"uid", attr.uid, _NUMBER_MAX), (b"gid", attr.gid, _NUMBER_MAX)):
        wanted += [(key, b"%d" % value)] if value > most else []
    wanted += [(b"size", b"%d" % size)] if size > _SIZE_MAX else []
    wanted += [(b"path", path)] if not _fits(path) else []
    wanted += [(b"linkpath", target)] if not _fits(target) else []
    body = b"".join(_record(key, value) for key, value in wanted)
    extended = _block(b"pax_headers/" + path[-60:], tarfile.XHDTYPE, len(body), 0o644)
    main = _block(path, kind, size, stat.S_IMODE(attr.mode), attr, target)
    return extended + body + padding(len(body)) + main


def _fits(path: bytes) -> bool:
    """Whether a name goes into the old header as it is, for every reader."""
    return len(path) <= 100 and path.isascii()


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE``, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(
    path: bytes, kind: bytes, size: int, mode: int, attr: Attr | None = None, target: bytes = b""
) -> bytes:
    """One block of ustar; what does not fit is cut off, and stands in the records."""
    info = tarfile.TarInfo()
    info.name = path[-100:].decode("ascii", "replace").replace("\ufffd", "_")
    info.linkname = target[:100].decode("ascii", "replace").replace("\ufffd", "_")
    info.type, info.mode = kind, mode
    info.size = size if size <= _SIZE_MAX else 0
    if attr is not None:
        info.uid = min(attr.uid, _NUMBER_MAX)
        info.gid = min(attr.gid, _NUMBER_MAX)
        info.mtime = min(max(attr.mtime_ns // NS, 0), _SIZE_MAX)
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = _device(attr.rdev)
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _device(number: int) -> tuple[int, int]:
    """Major and minor of the kernel's encoding."""
    return number >> 8 & 0xFFF, (number & 0xFF) | (number >> 12 & 0xFFF00)
