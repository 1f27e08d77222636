"""Snapshots beside the size of the tree: what taking one costs, and what writing costs after it.

Owns a volume for each size, driven without a kernel: real table, cache, checkpoints, buckets (directories).

    python -m bench.snapshots [--inodes 1000 100000 1000000] [--directory PLACE]
    python -m bench.snapshots --many 10000
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from bench.million import (
    ME,
    Figures,
    Site,
    file_name,
    fill,
    make,
    running,
    settle,
    touch,
    write_small_files,
)
from objfs.app.engine import Engine
from objfs.model import ROOT
from objfs.volume.retention import Policy

ROUNDS = 5
CHANGED = 1000
"""Files that are changed in a round: each for the first time after a snapshot, and then again."""
BLOCK = bytes(4096)


async def create_ms(engine: Engine, name: str) -> float:
    """Without the checkpoint that brings it into the buckets."""
    started = time.perf_counter()
    await engine.snapshots.create(name.encode(), wait=False)
    return (time.perf_counter() - started) * 1000


async def durable_ms(engine: Engine) -> float:
    """With it; nothing else is dirty."""
    await settle(engine)
    started = time.perf_counter()
    await engine.snapshots.create(b"durable")
    return (time.perf_counter() - started) * 1000


async def touch_files(engine: Engine, inodes: int) -> None:
    """An attribute of files all over the tree."""
    step = max(1, inodes // CHANGED)
    for number in range(0, inodes, step):
        await touch(engine, number)


async def overwrite_files(engine: Engine, _inodes: int) -> None:
    """The first block of files that are stored."""
    parent = engine.fs.lookup(ROOT, b"small").ino
    for number in range(CHANGED):
        ino = engine.fs.lookup(parent, file_name(number)).ino
        handle = await engine.fs.open(ino, 1, ME)
        await engine.fs.write(handle.fh, 0, BLOCK)
        engine.fs.release(handle.fh)


async def seconds(job: Callable[[Engine, int], Awaitable[None]], engine: Engine, inodes: int) -> float:
    """Of one run, with nothing to be stored before it."""
    await settle(engine)
    started = time.perf_counter()
    await job(engine, inodes)
    return time.perf_counter() - started


async def ratio(job: Callable[[Engine, int], Awaitable[None]], engine: Engine, inodes: int) -> float:
    """The time of changes that copy rows aside over that of the same changes once more: median of rounds."""
    found = []
    for number in range(ROUNDS):
        await engine.snapshots.create(f"{job.__name__}-{number}".encode())
        first = await seconds(job, engine, inodes)
        found.append(first / await seconds(job, engine, inodes))
    return statistics.median(found)


async def of_size(site: Site, inodes: int) -> Figures:
    """Everything about one size of tree."""
    await make(site)
    async with running(site) as engine:
        await fill(engine, inodes)
        await write_small_files(engine, CHANGED)
        await settle(engine)
        taken = [await create_ms(engine, f"s{number}") for number in range(ROUNDS)]
        return {
            "inodes": inodes,
            "create_ms": statistics.median(taken),
            "create_worst_ms": max(taken),
            "durable_ms": await durable_ms(engine),
            "touch_ratio": await ratio(touch_files, engine, inodes),
            "overwrite_ratio": await ratio(overwrite_files, engine, inodes),
        }


async def of_many(site: Site, count: int) -> Figures:
    """So many snapshots, a file changed between two; then all but fifty are pruned."""
    await make(site)
    async with running(site) as engine:
        await fill(engine, 1000)
        started = time.perf_counter()
        for number in range(count):
            await engine.snapshots.create(b"s%d" % number, wait=False)
            await touch(engine, number % 1000)
        created = time.perf_counter()
        listed = len(engine.snapshots.listed())
        read = time.perf_counter()
        await engine.snapshots.prune(Policy(last=50))
        pruned = time.perf_counter()
        await engine.snapshots.clear()
        cleared = time.perf_counter()
    return {
        "snapshots": listed,
        "create_each_ms": (created - started) * 1000 / count,
        "list_ms": (read - created) * 1000,
        "prune_s": pruned - read,
        "clear_s": cleared - pruned,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inodes", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--many", type=int, default=0, help="measure so many snapshots instead")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    jobs: list[tuple[Callable[[Site, int], Awaitable[Figures]], int]]
    jobs = [(of_many, options.many)] if options.many else [(of_size, count) for count in options.inodes]
    for job, count in jobs:
        with tempfile.TemporaryDirectory(dir=options.directory) as root:
            figures = trio.run(job, Site(Path(root)), count)
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
