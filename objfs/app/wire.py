"""What goes over the control socket: one JSON object a line, each with the protocol's version.

Owns the form of requests, progress, results and errors.  Knows no command.

    request   {"objfs": 1, "command": NAME, ...arguments}
    progress  {"objfs": 1, "progress": {...}}      any number, before the end
    result    {"objfs": 1, "result": {...}}        the end
    error     {"objfs": 1, "error": TEXT, "exit_code": N}   the end
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from objfs.errors import MountError, ObjfsError
from objfs.volume.fields import JSON

PROTOCOL = 1
LINE_MAX = 4 * 1024 * 1024
"""The longest line, in bytes, that either side reads."""

Message: TypeAlias = "dict[str, JSON]"


def encode(message: Mapping[str, JSON]) -> bytes:
    return json.dumps({"objfs": PROTOCOL, **message}).encode("utf-8") + b"\n"


def decode(line: bytes) -> Message:
    """Raises MountError for anything that is not a message of this version."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise MountError("the control socket sent something that is not JSON") from None
    if not isinstance(message, dict) or message.get("objfs") != PROTOCOL:
        raise MountError(
            f"the control socket does not speak version {PROTOCOL}: is the mount of another objfs?"
        )
    return message


def failure(error: ObjfsError) -> Message:
    return {"error": str(error), "exit_code": int(error.exit_code)}


def error_for(code: int, message: str) -> ObjfsError:
    """The error of the tree that ends a command with ``code``: exit codes are all that crosses a pipe."""
    for kind in _classes(ObjfsError):
        if kind.exit_code == code:
            return kind(message)
    return ObjfsError(message)


def _classes(root: type[ObjfsError]) -> Iterator[type[ObjfsError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _classes(kind)


def text(message: Mapping[str, JSON], key: str) -> str:
    """A text argument; raises MountError when it is missing."""
    value = message.get(key)
    if not isinstance(value, str):
        raise MountError(f"the request lacks {key!r}")
    return value


@contextmanager
def ungrouped() -> Iterator[None]:
    """The body may use nurseries; what leaves it is the error itself and not their group."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise first_cause(group) from group


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to tell of a group: nurseries wrap even a single one.  Unexpected ones go before ours."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(first_cause(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((leaf for leaf in leaves if not isinstance(leaf, ObjfsError)), leaves[0])
