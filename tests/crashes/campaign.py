"""Very many deaths: chains of lives, each ended at many places in three ways.

Owns which deaths a seed dies, and what is kept of one that was no good.  A seed is a volume: it is made,
lives, dies at so many places, each of which is examined; then it lives on from one of them, as after a real
crash, and so on.  The same seed has the same histories and choices; threads take turns as they like, so a
death that violates anything is kept in a file, and that is replayed to the byte.
"""

from __future__ import annotations

import pickle
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.app.wire import first_cause
from objfs.codec.keys import KeyRing
from objfs.store import layout
from objfs.volume import manifest as manifests
from objfs.volume.attach import read_volume
from tests.crashes import points
from tests.crashes.lives import INTERVAL_S, Death, Found, Kind, Life, Plan, examined, planned, reborn
from tests.crashes.machine import BUCKETS, Machine, new_machine
from tests.crashes.story import Begun, Ended, Story, age_of_loss, uptime_at
from tests.doubles.journal import Put
from tests.system.history import SMALL_SIZES, WITH_SNAPSHOTS, History, renumbered
from tests.system.oracle import go_on
from tests.volume.support import PASSPHRASE

LIVES = 3
"""Of one volume."""
DEATHS: dict[Kind, int] = {"kill": 9, "cut": 5, "loss": 2}
"""Of one life."""
AT_A_POINT = 0.6
"""The share of deaths at a named place; the others are after any record."""
DRAINED = 0.15
"""The share after which everything must also reach the buckets, and come back from there."""
AGE_LIMIT_S = 8.0
"""What a recovered moment may be behind; the interval is 0.2 s, but the machine is busy with tests."""


@dataclass(slots=True)
class Outcome:
    """Of one seed."""

    deaths: Counter[Kind] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    ages_s: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    """What was found, and how to see it again."""

    def to_json(self) -> dict[str, object]:
        return {
            "deaths": dict(self.deaths),
            "points": dict(self.points),
            "ages_s": [round(age, 3) for age in self.ages_s],
            "violations": self.violations,
        }


def run_seed(
    seed: int,
    keep: Path,
    *,
    deaths: dict[Kind, int] | None = None,
    lives: int = LIVES,
    rare: Sequence[str] = (),
    long: bool = False,
) -> Outcome:
    """One volume, in a directory of its own that is gone afterwards.  ``rare`` are places to prefer; ``keep``
    is where deaths go that violate something."""
    root = Path(tempfile.mkdtemp(prefix="objfs-crashes-"))
    try:
        return trio.run(_Chain(seed, root, keep, deaths or DEATHS, rare, long=long).run, lives)
    finally:
        shutil.rmtree(root, ignore_errors=True)


