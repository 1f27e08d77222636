"""A writing machine in small: lease, toy table and cache, real store, checkpointer and reaper."""

from __future__ import annotations

from pathlib import Path

from objfs.model import Code
from objfs.store.store import SegmentStore
from objfs.volume.checkpoint import Checkpointer, Moment, Parts
from objfs.volume.debts import Debts
from objfs.volume.lease import Lease
from objfs.volume.local import VolumeHome
from objfs.volume.published import read_newest
from objfs.volume.reaper import Reaper, Retention
from objfs.volume.recover import replay
from tests.volume.support import Machine, Site
from tests.volume.toys import ToyCache, ToyReplica, ToySegments, ToyTable


def open_store(machine: Machine) -> SegmentStore:
    return SegmentStore(machine.faulty, machine.site.ring, Code(2, 1), clock=machine.clock, gate=machine.gate)


class Writer:
    """A machine with a lease, a toy table and a checkpointer over it."""

    retention = Retention(window_s=100, keep=2, grace_s=50)

    def __init__(self, machine: Machine, home: VolumeHome) -> None:
        self.machine = machine
        self.home = home
        self.table = ToyTable()
        self.replica = ToyReplica(machine.site.ring)
        self.store = open_store(machine)
        self.cache = ToyCache(self.store)
        self.synced = 0
        self.segments = ToySegments()
        self.checkpointer: Checkpointer
        self.reaper: Reaper
        self.lease: Lease

    async def start(self, *, moment: Moment | None = None, force: bool = False) -> Writer:
        async def sync() -> None:
            self.synced += 1

        machine = self.machine
        lease = self.lease = await machine.acquire(force=force)
        parts = Parts(
            self.table,
            self.replica,
            self.cache,
            self.store,
            machine.buckets,
            machine.site.ring,
            lease,
            self.home,
            machine.gate,
            machine.clock,
            sync,
            1,
        )
        self.reaper = Reaper(
            self.segments,
            machine.buckets,
            machine.site.ring,
            lease,
            machine.clock,
            self.retention,
            Debts(self.home, machine.clock),
        )
        if moment is not None:
            self.reaper.resume(moment.manifest)
        self.checkpointer = Checkpointer(
            parts, start=moment, interval_s=10, condemn=self.reaper.condemn, note=self.reaper.note
        )
        return self

    async def flush(self) -> None:
        await self.checkpointer.flush()

    @property
    def sequence(self) -> int:
        return self.checkpointer.statistics().sequence


async def writer(site: Site, tmp_path: Path) -> Writer:
    home = VolumeHome(tmp_path, "v")
    home.create()
    started = await Writer(site.machine(), home).start()
    started.table.commit({1: b"root"})
    await started.flush()
    return started


async def recovered(site: Site, *, without: int | None = None) -> dict[int, bytes]:
    """What a fresh machine reads back."""
    machine = site.machine(without=() if without is None else {without})
    found = await read_newest(machine.buckets, site.ring)
    assert found is not None
    replica = ToyReplica(site.ring)
    await replay(open_store(machine), found.manifest, replica)
    return replica.pages
