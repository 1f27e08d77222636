"""Snapshots taken, dropped, pruned and restored, and a machine that dies at every place of each.

Owns the life in which there is one of these commands and nothing beside it, so that whatever is recorded from
its begin to its place in the buckets is a place of that command.  The oracle is that of all other deaths: the
tree and all snapshots are those before the command or those after it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.app.engine import Engine
from tests.crashes import points
from tests.crashes.campaign import kept_death, unopened
from tests.crashes.hands import Hands
from tests.crashes.lives import Death, Kind, examined, reborn, step
from tests.crashes.machine import ALONE, Machine, new_machine
from tests.crashes.story import Story
from tests.doubles.journal import Put
from tests.system.history import SMALL_SIZES, History, Operation
from tests.system.past import UNDO, live

CHANGES = 8
"""Operations before a snapshot, and after it."""
OVERWRITTEN = 5000
"""Bytes."""
NUMBER = 10**6
"""Of what the command makes; no other operation has it."""
ORDERS: tuple[Operation, ...] = (
    Operation("snapshot", b"new", fill=NUMBER),
    Operation("drop", b"old"),
    Operation("prune", b"", length=1),
    Operation("restore", b"old", UNDO, fill=NUMBER),
)


@dataclass(frozen=True, slots=True)
class Commanded:
    """A life with one command, of which the records from ``start`` to ``end`` are."""

    seed: str
    machine: Machine
    story: Story
    start: int
    end: int

    def places(self) -> dict[str, list[int]]:
        """Named ones."""
        records = self.machine.journal.records[: self.end]
        found = points.places(records, self.start, lambda _record: set())
        return {name: found[name] for name in points.COMMAND_POINTS if name in found}

    def death(self, kind: Kind, at: int, point: str = "") -> Death:
        records = self.machine.journal.records[:at]
        return Death(kind, records, self.story, f"{self.seed}-{kind}-{at}", self.machine.boot, point)


async def commanded(root: Path, seed: int, order: Operation) -> Commanded:
    """Two snapshots among random changes, of which only the first must be in the buckets; the command; a
    flush."""
    machine = new_machine(root)
    story = Story(History(f"command {seed}", sizes=SMALL_SIZES))
    with machine.on():
        await machine.make_volume()
        async with machine.mounted(ALONE) as engine:
            hands = Hands(engine.fs)
            for name in (b"old", b"newer"):
                await _changed(engine, hands, machine, story)
                snapshot = Operation("snapshot", name, fill=story.history.next_number)
                await _done(engine, hands, machine, story, snapshot)
                if name == b"old":
                    await _flushed(engine, machine, story)
            await _changed(engine, hands, machine, story)
            start = len(machine.journal.records)
            await _done(engine, hands, machine, story, order)
            await _flushed(engine, machine, story)
            end = len(machine.journal.records)
            hands.let_go()
    return Commanded(f"{order.verb}-{seed}", machine, story, start, end)


async def _changed(engine: Engine, hands: Hands, machine: Machine, story: Story) -> None:
    """First and last the same file is written, so that a snapshot between two of these shows dirty bytes
    over which something is written."""
    await _done(engine, hands, machine, story, _overwrite(story))
    for _ in range(CHANGES):
        story.history.next()
        await step(engine, hands, story, machine.journal)
    await _done(engine, hands, machine, story, _overwrite(story))


def _overwrite(story: Story) -> Operation:
    """Of the start of the first file; where there is none, one is made."""
    number, tree = story.history.next_number, live(story.history.trees[-1])
    files = [path for path, thing in sorted(tree.items()) if thing.kind == "f"]
    if not files:
        return Operation("create", b"f", fill=number)
    return Operation("write", files[0], length=OVERWRITTEN, fill=number)


async def _done(engine: Engine, hands: Hands, machine: Machine, story: Story, order: Operation) -> None:
    story.history.do(order)
    await step(engine, hands, story, machine.journal)


async def _flushed(engine: Engine, machine: Machine, story: Story) -> None:
    question = story.ask(machine.journal, "buckets", story.length)
    await engine.flush()
    story.answer(machine.journal, question)


async def complaint_about(root: Path, death: Death) -> str:
    """What is wrong after it."""
    try:
        return (await examined(await reborn(root, death), death)).complaint
    except Exception as error:
        return unopened(error)


# --- all of them -----------------------------------------------------------------------------


@dataclass(slots=True)
class Places:
    """What became of one life: at how many places it ended, at which named ones, and what was wrong."""

    deaths: int = 0
    points: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {
            "deaths": {"command": self.deaths},
            "points": dict(self.points),
            "ages_s": [],
            "violations": self.violations,
        }


def run_seed(seed: int, keep: Path) -> Places:
    """One of the commands, killed and without power at every place, and the machine lost after every put."""
    root = Path(tempfile.mkdtemp(prefix="objfs-commands-"))
    try:
        return trio.run(_everywhere, seed, root, keep)
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _everywhere(seed: int, root: Path, keep: Path) -> Places:
    life = await commanded(root / "first", seed, ORDERS[seed % len(ORDERS)])
    found = Places()
    for number, death in enumerate(_deaths(life)):
        found.deaths += 1
        found.points[death.point] += bool(death.point)
        complaint = await complaint_about(root / f"after{number}", death)
        if complaint:
            found.violations.append(kept_death(keep, death, complaint))
        shutil.rmtree(root / f"after{number}")
    return found


def _deaths(life: Commanded) -> Iterator[Death]:
    named = {at: name for name, places in life.places().items() for at in places}
    for at in range(life.start, life.end + 1):
        put = isinstance(life.machine.journal.records[at - 1], Put)
        kinds: tuple[Kind, ...] = ("kill", "cut", "loss") if put else ("kill", "cut")
        for kind in kinds:
            yield life.death(kind, at, named.get(at, ""))
