"""A volume of a million inodes: bytes that its checkpoints ship, time to open it, memory.

Owns a volume in a temporary directory, driven without a kernel: real table, cache, checkpoints and buckets
(directories).  Each phase is a process of its own, so that its peak of resident memory is its own.

    python -m bench.million [--inodes 1000000] [--directory PLACE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.app.clock import SystemClock
from objfs.app.engine import Engine, Order, opened_engine
from objfs.app.options import MountOptions
from objfs.backends.registry import open_bucket
from objfs.codec.keys import Cost
from objfs.fs.ports import Caller
from objfs.model import ROOT, AttrChange, Code, Ino, NewInode
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from objfs.volume.settings import VolumeSettings

SECRET = Secret("passphrase", b"a million")
BUCKETS = "abc"
PER_DIRECTORY = 1000
SMALL_FILE = 4096
SETTINGS = VolumeSettings(checkpoint_interval=86400, lease_interval=3600, cache_reserve=0)
"""Nothing is shipped but when it is asked for.  A disk that is full is not what is measured."""
ME = Caller(os.getuid(), os.getgid())
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Budget:
    """A figure and its bound."""

    name: str
    most: float


BUDGETS = (
    Budget("touch_bytes", 256 * 1024),
    Budget("open_clean_s", 2.0),
    Budget("recover_s", 60.0),
    Budget("peak_mib", 512.0),
)


@dataclass(frozen=True, slots=True)
class Site:
    """Where the volume is."""

    root: Path

    @property
    def home(self) -> VolumeHome:
        return VolumeHome(self.root / "home", "million")

    def urls(self) -> list[str]:
        return [f"file://{self.root / 'buckets' / name}" for name in BUCKETS]


# --- the volume ----------------------------------------------------------------------------


async def make(site: Site) -> None:
    """An empty volume over three directories, two data shards and one of parity."""
    site.home.path.parent.mkdir(parents=True)
    for name in BUCKETS:
        (site.root / "buckets" / name).mkdir(parents=True)
    buckets = [NewBucket(url, {}, open_bucket(url, {})) for url in site.urls()]
    new = NewVolume(SECRET, Code(2, 1), settings=SETTINGS, cost=Cost(memory_kib=8, passes=1, lanes=1))
    await create_volume(site.home, buckets, new, clock=SystemClock())
    for bucket in buckets:
        await bucket.bucket.aclose()


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[Engine]:
    """The open volume; drained and closed clean at the end."""
    order = Order(site.home, SECRET, MountOptions())
    async with opened_engine(order, lambda _line: None) as engine, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        yield engine
        await engine.finish()
        nursery.cancel_scope.cancel()


def bytes_put(engine: Engine) -> int:
    """Bytes sent to all buckets since the volume was opened."""
    return sum(item.metrics.snapshot().bytes_out for item in engine.opened_buckets.values())


async def shipped(engine: Engine) -> int:
    """Bytes that the next checkpoint puts into the buckets."""
    before = bytes_put(engine)
    await engine.flush()
    return bytes_put(engine) - before


async def settle(engine: Engine) -> None:
    """Storing chunks changes rows that the next checkpoint ships: until nothing is left."""
    while engine.changed:
        await engine.flush()


# --- what is done to it --------------------------------------------------------------------


def directory_name(number: int) -> bytes:
    return b"d%04d" % number


def file_name(number: int) -> bytes:
    return b"file-%06d.data" % number


async def fill(engine: Engine, inodes: int) -> None:
    """Directories of a thousand files each, as an unpacking archive makes them."""
    now = engine.clock.now_ns()
    for first in range(0, inodes, PER_DIRECTORY):
        with engine.table.transaction():
            made = NewInode(stat.S_IFDIR | 0o755, ME.uid, ME.gid, now + first)
            parent = engine.table.create(ROOT, directory_name(first // PER_DIRECTORY), made).ino
            for number in range(first, min(first + PER_DIRECTORY, inodes)):
                file = NewInode(stat.S_IFREG | 0o644, ME.uid, ME.gid, now + number)
                engine.table.create(parent, file_name(number), file)
        await trio.lowlevel.checkpoint()


def find(engine: Engine, number: int) -> Ino:
    """The file of that number."""
    parent = engine.fs.lookup(ROOT, directory_name(number // PER_DIRECTORY)).ino
    return engine.fs.lookup(parent, file_name(number)).ino


async def touch(engine: Engine, number: int) -> None:
    """touch(1) of one file."""
    await engine.fs.setattr(find(engine, number), AttrChange(mtime_ns=engine.clock.now_ns()), None, ME)


async def write_small_files(engine: Engine, count: int) -> None:
    """New files of 4 KiB that do not compress, in one new directory."""
    parent = engine.fs.mkdir(ROOT, b"small", 0o755, ME).ino
    for number in range(count):
        handle, _ = engine.fs.create(parent, file_name(number), 0o644, os.O_WRONLY, ME)
        await engine.fs.write(handle.fh, 0, os.urandom(SMALL_FILE))
        engine.fs.release(handle.fh)
        if number % 100 == 0:
            await trio.lowlevel.checkpoint()


# --- phases --------------------------------------------------------------------------------


async def populate(site: Site, inodes: int) -> Figures:
    """Makes the volume; what its base and then a touch put into the buckets."""
    await make(site)
    async with running(site) as engine:
        started = time.perf_counter()
        await fill(engine, inodes)
        filled = time.perf_counter() - started
        base = await shipped(engine)
        flushed = time.perf_counter() - started - filled
        await settle(engine)
        await touch(engine, inodes // 2)
        touched = await shipped(engine)
        await touch(engine, inodes // 3)
        again = await shipped(engine)
        used = engine.volume.home.database_path.stat().st_size
    return {
        "fill_s": filled,
        "base_s": flushed,
        "base_bytes": base,
        "table_bytes": used,
        "touch_bytes": max(touched, again),
    }


async def add_small_files(site: Site, inodes: int) -> Figures:
    """What ten thousand new small files put into the buckets, beyond their own bytes."""
    count = min(10_000, inodes)
    async with running(site) as engine:
        await write_small_files(engine, count)
        first = await shipped(engine)
        before = bytes_put(engine)
        await settle(engine)
        second = bytes_put(engine) - before
    content = count * SMALL_FILE
    coded = content * 3 // 2
    return {
        "small_files": count,
        "small_content_bytes": content,
        "small_first_bytes": first,
        "small_settle_bytes": second,
        "small_overhead_per_file": (first + second - coded) / count,
    }


async def open_clean(site: Site, inodes: int) -> Figures:
    """The local state is there: how long until the volume can be used."""
    return {"open_clean_s": await _timed_open(site, inodes)}


async def recover(site: Site, inodes: int) -> Figures:
    """The machine is lost: the same from the buckets alone."""
    home = site.home
    config = home.config_path.read_bytes()
    shutil.rmtree(home.path)
    home.path.mkdir(mode=0o700)
    home.config_path.write_bytes(config)
    home.config_path.chmod(0o600)
    return {"recover_s": await _timed_open(site, inodes)}


async def _timed_open(site: Site, inodes: int) -> float:
    started = time.perf_counter()
    async with running(site) as engine:
        find(engine, inodes - 1)
        taken = time.perf_counter() - started
        found, _ = engine.table.count()
        if found < inodes:
            raise AssertionError(f"{found} inodes are there, of {inodes}")
    return taken


PHASES: dict[str, Callable[[Site, int], Awaitable[Figures]]] = {
    "populate": populate,
    "small": add_small_files,
    "open": open_clean,
    "recover": recover,
}


# --- the script ----------------------------------------------------------------------------


def peak_mib() -> float:
    """The most resident memory that this process had (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def run_phase(name: str, root: Path, inodes: int) -> Figures:
    """In this process."""
    figures = trio.run(PHASES[name], Site(root), inodes)
    return figures | {"peak_mib": peak_mib()}


def run_apart(name: str, root: Path, inodes: int) -> Figures:
    """In a process of its own."""
    words = [sys.executable, "-m", "bench.million", "--phase", name, "--directory", str(root)]
    done = subprocess.run([*words, "--inodes", str(inodes)], check=True, stdout=subprocess.PIPE, text=True)
    found: Figures = json.loads(done.stdout)
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=__doc__)
    parser.add_argument("--inodes", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where the volume is made (default: a temporary one)")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.phase:
        json.dump(run_phase(asked.phase, asked.directory, asked.inodes), sys.stdout)
        return 0
    with tempfile.TemporaryDirectory(prefix="objfs-million-", dir=asked.directory) as place:
        return report({name: run_apart(name, Path(place), asked.inodes) for name in PHASES})


def report(phases: dict[str, Figures]) -> int:
    """Prints the figures; 1 when one is over its budget."""
    budgets = {budget.name: budget.most for budget in BUDGETS}
    over = 0
    for phase, figures in phases.items():
        for name, value in figures.items():
            most = budgets.get(name)
            verdict = "" if most is None else f"  (budget {most:,.0f}: {'ok' if value <= most else 'OVER'})"
            over += most is not None and value > most
            shown = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
            sys.stdout.write(f"{phase:10} {name:26} {shown:>18}{verdict}\n")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
