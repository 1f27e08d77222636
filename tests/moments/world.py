"""A whole volume under a model: all that a mount has but the kernel, and the ends that a machine can come to.

Owns one volume in memory buckets with a state directory of its own, and the engine over it.  Nothing runs
between two calls: time is moved by hand, and background work is done when it is asked for, so a history is
the same each time.  A kill copies the state directory as it is then; a lost machine leaves the buckets.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import trio

from objfs.app import gc
from objfs.app.browse import Showing
from objfs.app.buckets import OpenBucket
from objfs.app.engine import Engine
from objfs.app.options import MountOptions
from objfs.app.wire import ungrouped
from objfs.backends.wrappers.faults import Fault, FaultyBucket, Hang
from objfs.backends.wrappers.metrics import Metrics
from objfs.errors import ExitCode
from objfs.fs import FileSystem
from objfs.model import ROOT
from objfs.store import layout
from objfs.volume.gc import Order
from objfs.volume.local import VolumeHome
from objfs.volume.open import OpenOptions, open_volume
from objfs.volume.settings import VolumeSettings
from tests.moments.picture import Picture, pictured
from tests.volume.patients import HOST, Patient
from tests.volume.rigs import Cloud
from tests.volume.support import PASSPHRASE, START_NS

T = TypeVar("T")
SHM = Path("/dev/shm")
LIMIT_S = 120
"""What takes longer hangs."""
OFTEN = {
    "objfs.volume.levels.SMALL_BASE": 48,
    "objfs.app.gc.SurveyOrder": partial(Order, youngest_s=0.0),
}
"""New bases after a few checkpoints, and unknown objects that may go at once."""
SETTINGS = VolumeSettings(
    cache_size=16 * 1024 * 1024,
    cache_reserve=0,
    recovery_window=0.0,
    recovery_keep=2,
    delete_grace=0.0,
)


def place() -> tempfile.TemporaryDirectory[str]:
    """For state directories: in memory where that can be had."""
    return tempfile.TemporaryDirectory(prefix="objfs-moments-", dir=SHM if SHM.is_dir() else None)


@functools.cache
def _made() -> tuple[tempfile.TemporaryDirectory[str], Cloud, VolumeHome]:
    """A volume as mkfs leaves it, to be copied."""
    directory = place()
    cloud = Cloud(Path(directory.name))
    home = cloud.home()
    trio.run(cloud.make, home)
    return directory, cloud, home


class HandClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.passed_s = 1.0

    def now_ns(self) -> int:
        return START_NS + int(self.passed_s * 1e9)

    def monotonic(self) -> float:
        return self.passed_s


class MomentsWorld:
    """One volume for one history."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self._directory = place()
        self._patches = ExitStack()
        for name, value in OFTEN.items():
            self._patches.enter_context(patch(name, value))
        _, cloud, home = _made()
        self.cloud, self.home = trio.run(cloud.copied, Path(self._directory.name), home)
        self.buckets: dict[bytes, FaultyBucket] = {}
        self.engine = trio.run(self._opened)

    @property
    def fs(self) -> FileSystem:
        return self.engine.fs

    async def _opened(self, *, force: bool = False, read_only: bool = False) -> Engine:
        """The volume as the machine of ``home`` opens it."""
        buckets = self.buckets = self.cloud.buckets(self.home)
        options = OpenOptions(host=HOST, force=force, read_only=read_only)
        volume = await open_volume(self.home, PASSPHRASE, buckets, clock=self.clock, options=options)
        opened = {uuid: OpenBucket(uuid, one.url, one, Metrics()) for uuid, one in buckets.items()}
        engine = Engine(volume, SETTINGS, MountOptions(read_only=read_only), opened, self.clock)
        await engine.recover()
        return engine

    # --- working -----------------------------------------------------------------------

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Some work of the engine, with its uploads beside it."""
        return trio.run(self._beside_uploads, work)

    async def _beside_uploads(self, work: Callable[[], Awaitable[T]]) -> T:
        """Raises what the work raises, and no group."""
        with ungrouped():
            with trio.fail_after(LIMIT_S):
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.engine.cache.run)
                    done = await work()
                    nursery.cancel_scope.cancel()
        return done

    def freeze(self) -> None:
        self.engine.cache.cut()

    async def flush(self) -> None:
        await self._beside_uploads(self.engine.flush)

    async def sync(self) -> None:
        await self._beside_uploads(self.engine.cache.sync)

    async def collect(self) -> None:
        """As ``gc --run --delete-unknown``."""
        await gc.collect(self.engine, gc.Wish(run=True, delete=True), lambda _note: None)

    @property
    def sequence(self) -> int:
        """Of the newest moment that is known here."""
        checkpointer = self.engine.checkpointer
        moment = checkpointer.moment if checkpointer is not None else None
        return (moment or self.engine.volume.moment).manifest.sequence

    # --- looking -----------------------------------------------------------------------

    def picture(self) -> Picture:
        return trio.run(pictured, self.fs)

    def picture_of(self, snapshot: bytes) -> Picture:
        """Raises NoSuchSnapshot."""
        return trio.run(_past_of, self.engine, snapshot)

    def names(self) -> list[bytes]:
        """Those of snapshots, oldest first."""
        return [one.name for one in self.engine.snapshots.listed()]

    def kept(self) -> list[int]:
        """Sequences of the moments that may still be recovered."""
        assert self.engine.reaper is not None
        self.run(self.engine.reaper.learn)
        return [manifest.sequence for manifest in self.engine.reaper.kept]

    # --- ends --------------------------------------------------------------------------

    def finish(self) -> None:
        """Everything goes into the buckets; nobody holds anything any more."""
        self.run(self.engine.finish)

    def reopen(self, *, cold: bool = False) -> None:
        """After ``finish``; ``cold``: with nothing in the cache."""
        trio.run(self.engine.close)
        if cold:
            shutil.rmtree(self.home.cache_path)
        self.engine = trio.run(self._opened)

    def crash(self) -> None:
        """A kill between two requests."""
        self._succeed(self._copied())

    def die_in(self, work: Callable[[], Awaitable[object]], puts: int) -> bool:
        """A kill when a bucket is asked for one more than so many puts, at the latest when ``work`` has
        returned; whether it has."""
        copied, returned = trio.run(self._dying, work, puts)
        self._succeed(copied)
        return returned

    async def _dying(self, work: Callable[[], Awaitable[object]], puts: int) -> tuple[VolumeHome, bool]:
        copied: list[VolumeHome] = []
        faults = [
            one.add(Fault(op=("put", "put_if_absent"), action=Hang(), skip=puts))
            for one in self.buckets.values()
        ]

        async def watch(fault: Fault) -> None:
            await fault.reached.wait()
            if not copied:
                copied.append(self._copied())
            nursery.cancel_scope.cancel()

        async def live() -> None:
            await self._beside_uploads(work)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for fault in faults:
                nursery.start_soon(watch, fault)
            nursery.start_soon(live)
        return (copied[0], False) if copied else (self._copied(), True)

    def lose(self) -> None:
        """The machine is gone; another one goes on with what the buckets have."""
        self._succeed(trio.run(self.cloud.attach), force=True)

    def _copied(self) -> VolumeHome:
        """The state directory as it is now."""
        twin = self.cloud.home()
        shutil.copytree(self.home.path, twin.path)
        return twin

    def _succeed(self, home: VolumeHome, *, force: bool = False) -> None:
        self._leave()
        self.home = home
        self.engine = trio.run(partial(self._opened, force=force))

    def _leave(self) -> None:
        """Nothing more is done by this process; what its directory held is gone."""
        engine = self.engine
        engine.cache.close()
        engine.table.close()
        engine.volume.replica.close()
        shutil.rmtree(self.home.path.parent)

    # --- the end of a history ------------------------------------------------------------

    def at_moment(self, sequence: int) -> tuple[Picture, dict[bytes, Picture]]:
        """What a new machine finds where this is the newest moment: the tree, and each snapshot."""
        return trio.run(self._at_moment, sequence)

    async def _at_moment(self, sequence: int) -> tuple[Picture, dict[bytes, Picture]]:
        world = object.__new__(MomentsWorld)
        world.clock = self.clock
        with place() as directory:
            world.cloud = await _until(self.cloud, Path(directory), sequence)
            world.home = await world.cloud.attach()
            engine = world.engine = await world._opened(read_only=True)
            past = {one.name: await _past_of(engine, one.name) for one in engine.snapshots.listed()}
            present = await pictured(engine.fs)
            world._leave()
        return present, past

    def close(self) -> None:
        """Everything is in the buckets, and nothing is wrong with it."""
        try:
            self.finish()
            assert self.engine.table.check() == []
            trio.run(self.engine.close)
            report = trio.run(partial(Patient(self.cloud, self.home).check, data=True))
            assert report.exit_code == ExitCode.OK, report.findings
        finally:
            self._patches.close()
            self._directory.cleanup()


async def _past_of(engine: Engine, snapshot: bytes) -> Picture:
    showing = Showing(engine.table, engine.cache, engine.gate, engine.clock, engine.room.capacity)
    return await pictured(showing.past(engine.table.at(engine.table.snapshot(snapshot)), ROOT))


async def _until(cloud: Cloud, path: Path, sequence: int) -> Cloud:
    """The buckets without the manifests of later moments."""
    twin = Cloud(path, len(cloud.names))
    for name in cloud.names:
        source, target = cloud.memory.open(name), twin.memory.open(name)
        for info in await source.list(""):
            if (layout.parse_manifest(info.key) or 0) <= sequence:
                await target.put(info.key, await source.get(info.key))
    return twin
