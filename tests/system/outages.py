"""rsync on a mount while buckets go and come at random, never more than may (I3).

    python -m tests.system.outages [--minutes N] [--server ceph|moto] [--seed N]

A 4+2 volume over three buckets of an S3 server, each behind a proxy that nobody answers at while it is gone,
and three local directories that are moved away and back.  rsync copies a tree that changes between its
passes; a program reads and writes beside it (``tests.system.load``), and what both replaced is collected, as
a server in memory would be full before the end.  At the end all buckets are there, and
then: what was stored without them gets its shards by itself, a scrub of everything finds nothing, another
machine has the same trees, and the process has kept within its memory.  The figures are printed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from objfs.errors import ExitCode
from tests.servers.choice import make_buckets
from tests.servers.network import network
from tests.system import tree
from tests.system.harness import VOLUME, Station, local_buckets, urls
from tests.system.load import Worker
from tests.system.load import differences as wrong_files
from tests.system.served import main
from tests.system.watch import Watch

MIB = 1024 * 1024
CODE = "4+2"
TOLERANCE = 2
KINDS = 3
"""Buckets of each kind."""
MEMORY = 512 * MIB
OPTIONS = (
    f"cache_size={128 * MIB},cache_reserve=0,checkpoint_interval=2,request_timeout=5,"
    "recovery_window=30,delete_grace=30"  # a server in memory must last
)
STEPS = 40
"""Comings and goings in a run, about; none is shorter than the first or longer than the second:"""
STEP_LEAST_S, STEP_MOST_S = 0.5, 6.0
COLLECT_S = 20.0
"""Between two collections."""
LOOK_S = 0.2
PATIENCE_S = 330.0
"""For a pass of rsync, and for all shards to be there, after all buckets are: one that answered and took
nothing again and again is left alone for up to five minutes."""
SIZES = (100, 5_000, 60_000, 300_000, 2_000_000)


# --- buckets that go and come ----------------------------------------------------------------


class Place(Protocol):
    """A bucket's, which can be gone."""

    def go(self) -> None: ...
    def come_back(self) -> None: ...


@dataclass(frozen=True)
class Disk:
    """A local directory on a disk that can be taken out."""

    path: Path

    def go(self) -> None:
        self.path.rename(self._drawer)

    def come_back(self) -> None:
        self._drawer.rename(self.path)

    @property
    def _drawer(self) -> Path:
        return self.path.with_name(f"{self.path.name} in a drawer")


@dataclass
class Outages:
    """Takes places away and brings them back, never more than ``TOLERANCE`` at once."""

    places: Sequence[Place]
    random: random.Random
    losses: Counter[int] = field(default_factory=Counter)
    """How often each was lost."""
    seconds: Counter[int] = field(default_factory=Counter)
    """How long so many were gone at once, in milliseconds."""
    gone: set[int] = field(default_factory=set)

    def run(self, seconds: float, load: Sequence[Load]) -> None:
        """So long, or until somebody has found something wrong; all are back afterwards."""
        end = time.monotonic() + seconds
        step_s = min(max(seconds / STEPS, STEP_LEAST_S), STEP_MOST_S)
        while time.monotonic() < end and not any(one.complaint for one in load):
            began = time.monotonic()
            load[0].join(step_s * self.random.uniform(0.5, 1.5))
            self.seconds[len(self.gone)] += round(1000 * (time.monotonic() - began))
            self._change(self.random.randrange(len(self.places)))
        for number in sorted(self.gone):
            self._come_back(number)

    def _change(self, number: int) -> None:
        """It goes, if it is there and may; else it comes back, or one of those that are gone."""
        if number in self.gone:
            self._come_back(number)
        elif len(self.gone) == TOLERANCE:
            self._come_back(self.random.choice(sorted(self.gone)))
        else:
            self.places[number].go()
            self.losses[number] += 1
            self.gone.add(number)

    def _come_back(self, number: int) -> None:
        self.places[number].come_back()
        self.gone.remove(number)


# --- the load --------------------------------------------------------------------------------


class Load(Protocol):
    """Somebody at work in a thread; ``complaint`` says what is wrong, empty where nothing is."""

    complaint: str

    def join(self, timeout: float | None = None) -> None: ...


