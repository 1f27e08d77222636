"""Mixed load on a mount over a real S3 server behind a network that fails (I8).

    python -m tests.system.faults [--minutes N] [--server ceph|moto] [--seed N]

A 2+1 volume, each of its buckets behind a proxy with bad weather (``tests.servers.network``): now and then
one bucket is gone for a while, and in the middle all are.  Programs write, read, rename and delete beside it
(``tests.system.load``).  At the end the faults are lifted, and then: a flush returns and the volume is
unmounted without help; another machine gets every byte; the process has kept within its memory and the state
directory within its cap.  The figures are printed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from objfs.errors import ExitCode
from tests.servers.choice import make_buckets
from tests.servers.network import (
    BROKEN,
    FORBIDDEN,
    SLOW_DOWN,
    Chance,
    Flipped,
    HalfOpen,
    Latency,
    LostAnswer,
    Proxy,
    Reset,
    Truncated,
    network,
)
from tests.system.harness import VOLUME, Station
from tests.system.load import Worker, differences
from tests.system.served import main
from tests.system.watch import Watch

MIB = 1024 * 1024
CAP = 64 * MIB
MEMORY = 512 * MIB
OPTIONS = (
    f"cache_size={CAP},cache_reserve=0,checkpoint_interval=2,request_timeout=5,"
    "recovery_window=30,delete_grace=30"  # so that deletes meet the weather too, and a server in memory lasts
)
WORKERS = 3
LOOK_S = 0.2
PATIENCE_S = 60.0
"""For one operation, after everything is well again."""
STORM = (
    Chance(0.05, SLOW_DOWN),
    Chance(0.01, BROKEN),
    Chance(0.01, FORBIDDEN),
    Chance(0.02, Reset()),
    Chance(0.02, LostAnswer()),
    Chance(0.01, Truncated()),
    Chance(0.01, Flipped()),
    Chance(0.005, HalfOpen(30)),
    Chance(0.10, Latency(0.2)),
)
GONE = 0.1
"""The share of the time in which all buckets are gone, in the middle; and of that for which one is, often."""


@dataclass
class Figures:
    """What a run was."""

    seconds: float
    workers: list[Worker]
    watch: Watch
    proxies: list[Proxy]
    drained_s: float
    compared: int = 0
    mended: int = 0
    """Copies of manifests that fsck had to put."""
    complaints: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        operations = sum((worker.operations for worker in self.workers), Counter[str]())
        failed = sum((worker.failed_reads for worker in self.workers), Counter[str]())
        struck = sum((proxy.struck for proxy in self.proxies), Counter[str]())
        yield f"load          {self.seconds:.0f} s, {operations.total()} operations: {_counts(operations)}"
        yield f"bytes         {self._sum('written')} written, {self._sum('read')} read and compared"
        yield f"failed reads  {_counts(failed) or 'none'}"
        yield f"slowest       {self._slowest()}"
        yield f"requests      {sum(proxy.requests for proxy in self.proxies)}"
        yield f"faults        {_counts(struck)}"
        yield f"memory        {self.watch.memory // MIB} MiB at most, {MEMORY // MIB} allowed"
        yield f"local disk    {self.watch.disk // MIB} MiB at most, {CAP // MIB} allowed"
        yield f"drained       {self.drained_s:.1f} s after the faults were lifted"
        yield f"compared      {self.compared} files on a second machine"
        yield f"fsck          put {self.mended} copies of manifests, and finds nothing more"

    def _slowest(self) -> str:
        longest: dict[str, float] = {}
        for name, seconds in (item for worker in self.workers for item in worker.slowest_s.items()):
            longest[name] = max(longest.get(name, 0.0), seconds)
        ranked = sorted(longest.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in ranked)

    def _sum(self, name: str) -> str:
        return f"{sum(getattr(worker, name) for worker in self.workers) / MIB:.0f} MiB"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())


# --- the run -------------------------------------------------------------------------------


def run(root: Path, endpoint: str, seconds: float, seed: int) -> Figures:
    """A volume over new buckets of a server.  Raises CommandFailed where a command does not end as it must;
    what else is wrong is among the figures' complaints.  Credentials come from the environment."""
    with network(endpoint, 3, seed=seed) as proxies, Station(root / "machine") as station:
        urls = make_buckets(endpoint, proxies, "objfs-faults")
        station.mkfs(VOLUME, urls)
        mount = root / "mnt"
        station.mount(VOLUME, mount, "-o", OPTIONS)
        watch = Watch(int(station.status(mount)["pid"]), station.home / VOLUME)
        watch.start()
        workers = [Worker(mount / f"program {number}", seed * WORKERS + number) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        _weather(proxies, seconds, random.Random(f"weather {seed}"), workers)
        drained_s = _settle(station, mount, proxies, workers)
        watch.finish()
        figures = Figures(seconds, workers, watch, proxies, drained_s)
        _judge(figures)
        _compare(root, urls, figures)
        return figures


def _weather(
    proxies: Sequence[Proxy], seconds: float, generator: random.Random, workers: Sequence[Worker]
) -> None:
    """Storms everywhere; in turn one bucket is gone and back, and once all of them are."""
    for proxy in proxies:
        proxy.weather = STORM
    stretch = seconds * GONE
    began = time.monotonic()
    for gone in (*_ones(proxies, generator, 3), proxies, *_ones(proxies, generator, 2)):
        _pass(stretch / 2, workers)
        for proxy in gone:
            proxy.go()
        _pass(stretch, workers)
        for proxy in gone:
            proxy.come_back()
    _pass(seconds - (time.monotonic() - began), workers)


def _ones(proxies: Sequence[Proxy], generator: random.Random, times: int) -> Iterator[list[Proxy]]:
    for _ in range(times):
        yield [generator.choice(proxies)]


def _pass(seconds: float, workers: Sequence[Worker]) -> None:
    """Time goes by; less where somebody has found something wrong."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not any(worker.complaint for worker in workers):
        workers[0].join(min(LOOK_S, max(0.0, end - time.monotonic())))


def _settle(station: Station, mount: Path, proxies: Sequence[Proxy], workers: Sequence[Worker]) -> float:
    """Everything is well again, and the volume is unmounted; how long it took until all was safe."""
    for worker in workers:
        worker.finish()
    for proxy in proxies:
        proxy.weather = ()
    lifted = time.monotonic()
    for worker in workers:
        worker.join(PATIENCE_S)
        worker.complaint = worker.complaint or ("never came back" if worker.is_alive() else "")
    station.run("flush", mount)
    drained_s = time.monotonic() - lifted
    station.umount(mount)
    return drained_s


def _judge(figures: Figures) -> None:
    figures.complaints += [worker.complaint for worker in figures.workers if worker.complaint]
    if figures.watch.memory >= MEMORY:
        figures.complaints.append(f"{figures.watch.memory} bytes of memory")
    if figures.watch.disk > CAP:
        figures.complaints.append(f"{figures.watch.disk} bytes of local disk")


def _compare(root: Path, urls: Sequence[str], figures: Figures) -> None:
    """Every byte, from a machine that has nothing."""
    mount = root / "second mnt"
    with Station(root / "second") as second:
        second.attach(VOLUME, urls)
        second.mount(VOLUME, mount)
        for worker in figures.workers:
            figures.complaints += differences(mount / worker.root.name, worker.files)
            figures.compared += len(worker.files)
        second.umount(mount)
        _repair(second, figures)


def _repair(station: Station, figures: Figures) -> None:
    """A bucket that was gone lacks manifests that counted without it: that, and nothing else, is mended."""
    command = station.command("fsck", VOLUME, "--repair")
    done = subprocess.run(command, env=station.full_environment(), capture_output=True, text=True)
    damage = [line for line in done.stdout.splitlines() if line.startswith(("damage", "loss"))]
    others = [line for line in damage if "manifest-copy" not in line]
    if others or done.returncode not in (ExitCode.OK, ExitCode.DAMAGE_HEALED):
        figures.complaints.append(f"fsck --repair ended with {done.returncode}: {done.stdout}{done.stderr}")
    figures.mended = len(damage)
    if damage:
        station.run("fsck", VOLUME)


# --- running -------------------------------------------------------------------------------


if __name__ == "__main__":
    sys.exit(main("faults", (__doc__ or "").splitlines()[0], run))
