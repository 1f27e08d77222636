"""Lives of a volume, and the many deaths in each.

Owns how a machine lives (a random history, beside it fsyncs, flushes, checkpoints, deletes) and how it is
found after each of its deaths.  A life is recorded once; it can then be ended after any of its records, in
any of three ways: by a kill, a power cut, the loss of the machine.  Each death makes another machine, which
is opened, read, judged by the oracle and audited, and may live on.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import trio

from objfs.app.engine import Engine
from objfs.backends.wrappers.faults import Fault, Gone, Slow
from objfs.errors import BucketError, StaleHandle
from objfs.model import Code, Ino
from tests.crashes.curator import Curator, everything
from tests.crashes.hands import ROOT_USER, Hands
from tests.crashes.machine import BUCKETS, SETTINGS, Machine, machine_of
from tests.crashes.story import Begun, Ended, Promise, Story, uptime_at, witness
from tests.doubles.disk import Tree as Disk
from tests.doubles.disk import cut_power, kept, objects
from tests.doubles.journal import Deleted, Journal, Marked, Put, Record
from tests.doubles.recorded_bucket import filled
from tests.system import oracle
from tests.system.history import OF_SNAPSHOTS, Operation, Tree
from tests.system.oracle import Verdict, Witness
from tests.system.past import live

log = logging.getLogger(__name__)

Kind: TypeAlias = Literal["kill", "cut", "loss"]
"""Of death."""

CODES = (Code(2, 1), Code(1, 2), Code(1, 1))
"""Each bears the loss of one of the three buckets."""
RECODING = 0.4
"""The share of lives in which the code of the volume changes again and again."""
WAITED_FOR = 0.5
"""The share of snapshots taken or dropped that must come to the buckets."""
BESIDE = 0.08
"""The share of steps at which something is asked for beside the history."""
LONG_LIFE_S = 7.0
INTERVAL_S = 0.2
"""Between checkpoints."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a machine lives; all of it follows from the seed.  ``seconds`` is how long."""

    seed: str
    seconds: float
    pace_s: float
    slow_s: float
    away: str
    """A bucket that does not answer, or none."""
    orderly: bool
    """Whether the life ends by unmounting."""
    fsync: str
    interval_s: float
    """Between checkpoints."""
    recodes: bool
    """Whether the code of the volume is changed meanwhile."""


def planned(seed: str, *, away: str = "", long: bool = False) -> Plan:
    """``long``: of several seconds, and perhaps without checkpoints, so that what nobody fsynced grows older
    than I1 lets it be lost."""
    generator = random.Random(f"plan {seed}")
    return Plan(
        seed,
        LONG_LIFE_S if long else generator.uniform(0.5, 1.6),
        generator.choice((0.0, 0.001, 0.004)),
        generator.choice((0.0, 0.002, 0.01)),
        away,
        generator.random() < 0.3,
        generator.choice(("local", "local", "bucket")),
        generator.choice((INTERVAL_S, 3600.0)) if long else INTERVAL_S,
        generator.random() < RECODING,
    )


# --- living ----------------------------------------------------------------------------------


class Life:
    """One machine with a history on it, from the mount to the end."""

    def __init__(self, machine: Machine, story: Story, plan: Plan) -> None:
        self._machine = machine
        self._story = story
        self._plan = plan
        self._random = random.Random(f"life {plan.seed}")
        self._journal = machine.journal

    async def run(self) -> None:
        """Returns when the machine is off."""
        plan = self._plan
        settings = replace(SETTINGS, fsync=plan.fsync, checkpoint_interval=plan.interval_s)
        faults = {name: Fault(Slow(plan.slow_s)) for name in BUCKETS} if plan.slow_s else {}
        if plan.away:
            faults[plan.away] = Fault(Gone(), skip=self._random.randint(0, 400))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._story.uptime.run)
            async with self._machine.mounted(settings, faults=faults) as engine:
                await self._work(engine)
                if plan.orderly:
                    with trio.move_on_after(plan.seconds):
                        await engine.finish()
            nursery.cancel_scope.cancel()

    async def _work(self, engine: Engine) -> None:
        hands = Hands(engine.fs)
        async with trio.open_nursery() as beside:
            if self._plan.recodes:
                beside.start_soon(self._recode, engine)
            with trio.move_on_after(self._plan.seconds):
                while True:
                    operation = self._story.history.next()
                    await step(engine, hands, self._story, self._journal)
                    if operation.synchronous and self._plan.fsync == "bucket":
                        self._answered("buckets")
                    if self._random.random() < BESIDE:
                        self._ask(engine, hands, beside)
                    if operation.verb in ("snapshot", "drop") and self._random.random() < WAITED_FOR:
                        self._flush(engine, beside)
                    await trio.sleep(self._random.uniform(0, 2 * self._plan.pace_s))
            beside.cancel_scope.cancel()
        hands.let_go()

    async def _recode(self, engine: Engine) -> None:
        """Until cancelled, which leaves what is left to the mount."""
        generator = random.Random(f"codes {self._plan.seed}")
        while engine.recoder is not None:
            await trio.sleep(generator.uniform(0, 0.3))
            try:
                await engine.recoder.change(generator.choice(CODES))
            except BucketError as error:
                log.info("code not changed: %s", error)

    def _answered(self, promise: Promise) -> None:
        """Of everything until now, and at once."""
        story = self._story
        story.answer(self._journal, story.ask(self._journal, promise, story.length))

    # --- beside the history --------------------------------------------------------------

    def _ask(self, engine: Engine, hands: Hands, beside: trio.Nursery) -> None:
        """Asked now, answered some time: what is written meanwhile is no part of it."""
        story, journal = self._story, self._journal
        files = [
            (path, thing)
            for path, thing in sorted(live(story.history.trees[-1]).items())
            if thing.kind == "f"
        ]
        what = self._random.choice(("file", "file", "everything", "buckets"))
        if what == "file" and files:
            path, thing = self._random.choice(files)
            question = story.ask(journal, "file", story.length, thing.number)
            beside.start_soon(self._fsync, engine, hands.ino(path), question)
        elif what == "everything":
            beside.start_soon(self._wait, engine.fs.sync, story.ask(journal, "everything", story.length))
        elif what == "buckets":
            self._flush(engine, beside)

    def _flush(self, engine: Engine, beside: trio.Nursery) -> None:
        question = self._story.ask(self._journal, "buckets", self._story.length)
        beside.start_soon(self._wait, engine.flush, question)

    async def _fsync(self, engine: Engine, ino: Ino, question: int) -> None:
        try:
            handle = await engine.fs.open(ino, os.O_RDONLY, ROOT_USER)
        except StaleHandle:
            return
        await self._wait(partial(engine.fs.fsync, handle.fh), question)
        engine.fs.release(handle.fh)

    async def _wait(self, promised: Callable[[], Awaitable[None]], question: int) -> None:
        try:
            await promised()
        except (BucketError, StaleHandle) as error:
            log.info("question %d has no answer: %s", question, error)
        else:
            self._story.answer(self._journal, question)


