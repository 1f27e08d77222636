"""Making a volume.

Owns the order: probe, refuse what is taken, keys, labels and headers on every bucket, first table, first
checkpoint.  Promises that a bucket prefix which holds a volume (or part of one) is never written to, and
that a mkfs which fails takes its own objects and its local directory away again where it can.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from objfs.backends.base import Bucket
from objfs.backends.probe import ProbeReport, probe
from objfs.cache.durability import GroupSync
from objfs.cache.recovery import boot_id
from objfs.codec.erasure import check_code
from objfs.codec.identity import page_hash
from objfs.codec.keys import DEFAULT_COST, Cost, KeyRing, make_slot, new_recovery_key
from objfs.codec.keys import Slot as KeySlot
from objfs.errors import BadSetting, BucketError, NoQuorum, ObjectExists, ObjfsError, UsageError, VolumeExists
from objfs.meta.replica import Replica
from objfs.meta.table import MetaDatabase, new_root
from objfs.model import Code, Slot
from objfs.ports import Clock, WriteGate
from objfs.store import layout
from objfs.store.placement import describe, describe_domains, tolerance
from objfs.store.store import SegmentStore
from objfs.volume import header as headers
from objfs.volume import label as labels
from objfs.volume.checkpoint import Checkpointer, Parts
from objfs.volume.config import BucketPlace, VolumeConfig
from objfs.volume.epochs import Holder
from objfs.volume.features import Features
from objfs.volume.fields import JSON
from objfs.volume.header import Secret, VolumeHeader, is_chunk_size
from objfs.volume.label import Label
from objfs.volume.lease import Claim, Lease, acquire
from objfs.volume.local import VolumeHome
from objfs.volume.patch import Patch
from objfs.volume.progress import write_known_lease
from objfs.volume.quorum import BucketSet
from objfs.volume.settings import VolumeSettings
from objfs.volume.table import BUCKETS_MAX, BucketEntry, data_slots, domains_of, hint

log = logging.getLogger(__name__)

CHUNK_SIZE = 1024 * 1024
CLEAN_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class NewBucket:
    """A place for the volume: URL and options as they go into volume.toml, and the bucket.  ``shards`` False
    makes it a witness, which votes and holds no data."""

    url: str
    options: Mapping[str, str] = field(repr=False)
    bucket: Bucket
    domain: str = ""
    shards: bool = True


@dataclass(frozen=True, slots=True)
class NewVolume:
    """What a volume is made with; ``chunk_size`` in bytes, a power of two from 64 KiB to 16 MiB."""

    secret: Secret
    code: Code
    chunk_size: int = CHUNK_SIZE
    uid: int = 0
    gid: int = 0
    defaults: Mapping[str, JSON] = field(default_factory=dict)
    settings: VolumeSettings = field(default_factory=VolumeSettings)
    cost: Cost = DEFAULT_COST


@dataclass(frozen=True, slots=True)
class Created:
    """What mkfs tells: ``recovery_key`` is shown once and kept nowhere."""

    header: VolumeHeader
    recovery_key: str = field(repr=False)
    probes: tuple[ProbeReport, ...]
    voters: int
    tolerance: int
    description: str
    domains: str
    """What the placement bears of whole domains; empty where no bucket has one."""
    writes_with_losses: int
    """How many voting buckets may be away when a new mount wants to write without --force."""


async def create_volume(
    home: VolumeHome, buckets: Sequence[NewBucket], new: NewVolume, *, clock: Clock
) -> Created:
    """Makes a volume.

    Raises VolumeExists (the name here, or a bucket), UsageError, BadSetting, ContractBroken (a bucket that
    cannot hold shards), NoQuorum (none that can vote), and errors of the buckets.
    """
    _check(buckets, new)
    home.create()
    if home.database_path.exists():
        raise VolumeExists(f"{home.path} holds the remains of a volume; move it away first")
    try:
        probes = await _probe_all(buckets)
        await refuse_taken([item.bucket for item in buckets])
    except BaseException:
        _remove_directory(home)
        raise
    making = _Making(home, buckets, new, probes, clock)
    try:
        return await making.run()
    except BaseException:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLEAN_UP_S):
            await making.clean_up()
        raise


def _remove_directory(home: VolumeHome) -> None:
    """What is not empty is not only ours and stays."""
    with contextlib.suppress(OSError):
        home.path.rmdir()


def _check(buckets: Sequence[NewBucket], new: NewVolume) -> None:
    check_code(new.code.k, new.code.m)
    size = new.chunk_size
    if not is_chunk_size(size):
        raise BadSetting(f"chunk size {size}: must be a power of two from 64 KiB to 16 MiB")
    if len({item.bucket.url for item in buckets}) < len(buckets):
        raise UsageError("the same bucket is given twice")
    if not 1 <= len(buckets) <= BUCKETS_MAX or not any(item.shards for item in buckets):
        raise UsageError(f"a volume needs 1 to {BUCKETS_MAX} buckets, at least one of them for data")


async def _probe_all(buckets: Sequence[NewBucket]) -> tuple[ProbeReport, ...]:
    """Raises what the first bucket that fails raises."""
    reports: dict[int, ProbeReport] = {}
    failures: list[ObjfsError] = []

    async def one(number: int, bucket: Bucket) -> None:
        try:
            reports[number] = await probe(bucket)
            reports[number].require(voter=False)
        except ObjfsError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for number, item in enumerate(buckets):
            nursery.start_soon(one, number, item.bucket)
    if failures:
        raise failures[0]
    return tuple(reports[number] for number in range(len(buckets)))


async def refuse_taken(buckets: Sequence[Bucket]) -> None:
    """Raises VolumeExists where anything of a volume lies below a prefix."""
    for bucket in buckets:
        for prefix in (layout.HEADER, layout.LABEL, layout.LEASE_PREFIX, layout.MANIFEST_PREFIX):
            found = await bucket.list(prefix)
            if found:
                raise VolumeExists(
                    f"{bucket.url} holds {found[0].key}: a volume is there; use objfs attach, "
                    "or another prefix"
                )


class NoChunks:
    """The cache of a volume that has no chunk yet; also its one, empty cut."""

    dirty_chunks = 0

    def cut(self) -> NoChunks:
        return self

    async def placed(self) -> Patch:
        return Patch({}, [])

    def statistics(self) -> NoChunks:
        return self


class _Making:
    """One mkfs, and what it has put where."""

    def __init__(
        self,
        home: VolumeHome,
        buckets: Sequence[NewBucket],
        new: NewVolume,
        probes: Sequence[ProbeReport],
        clock: Clock,
    ) -> None:
        self._home = home
        self._new = new
        self._probes = tuple(probes)
        self._clock = clock
        self._offered = {Slot(number): item for number, item in enumerate(buckets)}
        self._entries = tuple(
            BucketEntry(
                slot,
                secrets.token_bytes(16),
                probes[slot].voter,
                item.domain,
                item.shards,
                url=hint(item.url, item.options),
            )
            for slot, item in self._offered.items()
        )
        self._buckets = BucketSet(self._entries, {slot: item.bucket for slot, item in self._offered.items()})
        self._made: list[tuple[Bucket, str]] = []

    async def run(self) -> Created:
        if not self._buckets.voters:
            raise NoQuorum(
                "no bucket has an atomic put-if-absent, so nothing can decide who writes; add one that has, "
                "for example a local directory as witness"
            )
        volume = secrets.token_bytes(16)
        ring = KeyRing(volume, {1: secrets.token_bytes(32)}, 1)
        recovery_key = new_recovery_key()
        header = await self._header(ring, recovery_key)
        await self._write_identity(header, ring)
        self._home.write_config(VolumeConfig(volume, tuple(self._places()), self._new.settings))
        await self._first_checkpoint(header, ring)
        data_buckets = sum(entry.shards for entry in self._entries)
        log.info("volume made uuid=%s buckets=%d", volume.hex(), len(self._entries))
        return Created(
            header,
            recovery_key,
            self._probes,
            len(self._buckets.voters),
            header.tolerance,
            describe(header.code, data_buckets),
            describe_domains(header.code, data_slots(self._entries), domains_of(self._entries)),
            len(self._buckets.voters) - self._buckets.quorum,
        )

    def _places(self) -> list[BucketPlace]:
        return [
            BucketPlace(entry.uuid, self._offered[entry.slot].url, dict(self._offered[entry.slot].options))
            for entry in self._entries
        ]

    async def _header(self, ring: KeyRing, recovery_key: str) -> VolumeHeader:
        new, now_ns = self._new, self._clock.now_ns()
        recovery = Secret.recovery(recovery_key)

        def wrap() -> list[KeySlot]:
            return [
                make_slot(
                    number,
                    secret.kind,
                    secret.data,
                    ring.secrets(),
                    ring.volume,
                    cost=new.cost,
                    now_ns=now_ns,
                )
                for number, secret in enumerate((new.secret, recovery))
            ]

        return VolumeHeader(
            volume=ring.volume,
            generation=1,
            features=Features(),
            slots=tuple(await trio.to_thread.run_sync(wrap)),
            chunk_size=new.chunk_size,
            code=new.code,
            buckets=self._entries,
            key_ids=(1,),
            current_key=1,
            created_ns=now_ns,
            tolerance=tolerance(new.code, sum(entry.shards for entry in self._entries)),
            defaults=dict(new.defaults),
        )

    async def _write_identity(self, header: VolumeHeader, ring: KeyRing) -> None:
        """Labels first: a bucket with a header always has one.  At mkfs every bucket must take part."""
        data = headers.encode(header, ring)
        for entry in self._entries:
            label = labels.encode(Label(ring.volume, entry.uuid, entry.slot), ring)
            await self._put_new(self._buckets.buckets[entry.slot], layout.LABEL, label)
        for entry in self._entries:
            await self._put_new(self._buckets.buckets[entry.slot], layout.HEADER, data)

    async def _put_new(self, bucket: Bucket, key: str, data: bytes) -> None:
        try:
            await bucket.put_if_absent(key, data)
        except ObjectExists:
            raise VolumeExists(f"{bucket.url}: another mkfs is at work there; use another prefix") from None
        self._made.append((bucket, key))

    async def _first_checkpoint(self, header: VolumeHeader, ring: KeyRing) -> None:
        home, gate = self._home, WriteGate()
        state = home.new_state(ring.volume)
        store = SegmentStore(self._buckets.buckets, ring, header.code, clock=self._clock, gate=gate)
        store.use_buckets(self._buckets.buckets, data_slots(self._entries), domains_of(self._entries))
        claim = Claim(Holder(state.state_id, socket.gethostname(), os.getpid()), 60.0)
        lease = await acquire(
            self._buckets, ring, claim, gate, self._clock, lambda known: write_known_lease(home, known)
        )
        root = new_root(self._new.uid, self._new.gid, self._clock.now_ns())
        table = MetaDatabase.make(
            home.database_path, uuid=ring.volume, chunk_size=header.chunk_size, root=root, boot_id=boot_id()
        )
        replica = Replica(home.replica_path, lambda number, page: page_hash(ring.current, number, page))
        try:
            await self._flush(table, replica, store, lease, ring, gate)
        finally:
            table.close()
            replica.close()
        home.mark_clean()
        await lease.release(settled=True)

    async def _flush(
        self,
        table: MetaDatabase,
        replica: Replica,
        store: SegmentStore,
        lease: Lease,
        ring: KeyRing,
        gate: WriteGate,
    ) -> None:
        parts = Parts(
            table.log,
            replica,
            NoChunks(),
            store,
            self._buckets,
            ring,
            lease,
            self._home,
            gate,
            self._clock,
            GroupSync(table.sync_log, gate).sync,
            table.schema_version,
        )
        await Checkpointer(parts, start=None, interval_s=60).flush()

    async def clean_up(self) -> None:
        """Takes away what a failed mkfs has made, as far as buckets and disk allow."""
        for slot, bucket in self._buckets.buckets.items():
            for prefix in (layout.LEASE_PREFIX, layout.MANIFEST_PREFIX):
                if any(made is bucket for made, _ in self._made):
                    await self._remove_listed(slot, bucket, prefix)
        for bucket, key in reversed(self._made):
            try:
                await bucket.delete(key)
            except BucketError as error:
                log.warning("left behind by mkfs bucket=%s object=%s: %s", bucket.url, key, error)
        for path in (self._home.config_path, self._home.state_path, self._home.lease_path):
            path.unlink(missing_ok=True)
        self._home.remove_contents()
        _remove_directory(self._home)

    async def _remove_listed(self, slot: Slot, bucket: Bucket, prefix: str) -> None:
        try:
            for info in await bucket.list(prefix):
                await bucket.delete(info.key)
        except BucketError as error:
            log.warning("left behind by mkfs slot=%d objects=%s: %s", slot, prefix, error)
