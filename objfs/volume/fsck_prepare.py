"""Mending what a volume needs before it can be opened: small files, replica, the table as a file, manifests.

Owns the part of a repair that comes before the lease's long hold.  Promises that nothing local is removed:
what cannot be used is renamed (``.damaged-...``) or set aside whole (``salvage-...``), and an object that
opens nowhere is copied here before another takes its place.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import trio

from objfs.codec.identity import page_hash
from objfs.meta.repair import reindex, restore_volume_row
from objfs.meta.replica import Replica
from objfs.model import Segment
from objfs.ports import Clock, WriteGate
from objfs.store import layout
from objfs.volume.checkpoint import Moment
from objfs.volume.epochs import Holder, read_epoch
from objfs.volume.fsck import TABLE_RULES, FsckOptions, Look
from objfs.volume.fsck_identity import mend_headers, mend_labels
from objfs.volume.lease import Claim, Lease, acquire
from objfs.volume.local import State, VolumeHome, write_json
from objfs.volume.progress import Progress, read_known_lease, write_known_lease, write_progress
from objfs.volume.published import Published
from objfs.volume.reconcile import Verdict, holds_nothing
from objfs.volume.recover import rebuild_table, replay
from objfs.volume.shipping import Stack

log = logging.getLogger(__name__)

RELEASE_S = 30.0


class Preparation:
    """One repair's way to a volume that can be opened; ``done`` says what was done."""

    def __init__(self, home: VolumeHome, look: Look, clock: Clock, options: FsckOptions) -> None:
        self._home = home
        self._look = look
        self._clock = clock
        self._options = options
        self._stamp = f"{clock.now_ns() // 1_000_000_000}"
        self.done: list[str] = []
        self.lost: list[str] = []

    async def run(self) -> None:
        """Raises HeldElsewhere, NoQuorum, and errors of buckets and the local disk."""
        await self._small_files()
        await self._buckets()
        await self._table()

    # --- small files -------------------------------------------------------------------

    async def _small_files(self) -> None:
        for path in self._look.local.unreadable:
            await trio.to_thread.run_sync(self._rename, path)
        if self._home.state_path in self._look.local.unreadable:
            await self._same_state_id()

    def _rename(self, path: Path) -> None:
        target = path.with_name(f"{path.name}.damaged-{self._stamp}")
        path.rename(target)
        self.done.append(f"{path.name} could not be read: it is {target.name} now")

    async def _same_state_id(self) -> None:
        """This state directory's id, from the lease that it wrote last."""
        subject, known = self._look.subject, read_known_lease(self._home)
        if known is None:
            return
        for bucket in subject.buckets.buckets.values():
            record = await read_epoch(bucket, subject.ring, known.epoch)
            if record is not None and record.holder.host == self._options.host:
                state = State(record.holder.state_id, subject.header.volume)
                write_json(
                    self._home.state_path, {"state_id": state.state_id.hex(), "volume": state.volume.hex()}
                )
                self.done.append(f"{self._home.state_path.name} is made anew from lease {known.epoch}")
                return

    # --- headers, labels, manifests ----------------------------------------------------

    async def _buckets(self) -> None:
        """Under a lease of their own: until they are right the volume cannot be opened."""
        look = self._look
        due = bool(look.identities.headers or look.identities.labels or look.moments.copies)
        if not due and (not look.moments.unreadable or look.subject.table is None):
            return
        lease = await self._lease()
        try:
            await self._identities()
            await self._manifests(lease)
        finally:
            before = lease.previous
            settled = before is None or (before.released and before.settled)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + RELEASE_S):
                await lease.release(settled=settled)

    async def _lease(self) -> Lease:
        subject, home, options = self._look.subject, self._home, self._options
        state = home.read_state() or home.new_state(subject.header.volume)
        holder = Holder(state.state_id, options.host, os.getpid())
        known = read_known_lease(home)
        claim = Claim(holder, options.lease_interval_s, known, options.take_over, options.force)
        return await acquire(
            subject.buckets,
            subject.ring,
            claim,
            WriteGate(),
            self._clock,
            lambda known: write_known_lease(home, known),
        )

    async def _identities(self) -> None:
        subject, found = self._look.subject, self._look.identities
        known = self._segment_of
        self.done += await mend_labels(found, subject.header, subject.ring, subject.raw, known)
        self.done += await mend_headers(found, subject.header, subject.raw)

    def _segment_of(self, uuid: bytes) -> Segment | None:
        look = self._look
        if uuid in look.moments.blobs:
            return look.moments.blobs[uuid].segment
        row = look.subject.table.find_segment(uuid) if look.subject.table is not None else None
        return row.segment if row is not None else None

    async def _manifests(self, lease: Lease) -> None:
        """Copies first; then what opens nowhere makes room for the next moment, where there is a table."""
        look, buckets = self._look, self._look.subject.buckets
        for sequence, copies in look.moments.copies.items():
            for slot, data in copies.items():
                await lease.check()
                await buckets.buckets[slot].put(layout.manifest_name(sequence), data)
                self.done.append(f"{layout.manifest_name(sequence)} is put into {buckets.name(slot)} again")
        if look.subject.table is None or look.scratch:
            return
        for sequence, slots in look.moments.unreadable.items():
            name = layout.manifest_name(sequence)
            for slot in slots:
                copy = self._home.path / f"{name.replace('/', '-')}.{slot}.damaged-{self._stamp}"
                copy.write_bytes(await buckets.buckets[slot].get(name))
                await lease.check()
                await buckets.buckets[slot].delete(name)
                self.done.append(
                    f"{name} in {buckets.name(slot)} opens nowhere: it is kept here as {copy.name}"
                )

    # --- the table ---------------------------------------------------------------------

    async def _table(self) -> None:
        """Afterwards the local table, if there is one, is what a mount goes on from."""
        look, newest = self._look, self._look.moments.newest
        if newest is None:
            return
        if look.local.table_gone:
            await trio.to_thread.run_sync(self._set_aside)
        elif not look.local.usable:
            await self._from_buckets(newest)
        elif not await self._sound_file(newest) or not await self._stand_on(newest):
            await trio.to_thread.run_sync(self._set_aside)
        elif "volume" in look.report.rules():
            header, now = look.subject.header, self._clock.now_ns()
            await trio.to_thread.run_sync(
                restore_volume_row, self._home.database_path, header.volume, header.chunk_size, now
            )
            self.done.append("the inode table's row of the volume is made anew from the header")

    async def _sound_file(self, newest: Published) -> bool:
        """Whether the database can be opened, after what can be done for it here."""
        look, home = self._look, self._home
        if look.pages and not look.local.rotten_table:
            return True
        if look.local.clean and not look.local.rotten_replica and look.local.digest == newest.manifest.digest:
            await trio.to_thread.run_sync(self._from_replica, newest)
            return True
        return await trio.to_thread.run_sync(self._reindexed, home.database_path)

    def _reindexed(self, path: Path) -> bool:
        if not reindex(path):
            return False
        self.done.append("the indexes of the inode table are made anew")
        return True

    def _from_replica(self, newest: Published) -> None:
        """Nothing was changed since the last checkpoint, so its image is the table."""
        home = self._home
        if home.database_path.exists():
            self._rename(home.database_path)
        with self._replica(newest) as replica:
            replica.restore(home.database_path)
        self.done.append("the inode table is made anew from its image of the last checkpoint")

    def _replica(self, newest: Published) -> Replica:
        key = self._look.subject.ring.get(newest.manifest.digest_key)
        return Replica(self._home.replica_path, lambda number, page: page_hash(key, number, page))

    async def _stand_on(self, newest: Published) -> bool:
        """Says which moment the replica stands for, and drops a replica that stands for none.  False where
        nobody can say which moment the table descends from."""
        look, home = self._look, self._home
        rollback = "rollback" in look.report.rules()
        fetch_again = look.local.rotten_replica or rollback
        if home.checkpoint_path in look.local.unreadable or rollback:
            mark = look.moments.marks.get(look.local.digest or 0)
            if mark is None and not rollback:
                return False
            mark = mark or Moment.of(newest, Stack()).mark
            await trio.to_thread.run_sync(write_progress, home, Progress(mark))
            self.done.append(f"{home.checkpoint_path.name} names manifest {mark.sequence}")
        noted = home.replica_path / "image.json"
        if fetch_again and noted.exists():
            await trio.to_thread.run_sync(self._rename, noted)
        return True

    async def _from_buckets(self, newest: Published) -> None:
        """The newest moment with a table that is wrong: as it is, it could not be opened."""
        look, home = self._look, self._home
        if not look.report.rules() & TABLE_RULES:
            return
        await trio.to_thread.run_sync(home.remove_contents if holds_nothing(home) else self._set_aside)
        with self._replica(newest) as replica:
            stack = await replay(look.subject.store, newest.manifest, replica)
            path, boot = home.database_path, self._options.boot
            (await rebuild_table(look.subject.store, newest.manifest, replica, path, boot)).close()
        await trio.to_thread.run_sync(write_progress, home, Progress(Moment.of(newest, stack).mark))
        self.done.append(f"the inode table is that of manifest {newest.manifest.sequence}")

    def _set_aside(self) -> None:
        place = self._home.set_aside(self._stamp)
        told = f"the local state is kept at {place}: objfs salvage copies what was never uploaded"
        if not self._look.local.clean and self._look.local.verdict is not Verdict.BEHIND:
            self.lost.append(told)
        self.done.append(told)
