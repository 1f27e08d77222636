"""Real mounts, killed by SIGKILL in the middle of everything and mounted again.

Owns the life of one volume through several kills: a program works in the mount
(``tests.system.performing``), the daemon dies at a random time or at a named place, another one mounts the
same state, and the tree is judged.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from objfs.meta import MetaDatabase
from tests.crashes.dying import Mortal, mortal_mount
from tests.crashes.points import POINTS
from tests.system.harness import VOLUME, Station, local_buckets, urls
from tests.system.history import History
from tests.system.oracle import Witness, after_kill, go_on
from tests.system.performing import Writer, tree_of

KILLS = 5
"""Of one volume."""
LIFE_S = (0.1, 2.5)
PATIENCE_S = 6.0
"""How long a place is waited for; then the daemon is killed where it is."""
READING_S = 5.0
"""How long a daemon that no longer answers may still be there."""
AT_A_POINT = 0.6
OPTIONS = (
    "checkpoint_interval=1,lease_interval=1,cache_size=16777216,cache_reserve=0,"
    "recovery_window=0,recovery_keep=2,delete_grace=0"
)


@dataclass(slots=True)
class Kills:
    """What became of one volume: how often it was killed, at which places, and what was wrong."""

    kills: int = 0
    points: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {
            "deaths": {"mounted": self.kills},
            "points": dict(self.points),
            "ages_s": [],
            "violations": self.violations,
        }


def run_seed(seed: int, kills: int = KILLS, rare: Sequence[str] = ()) -> Kills:
    """One volume, in a directory of its own that is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="objfs-killed-"))
    os.umask(0o022)
    try:
        with Station(root / "machine") as station:
            station.mkfs(VOLUME, urls(local_buckets(root, 3)))
            return _Volume(seed, station, root / "mnt", rare).live(kills)
    finally:
        shutil.rmtree(root, ignore_errors=True)


class _Volume:
    """One history over many processes."""

    def __init__(self, seed: int, station: Station, mounted: Path, rare: Sequence[str]) -> None:
        mounted.mkdir()
        self._seed = seed
        self._station = station
        self._mounted = mounted
        self._random = random.Random(f"killed {seed}")
        self._rare = rare
        self._history = History(f"killed {seed}")
        self._witness = Witness()
        self._outcome = Kills()

    def live(self, kills: int) -> Kills:
        while self._outcome.kills < kills and self._live_once():
            pass
        if not self._outcome.violations:
            self._end()
        return self._outcome

    def _live_once(self) -> bool:
        """From a mount to a kill; False where something was wrong."""
        place = self._random.choice(self._rare or tuple(POINTS)) if self._random.random() < AT_A_POINT else ""
        count = self._random.choice((1, 1, 2, 5, 20))
        with mortal_mount(self._station, self._mounted, "-o", OPTIONS, place=place, count=count) as mount:
            if mount.is_up() and self._judged(mount):
                self._work(mount, place)
            self._outcome.kills += 1
            if place and mount.died_by_itself:
                self._outcome.points[place] += 1
        return not self._outcome.violations

    def _judged(self, mount: Mortal) -> bool:
        """Whether what the last life left is as it should be; not where this life ends while it is read."""
        try:
            return self._judge()
        except OSError as error:
            mount.wait_for_death(READING_S)
            if not mount.died_by_itself:
                self._violates(f"cannot be read: {error}")
            return False

    def _work(self, mount: Mortal, place: str) -> None:
        """A program works until the daemon is dead."""
        before = len(self._history.operations)
        writer = Writer(self._mounted, self._history)
        writer.start()
        mount.wait_for_death(PATIENCE_S if place else self._random.uniform(*LIFE_S))
        # The dead mount stops the program; taken away before that, it would go on in the bare directory.
        writer.join(30)
        assert not writer.is_alive()
        self._witness = Witness(before + len(writer.done), len(self._history.operations))

    def _judge(self) -> bool:
        """Whether the tree is one that may be there.  Raises OSError where it cannot be read."""
        found = tree_of(self._mounted)
        verdict = after_kill(self._history, self._witness, found)
        if not verdict.well:
            self._violates(verdict.complaint)
            return False
        go_on(self._history, verdict, found)
        length = len(self._history.operations)
        self._witness = Witness(length, length)
        return True

    def _end(self) -> None:
        """Mounted and unmounted in order, all that there was is there, and the inode table is sound."""
        self._station.mount(VOLUME, self._mounted)
        self._judge()
        self._station.umount(self._mounted)
        with MetaDatabase.open(self._station.home / VOLUME / "meta.db", boot_id=b"") as table:
            findings = table.check()
        if findings:
            self._violates(f"the inode table is damaged: {findings[0]} ({len(findings)} findings)")

    def _violates(self, complaint: str) -> None:
        again = f"python -m tests.crashes --kills 0 --cuts 0 --losses 0 --first {self._seed} --seeds 1"
        self._outcome.violations.append(f"after {self._outcome.kills} kills: {complaint}; {again}")
