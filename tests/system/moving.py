"""A bucket is replaced while programs write, and the mount is killed in the middle of it, again and again.

    python -m tests.system.moving [--seeds N] [--first SEED] [--kills N]

A 4+2 volume over six local directories, of which one is replaced by a seventh; with every other seed the one
that is replaced is gone.  Each time the mount is killed (SIGKILL) when a random share of the shards has come
to the new bucket, the table of the dead mount and the newest moment in the buckets are walked: every segment
that they name must bear the loss of as many shards as before, counting those that are at their places and of
their length.  Then the volume is mounted again and the same command goes on.  What is left behind is deleted
as early as that is ever allowed.  At the end the command ends, a scrub of everything finds nothing, and
another machine, which never saw the old bucket, has every file whose writing had ended.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from objfs.app.client import ControlClient
from objfs.backends.registry import open_bucket
from objfs.codec import Layout
from objfs.meta.view import TableView
from objfs.model import Segment
from objfs.store.layout import SEGMENT_PREFIX, shard_name
from objfs.volume.attach import Offered, attach, learn
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions, open_volume
from tests.console import say
from tests.system.harness import PASSPHRASE, VOLUME, Station, contents, local_buckets, urls, wait_for_end
from tests.volume.support import TrioClock

CODE = "4+2"
BUCKETS = 6
TOLERANCE = 2
KILLS = 10
SEGMENTS = 60
"""Before the move; programs write more."""
OLD = 1
"""The slot that is replaced."""
OPTIONS = (
    "checkpoint_interval=1,lease_interval=1,cache_size=67108864,cache_reserve=0,"
    "recovery_window=0,recovery_keep=2,delete_grace=0"
)
LOOK_S = 0.005
DELAY_S = 0.05
"""A kill comes up to so long after its share of the shards."""
MOVE_S = 120.0
PAUSE_S = 0.05
SIZES = (1_000, 50_000, 250_000, 700_000)


class Writing(threading.Thread):
    """A program that writes one file after the other, until it is told to stop or the mount is dead."""

    def __init__(self, directory: Path, life: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.written: dict[str, bytes] = {}
        """The files whose writing ended."""
        self.begun = ""
        """The one that was being written."""
        self._directory = directory
        self._life = life
        self._random = random.Random(f"moving {seed} {life}")
        self._told = threading.Event()

    def run(self) -> None:
        try:
            while not self._told.wait(PAUSE_S):
                self._write()
        except OSError:
            return  # the mount is dead, or the harness says what else is wrong

    def _write(self) -> None:
        self.begun = f"life {self._life} file {len(self.written)}"
        data = self._random.randbytes(self._random.choice(SIZES))
        (self._directory / self.begun).write_bytes(data)
        self.written[self.begun], self.begun = data, ""

    def finish(self) -> None:
        self._told.set()
        self.join()


@dataclass
class Figures:
    """What one seed was."""

    seed: int
    gone: bool
    """Whether the old bucket was."""
    kills: int = 0
    shares: list[int] = field(default_factory=list)
    """How many shards had come to the new bucket at each kill."""
    walked: int = 0
    least: int = TOLERANCE
    """Losses that the poorest segment bore at any time."""
    files: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)

    @property
    def floor(self) -> int:
        """Losses that every segment must bear."""
        return TOLERANCE - self.gone

    def line(self) -> str:
        return (
            f"seed {self.seed}: old bucket {'gone' if self.gone else 'there'}; {self.kills} kills, with "
            f"{self.shares} shards in the new one; {self.walked} segments walked, each bore {self.least} "
            f"losses or more; {self.files} files compared; {self.seconds:.0f} s; "
            f"{'; '.join(self.complaints) or 'well'}"
        )


# --- one volume ------------------------------------------------------------------------------


class Move:
    """One volume, from its first file to the comparison on another machine."""

    def __init__(self, root: Path, station: Station, seed: int, kills: int) -> None:
        self._root = root
        self._station = station
        self._random = random.Random(f"moving {seed}")
        self._seed = seed
        self._kills = kills
        self._mount = root / "mnt"
        self._places = local_buckets(root, BUCKETS)
        self._new = root / "new"
        self._files: dict[str, bytes] = {}
        self._uncertain: set[str] = set()
        self._before: dict[str, int] = {}
        self.figures = Figures(seed, gone=seed % 2 == 0)

    def run(self, segments: int) -> Figures:
        """Raises CommandFailed where a command does not end as it must."""
        began = time.monotonic()
        self._station.mkfs(VOLUME, urls(self._places), CODE)
        self._new.mkdir()
        self._live()
        self._fill(segments)
        if self.figures.gone:
            self._lose_old()
        self._look("before")
        for number in range(self._kills):
            self._live_and_die(number, segments)
        self._end()
        self.figures.seconds = time.monotonic() - began
        return self.figures

    def _live(self) -> None:
        self._station.mount(VOLUME, self._mount, "-o", OPTIONS)

    def _fill(self, segments: int) -> None:
        """As many segments, as each flush closes one."""
        home = VolumeHome(self._station.home, VOLUME)
        for number in range(segments):
            name, data = f"first {number}", self._random.randbytes(self._random.choice(SIZES))
            (self._mount / name).write_bytes(data)
            self._files[name] = data
            with ControlClient(home.control_path) as mount:
                mount.ask("flush")

    def _lose_old(self) -> None:
        """At once: while it is emptied the mount may still put something there."""
        aside = self._root / "lost"
        self._places[OLD].rename(aside)
        shutil.rmtree(aside)

    def _live_and_die(self, number: int, segments: int) -> None:
        pid, writing = int(self._station.status(self._mount)["pid"]), self._begin_writing(number)
        share = int(segments * (number + self._random.random()) / self._kills) if number else 0
        with self._replacing() as command:
            self._until(share, command)
            time.sleep(self._random.uniform(0, DELAY_S))  # anywhere between two shards
            os.kill(pid, signal.SIGKILL)
            assert wait_for_end(pid, 10)
            command.communicate(timeout=MOVE_S)
        writing.join(30)  # taken away before that, it would go on in the bare directory
        subprocess.run(["fusermount3", "-u", "-z", "--", str(self._mount)], check=True, capture_output=True)
        self._station.mounted.remove(self._mount)
        self._keep(writing)
        self.figures.kills += 1
        self.figures.shares.append(self._arrived())
        self._look(f"after kill {number}")
        self._live()

    def _begin_writing(self, life: int) -> Writing:
        writing = Writing(self._mount, life, self._seed)
        writing.start()
        return writing

    def _keep(self, writing: Writing) -> None:
        self._files |= writing.written
        self._uncertain |= {writing.begun} - {""}

    def _replacing(self) -> subprocess.Popen[bytes]:
        command = self._station.command(
            "bucket", "replace", self._mount, str(OLD), f"file://{self._new}", "--json"
        )
        return subprocess.Popen(
            command,
            env=self._station.full_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def _until(self, share: int, command: subprocess.Popen[bytes]) -> None:
        """So many shards have come, or the command has ended."""
        while command.poll() is None and self._arrived() < share:
            time.sleep(LOOK_S)  # a directory gives no other sign that is worth its code

    def _arrived(self) -> int:
        return sum(len(names) for _, _, names in os.walk(self._new / SEGMENT_PREFIX))

    # --- the end ---

    def _end(self) -> None:
        writing = self._begin_writing(self._kills)
        with self._replacing() as command:
            _, said = command.communicate(timeout=MOVE_S)
        writing.finish()
        self._keep(writing)
        if command.returncode:
            self.figures.complaints.append(f"it does not end: {said.decode()}")
            return
        self._station.run("scrub", self._mount, "--all")
        slots = [bucket["slot"] for bucket in self._station.status(self._mount)["buckets"]]
        if OLD in slots or BUCKETS not in slots:
            self.figures.complaints.append(f"the volume has buckets {slots}")
        self._station.umount(self._mount)
        self._look("at the end")
        self._compare()

    def _compare(self) -> None:
        """From the buckets alone, of which the old one is no more."""
        shutil.rmtree(self._places[OLD], ignore_errors=True)
        mount = self._root / "second mnt"
        with Station(self._root / "second") as second:
            second.attach(VOLUME, urls([*self._there(), self._new]))
            second.mount(VOLUME, mount, "--read-only")
            found = contents(mount)
            second.umount(mount)
        wrong = [name for name, data in self._files.items() if found.get(name) != data]
        wrong += sorted(found.keys() - self._files.keys() - self._uncertain)
        self.figures.complaints += [f"{name!r} is not as it was written" for name in wrong[:5]]
        self.figures.files = len(found)

    # --- the walk ---

    def _there(self) -> list[Path]:
        return [place for number, place in enumerate(self._places) if number != OLD]

    def _look(self, when: str) -> None:
        """At what the table here and the newest moment in the buckets name."""
        with TableView(self._station.home / VOLUME / "meta.db") as view:
            named = {"the table": _rows(view)}
        named["the newest moment"] = self._moment(self._root / f"look {when}")
        for where, segments in named.items():
            borne = {segment.uuid.hex(): self._bears(segment) for segment in segments}
            self.figures.walked += len(borne)
            self.figures.least = min(self.figures.least, *borne.values())
            self.figures.complaints += [
                f"{when}, in {where}: segment {uuid} bears the loss of {losses} shards"
                for uuid, losses in borne.items()
                if losses < self._before.get(uuid, self.figures.floor)
            ]
            if not self.figures.kills:
                self._before = borne | self._before  # one that is newer must bear the least that is borne

    def _moment(self, scratch: Path) -> list[Segment]:
        """The segments of the newest moment, its pages among them, as a new machine finds them."""
        scratch.mkdir()
        home = VolumeHome(scratch, VOLUME)
        blobs = trio.run(_recover, home, urls(self._there()))
        with TableView(home.database_path) as view:
            found = [*blobs, *_rows(view)]
        shutil.rmtree(scratch)
        return found

    def _bears(self, segment: Segment) -> int:
        """How many of the shards that are at their places, whole by their length, may be lost."""
        layout, found = Layout.from_segment(segment), 0
        for shard, slot in enumerate(segment.placement):
            place = self._new if slot == BUCKETS else self._places[slot]
            path = place / shard_name(segment.uuid, shard)
            found += path.exists() and path.stat().st_size == layout.object_size(shard)
        return found - segment.code.k


async def _recover(home: VolumeHome, places: Sequence[str]) -> list[Segment]:
    """The newest moment's table is in the state directory afterwards; returns the segments of its pages."""
    secret = Secret("passphrase", PASSPHRASE.encode())
    offered = [Offered(url, {}, open_bucket(url, {})) for url in places]
    attach(home, await learn(offered, secret))
    by_url = {item.url: item.bucket for item in offered}
    buckets = {place.uuid: by_url[place.url] for place in home.read_config().buckets}
    options = OpenOptions(read_only=True, host="other")
    volume = await open_volume(home, secret, buckets, clock=TrioClock(), options=options)
    blobs = [blob.segment for blob in volume.moment.manifest.blobs]
    await volume.close(clean=False, settled=True)
    return blobs


def _rows(view: TableView) -> list[Segment]:
    """Those in use."""
    rows = view.segments(0, 1_000_000)
    return [
        row.segment
        for row in rows
        if row.segment is not None and not row.condemned and not row.segment.nowhere
    ]


# --- running ---------------------------------------------------------------------------------


def run(root: Path, seed: int, *, kills: int = KILLS, segments: int = SEGMENTS) -> Figures:
    """One volume in an empty directory.  Raises CommandFailed where a command does not end as it must; what
    else is wrong is among the figures' complaints."""
    with Station(root / "machine") as station:
        return Move(root, station, seed, kills).run(segments)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--kills", type=int, default=KILLS)
    arguments = parser.parse_args()
    logging.getLogger("objfs").addHandler(logging.NullHandler())  # what is lost is not worth a line each
    failures = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        root = Path(tempfile.mkdtemp(prefix="objfs-moving-"))
        figures = run(root, seed, kills=arguments.kills)
        if figures.complaints:
            failures += 1
            figures.complaints.append(f"kept: {root}")
        else:
            shutil.rmtree(root)
        say(figures.line())
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
