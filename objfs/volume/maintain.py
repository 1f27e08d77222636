"""Scrub and repair of a volume that is not mounted here, and what both share beside a running mount.

Owns the lease that a change needs, and the moment that is published at the end.  Promises that a look alone
changes nothing, and that a volume whose inode table breaks its rules is not changed: that is for fsck.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import trio

from objfs.backends.base import Bucket
from objfs.cache.offline import CacheDirectory
from objfs.errors import BucketError, LeaseLost, ObjfsError
from objfs.meta.view import TableView
from objfs.ports import Clock
from objfs.store import layout
from objfs.volume.debts import read_debts
from objfs.volume.fsck import TABLE_RULES, FsckOptions, Look, at_hand
from objfs.volume.fsck_identity import check_identities
from objfs.volume.fsck_manifests import Moments, look_at_manifests, say_moments
from objfs.volume.fsck_prepare import Preparation
from objfs.volume.fsck_report import Grade, Report, compared
from objfs.volume.fsck_subject import Subject
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.mend import Mender
from objfs.volume.open import OpenOptions, OpenVolume, open_volume
from objfs.volume.publish import publish_open
from objfs.volume.rate import Rate
from objfs.volume.survey import Survey

log = logging.getLogger(__name__)

Note = Callable[[str], None]


@dataclass(slots=True)
class Ground:
    """What a scrub or a repair stands on.  ``mender`` None: nothing may be changed."""

    subject: Subject
    report: Report
    survey: Survey
    mender: Mender | None


Work = Callable[[Ground], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Alone:
    """A volume that nobody uses here, and how to open it.  The caller holds ``home.lock()``."""

    home: VolumeHome
    secret: Secret
    raw: Mapping[bytes, Bucket]
    clock: Clock
    options: FsckOptions
    note: Note

    async def run(self, work: Work, *, change: bool, bytes_per_s: float = 0.0) -> Report:
        """``change``: with the lease, and a checkpoint at the end.  Raises as
        ``fsck_repair.repair_volume``."""
        async with at_hand(
            self.home, self.secret, self.raw, clock=self.clock, options=self.options, note=self.note
        ) as look:
            if not change or not _sound(look):
                if look.subject.table is not None and look.pages:
                    await work(ground_of(look.subject, look.report, look.moments, None))
                return look.report
            preparation = Preparation(self.home, look, self.clock, self.options)
            await preparation.run()
        return await self._changing(look.report, preparation.done, work, bytes_per_s)

    async def _changing(self, first: Report, done: list[str], work: Work, bytes_per_s: float) -> Report:
        options = self.options
        wanted = OpenOptions(
            take_over=options.take_over,
            force=options.force,
            lease_interval_s=options.lease_interval_s,
            host=options.host,
            boot=options.boot,
        )
        volume = await open_volume(
            self.home, self.secret, self.raw, clock=self.clock, options=wanted, note=self.note
        )
        assert volume.lease is not None
        failure: Exception | None = None
        settled, report = False, first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(volume.lease.run)
            try:
                with TableView(volume.meta.path) as view:
                    report = await self._work(volume, view, first, done, work, bytes_per_s)
                settled = await publish_open(volume, self.clock, fresh_base=False)
            except (ObjfsError, OSError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            # The lease stays with this machine: its table has what is not published yet.
            volume.meta.close()
            volume.replica.close()
            raise failure
        await volume.close(clean=True, settled=settled)
        return report

    async def _work(
        self,
        volume: OpenVolume,
        view: TableView,
        first: Report,
        done: list[str],
        work: Work,
        bytes_per_s: float,
    ) -> Report:
        again = Report()
        subject = Subject(
            volume.header,
            volume.ring,
            self.raw,
            volume.buckets,
            volume.left_out,
            volume.store,
            view,
            CacheDirectory(self.home.cache_path, self.options.boot),
            note=self.note,
            owed=read_debts(self.home),
        )
        await check_identities(subject, again)
        moments = await look_at_manifests(subject, again)
        report = compared(first, again, done, [])
        mender = Mender(volume.store, volume.buckets, volume.meta, volume.gate, Rate(bytes_per_s))
        await work(ground_of(subject, report, moments, mender))
        return report


def _sound(look: Look) -> bool:
    """Whether the table can be built on."""
    wrong = look.report.rules(Grade.DAMAGE, Grade.LOSS)
    local = look.local.usable and not look.scratch and not look.cache.lost
    return look.pages and local and look.subject.table is not None and not wrong & TABLE_RULES


def ground_of(subject: Subject, report: Report, moments: Moments, mender: Mender | None) -> Ground:
    async def named() -> Collection[bytes]:
        """Blobs of manifests that are there by now."""
        return (await look_at_manifests(subject, Report())).blobs

    return Ground(subject, report, Survey(subject, report, moments.blobs, named), mender)


async def beside_mount(subject: Subject, volume: OpenVolume, *, change: bool, bytes_per_s: float) -> Ground:
    """The ground beside a running mount, whose copies of manifests are put again first where they lack.

    Raises LeaseLost.
    """
    report = Report()
    await check_identities(subject, report)
    moments = await look_at_manifests(subject, report)
    say_moments(subject, report, moments)
    if not change:
        return ground_of(subject, report, moments, None)
    if volume.lease is None:
        raise LeaseLost("this mount only reads: nothing can be repaired through it")
    await volume.lease.check()
    if moments.copies:
        report = await _put_copies(subject, volume, report, moments)
    mender = Mender(volume.store, volume.buckets, volume.meta, volume.gate, Rate(bytes_per_s))
    return ground_of(subject, report, moments, mender)


async def _put_copies(subject: Subject, volume: OpenVolume, report: Report, moments: Moments) -> Report:
    """Only where nothing lies: an object that does not open is for fsck, which keeps a copy of it."""
    for sequence, copies in moments.copies.items():
        for slot, data in copies.items():
            try:
                await volume.buckets.buckets[slot].put_if_absent(layout.manifest_name(sequence), data)
            except BucketError as error:
                log.warning("manifest not put bucket=%s: %s", volume.buckets.name(slot), error)
    again = Report()
    await check_identities(subject, again)
    await look_at_manifests(subject, again)
    return compared(report, again, [], [])