async def step(engine: Engine, hands: Hands, story: Story, journal: Journal) -> None:
    """Performs the last operation of the history, between its marks.  A restore is durable here when it
    returns."""
    history = story.history
    operation, before = history.operations[-1], history.trees[-2]
    story.mark(journal, Begun(story.length, operation.verb))
    with trio.CancelScope(shield=True):
        await _performed(engine, hands, operation)
    durable = before[operation.name].number if operation.synchronous else None
    story.mark(journal, Ended(story.length, durable))
    if operation.verb == "restore":
        story.answer(journal, story.ask(journal, "rows", story.length))


async def _performed(engine: Engine, hands: Hands, operation: Operation) -> None:
    if operation.verb in OF_SNAPSHOTS:
        await Curator(engine).perform(operation)
    else:
        await hands.perform(operation)


# --- dying -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """After ``records`` of a journal.  ``boot`` is that of the machine which died."""

    kind: Kind
    records: Sequence[Record]
    story: Story
    seed: str
    boot: int
    point: str = ""
    """The name of the place, where it has one."""
    without: str = ""
    """The bucket that another machine has to do without."""

    def disk(self) -> Disk:
        if self.kind == "kill":
            return kept(self.records)
        return cut_power(self.records, random.Random(f"disk {self.seed}"))

    def witness(self) -> Witness:
        return witness(self.records, uptime_at(self.records))


@dataclass(frozen=True, slots=True)
class Found:
    """What a death left."""

    verdict: Verdict
    tree: Tree

    @property
    def complaint(self) -> str:
        return self.verdict.complaint


JUDGES = {"kill": oracle.after_kill, "cut": oracle.after_power_cut, "loss": oracle.after_loss}


async def reborn(root: Path, death: Death) -> Machine:
    """The machine that comes after a death, not yet on: the same disk after a kill, what a power cut left of
    it, or another machine with nothing."""
    buckets = await filled(objects(death.records))
    if death.kind == "loss":
        journal = Journal(record for record in death.records if isinstance(record, Put | Deleted))
        return machine_of(root, Disk(), journal, buckets, host="another", boot=1000 + death.boot)
    disk = death.disk()
    if death.kind == "kill":
        return machine_of(root, disk, Journal(death.records), buckets, boot=death.boot)
    elsewhere = (item for item in death.records if isinstance(item, Put | Deleted | Marked))
    journal = Journal([*disk.records(), *elsewhere])
    return machine_of(root, disk, journal, buckets, boot=death.boot + 1)


async def examined(machine: Machine, death: Death, *, drained: bool = False) -> Found:
    """Opens the machine, reads all of it and judges.  ``drained``: what it has must also reach the buckets,
    and be the same to a fresh machine."""
    lost = death.kind == "loss"
    with machine.on():
        if lost:
            await machine.attach(without={death.without})
        async with machine.mounted(force=lost) as engine:
            tree = await everything(engine)
            damage = engine.table.check()
            if drained:
                await engine.snapshots.clear()
                damage = damage or engine.table.check()
                await engine.finish()
    verdict = JUDGES[death.kind](death.story.history, death.witness(), tree)
    if damage:
        verdict = Verdict(None, f"the inode table is damaged: {damage[0]} ({len(damage)} findings)")
    return Found(verdict, tree)
