"""``make model``: random histories, compared with the model tree, at full length.

    python -m tests.conformance.model [--examples N --steps N] [--mount-examples N --mount-steps N]
        [--snapshot-examples N]

First the histories of ``tests/fs/test_model.py``, in this process; then those of ``tests/moments``, with
snapshots, restores, crashes and lost machines; then the first rules as system calls on a real mount, with new
mounts, a lost machine, a bucket that is away, and the kernel's caches dropped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import ClassVar, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from objfs.errors import PosixError
from tests.conformance.mountfs import MountFs
from tests.conformance.scratch import VOLUME, Scratch, run, scratch
from tests.console import say
from tests.fs.test_model import MODES, NAMES, PLACES, Tree, lengths, offsets
from tests.moments.search import search
from tests.system.harness import REPOSITORY

CHUNK = 64 * 1024
OFFSETS, LENGTHS = offsets(CHUNK), lengths(CHUNK)
T = TypeVar("T")


class MountWorld:
    """One directory of a mount for one history."""

    count = 0

    def __init__(self, ground: Scratch) -> None:
        MountWorld.count += 1
        self.ground = ground
        self.base = ground.mount / f"history-{MountWorld.count}"
        self.base.mkdir(mode=0o755)
        self.fs = MountFs(self.base)

    def freeze(self) -> None:
        """A checkpoint begins, and is not waited for."""
        self.ground.station.run("flush", "--local", self.ground.mount)

    async def flush(self) -> None:
        self.ground.station.run("flush", self.ground.mount)

    async def sync(self) -> None:
        os.sync()

    def restart(self) -> None:
        self._again(self.ground.restart)

    def lose_machine(self) -> None:
        """Nothing local is left: everything is fetched."""
        self._again(lambda: self.ground.station.drop_cache(VOLUME, self.ground.mount))

    def flush_without_a_bucket(self) -> None:
        place = self.ground.buckets[0]
        away = place.with_name("away")
        place.rename(away)
        try:
            self.ground.station.run("flush", self.ground.mount)
        finally:
            away.rename(place)

    def _again(self, how: Callable[[], None]) -> None:
        self.fs.close()
        how()
        self.fs = MountFs(self.base)
        self.fs.learn_all()

    def close(self) -> None:
        self.fs.close()
        shutil.rmtree(self.base)


class MountTree(Tree):
    """The rules over directories of one mount."""

    ground: ClassVar[Scratch]

    def make_world(self) -> MountWorld:  # type: ignore[override]
        return MountWorld(self.ground)

    def same(self, model: Callable[[], object], real: Callable[[], T]) -> T | None:
        """The kernel looks at several things in an order of its own: any error answers any."""
        try:
            model()
        except PosixError:
            with pytest.raises(PosixError):
                real()
            return None
        return real()

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS)
    def write(self, which: int, offset: int, length: int) -> None:
        super().write(which, offset, length)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, offset=OFFSETS, length=LENGTHS)
    def read(self, which: int, offset: int, length: int) -> None:
        super().read(which, offset, length)

    @precondition(lambda self: self.opened)
    @rule(which=PLACES, size=OFFSETS)
    def truncate(self, which: int, size: int) -> None:
        super().truncate(which, size)

    @rule(place=PLACES, name=NAMES, mode=MODES)
    def chmod(self, place: int, name: bytes, mode: int) -> None:
        """Linux has no chmod of a symbolic link."""
        if not stat.S_ISLNK(self.named(place, name).mode):
            super().chmod(place, name, mode)

    @rule()
    def lose_machine(self) -> None:
        self.begin_again(self.mounted.lose_machine)

    @rule()
    def flush_without_a_bucket(self) -> None:
        self.mounted.flush_without_a_bucket()

    @property
    def mounted(self) -> MountWorld:
        return cast("MountWorld", self.world)

    def teardown(self) -> None:
        try:
            self.compare()
            self.remount()
            self.compare()
        finally:
            self.world.close()


def in_process(examples: int, steps: int) -> bool:
    """``tests/fs/test_model.py``, over the doubles and over the real table and cache."""
    scale = {"OBJFS_MODEL_EXAMPLES": str(examples), "OBJFS_MODEL_STEPS": str(steps)}
    command = [sys.executable, "-bb", "-m", "pytest", "-q", "-o", "faulthandler_timeout=0"]
    command += ["tests/fs/test_model.py"]
    return subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **scale}).returncode == 0


def on_a_mount(examples: int, steps: int) -> bool:
    wanted = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    os.umask(0)
    with scratch("model", chunk_size=CHUNK) as ground:
        MountTree.ground = ground
        run_state_machine_as_test(MountTree, settings=wanted)
    say(f"on a mount: {examples} histories of {steps} steps: well")
    return True


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--snapshot-examples", type=int, default=2000)
    parser.add_argument("--mount-examples", type=int, default=50)
    parser.add_argument("--mount-steps", type=int, default=40)
    options = parser.parse_args()
    well = not options.examples or in_process(options.examples, options.steps)
    well = well and search(options.snapshot_examples, options.steps)
    return well and (not options.mount_examples or on_a_mount(options.mount_examples, options.mount_steps))


if __name__ == "__main__":
    sys.exit(run(main))
