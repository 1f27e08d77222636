"""Any buckets up to the tolerance are lost: what a volume must do then, for one code over one number of
buckets.

In this process, over buckets in memory.  For each set of lost buckets: the whole tree is read from a cold
cache, a new file is written, the buckets return, scrub and repair bring full redundancy back, and another
set of the same size is lost.  With one bucket more: an error, no wrong byte, nothing deleted, and
everything there when it returns.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from objfs.backends.base import Bucket
from objfs.backends.wrappers.faults import FailBefore, Fault
from objfs.errors import ExitCode, ObjfsError, Unreachable
from objfs.model import Code, Slot
from objfs.store.layout import SEGMENT_PREFIX, parse_shard
from objfs.store.placement import tolerance
from objfs.volume.fsck import FsckOptions
from objfs.volume.fsck_report import Report
from objfs.volume.local import VolumeHome
from objfs.volume.maintain import Alone, Ground, Work
from objfs.volume.open import OpenOptions
from objfs.volume.repair import carry_out, make_plan
from objfs.volume.scrub import Scrub, ScrubOrder
from objfs.volume.scrub_book import NAME, Book
from tests.volume.rigs import Cloud, Rig, Tree, running
from tests.volume.support import PASSPHRASE, TrioClock

HOST = "host"
CODES = (Code(1, 0), Code(1, 1), Code(2, 1), Code(4, 2), Code(8, 3))
BUCKETS = range(1, 12)
MOST_SETS = 500
Lost = tuple[int, ...]


def sets_of(code: Code, buckets: int, most: int = MOST_SETS) -> list[Lost]:
    """The losses to go through: all up to the tolerance, or ``most`` of them, chosen by their seed."""
    borne = tolerance(code, buckets)
    found = [
        chosen for size in range(1, borne + 1) for chosen in itertools.combinations(range(buckets), size)
    ]
    if len(found) > most:
        found = sorted(random.Random(f"{code} {buckets}").sample(found, most))
    return found or [()]


class Loss:
    """One volume that loses set after set."""

    def __init__(self, root: Path, code: Code, buckets: int) -> None:
        self.code = code
        self.buckets = buckets
        self.cloud = Cloud(root, buckets)
        self.home = self.cloud.home()
        self.random = random.Random(f"{code} {buckets}")
        self.tree: Tree = {}

    async def make(self) -> None:
        """A small tree: striped, copied, and over several chunks."""
        await self.cloud.make(self.home, self.code)
        async with self.mounted(()) as rig:
            for name, size in ((b"large", 600_000), (b"small", 3_000), (b"middle", 70_000), (b"empty", 0)):
                self.write(rig, name, size)
                await rig.drain()

    def write(self, rig: Rig, name: bytes, size: int) -> None:
        data = self.random.randbytes(size)
        rig.create(name)
        if data:
            rig.write(name, 0, data)
        self.tree[name] = data

    # --- machines ----------------------------------------------------------------------

    def reach(self, home: VolumeHome, lost: Collection[int]) -> dict[bytes, Bucket]:
        """The buckets of a machine, of which the lost ones do not answer."""
        found: dict[bytes, Bucket] = {}
        for uuid, bucket in self.cloud.buckets(home).items():
            if int(bucket.url.removeprefix("mem://b")) in lost:
                bucket.add(Fault(FailBefore(Unreachable)))
            found[uuid] = bucket
        return found

    @asynccontextmanager
    async def mounted(self, lost: Collection[int]) -> AsyncIterator[Rig]:
        """The volume's own machine, writing."""
        options = OpenOptions(host=HOST, force=bool(lost))
        volume = await self.cloud.open_with(self.home, self.reach(self.home, lost), options)
        async with running(volume) as rig:
            yield rig
            await rig.leave()

    async def read_cold(self, lost: Collection[int]) -> Tree:
        """As a machine without any state reads it; what cannot be read is absent.  Raises where the inode
        table itself cannot be had."""
        home = await self.cloud.attach(without={f"b{slot}" for slot in lost})
        try:
            options = OpenOptions(read_only=True, force=True)
            async with running(await self.cloud.open(home, options)) as rig:
                found = await rig.tree()
            rig.vanish()
            return found
        finally:
            shutil.rmtree(home.path.parent)

    # --- what must hold ----------------------------------------------------------------

    async def lose(self, number: int, lost: Lost) -> None:
        """One set, within the tolerance."""
        assert await self.read_cold(lost) == self.tree, f"without {lost}"
        async with self.mounted(lost) as rig:
            self.write(rig, b"new%d" % number, 70_000 + number % 7)
        await self.bring_back()
        other = self.another(lost)
        assert await self.read_cold(other) == self.tree, f"without {other}, after {lost} came back"

    def another(self, lost: Lost) -> Lost:
        """A set of the same size, of other buckets as far as there are any."""
        rest = [slot for slot in range(self.buckets) if slot not in lost]
        self.random.shuffle(rest)
        return tuple(sorted((rest + list(lost))[: len(lost)]))

    async def bring_back(self) -> None:
        """All buckets answer: repair, then a scrub that finds nothing."""
        report = await self._maintain(self._repair, change=True)
        assert report.exit_code in (ExitCode.OK, ExitCode.DAMAGE_HEALED), said(report)
        report = await self._maintain(self._scrub, change=False)
        assert report.exit_code is ExitCode.OK, said(report)

    async def lose_too_many(self) -> None:
        """One bucket more than is borne."""
        borne = tolerance(self.code, self.buckets)
        lost = [slot for slot, _ in (await self._holders()).most_common(borne + 1)]
        before = await self.objects()
        left = await self._what_is_left(lost)
        assert b"large" not in left
        for name, data in left.items():
            assert data == self.tree[name], f"wrong bytes in {name!r}"
        if len(lost) < self.buckets:
            report = await self._maintain(self._scrub, change=False, lost=lost)
            assert report.exit_code in (ExitCode.DEGRADED, ExitCode.DAMAGE_FOUND), said(report)
        assert before <= await self.objects()
        assert await self.read_cold(()) == self.tree

    async def _holders(self) -> Counter[int]:
        """Buckets by how many shards of the file ``large`` they have: those of the largest segment."""
        shards = [
            (info.size, shard.uuid, number)
            for number, name in enumerate(self.cloud.names)
            for info in await self.cloud.memory.open(name).list(SEGMENT_PREFIX)
            if (shard := parse_shard(info.key))
        ]
        _, large, _ = max(shards)
        return Counter(number for _, segment, number in shards if segment == large)

    async def _what_is_left(self, lost: Collection[int]) -> Tree:
        """Files that read whole, through the machine that has the table, and nothing in its cache."""
        for path in self.home.cache_path.rglob("*"):
            if path.is_file():
                path.unlink()
        options = OpenOptions(host=HOST, read_only=True, force=True)
        try:
            volume = await self.cloud.open_with(self.home, self.reach(self.home, lost), options)
        except ObjfsError:
            return {}
        found: Tree = {}
        async with running(volume) as rig:
            for name in self.tree:
                try:
                    found[name] = await rig.read(name)
                except ObjfsError:
                    continue
        rig.vanish()
        return found

    async def objects(self) -> set[tuple[Slot, str]]:
        found = set()
        for number, name in enumerate(self.cloud.names):
            found |= {(Slot(number), info.key) for info in await self.cloud.memory.open(name).list("")}
        return found

    # --- maintenance -------------------------------------------------------------------

    async def _maintain(self, work: Work, *, change: bool, lost: Collection[int] = ()) -> Report:
        lock = self.home.lock()
        try:
            raw, options = self.reach(self.home, lost), FsckOptions(host=HOST)
            alone = Alone(self.home, PASSPHRASE, raw, TrioClock(), options, lambda _text: None)
            return await alone.run(work, change=change)
        finally:
            lock.release()

    async def _repair(self, ground: Ground) -> None:
        plan = await make_plan(ground.subject, ground.survey)
        if ground.mender is not None:
            await carry_out(ground.subject, ground.survey, ground.report, plan, ground.mender)

    async def _scrub(self, ground: Ground) -> None:
        order, book = ScrubOrder(), Book.open(self.home.path / NAME, "all", 0)
        await Scrub(ground.subject, ground.report, ground.survey, order, book, ground.mender).run()


def said(report: Report) -> str:
    return "\n".join([*(one.line for one in report.findings), *report.done])
