"""What work on a mount costs in requests, as its status tells it and as the bucket directories show it.

    python -m tests.system.requests_made [--files N]

Owns the measurements that ``test_requests`` bounds; the script prints them at full size.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.harness import Station, local_buckets, urls

VOLUME = "counted"
PAGE = 4096
QUIET = "ro"
"""Mount options: nothing but the reads that are measured makes requests that answer with bytes.  A mount that
writes tries its buckets soon after it was made."""


@dataclass(frozen=True)
class Requests:
    """Requests to all buckets together, and the bytes that came back."""

    gets: int
    puts: int
    bytes_in: int

    def __sub__(self, earlier: Requests) -> Requests:
        return Requests(self.gets - earlier.gets, self.puts - earlier.puts, self.bytes_in - earlier.bytes_in)


@dataclass
class Bench:
    """A 2+1 volume over three directories, mounted at ``directory``."""

    station: Station
    places: Sequence[Path]
    directory: Path

    def count(self) -> Requests:
        """Read from ``objfs status --json``."""
        buckets: list[dict[str, Any]] = self.station.status(self.directory)["buckets"]
        asked = [bucket["requests"] for bucket in buckets]
        return Requests(
            sum(one["get"] for one in asked),
            sum(one["put"] + one["put_if_absent"] for one in asked),
            sum(bucket["bytes_in"] for bucket in buckets),
        )

    def objects(self) -> set[Path]:
        """Everything that lies in the buckets."""
        return {path for place in self.places for path in place.rglob("*") if path.is_file()}

    def flush(self) -> None:
        self.station.run("flush", self.directory)

    def stored_bytes(self, name: str) -> int:
        """What the chunks of a file take in the buckets, without redundancy."""
        told = json.loads(self.station.run("info", self.directory / name, "--json").stdout)
        assert told["dirty"] == 0
        return int(told["stored_bytes"])

    def lose_machine(self) -> None:
        """Nothing of the volume is local any more, in the state directory or in the kernel."""
        self.station.umount(self.directory)
        self.station.forget(VOLUME)
        self.station.attach(VOLUME, urls(self.places))
        self.station.mount(VOLUME, self.directory, "-o", QUIET)


@contextmanager
def bench(root: Path, *options: str) -> Iterator[Bench]:
    places = local_buckets(root, 3)
    with Station(root / "machine") as station:
        station.mkfs(VOLUME, urls(places))
        station.mount(VOLUME, root / "mnt", *options)
        yield Bench(station, places, root / "mnt")


# --- copying small files --------------------------------------------------------------------


@dataclass(frozen=True)
class Copied:
    """What copying cost until all of it was recoverable: requests, and objects that came to be."""

    requests: Requests
    objects: int


def copy_small_files(work: Bench, source: Path, files: int) -> Copied:
    """Copies ``files`` files of 4 KiB that do not compress, and waits until they are in the buckets."""
    generator = random.Random(files)
    for number in range(files):
        place = source / f"d{number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number}").write_bytes(generator.randbytes(PAGE))
    before, there = work.count(), work.objects()
    shutil.copytree(source, work.directory / "copy")
    work.flush()
    return Copied(work.count() - before, len(work.objects() - there))


# --- cold reads -----------------------------------------------------------------------------


def incompressible(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def compressible(size: int, seed: int) -> bytes:
    """Shrinks to about half: hexadecimal digits of random bytes."""
    return random.Random(seed).randbytes(size // 2 + 1).hex().encode()[:size]


def read_at(path: Path, offset: int, length: int) -> bytes:
    """One read; the kernel is told nothing of what will follow."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def scattered(generator: random.Random, size: int, number: int) -> list[int]:
    """Random multiples of 4 KiB, far enough apart that no two are neighbours: each read is cold, and
    continues none before it.  Downwards, for the same reason: what lies behind is not read ahead."""
    part = size // number // PAGE
    return [(part * slot + generator.randrange(part // 2)) * PAGE for slot in reversed(range(number))]


@dataclass(frozen=True)
class ColdRead:
    """One cold read: where, whether its bytes were right, and what it asked for."""

    offset: int
    right: bool
    requests: Requests


def cold_reads(work: Bench, name: str, content: bytes, offsets: Sequence[int]) -> list[ColdRead]:
    found = []
    for offset in offsets:
        before = work.count()
        data = read_at(work.directory / name, offset, PAGE)
        cost = work.count() - before
        found.append(ColdRead(offset, data == content[offset : offset + PAGE], cost))
    return found


@dataclass(frozen=True)
class WholeRead:
    """A file read from its begin to its end, cold."""

    right: bool
    fetched: int
    stored: int

    @property
    def ratio(self) -> float:
        return self.fetched / self.stored


def read_whole(work: Bench, name: str, content: bytes, stored: int) -> WholeRead:
    before = work.count()
    right = (work.directory / name).read_bytes() == content
    return WholeRead(right, (work.count() - before).bytes_in, stored)


# --- at full size ---------------------------------------------------------------------------


def report(root: Path, files: int) -> Iterator[str]:
    with bench(root / "small") as work:
        yield f"copy of {files} files of 4 KiB: {copy_small_files(work, root / 'source', files)}"
    for make in (incompressible, compressible):
        content = make(40_000_000, 7)
        with bench(root / make.__name__) as work:
            (work.directory / "file").write_bytes(content)
            work.flush()
            stored = work.stored_bytes("file")
            work.lose_machine()
            reads = cold_reads(work, "file", content, scattered(random.Random(3), len(content), 20))
            most = max(read.requests.bytes_in for read in reads)
            gets = {read.requests.gets for read in reads}
            right = all(read.right for read in reads)
            yield f"{make.__name__}: cold 4 KiB reads {right=} {gets=} {most=}"
            work.lose_machine()
            whole = read_whole(work, "file", content, stored)
            yield f"{make.__name__}: whole right={whole.right} {stored=} ratio={whole.ratio:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="objfs-requests-"))
    try:
        for line in report(root, arguments.files):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
