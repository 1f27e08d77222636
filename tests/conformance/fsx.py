"""``make fsx``: random reads, writes, truncates and mapped I/O in one file, each byte known beforehand.

    python -m tests.conformance.fsx CHECKOUT [--seeds N] [--operations N]

The program is fsx of xfstests.  It checks what it reads, mostly from the kernel's pages; so every file must
be the same once more after a new mount, when its bytes come out of the volume.  Calls that the mount does not
have are left out on both sides; fsx itself finds them.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import report
from tests.conformance.report import Outcome
from tests.conformance.scratch import Scratch, require_checkout, run, scratch
from tests.console import say

HOW = "clone https://github.com/kdave/xfstests; make configure && ./configure && make -C lib && make -C ltp"
LEFT_OUT = {
    "fallocate mode 0": "-F",
    "fallocate mode FALLOC_FL_KEEP_SIZE": "-K",
    "fallocate mode FALLOC_FL_UNSHARE_RANGE": "-u",
    "fallocate mode FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE": "-H",
    "fallocate mode FALLOC_FL_ZERO_RANGE": "-z",
    "fallocate mode FALLOC_FL_COLLAPSE_RANGE": "-C",
    "fallocate mode FALLOC_FL_INSERT_RANGE": "-I",
    "clone range": "-J",
    "dedupe range": "-B",
    "exchange range": "-0",
    "copy range": "-E",
}
"""What fsx says that a file system does not support, and the flag that leaves it out."""
Result = tuple[str, Outcome, Outcome | None]
"""A run's name, and its outcomes on the mount and in the plain directory."""
SIZE = 256 * 1024
WIDE = 24 * 1024 * 1024
SMALL_CACHE = "cache_size=8MiB"
RUN_S = 7200.0


@dataclass
class Bed:
    """fsx on the mount and in the plain directory, with the same flags."""

    program: Path
    ground: Scratch
    mount_options: tuple[str, ...] = ()
    flags: list[str] = field(default_factory=list)

    def learn(self) -> list[str]:
        """Which calls the mount does not have."""
        said = self._fsx(self.ground.mount / "probe", "-N", "1").stderr
        missing = [name for name in LEFT_OUT if f"does not support {name}, disabling" in said]
        self.flags = [LEFT_OUT[name] for name in missing]
        return missing

    def exercise(self, name: str, *flags: str) -> tuple[Outcome, Outcome]:
        """The same operations on both sides: (mount, plain)."""
        words = ["-q", *self.flags, *flags]
        mount, plain = (self._one(place / name, words) for place in (self.ground.mount, self.ground.plain))
        return mount, plain

    def same_cold(self, name: str) -> Outcome:
        """The bytes that the volume has are those that the kernel had in its pages."""
        warm = digest(self.ground.mount / name)
        self.ground.restart(*self.mount_options)
        if digest(self.ground.mount / name) == warm:
            return Outcome(1)
        return Outcome(0, (f"{name} has other bytes after a new mount",))

    def fetched(self) -> Outcome:
        """Whether bytes had to come out of the buckets: else the cache was not small."""
        misses = self.ground.station.status(self.ground.mount)["cache"]["misses"]
        return Outcome(1) if misses else Outcome(0, ("the cache held everything",))

    def _one(self, file: Path, words: list[str]) -> Outcome:
        done = self._fsx(file, *words)
        if done.returncode == 0:
            return Outcome(1)
        return Outcome(0, (f"exit code {done.returncode}: {_tail(done.stdout + done.stderr)}",))

    def _fsx(self, file: Path, *words: str) -> subprocess.CompletedProcess[str]:
        beside = self.ground.plain.parent / "logs"
        beside.mkdir(exist_ok=True)
        command = [str(self.program), *words, "-P", str(beside), str(file)]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=RUN_S)


def digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _tail(text: str, lines: int = 3) -> str:
    return " | ".join(text.strip().splitlines()[-lines:])


# --- the runs ------------------------------------------------------------------------------


def seeds(bed: Bed, number: int, operations: int) -> Iterator[Result]:
    """Each seed, with the file closed and opened now and then, and compared cold."""
    for seed in range(1, number + 1):
        name = f"seed {seed}"
        flags = ("-S", str(seed), "-N", str(operations), "-c", "1000", "-l", str(SIZE))
        yield name, *bed.exercise(name, *flags)
        yield f"{name}, cold", bed.same_cold(name), None


def restarted(bed: Bed, operations: int) -> Iterator[Result]:
    """A new process of the mount halfway; the second half begins with what the first one left."""
    half = ("-N", str(operations // 2), "-c", "1000")
    yield "first half", *bed.exercise("halves", "-S", "11", "-l", str(SIZE), *half)
    yield "after the restart", bed.same_cold("halves"), None
    for place in (bed.ground.mount, bed.ground.plain):
        os.truncate(place / "halves", SIZE)  # -k takes the size as the bound
    yield "second half", *bed.exercise("halves", "-k", "-S", "12", *half)
    yield "second half, cold", bed.same_cold("halves"), None


def small_cache(bed: Bed, operations: int) -> Iterator[Result]:
    """A file that is larger than the cache: written out, evicted and fetched all the time.  -f empties the
    kernel's pages after each operation."""
    flags = ("-S", "21", "-N", str(operations), "-c", "1000", "-l", str(WIDE), "-o", str(WIDE // 96), "-f")
    yield "small cache", *bed.exercise("wide", *flags)
    yield "fetched again and again", bed.fetched(), None
    yield "small cache, cold", bed.same_cold("wide"), None


@contextlib.contextmanager
def prepared(program: Path, *options: str) -> Iterator[Bed]:
    words = ("-o", ",".join(options)) if options else ()
    with scratch("fsx", *words) as ground:
        bed = Bed(program, ground, words)
        say(f"left out, because the mount has no such call: {', '.join(bed.learn())}")
        yield bed


def collect(runs: Iterator[Result]) -> tuple[report.Results, report.Results]:
    """Says each as it comes."""
    mount: dict[str, Outcome] = {}
    plain: dict[str, Outcome] = {}
    for name, ours, theirs in runs:
        mount[name] = ours
        plain |= {name: theirs} if theirs else {}
        say(f"  {name}: {'well' if not ours.failures else ours.failures[0]}")
    return mount, plain


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", nargs="?")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--operations", type=int, default=100_000)
    options = parser.parse_args()
    program = require_checkout("XFSTESTS", options.checkout, "ltp/fsx", HOW) / "ltp" / "fsx"
    well = True
    groups: list[tuple[str, tuple[str, ...], Callable[[Bed], Iterator[Result]]]] = [
        ("fsx", (), lambda bed: seeds(bed, options.seeds, options.operations)),
        ("fsx, daemon restarted", (), lambda bed: restarted(bed, options.operations)),
        ("fsx, small cache", (SMALL_CACHE,), lambda bed: small_cache(bed, options.operations)),
    ]
    for title, settings, runs in groups:
        with prepared(program, *settings) as bed:
            mount, plain = collect(runs(bed))
            well &= report.show(title, mount, plain, bed.ground.plain_kind())
    return well


if __name__ == "__main__":
    sys.exit(run(main))
