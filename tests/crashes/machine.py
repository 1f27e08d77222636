"""A machine without a mount: the whole of a volume's engine over a recorded state directory and recorded
buckets.

Owns how one is made, opened, run and left, and how another comes into being from what a crash, a power cut
or a loss left behind.  All that a mount has is here but the kernel: the composition root's engine with
table, cache, checkpoints, lease, reaper and upkeep, only that what they do each minute they do several
times a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import trio

from objfs.app.buckets import OpenBucket, bucket_settings
from objfs.app.clock import SystemClock
from objfs.app.engine import Engine
from objfs.app.options import MountOptions
from objfs.backends.base import Bucket
from objfs.backends.compose import compose
from objfs.backends.memory import MemoryBuckets
from objfs.backends.wrappers.faults import Fault, FaultyBucket
from objfs.backends.wrappers.metrics import Metrics
from objfs.cache import CacheSettings
from objfs.model import Code
from objfs.volume.attach import Offered, attach, learn
from objfs.volume.local import VolumeHome
from objfs.volume.mkfs import NewBucket, NewVolume, create_volume
from objfs.volume.open import OpenOptions, open_volume
from objfs.volume.settings import VolumeSettings
from tests.doubles.disk import Tree
from tests.doubles.journal import Journal
from tests.doubles.recorded_bucket import RecordedBucket
from tests.doubles.recorder import Recorder
from tests.volume.support import CHEAP, PASSPHRASE

CHUNK = 64 * 1024
BUCKETS = ("b0", "b1", "b2")
VOLUME = "vol"
OFTEN = {
    "objfs.app.upkeep.REAP_INTERVAL_S": 0.15,
    "objfs.volume.reaper.SEARCH_INTERVAL_S": 0.0,
    "objfs.volume.levels.SMALL_BASE": 48,
    "objfs.volume.compact.YIELD_S": 0.01,
    "objfs.volume.compact.YIELD_MOST_S": 0.02,
    "objfs.app.engine.CacheSettings": partial(CacheSettings, inline_total=200_000, dirty_age_s=1.0),
}
"""A second of a life has what a day has: deletes, base rewrites, inline bytes that move to their files."""
SETTINGS = VolumeSettings(
    cache_size=16 * 1024 * 1024,
    cache_reserve=0,
    checkpoint_interval=0.2,
    lease_interval=0.5,
    recovery_window=0.0,
    recovery_keep=2,
    delete_grace=0.0,
    compact_rate=0,
)
ALONE = replace(SETTINGS, checkpoint_interval=3600.0, lease_interval=3600.0)
"""Nothing happens that is not asked for."""


@contextmanager
def hurried(boot: Path) -> Iterator[None]:
    """What happens seldom happens often, and the boot id is what the file says."""
    with ExitStack() as stack:
        for name, value in OFTEN.items():
            stack.enter_context(patch(name, value))
        stack.enter_context(patch("objfs.cache.recovery._BOOT_ID", boot))
        yield


@dataclass(slots=True)
class Machine:
    """One disk, one boot, and the buckets that it reaches.  ``root`` is the real directory that stands for
    the disk; what is done to it and to the buckets is in ``journal``."""

    root: Path
    journal: Journal
    buckets: MemoryBuckets
    host: str = "host"
    boot: int = 1

    @property
    def home(self) -> VolumeHome:
        return VolumeHome(self.root / "disk" / "home", VOLUME)

    @contextmanager
    def on(self) -> Iterator[None]:
        """What is done to the disk is recorded while the block lasts, and nothing was missed at its end."""
        boot = self.root / "boot_id"
        boot.write_text(f"boot-{self.boot}")
        recorder = Recorder(self.root / "disk", self.journal)
        with recorder.installed(), hurried(boot):
            yield
        missed = recorder.missed()
        assert not missed, f"something is written that is not recorded: {missed}"

    def bucket(self, name: str) -> Bucket:
        return RecordedBucket(self.buckets.open(name), name, self.journal)

    async def make_volume(self) -> None:
        """mkfs, of 2+1 over the three buckets."""
        new = NewVolume(PASSPHRASE, Code(2, 1), chunk_size=CHUNK, cost=CHEAP)
        places = [NewBucket(f"mem://{name}", {}, self.bucket(name)) for name in BUCKETS]
        await create_volume(self.home, places, new, clock=SystemClock())

    async def attach(self, *, without: Collection[str] = ()) -> None:
        offered = [Offered(f"mem://{name}", {}, self.bucket(name)) for name in BUCKETS if name not in without]
        attach(self.home, await learn(offered, PASSPHRASE))

    @asynccontextmanager
    async def mounted(
        self,
        settings: VolumeSettings = SETTINGS,
        *,
        force: bool = False,
        faults: Mapping[str, Fault] | None = None,
    ) -> AsyncIterator[Engine]:
        """The volume open and at work; at the end everything stops where it is, as at a second signal."""
        opened = self._open_buckets(settings, faults or {})
        options = OpenOptions(force=force, lease_interval_s=settings.lease_interval, host=self.host)
        plain = {uuid: item.bucket for uuid, item in opened.items()}
        clock = SystemClock()
        volume = await open_volume(self.home, PASSPHRASE, plain, clock=clock, options=options)
        engine = Engine(volume, settings, MountOptions(), opened, clock)
        try:
            await engine.recover()
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                yield engine
                nursery.cancel_scope.cancel()
        finally:
            await engine.close()

    def _open_buckets(self, settings: VolumeSettings, faults: Mapping[str, Fault]) -> dict[bytes, OpenBucket]:
        opened = {}
        for place in self.home.read_config().buckets:
            metrics = Metrics()
            faulty = FaultyBucket(self.bucket(place.url.removeprefix("mem://")))
            for name, fault in faults.items():
                if place.url.endswith(name):
                    faulty.add(fault)
            wrapped = compose(faulty, bucket_settings(settings), metrics)
            opened[place.uuid] = OpenBucket(place.uuid, place.url, wrapped, metrics)
        return opened


def new_machine(root: Path) -> Machine:
    """With an empty disk."""
    (root / "disk").mkdir(parents=True)
    return Machine(root, Journal(), MemoryBuckets())


def machine_of(
    root: Path, tree: Tree, journal: Journal, buckets: MemoryBuckets, *, host: str = "host", boot: int
) -> Machine:
    """With the disk of a tree, and a journal to go on with."""
    (root / "disk").mkdir(parents=True)
    tree.write_out(root / "disk")
    return Machine(root, journal, buckets, host, boot)
