"""Two writers and one volume: how the first one ends, times how it is succeeded (I5).

Owns the combinations and what must hold after each.  The writers are real processes (``tests.rivals.rival``)
that write all the time; kill, stop and continue are signals, and a fork server makes them cheap.  There is no
kernel's mount: what it adds is in ``tests.system.test_stopped``.

After each combination
- a writer that was overtaken while it lived is read-only, says so, and ends in good order;
- each successor found one moment of the writer before, with all that any flush of that one ever promised,
  be it one that returned long after the takeover;
- whoever held the volume is found alive by others, and they are refused;
- fsck finds no damage but copies of manifests that did not get everywhere, from every state directory and
  from a new machine, with every byte read;
- every machine that ever wrote gets the last writer's tree when it opens the volume again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import trio

from objfs.app.clock import SystemClock
from objfs.backends.base import Bucket
from objfs.backends.registry import open_bucket
from objfs.model import Code
from objfs.volume.attach import Offered, attach, learn
from objfs.volume.fsck import FsckOptions
from objfs.volume.fsck_repair import check_volume
from objfs.volume.fsck_report import Grade
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from tests.crashes.machine import BUCKETS, CHUNK
from tests.rivals.rival import Fenced, Opened, Refused, Task
from tests.rivals.watching import Rival, ending_all
from tests.system.history import same
from tests.system.oracle import after_loss
from tests.volume.support import CHEAP, PASSPHRASE

End: TypeAlias = Literal["kill", "stop", "cut", "leave"]
"""Of the first writer: SIGKILL, SIGSTOP and SIGCONT later, no bucket answers for a while, unmounted."""
Succession: TypeAlias = Literal["expired", "forced", "twice", "back first"]
"""By another machine after the lease has expired; at once, by force; and of that one by a third in the same
way; or not before the first one has come back."""

ENDS: tuple[End, ...] = get_args(End)
SUCCESSIONS: tuple[Succession, ...] = get_args(Succession)
WORK = 25
"""Operations of each writer between two events."""
NUMBERS = 1_000_000
"""Of operations, for each writer."""
COPIES = {"manifest-copy"}
"""A manifest that counts with two buckets of three and is not on the third: its put was under way when the
writer was stopped, or when it stopped itself.  fsck tells it, and puts it there."""


@dataclass
class Scene:
    """The buckets, the machines that use them, and who wrote after whom."""

    root: Path
    seed: str
    rivals: list[Rival] = field(default_factory=list)
    reigns: list[Rival] = field(default_factory=list)
    """Whoever got the volume, in order."""
    homes: list[Path] = field(default_factory=list)

    # --- machines ----------------------------------------------------------------------

    def machine(self) -> Path:
        """A new one that knows the volume; the first one makes it."""
        root = self.root / f"machine{len(self.homes)}"
        (root / "home").mkdir(parents=True)
        home = VolumeHome(root / "home", "vol")
        trio.run(self._attach if self.homes else self._make, home)
        self.homes.append(root)
        return root

    def _places(self) -> dict[str, Bucket]:
        places = [self.root / "buckets" / name for name in BUCKETS]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        return {f"file://{place}": open_bucket(f"file://{place}", {}) for place in places}

    async def _make(self, home: VolumeHome) -> None:
        new = NewVolume(PASSPHRASE, Code(2, 1), chunk_size=CHUNK, cost=CHEAP)
        places = [NewBucket(url, {}, bucket) for url, bucket in self._places().items()]
        await create_volume(home, places, new, clock=SystemClock())

    async def _attach(self, home: VolumeHome) -> None:
        offered = [Offered(url, {}, bucket) for url, bucket in self._places().items()]
        attach(home, await learn(offered, PASSPHRASE))

    # --- writers -----------------------------------------------------------------------

    def start(self, root: Path, *, take_over: bool = False, force: bool = False) -> Rival:
        number = 1 + len(self.rivals)
        task = Task(root, f"{self.seed} writer {number}", number * NUMBERS, take_over, force)
        self.rivals.append(Rival(task))
        return self.rivals[-1]

    def reign(self, root: Path, *, take_over: bool = False, force: bool = False) -> Rival:
        """One that gets the volume, and has written and flushed."""
        rival = self.start(root, take_over=take_over, force=force)
        rival.wait_for(Opened)
        rival.work(WORK)
        rival.flush()
        self.reigns.append(rival)
        return rival

    def refused(self, root: Path, *, take_over: bool = False) -> str:
        """Why one does not get the volume."""
        return self.start(root, take_over=take_over).wait_for(Refused).why


# --- ends and successions ------------------------------------------------------------------


def bring_to_an_end(rival: Rival, end: End) -> None:
    match end:
        case "kill":
            rival.kill()
        case "stop":
            rival.stop()
        case "cut":
            rival.cut_off()
            rival.work(WORK)  # it goes on into its cache
        case "leave":
            leave_clean(rival)


def come_back(scene: Scene, rival: Rival, end: End) -> None:
    """Of one that was overtaken: it finds out, or is told."""
    if end in ("kill", "leave"):
        assert "is in use by" in scene.refused(rival.task.root)
        return
    rival.go_on()
    rival.reconnect()
    holder = "taken over by"
    fenced = rival.wait_for(Fenced)
    assert fenced.lease_lost
    assert holder in fenced.reason
    assert any("lease lost" in line and holder in line for line in fenced.logged)
    assert fenced.names <= set().union(*rival.history().trees[-2:])
    left = rival.leave()
    assert left.clean or "left in the local state: the lease of epoch" in left.outcome


def expired(scene: Scene, end: End) -> None:
    old = scene.reign(scene.machine())
    bring_to_an_end(old, end)
    new = scene.reign(scene.machine(), take_over=True)
    come_back(scene, old, end)
    new.work(WORK)


def forced(scene: Scene, end: End) -> None:
    old = scene.reign(scene.machine())
    bring_to_an_end(old, end)
    new = scene.reign(scene.machine(), force=True)
    come_back(scene, old, end)
    new.work(WORK)


def twice(scene: Scene, end: End) -> None:
    """The second one ends like the first; then both come back."""
    old = scene.reign(scene.machine())
    bring_to_an_end(old, end)
    new = scene.reign(scene.machine(), take_over=True)
    bring_to_an_end(new, end)
    newest = scene.reign(scene.machine(), take_over=True)
    come_back(scene, new, end)
    come_back(scene, old, end)
    newest.work(WORK)


def back_first(scene: Scene, end: End) -> None:
    """Whoever waits for its lease to expire is told that it lives; later it leaves."""
    old = scene.reign(scene.machine())
    bring_to_an_end(old, end)
    if end in ("kill", "leave"):
        old = scene.reign(old.task.root)
    old.go_on()
    old.reconnect()
    other = scene.machine()
    assert "and it is alive" in scene.refused(other, take_over=True)
    old.work(WORK)
    leave_clean(old)
    scene.reign(other)


_SUCCESSIONS: dict[Succession, Callable[[Scene, End], None]] = {
    "expired": expired,
    "forced": forced,
    "twice": twice,
    "back first": back_first,
}


# --- what must hold ------------------------------------------------------------------------


def run(root: Path, end: End, succession: Succession, seed: int = 0) -> None:
    """One combination from mkfs to the last comparison.  Raises AssertionError."""
    scene = Scene(root, f"{end} {succession} {seed}")
    with ending_all(scene.rivals):
        _SUCCESSIONS[succession](scene, end)
        assert not scene.reigns[-1].fenced
        leave_clean(scene.reigns[-1])
        judge(scene)
        for home in [*scene.homes, scene.machine()]:
            assert_sound(home)
            open_again(scene, home)


def open_again(scene: Scene, home: Path) -> None:
    """It shows what the last writer left, and is the last writer then."""
    again = scene.start(home)
    assert same(again.found, scene.reigns[-1].history().trees[-1])
    leave_clean(again)
    scene.reigns.append(again)


def leave_clean(rival: Rival) -> None:
    left = rival.leave()
    assert left.clean, left.outcome


def judge(scene: Scene) -> None:
    """Each successor against what the writer before it said in all its life."""
    for old, new in zip(scene.reigns, scene.reigns[1:], strict=False):
        verdict = after_loss(old.history(), old.witness(), new.found)
        assert verdict.well, f"{new.task.seed} after {old.task.seed}: {verdict.complaint}"


def assert_sound(root: Path) -> None:
    """What ``objfs fsck --data`` says on that machine."""
    home = VolumeHome(root / "home", "vol")
    lock = home.lock()
    try:
        places = home.read_config().buckets
        raw = {place.uuid: open_bucket(place.url, place.options) for place in places}
        options = FsckOptions(data=True, host="checker")

        async def check() -> None:
            report = await check_volume(home, PASSPHRASE, raw, clock=SystemClock(), options=options)
            found = [one.line for one in report.findings]
            assert not report.of(Grade.LOSS, Grade.UNSEEN), found
            assert not report.of(Grade.DAMAGE), found
            assert report.rules(Grade.REDUCED) <= COPIES, found

        trio.run(check)
    finally:
        lock.release()
