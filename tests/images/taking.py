"""Snapshots of a mount on which programs are writing, each judged while they go on.

Owns the run: when a snapshot is taken, from where it is read, when it is deleted.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.images.writers import Writers, programs, writing
from tests.powercut.programs import Program
from tests.system.harness import VOLUME, Station, local_buckets, urls

OPTIONS = "checkpoint_interval=1,recovery_window=0,recovery_keep=2,delete_grace=0"
"""What no snapshot shows is gone at once."""
MOST_BETWEEN = 40
"""Things that programs were told are done, between two snapshots."""
KEPT = 3
"""Snapshots there are at a time."""
READERS = ("git", "rsync")
"""What is judged without changing it; SQLite makes good what a crash left."""
RESTORED_EVERY = 5
"""One in so many also comes out of the buckets, on another machine."""


@dataclass(frozen=True)
class Image:
    """A snapshot; ``promised``: how far each program was when it was asked for."""

    name: str
    promised: dict[str, int]
    digest: str


class Camera:
    """Takes the snapshots of one mount, and judges them.  ``root`` is for its own files."""

    def __init__(self, station: Station, mounted: Path, root: Path, programs: Sequence[Program]) -> None:
        self._station = station
        self._mounted = mounted
        root.mkdir()
        self._root = root
        self._programs = programs

    def take(self, name: str, writers: Writers) -> Image:
        promised = writers.acknowledged()
        self._station.run("snapshot", "create", self._mounted, name)
        return Image(name, promised, digest(self._shown(name)))

    def _shown(self, name: str) -> Path:
        return self._mounted / ".snapshots" / name

    def complaints(self, image: Image) -> list[str]:
        """Of each program, of a copy of its directory; of those that can read only, also where it is."""
        shown, copy = self._shown(image.name), self._root / image.name
        shutil.copytree(shown, copy, symlinks=True)
        found = self._judged(image, copy, self._programs)
        found += self._judged(
            image, shown, [program for program in self._programs if program.name in READERS]
        )
        return self._told(image.name, copy, found)

    def restored(self, image: Image, places: Sequence[Path]) -> list[str]:
        """The same of what a machine without state gets out of the buckets."""
        copy = self._root / f"{image.name} restored"
        known = [word for url in urls(places) for word in ("--bucket", url)]
        with Station(self._root / f"{image.name} machine") as another:
            another.run("restore", f"{VOLUME}@{image.name}", copy, *known)
            shutil.rmtree(another.root)
        same = digest(copy) == image.digest
        found = [] if same else ["is not what the mount showed"]
        return self._told(f"{image.name} restored", copy, found + self._judged(image, copy, self._programs))

    def _judged(self, image: Image, root: Path, programs: Sequence[Program]) -> list[str]:
        found = [program.complaint(root / program.name, image.promised[program.name]) for program in programs]
        return [text for text in found if text]

    def _told(self, what: str, copy: Path, found: Sequence[str]) -> list[str]:
        """A copy of which nothing is wrong does not stay."""
        if not found:
            shutil.rmtree(copy)
        return [f"{what}: {text}" for text in found]

    def drop(self, image: Image) -> list[str]:
        """What became of it since it was taken; then it is deleted."""
        same = digest(self._shown(image.name)) == image.digest
        self._station.run("snapshot", "delete", self._mounted, image.name)
        return [] if same else [f"{image.name}: is not what it was when it was taken"]


def digest(root: Path) -> str:
    """Of every name and byte."""
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        whole.update(os.fsencode(path.relative_to(root)) + b"\0")
        if path.is_file():
            whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def run(root: Path, seed: int, count: int, say: Callable[[str], None]) -> list[str]:
    """Everything that is wrong with so many snapshots; ``root`` is a new directory, in which copies that
    are not sound stay."""
    places, mounted = local_buckets(root, 3), root / "mnt"
    with Station(root / "machine") as station:
        station.mkfs(VOLUME, urls(places))
        station.mount(VOLUME, mounted, "-o", OPTIONS)
        own = programs(root)
        camera = Camera(station, mounted, root / "copies", own)
        with writing(own, mounted) as writers:
            found = list(_taken(camera, writers, places, random.Random(f"images {seed}"), count, say))
        station.umount(mounted)
        station.run("fsck", VOLUME)
        return [*writers.failures, *found]


def _taken(
    camera: Camera,
    writers: Writers,
    places: Sequence[Path],
    generator: random.Random,
    count: int,
    say: Callable[[str], None],
) -> Iterator[str]:
    kept: list[Image] = []
    for number in range(1, count + 1):
        writers.wait_for(generator.randint(1, MOST_BETWEEN))
        if writers.failures:
            return
        image = camera.take(f"image{number}", writers)
        say(f"{image.name} {image.promised}")
        yield from camera.complaints(image)
        if number % RESTORED_EVERY == 1:
            yield from camera.restored(image, places)
        kept.append(image)
        if len(kept) > KEPT:
            yield from camera.drop(kept.pop(generator.randrange(KEPT)))
    for image in kept:
        yield from camera.drop(image)
