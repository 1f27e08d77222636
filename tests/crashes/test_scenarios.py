"""Crashes of which the place is known: each was found by a random one, or could be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.crashes.hands import Hands
from tests.crashes.machine import ALONE, Machine, machine_of, new_machine
from tests.doubles.disk import Tree, certain, kept
from tests.doubles.journal import Journal
from tests.system.history import Operation


async def machine_with(root: Path, *operations: Operation) -> Machine:
    """A machine on which these were done, and whose process was killed then."""
    machine = new_machine(root)
    with machine.on():
        await machine.make_volume()
        end = await done(machine, *operations)
    return replace(machine, journal=Journal(machine.journal.records[:end]))


async def done(machine: Machine, *operations: Operation) -> int:
    """How many records there are when the last of them has returned."""
    async with machine.mounted(ALONE) as engine:
        hands = Hands(engine.fs)
        for operation in operations:
            await hands.perform(operation)
        return len(machine.journal.records)


def rebooted(root: Path, machine: Machine, disk: Tree) -> Machine:
    return machine_of(root, disk, Journal(disk.records()), machine.buckets, boot=machine.boot + 1)


def without_synced(machine: Machine, path: str) -> Tree:
    """Everything arrived, but of one file only what was synced."""
    records = machine.journal.records
    disk, safe = kept(records), certain(records)
    number = dict(disk.walk())[path]
    disk.content[number] = safe.content[number]
    return disk


async def test_i1_what_is_shown_after_a_power_cut_survives_the_next(tmp_path: Path) -> None:
    """The bytes arrived and were judged by their checksums.  Their rows, rewritten then, are lost with the
    second cut, after a write over a part of them: what the first cut had spared fails its old checksum."""
    write = Operation("write", b"f", offset=0, length=50_000, fill=1)
    first = await machine_with(tmp_path / "first", Operation("create", b"f"), write)
    second = rebooted(tmp_path / "second", first, kept(first.journal.records))
    with second.on():
        end = await done(second, Operation("write", b"f", offset=0, length=4096, fill=2))
    second.journal.records = second.journal.records[:end]
    disk = without_synced(second, "home/vol/meta.db-wal")
    third = rebooted(tmp_path / "third", second, disk)
    with third.on():
        async with third.mounted(ALONE) as engine:
            tree = await Hands(engine.fs).tree()
    assert tree[b"f"].content[4096:] == write.data[4096:]
