"""Programs on a mount, once, and then the power cut at many places of what was recorded.

    python -m tests.powercut [--cuts N] [--seed SEED]

Owns the run and what is done with its journal.  A cut takes the records up to some place and lets the disk
keep what was synced and any part of the rest (``tests.doubles.disk``); the volume is opened on that disk
after a reboot, all files are copied out of it, and each program judges its own.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.app.clock import SystemClock
from objfs.backends.registry import open_bucket
from objfs.model import Code
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from tests.crashes.hands import Hands
from tests.crashes.machine import machine_of
from tests.doubles.disk import cut_power, objects
from tests.doubles.journal import Deleted, Journal, Marked, Put, Record
from tests.doubles.recorded_bucket import filled
from tests.powercut.programs import PROGRAMS, Program
from tests.powercut.recorded import RecordedMount, recorded_mount
from tests.system.harness import VOLUME, Station, local_buckets
from tests.system.history import Tree
from tests.volume.support import CHEAP, PASSPHRASE

BASELINE = "baseline"
NEAR = 12
"""Records after a mark at which half of the cuts are: where a promise that was given too early shows."""


# --- the run -------------------------------------------------------------------------------


def record(root: Path, programs: Sequence[Program] = PROGRAMS) -> list[Record]:
    """All programs at once on a new volume; what was done to its disk and its buckets, in order."""
    places = local_buckets(root, 3)
    directory = root / "mnt"
    directory.mkdir()
    with Station(root / "disk", {"OBJFS_PASSPHRASE": PASSPHRASE.data.decode()}) as station:
        puts = trio.run(_make, VolumeHome(station.home, VOLUME), places)
        with recorded_mount(station, directory) as mount:
            for program in programs:
                (directory / program.name).mkdir()
                program.prepare(directory / program.name)
            station.run("flush", directory)
            mount.mark(BASELINE)
            _work(programs, directory, mount)
    return [*puts, *mount.records]


async def _make(home: VolumeHome, places: Sequence[Path]) -> list[Put]:
    """mkfs, and the objects that it put."""
    buckets = [open_bucket(f"file://{place}", {}) for place in places]
    new = NewVolume(PASSPHRASE, Code(2, 1), cost=CHEAP)
    await create_volume(
        home, [NewBucket(bucket.url, {}, bucket) for bucket in buckets], new, clock=SystemClock()
    )
    return [
        Put(bucket.url, info.key, await bucket.get(info.key))
        for bucket in buckets
        for info in await bucket.list("")
    ]


def _work(programs: Sequence[Program], directory: Path, mount: RecordedMount) -> None:
    failures: list[str] = []

    def work(program: Program) -> None:
        try:
            program.work(directory / program.name, lambda count: mount.mark(f"{program.name}={count}"))
        except Exception as error:
            failures.append(f"{program.name}: {error!r}")

    threads = [threading.Thread(target=work, args=(program,)) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


# --- the cuts ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """After so many records; ``acknowledged`` by the name of each program."""

    at: int
    acknowledged: dict[str, int]


def cuts(records: Sequence[Record], seed: int) -> Iterator[Cut]:
    """Without end."""
    generator = random.Random(f"cuts {seed}")
    marks = [at for at, item in enumerate(records) if isinstance(item, Marked)]
    baseline = next(at for at in marks if records[at] == Marked(BASELINE, 0.0))
    while True:
        at = generator.randint(baseline + 1, len(records))
        if generator.random() < 0.5:
            at = min(len(records), generator.choice(marks) + 1 + generator.randrange(NEAR))
        yield Cut(at, _acknowledged(records[:at]))


def _acknowledged(records: Sequence[Record]) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in records:
        if isinstance(item, Marked) and isinstance(item.what, str):
            name, _, count = item.what.partition("=")
            found[name] = int(count or 0)
    return found


def complaints(
    root: Path, records: Sequence[Record], cut: Cut, seed: str, programs: Sequence[Program] = PROGRAMS
) -> list[str]:
    """What each program says after one cut; ``root`` is a directory for it, and gone afterwards."""
    try:
        tree = trio.run(_opened_after, root / "machine", records[: cut.at], seed)
        _copy_out(tree, root / "files")
        found = [
            program.complaint(root / "files" / program.name, cut.acknowledged.get(program.name, 0))
            for program in programs
        ]
        return [text for text in found if text]
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _opened_after(root: Path, records: Sequence[Record], seed: str) -> Tree:
    """All there is when the volume is opened on what is left of the disk."""
    disk = cut_power(records, random.Random(f"disk {seed}"))
    elsewhere = (item for item in records if isinstance(item, Put | Deleted))
    journal = Journal([*disk.records(), *elsewhere])
    buckets = await filled(objects(records))
    machine = machine_of(root, disk, journal, buckets, host=socket.gethostname(), boot=2)
    with machine.on():
        async with machine.mounted() as engine:
            damage = engine.table.check()
            assert not damage, damage
            return await Hands(engine.fs).tree()


def _copy_out(tree: Tree, root: Path) -> None:
    root.mkdir()
    for path, thing in sorted(tree.items()):
        target = os.path.join(os.fsencode(root), path)
        if thing.kind == "d":
            os.mkdir(target)
        elif thing.kind == "f":
            Path(os.fsdecode(target)).write_bytes(thing.content)
