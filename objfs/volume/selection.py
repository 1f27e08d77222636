"""Which paths of a tree are meant: the ones named, and globs that include and exclude.

Owns the meaning of a pattern.  Pure; paths are bytes, from the volume's root, without a leading slash.

A pattern without a slash (but for one at its end) is matched against the last name of a path, wherever that
is; any other against the whole path.  ``*`` and ``?`` stand for what has no slash, ``[...]`` for one byte of
several, ``**`` as a whole name for any number of names, and a backslash takes the next byte as it is.  A
slash at the end: directories alone.  A pattern that matches a directory matches all that is below.  Exclusion
wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from objfs.errors import NotDirectory, NotFound, UsageError
from objfs.fs import Tables
from objfs.model import ROOT

Names = tuple[bytes, ...]


class Choice(Enum):
    """What a path is."""

    OUT = "out"
    """Not meant, nor is anything below."""
    WAY = "way"
    """A directory that may lead to something that is meant."""
    IN = "in"


class Selection:
    """Paths and patterns as a person gave them.  Raises UsageError for a pattern that means nothing."""

    def __init__(
        self,
        paths: Iterable[bytes] = (),
        include: Iterable[bytes] = (),
        exclude: Iterable[bytes] = (),
    ) -> None:
        self._roots = sorted({_names(path) for path in paths} or {()})
        self._include = [_pattern(text) for text in include]
        self._exclude = [_pattern(text) for text in exclude]

    def require(self, table: Tables) -> None:
        """Raises UsageError for a path that is not in the tree.  Follows no symlink."""
        for root in self._roots:
            ino = ROOT
            try:
                for name in root:
                    ino = table.lookup(ino, name).ino
            except (NotFound, NotDirectory):
                said = b"/".join(root).decode("utf-8", "backslashreplace")
                raise UsageError(f"there is no /{said} in what is to be read") from None

    @property
    def root(self) -> Choice:
        """What the root itself is."""
        return Choice.IN if self._roots == [()] and not self._include else Choice.WAY

    def among(self, path: bytes) -> Sequence[bytes] | None:
        """The only names in a directory that can be meant; None: all."""
        names = _names(path)
        if any(names[: len(root)] == root for root in self._roots):
            return None
        depth = len(names)
        return sorted({root[depth] for root in self._roots if root[:depth] == names})

    def choose(self, path: bytes, above: Choice, *, is_dir: bool) -> Choice:
        """What a path is, of which the directory is ``above`` and gave the name in ``among``."""
        if any(pattern.matches(path, is_dir=is_dir) for pattern in self._exclude):
            return Choice.OUT
        if above is Choice.IN:
            return Choice.IN
        names = _names(path)
        within = any(names[: len(root)] == root for root in self._roots)
        wanted = not self._include or any(one.matches(path, is_dir=is_dir) for one in self._include)
        if within and wanted:
            return Choice.IN
        return Choice.WAY if is_dir else Choice.OUT


def _names(path: bytes) -> Names:
    names = tuple(name for name in path.split(b"/") if name and name != b".")
    if b".." in names:
        raise UsageError(f"a path in a volume has no ..: {path.decode('utf-8', 'backslashreplace')}")
    return names


# --- patterns ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pattern:
    expression: re.Pattern[bytes]
    whole: bool
    directories: bool

    def matches(self, path: bytes, *, is_dir: bool) -> bool:
        if self.directories and not is_dir:
            return False
        return self.expression.fullmatch(path if self.whole else path.rpartition(b"/")[2]) is not None


def _pattern(text: bytes) -> _Pattern:
    body = text.rstrip(b"/")
    if not body:
        raise UsageError(f"{text.decode('utf-8', 'backslashreplace')!r} is not a pattern")
    parts = body.removeprefix(b"/").split(b"/")
    expression = b"".join(_part(part, last=number == len(parts)) for number, part in enumerate(parts, 1))
    return _Pattern(re.compile(expression, re.DOTALL), b"/" in body, body != text)


def _part(part: bytes, *, last: bool) -> bytes:
    if part == b"**":
        return b".*" if last else b"(?:[^/]+/)*"
    return _name(part) + (b"" if last else b"/")


def _name(part: bytes) -> bytes:
    """The expression of one name."""
    found, at = [], 0
    while at < len(part):
        char = part[at : at + 1]
        closing = part.find(b"]", at + 2)
        if char == b"[" and closing > 0:
            found.append(_class(part[at + 1 : closing]))
            at = closing + 1
            continue
        if char == b"\\" and at + 1 < len(part):
            at += 1
            found.append(re.escape(part[at : at + 1]))
        else:
            found.append(_SIGNS.get(char) or re.escape(char))
        at += 1
    return b"".join(found)


_SIGNS = {b"*": b"[^/]*", b"?": b"[^/]"}


def _class(body: bytes) -> bytes:
    """``abc``, ``a-z``; ``!`` or ``^`` at the front: all others, but never a slash."""
    negated = body[:1] in (b"!", b"^")
    inside = re.sub(rb"([\\\[\]^&~|])", rb"\\\1", body[1:] if negated else body)
    expression = b"[^/%s]" % inside if negated else b"(?!/)[%s]" % inside
    try:
        re.compile(expression)
    except re.error:
        raise UsageError(f"[{body.decode('utf-8', 'backslashreplace')}] is not a set of bytes") from None
    return expression
