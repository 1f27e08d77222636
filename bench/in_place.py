"""A volume goes back to a snapshot in place: how long the event loop stands still for it.

    python -m bench.in_place [--files 20000 100000] [--directory PLACE]

Owns a volume for each number of files, driven without a kernel.  All of them are touched after a snapshot,
restored, then removed and restored again; printed are the longest stalls of the loop, and the processor time.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import trio

from bench.million import (
    PER_DIRECTORY,
    Figures,
    Site,
    directory_name,
    file_name,
    fill,
    make,
    peak_mib,
    running,
)
from objfs.app.engine import Engine
from objfs.app.watch import LoopWatch
from objfs.model import ROOT, AttrChange


async def touch_all(engine: Engine, files: int) -> None:
    """One attribute of each."""
    now = engine.clock.now_ns()
    for first in range(0, files, PER_DIRECTORY):
        with engine.table.transaction():
            parent = engine.table.lookup(ROOT, directory_name(first // PER_DIRECTORY)).ino
            for number in range(first, min(first + PER_DIRECTORY, files)):
                ino = engine.table.lookup(parent, file_name(number)).ino
                engine.table.set_attr(ino, AttrChange(mtime_ns=now, ctime_ns=now))
        await trio.lowlevel.checkpoint()


async def remove_all(engine: Engine, files: int) -> None:
    """Files and directories, until they are purged too."""
    for first in range(0, files, PER_DIRECTORY):
        parent = engine.fs.lookup(ROOT, directory_name(first // PER_DIRECTORY)).ino
        with engine.table.transaction():
            for number in range(first, min(first + PER_DIRECTORY, files)):
                engine.fs.unlink(parent, file_name(number))
        engine.fs.rmdir(ROOT, directory_name(first // PER_DIRECTORY))
        await trio.lowlevel.checkpoint()
    await engine.fs.orphans.wait_idle()


async def restore(engine: Engine, watch: LoopWatch, what: str) -> Figures:
    """Back to the snapshot, without one of what was there; nothing else uses the loop."""
    await engine.flush()
    watch.reset()
    started = time.thread_time()
    await engine.restorer.restore(b"good", b"/", undo=False)
    used = time.thread_time() - started
    await trio.sleep(0.1)
    return {f"{what}_stall_s": watch.lag.longest_s, f"{what}_cpu_s": used}


async def of_files(site: Site, files: int) -> Figures:
    """Everything about one number of files."""
    await make(site)
    async with running(site) as engine, trio.open_nursery() as nursery:
        watch = LoopWatch()
        nursery.start_soon(watch.run)
        await fill(engine, files)
        await engine.snapshots.create(b"good")
        await touch_all(engine, files)
        figures = await restore(engine, watch, "touched")
        await remove_all(engine, files)
        figures |= await restore(engine, watch, "removed")
        nursery.cancel_scope.cancel()
    return {"files": files} | figures | {"peak_mib": peak_mib()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.in_place", description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    for files in options.files:
        with tempfile.TemporaryDirectory(dir=options.directory) as root:
            figures = trio.run(of_files, Site(Path(root)), files)
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)


if __name__ == "__main__":
    main()
