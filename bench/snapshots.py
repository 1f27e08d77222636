"""Snapshots beside the size of the tree: what taking one costs, and what writing costs after it.

Owns a volume for each size, driven without a kernel: real table, cache, checkpoints, buckets (directories).

    python -m bench.snapshots [--inodes 1000 100000 1000000] [--directory PLACE]
    python -m bench.snapshots --many 10000

The second form prints what so many cost: taking, listing and comparing them, pruning to fifty, collecting;
and what a touch and a look cost without them, with them, and afterwards.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
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
    find,
    make,
    peak_mib,
    running,
    settle,
    touch,
    write_small_files,
)
from objfs.app.engine import Engine
from objfs.app.gc import Wish, collect
from objfs.app.watch import LoopWatch
from objfs.meta.diff import Difference
from objfs.meta.usage import UsageView
from objfs.model import ROOT, Ino, Snapshot
from objfs.volume.retention import Policy

ROUNDS = 5
CHANGED = 1000
"""Files that are changed in a round: each for the first time after a snapshot, and then again."""
BLOCK = bytes(4096)
PAIRS = 100
"""Neighbouring snapshots that are compared; and so many are taken between two checkpoints."""


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
        await overwrite(engine, engine.fs.lookup(parent, file_name(number)).ino, BLOCK)


async def overwrite(engine: Engine, ino: Ino, data: bytes) -> None:
    """The first bytes of a file."""
    handle = await engine.fs.open(ino, os.O_WRONLY, ME)
    await engine.fs.write(handle.fh, 0, data)
    engine.fs.release(handle.fh)


async def seconds(job: Callable[[Engine, int], Awaitable[None]], engine: Engine, inodes: int) -> float:
    """Of the event loop's thread in one run, with nothing to be stored before it; not disturbed by others."""
    await settle(engine)
    started = time.thread_time()
    await job(engine, inodes)
    return time.thread_time() - started


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
    """So many snapshots, a file touched and one overwritten between two; then all but fifty are pruned, and
    what nothing needs any more is collected.  ``live_*``: processor time of a touch and of a look, in us."""
    await make(site)
    async with running(site) as engine:
        await fill(engine, 1000)
        await write_small_files(engine, 1000)
        figures = {f"{name}_without": value for name, value in (await live(engine)).items()}
        figures["create_each_ms"] = await take_many(engine, count) * 1000 / count
        await settle(engine)
        figures |= {f"{name}_with": value for name, value in (await live(engine)).items()}
        figures |= await timed("list_ms", trio.to_thread.run_sync(listing, engine, count), 1000)
        figures |= await timed("diff_each_ms", differences(engine), 1000 / PAIRS)
        async with trio.open_nursery() as nursery:
            lag = LoopWatch()
            nursery.start_soon(lag.run)
            figures |= await timed("prune_s", engine.snapshots.prune(Policy(last=50)))
            figures |= await timed("clear_s", engine.snapshots.clear())
            figures |= await timed("gc_s", collect(engine, Wish(run=True), lambda _note: None))
            nursery.cancel_scope.cancel()
        figures |= {f"{name}_after": value for name, value in (await live(engine)).items()}
    return figures | {"snapshots": count, "stall_ms": lag.lag.longest_s * 1000, "peak_mib": peak_mib()}


async def timed(name: str, job: Awaitable[object], factor: float = 1) -> Figures:
    """Seconds that a job took, times ``factor``."""
    started = time.perf_counter()
    await job
    return {name: (time.perf_counter() - started) * factor}


async def take_many(engine: Engine, count: int) -> float:
    """Each differs from the one before by two files.  Returns the seconds of all creations."""
    small = engine.fs.lookup(ROOT, b"small").ino
    spent = 0.0
    for number in range(count):
        spent += await create_ms(engine, f"s{number}") / 1000
        await touch(engine, number % 1000)
        await overwrite(engine, engine.fs.lookup(small, file_name(number % 1000)).ino, os.urandom(64))
        if number % PAIRS == 0:
            await engine.flush()
    return spent


def listing(engine: Engine, count: int) -> None:
    """As ``objfs snapshot list`` asks, with what each alone keeps."""
    with UsageView(engine.table.path) as view:
        found = sum(1 for _ in view.snapshots(lambda one: not one.trash))
    if found != count:
        raise AssertionError(f"{found} snapshots are listed, of {count}")


async def differences(engine: Engine) -> None:
    """Of snapshots that follow each other, all over the history."""
    found = engine.snapshots.listed()
    begins = [number * (len(found) - 1) // PAIRS for number in range(PAIRS)]
    for older, newer in [(found[at], found[at + 1]) for at in begins]:
        changes = await trio.to_thread.run_sync(differing, engine, older, newer)
        if changes != 2:
            raise AssertionError(f"{changes} changes from {older.name!r} to {newer.name!r}, not 2")


def differing(engine: Engine, older: Snapshot, newer: Snapshot) -> int:
    """How many lines ``objfs snapshot diff`` prints."""
    with Difference(engine.table.path, older.generation, newer.generation, ROOT) as difference:
        return len(difference.changes(b"/"))


async def live(engine: Engine) -> Figures:
    """Without a checkpoint under way.  The touches before are the first after a snapshot."""
    for number in range(1000):
        await touch(engine, number)
    await settle(engine)
    figures = {}
    for name, job in (("touch", touch_files), ("look", look)):
        figures[f"live_{name}_us"] = min([await seconds(job, engine, 1000) for _ in range(ROUNDS)]) * 1000
    return figures


async def look(engine: Engine, inodes: int) -> None:
    """stat(2) of every file, by its name."""
    for number in range(inodes):
        engine.fs.getattr(find(engine, number))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inodes", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--many", type=int, default=0, help="measure so many snapshots instead")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    jobs: list[tuple[Callable[[Site, int], Awaitable[Figures]], int]]
    jobs = [(of_many, options.many)] if options.many else [(of_size, count) for count in options.inodes]
    for job, count in jobs:
        with tempfile.TemporaryDirectory(dir=options.directory) as root:
            figures = trio.run(job, Site(Path(root)), count)
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
