"""Random histories of file operations: applied to a directory, and to a model of it.

Owns the operations that the lost-machine tests use (writes, overwrites, appends, truncations,
renames over existing names, unlinks, links) and the question they ask: at which prefix of the
history does a recovered tree stand?  Knows nothing of objfs: it works on any directory.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

NAMES = [b"f%d" % number for number in range(12)] + [b"\xff\xfe odd", b"d1/a", b"d1/b", b"d2/a"]
DIRECTORIES = [b"d1", b"d2"]
PAGE = 4096
SIZES = (1, 100, 4096, 70_000, 300_000, 1_500_000)


@dataclass(frozen=True, slots=True)
class Operation:
    """One completed system call or a short run of them on one file."""

    verb: str
    name: bytes
    other: bytes = b""
    offset: int = 0
    length: int = 0
    fill: int = 0

    @property
    def data(self) -> bytes:
        """Content that no other operation writes at the same place."""
        return (random.Random(self.fill).randbytes(PAGE) * (self.length // PAGE + 1))[: self.length]


class Model:
    """What the tree must hold: names and shared contents (hard links share one)."""

    def __init__(self) -> None:
        self.files: dict[bytes, bytearray] = {}

    def apply(self, operation: Operation) -> None:
        getattr(self, f"_{operation.verb}")(operation)

    def snapshot(self) -> dict[bytes, bytes]:
        return {name: bytes(content) for name, content in self.files.items()}

    def _write(self, op: Operation) -> None:
        content = self.files.setdefault(op.name, bytearray())
        data = op.data
        if len(content) < op.offset:
            content.extend(bytes(op.offset - len(content)))
        content[op.offset : op.offset + op.length] = data

    def _truncate(self, op: Operation) -> None:
        content = self.files[op.name]
        if len(content) > op.length:
            del content[op.length :]
        else:
            content.extend(bytes(op.length - len(content)))

    def _rename(self, op: Operation) -> None:
        if self.files[op.name] is not self.files.get(op.other):
            self.files[op.other] = self.files.pop(op.name)

    def _unlink(self, op: Operation) -> None:
        del self.files[op.name]

    def _link(self, op: Operation) -> None:
        self.files[op.other] = self.files[op.name]


def history(seed: int) -> Iterator[Operation]:
    """An endless, reproducible history; each operation is valid after those before it."""
    rng = random.Random(seed)
    model = Model()
    number = 0
    while True:
        number += 1
        operation = _choose(rng, model, number)
        model.apply(operation)
        yield operation


def _choose(rng: random.Random, model: Model, number: int) -> Operation:
    present = sorted(model.files)
    absent = [name for name in NAMES if name not in model.files]
    verb = rng.choices(("write", "rename", "unlink", "truncate", "link"), (10, 4, 2, 2, 1))[0]
    if not present or (verb == "link" and not absent):
        verb = "write"
    if verb == "write":
        name = rng.choice(NAMES)
        size = len(model.files.get(name, b""))
        offset = rng.choice((0, size, rng.randint(0, size)))
        return Operation("write", name, offset=offset, length=rng.choice(SIZES), fill=number)
    name = rng.choice(present)
    if verb == "truncate":
        return Operation("truncate", name, length=rng.randint(0, len(model.files[name]) + 5000))
    if verb == "rename":
        return Operation("rename", name, rng.choice([other for other in NAMES if other != name]))
    if verb == "link":
        return Operation("link", name, rng.choice(absent))
    return Operation("unlink", name)


def prepare(root: Path) -> None:
    """The directories that histories use."""
    for directory in DIRECTORIES:
        os.makedirs(os.path.join(os.fsencode(root), directory), exist_ok=True)


def perform(root: Path, operation: Operation) -> None:
    """Applies one operation to a real directory; a write is one pwrite of the whole data."""
    base = os.fsencode(root) + b"/"
    path = base + operation.name
    if operation.verb == "write":
        _write(path, operation)
    elif operation.verb == "truncate":
        os.truncate(path, operation.length)
    elif operation.verb == "rename":
        os.rename(path, base + operation.other)
    elif operation.verb == "link":
        os.link(path, base + operation.other)
    else:
        os.unlink(path)


def _write(path: bytes, operation: Operation) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        data = operation.data
        written = 0
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], operation.offset + written)
    finally:
        os.close(descriptor)


def tree(root: Path) -> dict[bytes, bytes]:
    """Every regular file's content by its relative name."""
    base = os.fsencode(root)
    found = {}
    for folder, _, files in os.walk(base):
        for name in files:
            path = os.path.join(folder, name)
            with open(path, "rb") as stream:  # noqa: PTH123 - names are bytes
                found[os.path.relpath(path, base)] = stream.read()
    return found


def matching_prefix(seed: int, limit: int, found: dict[bytes, bytes]) -> int | None:
    """The longest prefix (number of operations, at most ``limit``) whose model equals ``found``.

    Between two operations a file may also be created and still empty, or hold the first 1 MiB
    pieces of a large write: a write through the kernel is several requests.
    """
    model = Model()
    best = 0 if not found else None
    for number, operation in enumerate(history(seed), 1):
        if number > limit:
            return best
        if _between(model, operation, found):
            best = number - 1
        model.apply(operation)
        if model.files == found:
            best = number
    return best


def _between(model: Model, operation: Operation, found: dict[bytes, bytes]) -> bool:
    """True when ``found`` is the model with ``operation`` partly done."""
    if operation.verb != "write" or operation.name not in found:
        return False
    skew = operation.offset % PAGE
    ends = [0, *range(PAGE - skew, operation.length, PAGE)]
    return any(_partly(model, operation, done) == found for done in _plausible(model, operation, found, ends))


def _plausible(model: Model, operation: Operation, found: dict[bytes, bytes], ends: list[int]) -> list[int]:
    """Only the ends at which the file would have the length that was found."""
    size = len(model.files.get(operation.name, b""))
    length = len(found[operation.name])
    return [done for done in ends if max(size, operation.offset + done if done else 0) == length]


def _partly(model: Model, operation: Operation, done: int) -> dict[bytes, bytearray]:
    copies = {id(content): bytearray(content) for content in model.files.values()}
    partial = Model()
    partial.files = {name: copies[id(content)] for name, content in model.files.items()}
    if done:
        partial.apply(replace(operation, length=done))
    else:
        partial.files.setdefault(operation.name, bytearray())
    return partial.files