class _Chain:
    """The lives of one volume."""

    def __init__(
        self, seed: int, root: Path, keep: Path, deaths: dict[Kind, int], rare: Sequence[str], *, long: bool
    ) -> None:
        self._seed = seed
        self._root = root
        self._keep = keep
        self._deaths = deaths
        self._rare = rare
        self._long = long
        self._random = random.Random(f"chain {seed}")
        self._away = self._random.choice(("", "", "", *BUCKETS))
        """A bucket that goes away in each life: what is put meanwhile cannot do without another one."""
        self._machines = 0
        self._outcome = Outcome()
        self._ring: KeyRing

    async def run(self, lives: int) -> Outcome:
        machine = new_machine(self._directory())
        with machine.on():
            await machine.make_volume()
            _, self._ring = await read_volume({name: machine.bucket(name) for name in BUCKETS}, PASSPHRASE)
        story = Story(History(f"{self._seed}-0", sizes=SMALL_SIZES, weights=WITH_SNAPSHOTS))
        for life in range(lives):
            survivor = await self._live(machine, story, f"{self._seed}-{life}")
            if survivor is None:
                break
            machine, story = survivor
        return self._outcome

    def _directory(self) -> Path:
        self._machines += 1
        return self._root / f"machine{self._machines}"

    async def _live(self, machine: Machine, story: Story, seed: str) -> tuple[Machine, Story] | None:
        start = len(machine.journal.records)
        plan = planned(seed, away=self._away, long=self._long)
        with machine.on():
            await Life(machine, story, plan).run()
        survivors = []
        for death in self._chosen(machine, story, start, plan):
            reborn_machine, found = await self._die(death, plan)
            if found is not None and death.kind != "loss":
                survivors.append((reborn_machine, death, found))
        if not survivors:
            return None
        heir, death, found = self._random.choice(survivors)
        return heir, _carried_on(heir, death, found)

    # --- places --------------------------------------------------------------------------

    def _chosen(self, machine: Machine, story: Story, start: int, plan: Plan) -> Iterator[Death]:
        records = machine.journal.records
        places = points.places(records, start, self._bases)
        number = 0
        for kind, count in self._deaths.items():
            for _ in range(count):
                number += 1
                point = self._point(places) if self._random.random() < AT_A_POINT else ""
                at = (
                    self._random.choice(places[point]) if point else self._random.randint(start, len(records))
                )
                name = f"{plan.seed}-{kind}-{number}"
                without = "" if self._away else self._random.choice(("", *BUCKETS))
                yield Death(kind, records[:at], story, name, machine.boot, point, without)

    def _point(self, places: dict[str, list[int]]) -> str:
        """One that few have died at."""
        known = sorted(places)
        self._random.shuffle(known)
        died = self._outcome.points
        return min(known, key=lambda name: (died[name], name not in self._rare))

    def _bases(self, record: Put) -> set[bytes]:
        sequence = layout.parse_manifest(record.key)
        assert sequence is not None
        manifest = manifests.decode(record.data, sequence, self._ring)
        return {blob.segment.uuid for blob in manifest.base}

    # --- deaths --------------------------------------------------------------------------

    async def _die(self, death: Death, plan: Plan) -> tuple[Machine, Found | None]:
        """The machine after it and what was found there; None where it was no good."""
        outcome = self._outcome
        outcome.deaths[death.kind] += 1
        outcome.points[death.point] += bool(death.point)
        drained = self._random.random() < DRAINED
        machine = await reborn(self._directory(), death)
        try:
            found = await examined(machine, death, drained=drained)
        except Exception as error:
            self._violates(death, unopened(error))
            return machine, None
        complaint = found.complaint or self._aged(death, plan, found)
        if complaint:
            self._violates(death, complaint)
        return machine, None if complaint else found

    def _aged(self, death: Death, plan: Plan, found: Found) -> str:
        """What is wrong with the age of a lost machine's recovered moment; its age is noted."""
        if death.kind != "loss" or plan.interval_s != INTERVAL_S:
            return ""
        age = age_of_loss(death.records, found.verdict)
        self._outcome.ages_s.append(age)
        return f"the recovered moment is {age:.1f} s old" if age > AGE_LIMIT_S else ""

    def _violates(self, death: Death, complaint: str) -> None:
        self._outcome.violations.append(kept_death(self._keep, death, complaint))


def _carried_on(machine: Machine, death: Death, found: Found) -> Story:
    """The story of the machine that lives on."""
    prefix, story = found.verdict.prefix, death.story
    story.uptime.now = uptime_at(death.records)
    if death.kind == "cut" and prefix is not None:
        # What was read is on the disk: an operation that made this tree, and an fsync of all of it.
        story.history.go_on_from(prefix, renumbered(found.tree, story.history.next_number))
    else:
        go_on(story.history, found.verdict, found.tree)
    story.mark(machine.journal, Begun(story.length))
    story.mark(machine.journal, Ended(story.length))
    if death.kind == "cut":
        story.answer(machine.journal, story.ask(machine.journal, "everything", story.length))
    return story


def unopened(error: Exception) -> str:
    """What is to be said of a volume that was not there any more."""
    cause = first_cause(error) if isinstance(error, ExceptionGroup) else error
    return f"cannot be opened and read: {cause!r}"


def kept_death(keep: Path, death: Death, complaint: str) -> str:
    """What is to be said of a death that violates something; it is kept, to be replayed."""
    keep.mkdir(parents=True, exist_ok=True)
    file = keep / f"{death.seed}.death"
    file.write_bytes(pickle.dumps(death))
    at = f" at {death.point!r}" if death.point else ""
    return f"{death.kind}{at}: {complaint}; python -m tests.crashes --replay {file}"


def replay(file: Path) -> Found:
    """A death that was kept, once more."""
    death: Death = pickle.loads(file.read_bytes())
    root = Path(tempfile.mkdtemp(prefix="objfs-replay-"))

    async def once_more() -> Found:
        return await examined(await reborn(root, death), death)

    try:
        return trio.run(once_more)
    finally:
        shutil.rmtree(root, ignore_errors=True)