class Syncing(threading.Thread):
    """rsync of a tree onto the mount, again and again; the tree changes between two passes."""

    def __init__(self, source: Path, target: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self.complaint = ""
        self.passes = 0
        self._source, self._target = source, target
        self._random = random.Random(f"outages {seed}")
        self._told = threading.Event()

    def finish(self) -> None:
        """After the pass under way."""
        self._told.set()

    def run(self) -> None:
        self._target.mkdir()
        while not self.complaint:
            try:
                tree.copy(self._source, self._target)
            except subprocess.CalledProcessError as error:
                self.complaint = f"rsync ended with {error.returncode}: {error.stderr.decode()[-2000:]}"
            self.passes += 1
            if self._told.is_set():
                return
            self._edit()

    def _edit(self) -> None:
        """A tenth of the files is written anew, one goes and one comes."""
        files = sorted(path for path in (self._source / "lib").rglob("*.py") if not path.is_symlink())
        for path in self._random.sample(files, len(files) // 10):
            # No size comes twice: rsync tells changes within a second by the size alone.
            path.write_bytes(self._random.randbytes(self._random.choice(SIZES) + self.passes))
        self._random.choice(files).rename(self._source / "lib" / f"renamed {self.passes}.py")


class Collecting(threading.Thread):
    """``objfs gc``, again and again: also of shards on buckets that are gone at the time."""

    def __init__(self, station: Station, mount: Path) -> None:
        super().__init__(daemon=True)
        self.complaint = ""
        self.deleted = 0
        """Segments."""
        self._command = station.command("gc", mount, "--run", "--json")
        self._environment = station.full_environment()
        self._told = threading.Event()

    def finish(self) -> None:
        self._told.set()

    def run(self) -> None:
        while not self.complaint and not self._told.wait(COLLECT_S):
            done = subprocess.run(self._command, env=self._environment, capture_output=True, text=True)
            if done.returncode not in (ExitCode.OK, ExitCode.DEGRADED):
                self.complaint = f"gc ended with {done.returncode}: {done.stderr}"
                return
            self.deleted += json.loads(done.stdout)["done"]["deleted"]


# --- the run ---------------------------------------------------------------------------------


@dataclass
class Figures:
    """What a run was."""

    outages: Outages
    syncing: Syncing
    worker: Worker
    collecting: Collecting
    watch: Watch
    risk: dict[str, Any]
    """What ``status`` says of it in the end."""
    whole_s: float
    found: list[str]
    """What the first scrub did, before a repair."""
    compared: int = 0
    complaints: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        outages, gone = self.outages, self.outages.seconds
        all_s, failed = sum(gone.values()) / 1000, self.worker.failed_reads
        yield f"load          {all_s:.0f} s, {self.syncing.passes} passes of rsync, and {self._beside()}"
        yield f"collected     {self.collecting.deleted} segments"
        yield f"losses        {sum(outages.losses.values())}: {_counts(outages.losses, 'of slot')}"
        yield f"degraded      {gone[1] / 1000:.0f} s without one bucket, {gone[2] / 1000:.0f} s without two"
        yield f"failed reads  {', '.join(f'{count} {name}' for name, count in failed.items()) or 'none'}"
        yield (
            f"healed        {self.risk['healed_bytes'] / MIB:.0f} MiB of {self.risk['healed_segments']} "
            f"segments unasked, the last {self.whole_s:.0f} s after the buckets were back"
        )
        yield f"scrub         clean{f' after a repair of {len(self.found)}' if self.found else ''}"
        yield from self.found
        yield f"memory        {self.watch.memory // MIB} MiB at most, {MEMORY // MIB} allowed"
        yield f"compared      {self.compared} files on a second machine"

    def _beside(self) -> str:
        written, read = self.worker.written / MIB, self.worker.read / MIB
        return f"{self.worker.operations.total()} operations, {written:.0f} MiB written, {read:.0f} MiB read"


def _counts(counter: Counter[int], of: str) -> str:
    return ", ".join(f"{count} {of} {number}" for number, count in sorted(counter.items()))


def run(
    root: Path, endpoint: str, seconds: float, seed: int, *, files: int = 1500, megabytes: int = 60
) -> Figures:
    """A volume over new buckets, three of them of a server.  Raises CommandFailed where a command does not
    end as it must; what else is wrong is among the figures' complaints.  Credentials come from the
    environment."""
    source, mount = root / "source", root / "mnt"
    tree.build(source, files=files, megabytes=megabytes)
    with network(endpoint, KINDS, seed=seed) as proxies, Station(root / "machine") as station:
        disks = [Disk(path) for path in local_buckets(root, KINDS)]
        where = [*make_buckets(endpoint, proxies, "objfs-outages"), *urls([disk.path for disk in disks])]
        station.mkfs(VOLUME, where, CODE)
        station.mount(VOLUME, mount, "-o", OPTIONS)
        watch = Watch(int(station.status(mount)["pid"]), station.home / VOLUME)
        syncing, worker = Syncing(source, mount / "tree", seed), Worker(mount / "program", seed)
        collecting = Collecting(station, mount)
        outages = Outages([*proxies, *disks], random.Random(f"outages {seed}"))
        for thread in (watch, syncing, worker, collecting):
            thread.start()
        outages.run(seconds, [syncing, worker, collecting])
        figures = _settle(station, mount, Figures(outages, syncing, worker, collecting, watch, {}, 0.0, []))
        _compare(root, where, figures)
        return figures


def _settle(station: Station, mount: Path, figures: Figures) -> Figures:
    """All buckets are there; what was stored without them is made whole, seen to be so, and unmounted."""
    back = time.monotonic()
    for thread in (figures.syncing, figures.worker, figures.collecting):
        thread.finish()
        thread.join(PATIENCE_S)
        if thread.is_alive() or thread.complaint:
            figures.complaints.append(thread.complaint or f"{thread} never came back")
    station.run("flush", mount)
    figures.risk = _until_whole(station, mount)
    figures.whole_s = time.monotonic() - back
    if _any(figures.risk):
        figures.complaints.append(f"still at risk: {figures.risk}")
    figures.found = _scrub(station, mount, figures)
    figures.watch.finish()
    if figures.watch.memory >= MEMORY:
        figures.complaints.append(f"{figures.watch.memory} bytes of memory")
    station.umount(mount)
    return figures


def _until_whole(station: Station, mount: Path) -> dict[str, Any]:
    """What is at risk, as soon as that is nothing."""
    end = time.monotonic() + PATIENCE_S
    while True:
        risk: dict[str, Any] = station.status(mount)["at_risk"]
        if not _any(risk) or time.monotonic() > end:
            return risk
        time.sleep(LOOK_S)  # a process that is not our child gives no other sign


def _any(risk: dict[str, Any]) -> bool:
    return bool(risk["segments"] or risk["blobs"] or risk["buckets"])


def _scrub(station: Station, mount: Path, figures: Figures) -> list[str]:
    """What a scrub found that healing does not mend; what it finds after a repair is a complaint."""
    found = _damage(station, "scrub", mount, "--all")
    if found:
        _damage(station, "repair", mount)
        figures.complaints += _damage(station, "scrub", mount, "--all")
    return found


def _damage(station: Station, *words: str | Path) -> list[str]:
    """What a command found that is more than a remark, a line each."""
    command = station.command(*words)
    done = subprocess.run(command, env=station.full_environment(), capture_output=True, text=True)
    if done.returncode == ExitCode.OK:
        return []
    if done.returncode not in (ExitCode.DAMAGE_HEALED, ExitCode.DAMAGE_FOUND):
        return [f"{words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"]
    return [line for line in done.stdout.splitlines() if line.startswith(("damage", "loss", "reduced"))]


def _compare(root: Path, where: Sequence[str], figures: Figures) -> None:
    """Every byte, from a machine that has nothing."""
    mount, source = root / "second mnt", root / "source"
    with Station(root / "second") as second:
        second.attach(VOLUME, where)
        second.mount(VOLUME, mount, "--read-only")
        figures.complaints += tree.differences(source, mount / "tree")
        figures.complaints += wrong_files(mount / "program", figures.worker.files)
        figures.compared = sum(len(names) for _, _, names in os.walk(source)) + len(figures.worker.files)
        second.umount(mount)


if __name__ == "__main__":
    sys.exit(main("outages", (__doc__ or "").splitlines()[0], run))
