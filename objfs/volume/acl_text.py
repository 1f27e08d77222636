"""Access control lists as tar archives carry them: the text of acl(5), with numbers for names.

Owns both directions.  Reading takes what GNU tar and star write: entries between commas or line ends, a
fourth field with a number behind a name.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Iterator

from objfs.errors import InvalidArgument
from objfs.fs.acl import Acl

_BITS = ((4, "r"), (2, "w"), (1, "x"))
_NO_ID = 2**32 - 1


def to_text(acl: Acl) -> str:
    """``user::rw-,user:1000:r--,group::r--,mask::r--,other::---``."""
    return ",".join(_entries(acl))


def _entries(acl: Acl) -> Iterator[str]:
    yield f"user::{_shown(acl.owner)}"
    yield from (f"user:{uid}:{_shown(bits)}" for uid, bits in acl.users)
    yield f"group::{_shown(acl.group)}"
    yield from (f"group:{gid}:{_shown(bits)}" for gid, bits in acl.groups)
    if acl.mask is not None:
        yield f"mask::{_shown(acl.mask)}"
    yield f"other::{_shown(acl.other)}"


def _shown(bits: int) -> str:
    return "".join(letter if bits & bit else "-" for bit, letter in _BITS)


def from_text(text: str) -> Acl:
    """Raises InvalidArgument, also for a name that nobody has here."""
    single: dict[str, int] = {}
    users: dict[int, int] = {}
    groups: dict[int, int] = {}
    for line in text.replace(",", "\n").splitlines():
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        kind, name, bits, number = _fields(entry)
        if kind == "user" and name:
            users[_number(name, number, _uid)] = bits
        elif kind == "group" and name:
            groups[_number(name, number, _gid)] = bits
        else:
            single[kind] = bits
    try:
        return Acl(
            single["user"],
            single["group"],
            single["other"],
            single.get("mask"),
            tuple(sorted(users.items())),
            tuple(sorted(groups.items())),
        )
    except KeyError as error:
        raise InvalidArgument(f"an access control list without an entry for {error.args[0]}") from None


_KINDS = {"u": "user", "g": "group", "m": "mask", "o": "other"}


def _fields(entry: str) -> tuple[str, str, int, str]:
    parts = entry.split(":")
    kind = _KINDS.get(parts[0][:1], "")
    if not kind or len(parts) < 2:
        raise InvalidArgument(f"{entry!r} is no entry of an access control list")
    if len(parts) == 2:  # mask and others may come without the empty name
        parts.insert(1, "")
    bits = sum(bit for bit, letter in _BITS if letter in parts[2])
    return kind, parts[1], bits, parts[3] if len(parts) > 3 else ""


def _number(name: str, number: str, find: Callable[[str], int]) -> int:
    for text in (number, name):
        if text.isdecimal() and int(text) < _NO_ID:
            return int(text)
    try:
        return find(name)
    except KeyError:
        raise InvalidArgument(f"an access control list names {name}, who is unknown here") from None


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid
