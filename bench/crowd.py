"""Very many files in one directory of a real mount: made, listed, looked for in vain, removed.

Owns the volume.  Prints operations per second and the daemon's resident memory after each step.

    python -m bench.crowd [--files 1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.mounted import Mounted, mounted

ABSENT = 20_000
Step = Callable[[Path, int], int]
"""Does it in a directory, for so many files; returns how many operations that were."""


def names(count: int) -> Iterator[str]:
    return (f"file-{number:07d}" for number in range(count))


def make(directory: Path, count: int) -> int:
    for name in names(count):
        os.close(os.open(f"{directory}/{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return count


def enumerate_all(directory: Path, count: int) -> int:
    """``ls -f | wc -l`` counts '.' and '..' too.  Raises AssertionError when an entry is missing."""
    with subprocess.Popen(["ls", "-f", directory], stdout=subprocess.PIPE) as listing:
        counted = subprocess.run(
            ["wc", "-l"], stdin=listing.stdout, capture_output=True, text=True, check=True
        )
    assert int(counted.stdout) == count + 2, f"{counted.stdout.strip()} lines for {count} files"
    return count


def look_in_vain(directory: Path, _count: int) -> int:
    for number in range(ABSENT):
        assert not os.path.exists(f"{directory}/absent-{number}")
    return ABSENT


def remove(directory: Path, count: int) -> int:
    for name in names(count):
        os.unlink(f"{directory}/{name}")
    return count


STEPS: tuple[tuple[str, Step], ...] = (
    ("create", make),
    ("ls -f | wc -l", enumerate_all),
    ("lookup of absent names", look_in_vain),
    ("delete", remove),
)


def measure(volume: Mounted, count: int) -> Iterator[tuple[str, float, float, int]]:
    """(step, operations per s, seconds, resident memory of the daemon in bytes)"""
    directory = volume.directory / "crowd"
    directory.mkdir()
    for name, step in STEPS:
        begun = time.perf_counter()
        done = step(directory, count)
        seconds = time.perf_counter() - begun
        yield name, done / seconds, seconds, resident(volume)


def resident(volume: Mounted) -> int:
    """In bytes, as the mount itself says."""
    return int(json.loads(volume.objfs("status", str(volume.directory), "--json"))["memory_bytes"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=1_000_000)
    count = parser.parse_args().files
    with mounted() as volume:
        for name, rate, seconds, memory in measure(volume, count):
            print(
                f"{name:24} {rate:10,.0f}/s {seconds:8.1f} s {memory / 2**20:6.0f} MiB resident", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
