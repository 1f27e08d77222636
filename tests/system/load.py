"""Programs at work in a directory, each checked against a model of what its files hold.

Owns the operations and the models.  A wrong byte is never excused.  A read may fail while buckets do not
answer, with an error that a network file system gives; a change may be slow, and must not fail.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

FILES = 40
"""At most, in one directory."""
SIZES = (100, 5000, 70_000, 400_000, 1_000_000, 3_000_000)
PAUSE_S = 0.02
READ_ERRORS = frozenset({errno.EIO, errno.ETIMEDOUT, errno.EAGAIN})
"""What reading may give while buckets do not answer."""


@dataclass
class Worker(threading.Thread):
    """One program in a directory of its own, until told to stop or something is wrong."""

    root: Path
    seed: int
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    """What each file holds."""
    operations: Counter[str] = field(default_factory=Counter)
    written: int = 0
    read: int = 0
    failed_reads: Counter[str] = field(default_factory=Counter)
    slowest_s: dict[str, float] = field(default_factory=dict)
    """The longest time that one of a kind took, whether or not it failed."""
    complaint: str = ""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(f"load {self.seed}")
        self._told = threading.Event()
        self._number = 0

    __hash__ = threading.Thread.__hash__

    def finish(self) -> None:
        """After the operation under way."""
        self._told.set()

    def run(self) -> None:
        self.root.mkdir()
        while not self._told.wait(PAUSE_S) and not self.complaint:
            self._step()

    def _step(self) -> None:
        operation = self._chosen()
        name = operation.__name__.removeprefix("_")
        began = time.monotonic()
        try:
            operation()
        except OSError as error:
            self._failed(name, error)
        else:
            self.operations[name] += 1
        self.slowest_s[name] = max(self.slowest_s.get(name, 0.0), time.monotonic() - began)

    def _failed(self, name: str, error: OSError) -> None:
        if name.startswith("read") and error.errno in READ_ERRORS:
            self.failed_reads[errno.errorcode[error.errno or 0]] += 1
        else:
            self.complaint = f"{name} in {self.root.name}: {error!r}"

    def _chosen(self) -> Callable[[], None]:
        if len(self.files) < 5:
            return self._create
        choices = [self._create, self._overwrite, self._append, self._truncate, self._read, self._read_part]
        choices += [self._rename, self._rename_over, self._delete, self._fsync]
        weights = [6 if len(self.files) < FILES else 0, 8, 5, 2, 12, 12, 3, 3, 3, 1]
        return self._random.choices(choices, weights)[0]

    # --- changes -----------------------------------------------------------------------

    def _create(self) -> None:
        name, data = self._new_name(), self._data()
        (self.root / name).write_bytes(data)
        self.files[name] = data
        self.written += len(data)

    def _overwrite(self) -> None:
        name = self._some()
        self._write(name, self._random.randrange(len(self.files[name]) + 1), self._data())

    def _append(self) -> None:
        name = self._some()
        self._write(name, len(self.files[name]), self._data()[:100_000])

    def _write(self, name: str, offset: int, data: bytes) -> None:
        with (self.root / name).open("r+b", buffering=0) as stream:
            done = 0
            while done < len(data):
                done += os.pwrite(stream.fileno(), data[done:], offset + done)
        old = self.files[name]
        self.files[name] = old[:offset] + data + old[offset + len(data) :]
        self.written += len(data)

    def _truncate(self) -> None:
        name = self._some()
        length = self._random.randrange(len(self.files[name]) + 5000)
        os.truncate(self.root / name, length)
        self.files[name] = self.files[name][:length].ljust(length, b"\0")

    def _rename(self) -> None:
        self._move(self._new_name())

    def _rename_over(self) -> None:
        self._move(self._some())

    def _move(self, new: str) -> None:
        old = self._some()
        (self.root / old).rename(self.root / new)
        self.files[new] = self.files.pop(old)

    def _delete(self) -> None:
        name = self._some()
        (self.root / name).unlink()
        del self.files[name]

    def _fsync(self) -> None:
        with (self.root / self._some()).open("r+b") as stream:
            os.fsync(stream.fileno())

    # --- reading -----------------------------------------------------------------------

    def _read(self) -> None:
        name = self._some()
        self._check(name, 0, len(self.files[name]) + 1)

    def _read_part(self) -> None:
        name = self._some()
        offset = self._random.randrange(len(self.files[name]) + 1)
        self._check(name, offset, self._random.choice((100, 10_000, 200_000)))

    def _check(self, name: str, offset: int, length: int) -> None:
        with (self.root / name).open("rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # not from the kernel's memory
            data = b""
            while len(data) < length and (
                piece := os.pread(stream.fileno(), length - len(data), offset + len(data))
            ):
                data += piece
        self.read += len(data)
        if data != self.files[name][offset : offset + length]:
            self.complaint = f"wrong bytes in {self.root.name}/{name}: {length} read at {offset}"

    # --- what they share ---------------------------------------------------------------

    def _some(self) -> str:
        return self._random.choice(sorted(self.files))

    def _new_name(self) -> str:
        self._number += 1
        return f"file {self._number}"

    def _data(self) -> bytes:
        return self._random.randbytes(self._random.choice(SIZES))


def differences(root: Path, files: dict[str, bytes]) -> list[str]:
    """Of a directory and a model."""
    there = {path.name for path in root.iterdir()}
    wrong = [f"{root.name}/{name} is missing" for name in sorted(files.keys() - there)]
    wrong += [f"{root.name}/{name} should not be there" for name in sorted(there - files.keys())]
    for name in sorted(there & files.keys()):
        if (root / name).read_bytes() != files[name]:
            wrong.append(f"{root.name}/{name} has other bytes")
    return wrong
