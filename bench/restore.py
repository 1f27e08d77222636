"""A tree restored from 4+2 buckets of which two are missing, beside ``cp -a`` of the same tree.

    python -m bench.restore [--files 20000] [--megabytes 1000]

Owns its directories, below ``BENCH_DIR``, and one mount, to put the tree into the volume.  Prints seconds, MB
and files a second, bytes fetched and stored, and the largest memory.  Once more, the restore is killed when a
part of the files is there, and goes on with ``--resume``.  Compares both trees with the one that was put in.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.system import tree
from tests.system.harness import Station, local_buckets, stored_bytes, urls

VOLUME = "bench"
LONG_S = 7200
"""The longest that one restore may take."""
PART = 4
"""A restore is killed when so many times fewer names than files are there."""
POLL_S = 0.1


def main() -> int:
    """0 where both restored trees are the one that was put in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--megabytes", type=int, default=1000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="objfs-bench-", dir=os.environ.get("BENCH_DIR")) as place:
        return measure(Path(place), chosen.files, chosen.megabytes)


def measure(root: Path, files: int, megabytes: int) -> int:
    """One run; the figures go to standard output."""
    source, out = root / "source", root / "out"
    tree.build(source, files=files, megabytes=megabytes)
    places = local_buckets(root, 6)
    with Station(root / "machine") as station:
        put_in(station, source, root / "mnt", places)
        station.forget(VOLUME)
        for lost in (places[1], places[4]):
            shutil.rmtree(lost)
        station.attach(VOLUME, urls(places[:1]))  # it says where the others are
        copied = seconds(["cp", "-a", str(source), str(root / "cp")])
        os.sync()
        document = json.loads(station.run("restore", VOLUME, out, "--json", timeout=LONG_S).stdout)
        there = kill_in_the_middle(station, root / "killed", files // PART)
        done = station.run("restore", VOLUME, root / "killed", "--resume", "--json", timeout=LONG_S)
        resumed = json.loads(done.stdout)
    show(document, copied, stored_bytes(places))
    print(f"killed with {there} files there; resumed in {resumed['seconds']:.1f} s, {resumed['kept']} stayed")
    different = [compare(source, restored) for restored in (out, root / "killed")]
    return int(any(different))


def compare(source: Path, restored: Path) -> bool:
    """Whether they differ; says in what."""
    different = tree.differences(source, restored)
    print(f"{restored.name}:", "\n".join(different[:20]) or "identical")
    return bool(different)


def kill_in_the_middle(station: Station, out: Path, enough: int) -> int:
    """A restore of which ``enough`` files are there is killed; returns how many there are then."""
    command = station.command("restore", VOLUME, out)
    process = subprocess.Popen(command, env=station.full_environment(), stderr=subprocess.DEVNULL)
    while (there := files_in(out)) < enough and process.poll() is None:
        time.sleep(POLL_S)
    process.kill()
    if process.wait() == 0:
        raise AssertionError("the restore had ended before it was killed: use a larger tree")
    return there


def files_in(place: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(place))


def put_in(station: Station, source: Path, directory: Path, places: list[Path]) -> None:
    """The tree goes into a new volume through a mount that is gone afterwards."""
    station.mkfs(VOLUME, urls(places), "4+2")
    station.mount(VOLUME, directory)
    tree.copy(source, directory)
    station.umount(directory)


def seconds(command: list[str]) -> float:
    """How long a command and the sync after it took."""
    begun = time.monotonic()
    subprocess.run(command, check=True)
    os.sync()
    return time.monotonic() - begun


def show(document: dict[str, dict[str, int]], copied: float, stored: int) -> None:
    """Two rows and what was fetched."""
    done, restored = document["done"], float(str(document["seconds"]))
    fetched = int(str(document["fetched_bytes"]))
    print(f"{'':8} {'seconds':>8} {'MB/s':>8} {'files/s':>8}")
    for name, took in (("cp -a", copied), ("restore", restored)):
        print(f"{name:8} {took:8.1f} {done['bytes'] / took / 1e6:8.1f} {done['files'] / took:8.0f}")
    print(f"fetched {fetched / 1e6:.1f} MB, four of six buckets hold {stored / 1e6:.1f} MB")
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"largest memory of a process: {most / 1024:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
