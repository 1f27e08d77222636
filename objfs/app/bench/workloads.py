"""The workloads of the performance table, on any directory.

Owns what is measured and how caches are emptied before.  Uses the standard library only and knows
nothing of objfs.  Every workload prepares what it needs outside the measured time, so that each can
be run alone; run in the order of ``WORKLOADS`` they share what the ones before have made.

    for result in run(Path("/mnt/somewhere"), Sizes().scaled(0.1)):
        print(result.workload, result.value, result.unit)
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

MB = 1_000_000
MIB = 1024 * 1024
BLOCK = 4096
READDIRS = 5
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; the defaults are those of the table."""

    file_bytes: int = 256 * MIB
    random_operations: int = 8192
    files: int = 1500
    appends: int = 400

    def scaled(self, factor: float) -> Sizes:
        """All of it times ``factor``, and at least a little of each."""
        return replace(
            self,
            file_bytes=max(1, round(self.file_bytes * factor / MIB)) * MIB,
            random_operations=max(16, round(self.random_operations * factor)),
            files=max(16, round(self.files * factor)),
            appends=max(4, round(self.appends * factor)),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement: ``value`` in ``unit`` (MB/s with 10^6 bytes, or operations per s)."""

    workload: str
    value: float
    unit: str
    seconds: float


class Stage:
    """A directory of its own below the measured one, and the files that workloads share."""

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="objfs-bench-", dir=directory))
        self.sizes = sizes
        self._fresh = 0

    def close(self) -> None:
        """Removes everything that was made."""
        shutil.rmtree(self.root, ignore_errors=True)

    def fresh(self, name: str) -> Path:
        """A new empty directory."""
        self._fresh += 1
        path = self.root / f"{name}-{self._fresh}"
        path.mkdir()
        return path

    @property
    def large(self) -> Path:
        return self.root / "large"

    def need_large(self) -> None:
        """The large file, as ``write`` leaves it."""
        if not self.large.exists():
            write(self)

    @cached_property
    def empty_files(self) -> list[str]:
        """Paths of that many empty files in one directory."""
        directory = self.fresh("empty")
        paths = [f"{directory}/file-{number:05d}" for number in range(self.sizes.files)]
        for path in paths:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return paths

    @cached_property
    def small_files(self) -> list[str]:
        """Paths of that many files of 4 KiB in one directory."""
        directory = self.fresh("small")
        paths = [f"{directory}/file-{number:05d}" for number in range(self.sizes.files)]
        write_small(paths)
        return paths


Measured = Callable[[Stage], float]


@dataclass(frozen=True, slots=True)
class Workload:
    """``measure`` returns seconds; ``amount`` says what was done in them, in ``unit`` times seconds."""

    name: str
    unit: str
    amount: Callable[[Sizes], float]
    measure: Measured
    budget: str
    """What objfs must reach, in the words of the table."""
    share: float
    """The same as a share of the yardstick."""
    yardstick: str = "floor"

    def run(self, stage: Stage) -> Result:
        """Once."""
        seconds = self.measure(stage)
        return Result(self.name, self.amount(stage.sizes) / seconds, self.unit, seconds)


# --- caches --------------------------------------------------------------------------------


def may_drop_caches() -> bool:
    """Whether the kernel's dentries and inodes can be dropped (root); file pages always can."""
    return os.access(DROP_CACHES, os.W_OK)


def drop_pages(paths: Iterable[str | Path]) -> None:
    """The kernel forgets the content of these files as it is seen through this mount.

    Not ``drop_caches=3``: that would empty the page cache below the measured file system's own
    cache as well, and the disk would be measured.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def drop_dentries() -> None:
    """The kernel forgets names and attributes, where we may ask it to."""
    if may_drop_caches():
        DROP_CACHES.write_text("2")


# --- the workloads -------------------------------------------------------------------------


def blocks(count: int) -> Iterator[memoryview]:
    """That many blocks of 1 MiB that neither compress nor equal each other."""
    source = bytearray(random.Random(1).randbytes(MIB))
    view = memoryview(source)
    for number in range(count):
        for at in range(0, MIB, 64 * 1024):
            source[at : at + 8] = number.to_bytes(8, "big")
        yield view


def write(stage: Stage) -> float:
    stage.large.unlink(missing_ok=True)
    begun = time.perf_counter()
    descriptor = os.open(stage.large, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        for block in blocks(stage.sizes.file_bytes // MIB):
            os.write(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return time.perf_counter() - begun


def read(stage: Stage) -> float:
    stage.need_large()
    drop_pages([stage.large])
    buffer = bytearray(MIB)
    begun = time.perf_counter()
    with stage.large.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begun


def offsets(sizes: Sizes) -> list[int]:
    """Random aligned offsets in the large file; no page twice while there are enough."""
    pages = sizes.file_bytes // BLOCK
    chosen = random.Random(2).sample(range(pages), min(pages, sizes.random_operations))
    return [page * BLOCK for page in chosen]


def random_amount(sizes: Sizes) -> float:
    return float(len(offsets(sizes)))


def random_writes(stage: Stage) -> float:
    stage.need_large()
    places, data = offsets(stage.sizes), random.Random(3).randbytes(BLOCK)
    descriptor = os.open(stage.large, os.O_WRONLY)
    try:
        begun = time.perf_counter()
        for place in places:
            os.pwrite(descriptor, data, place)
        os.fsync(descriptor)
        return time.perf_counter() - begun
    finally:
        os.close(descriptor)


def random_reads(stage: Stage) -> float:
    stage.need_large()
    drop_pages([stage.large])
    places = offsets(stage.sizes)
    descriptor = os.open(stage.large, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        begun = time.perf_counter()
        for place in places:
            os.pread(descriptor, BLOCK, place)
        return time.perf_counter() - begun
    finally:
        os.close(descriptor)


def create(stage: Stage) -> float:
    directory = stage.fresh("create")
    paths = [f"{directory}/file-{number:05d}" for number in range(stage.sizes.files)]
    begun = time.perf_counter()
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return time.perf_counter() - begun


def mkdir(stage: Stage) -> float:
    directory = stage.fresh("mkdir")
    paths = [f"{directory}/directory-{number:05d}" for number in range(stage.sizes.files)]
    begun = time.perf_counter()
    for path in paths:
        os.mkdir(path)
    return time.perf_counter() - begun


def stat(stage: Stage) -> float:
    paths = stage.empty_files
    drop_dentries()
    begun = time.perf_counter()
    for path in paths:
        os.stat(path)
    return time.perf_counter() - begun


def readdir(stage: Stage) -> float:
    """Several times over: once is a matter of milliseconds."""
    directory, seconds = os.path.dirname(stage.empty_files[0]), 0.0
    for _ in range(READDIRS):
        drop_dentries()
        begun = time.perf_counter()
        with os.scandir(directory) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
        seconds += time.perf_counter() - begun
    return seconds / READDIRS


def rename(stage: Stage) -> float:
    directory = stage.fresh("rename")
    paths = [f"{directory}/file-{number:05d}" for number in range(stage.sizes.files)]
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    pairs = [(path, path.replace("/file-", "/renamed-")) for path in paths]
    begun = time.perf_counter()
    for old, new in pairs:
        os.rename(old, new)
    return time.perf_counter() - begun


def unlink(stage: Stage) -> float:
    directory = stage.fresh("unlink")
    paths = [f"{directory}/file-{number:05d}" for number in range(stage.sizes.files)]
    for path in paths:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    begun = time.perf_counter()
    for path in paths:
        os.unlink(path)
    return time.perf_counter() - begun


def write_small(paths: list[str]) -> None:
    """A file of 4 KiB under each name, each with another content."""
    data = bytearray(random.Random(4).randbytes(BLOCK))
    for number, path in enumerate(paths):
        data[:8] = number.to_bytes(8, "big")
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        os.write(descriptor, data)
        os.close(descriptor)


def create_small(stage: Stage) -> float:
    directory = stage.fresh("create-small")
    paths = [f"{directory}/file-{number:05d}" for number in range(stage.sizes.files)]
    begun = time.perf_counter()
    write_small(paths)
    return time.perf_counter() - begun


def read_small(stage: Stage) -> float:
    paths = stage.small_files
    os.sync()  # only clean pages can be dropped
    drop_pages(paths)
    drop_dentries()
    begun = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, BLOCK)
        os.close(descriptor)
    return time.perf_counter() - begun


def append(stage: Stage) -> float:
    path, data = stage.fresh("append") / "log", random.Random(5).randbytes(BLOCK)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        begun = time.perf_counter()
        for _ in range(stage.sizes.appends):
            os.write(descriptor, data)
            os.fsync(descriptor)
        return time.perf_counter() - begun
    finally:
        os.close(descriptor)


def _megabytes(sizes: Sizes) -> float:
    return sizes.file_bytes / MB


def _files(sizes: Sizes) -> float:
    return float(sizes.files)


def _appends(sizes: Sizes) -> float:
    return float(sizes.appends)


PER_S = "per s"

WORKLOADS: tuple[Workload, ...] = (
    Workload("write, fsync at the end", "MB/s", _megabytes, write, "0.7 of the floor", 0.7),
    Workload("read back", "MB/s", _megabytes, read, "0.6 of the floor", 0.6),
    Workload("4 KiB random writes, fsync", PER_S, random_amount, random_writes, "0.6 of the floor", 0.6),
    Workload("4 KiB random reads", PER_S, random_amount, random_reads, "0.5 of the floor", 0.5),
    Workload("create empty", PER_S, _files, create, "0.8 of the floor", 0.8),
    Workload("mkdir", PER_S, _files, mkdir, "0.8 of the floor", 0.8),
    Workload("stat, dentries dropped", PER_S, _files, stat, "0.7 of the floor", 0.7),
    Workload("readdir + stat", PER_S, _files, readdir, "0.7 of the floor", 0.7),
    Workload("rename", PER_S, _files, rename, "0.5 of the floor", 0.5),
    Workload("unlink", PER_S, _files, unlink, "0.5 of the floor", 0.5),
    Workload("create + write 4 KiB + close", PER_S, _files, create_small, "0.6 of the floor", 0.6),
    Workload("read 4 KiB files", PER_S, _files, read_small, "0.7 of the floor", 0.7),
    Workload("append 4 KiB + fsync", PER_S, _appends, append, "2 x the local directory", 2.0, "local"),
)


def select(words: Iterable[str]) -> list[Workload]:
    """The workloads whose name contains one of the words; all where none is given."""
    wanted = list(words)
    return [load for load in WORKLOADS if not wanted or any(word in load.name for word in wanted)]


def run(directory: Path, sizes: Sizes, words: Iterable[str] = ()) -> Iterator[Result]:
    """Each workload once, in a directory of its own that is removed afterwards."""
    stage = Stage(directory, sizes)
    try:
        for workload in select(words):
            yield workload.run(stage)
    finally:
        stage.close()
