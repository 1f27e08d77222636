"""A clean scrub of everything in a large volume: how fast it is, and the largest memory.

    python -m bench.scrub [--gigabytes 10]

Owns its directories, below ``BENCH_DIR``: a 2+1 volume over three of them is filled with random bytes of a
fixed seed through a mount, which then ends.  Needs half as much room again.  Prints what scrub said, seconds,
MB a second of stored bytes, and the largest memory of the process that scrubbed.  Fails where scrub finds
anything.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.system.harness import Station, local_buckets, stored_bytes, urls

VOLUME = "bench"
MEGABYTE = 10**6
FILE_MEGABYTES = 250


def main() -> int:
    """The exit code of the scrub."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=10)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="objfs-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        return measure(Path(place), round(chosen.gigabytes * 1000))


def measure(root: Path, megabytes: int) -> int:
    """One run; the figures go to standard output."""
    places = local_buckets(root, 3)
    with Station(root / "machine") as station:
        station.mkfs(VOLUME, urls(places))
        station.mount(VOLUME, root / "mnt")
        fill(root / "mnt", megabytes)
        station.umount(root / "mnt")
        stored = stored_bytes(places)
        begun = time.monotonic()
        process = subprocess.Popen(
            station.command("scrub", VOLUME, "--all"), env=station.full_environment(), text=True
        )
        memory, code = waited(process)
        took = time.monotonic() - begun
    print(f"{stored / 1e6:.0f} MB stored for {megabytes} MB, scrubbed in {took:.1f} s")
    print(f"{stored / took / 1e6:.1f} MB/s; {memory / 1024:.0f} MiB of memory at most; exit code {code}")
    return code


def waited(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The largest memory of a process, in KiB, and its exit code."""
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss, process.returncode


def fill(directory: Path, megabytes: int) -> None:
    """Files of ``FILE_MEGABYTES``; the bytes are the same in every run."""
    source = random.Random("scrub")
    for number, begin in enumerate(range(0, megabytes, FILE_MEGABYTES)):
        with (directory / f"file {number}").open("wb") as file:
            for _ in range(min(FILE_MEGABYTES, megabytes - begin)):
                file.write(source.randbytes(MEGABYTE))


if __name__ == "__main__":
    sys.exit(main())
