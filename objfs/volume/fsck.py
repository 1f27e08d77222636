"""Checking a whole volume: buckets, manifests, inode table, block map, segments, state directory, cache.

Owns the order of the checks, and which inode table is looked at: the local one where it descends from the
newest moment, else the one that the newest manifest gives.  Promises to change nothing, in the buckets and
here (a scratch directory beside the state is removed again).  ``fsck_repair`` mends what is found.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from objfs.backends.base import Bucket
from objfs.cache.offline import CacheDirectory
from objfs.cache.recovery import boot_id
from objfs.codec.identity import page_hash
from objfs.errors import CodecError, Corrupt, ForeignBucket, NewerFormat, StoreError, Unclean
from objfs.meta.audit import CHECKS
from objfs.meta.replica import Replica
from objfs.meta.view import TableView
from objfs.ports import Clock, WriteGate
from objfs.store.store import SegmentStore
from objfs.volume.attach import identified, read_volume
from objfs.volume.debts import read_debts
from objfs.volume.epochs import observe
from objfs.volume.fsck_buckets import BucketWalk, Surroundings
from objfs.volume.fsck_identity import Identities, check_identities
from objfs.volume.fsck_local import CacheFaults, LocalState, look_at_cache, look_at_state
from objfs.volume.fsck_manifests import Moments, look_at_manifests, say_moments
from objfs.volume.fsck_report import Grade, Report
from objfs.volume.fsck_subject import LIMIT, Subject, ask
from objfs.volume.header import Secret
from objfs.volume.local import VolumeHome
from objfs.volume.published import Published
from objfs.volume.recover import rebuild_table, replay

log = logging.getLogger(__name__)

TABLE_RULES = frozenset(each.__name__ for each in CHECKS)
"""The rules of the inode table itself."""


@dataclass(frozen=True, slots=True)
class FsckOptions:
    """``data``: every object is read and every chunk opened.  The others are those of a mount, for a repair:
    it writes, so it needs the lease."""

    data: bool = False
    take_over: bool = False
    force: bool = False
    lease_interval_s: float = 60.0
    host: str = ""
    boot: bytes = field(default_factory=boot_id)


@dataclass(slots=True)
class Look:
    """All that one check found."""

    subject: Subject
    report: Report
    identities: Identities
    moments: Moments
    local: LocalState
    around: Surroundings
    cache: CacheFaults
    pages: bool = True
    """The database is sound enough to be asked."""
    scratch: bool = False
    """The table looked at is the newest moment's, and not a local one."""


# --- a volume that is not mounted ----------------------------------------------------------


@asynccontextmanager
async def looked_at(
    home: VolumeHome,
    secret: Secret,
    raw: Mapping[bytes, Bucket],
    *,
    clock: Clock,
    options: FsckOptions,
    note: Callable[[str], None] = lambda _text: None,
) -> AsyncIterator[Look]:
    """Checks a volume whose state directory the caller has locked; the table stays open for the body.

    Raises NoSuchVolume, WrongPassphrase, ForeignBucket, NewerFormat, and a bucket's error where none answers.
    """
    async with at_hand(home, secret, raw, clock=clock, options=options, note=note) as look:
        look.around = await _walk(look.subject, look.report, look.moments)
        yield look


@asynccontextmanager
async def at_hand(
    home: VolumeHome,
    secret: Secret,
    raw: Mapping[bytes, Bucket],
    *,
    clock: Clock,
    options: FsckOptions,
    note: Callable[[str], None] = lambda _text: None,
) -> AsyncIterator[Look]:
    """The same without the walk over all segments: identities, manifests, table, state directory, cache."""
    async with AsyncExitStack() as stack:
        subject = await _subject(home, secret, raw, clock, options, note)
        report = Report()
        await _in_use(subject, home, report)
        identities = await check_identities(subject, report)
        moments = await look_at_manifests(subject, report)
        newest = moments.newest
        local = await ask(look_at_state, home, subject.ring, newest, moments.silent, report)
        await _open_local(stack, home, subject, local, report)
        scratch = subject.table is None and newest is not None
        if newest is not None and (scratch or options.data):
            place = stack.enter_context(home.scratch("fsck"))
            await _replay(stack, subject, newest, place, report, options.boot)
        look = Look(
            subject, report, identities, moments, local, Surroundings(), CacheFaults(), scratch=scratch
        )
        say_moments(subject, report, moments)
        look.pages = await check_table(subject, report)
        if not look.pages:
            subject.table = None
        elif local.usable and subject.table is not None and not scratch:
            look.cache = await look_at_cache(subject, report)
        yield look


async def _subject(
    home: VolumeHome,
    secret: Secret,
    raw: Mapping[bytes, Bucket],
    clock: Clock,
    options: FsckOptions,
    note: Callable[[str], None],
) -> Subject:
    config = home.read_config()
    header, ring = await read_volume({bucket.url: bucket for bucket in raw.values()}, secret)
    if header.volume != config.volume:
        raise ForeignBucket(f"the buckets hold volume {header.volume.hex()}, not the {home.name} known here")
    buckets, left_out = await identified(header, ring, raw)
    gate = WriteGate()
    gate.close("fsck only looks")
    store = SegmentStore(buckets.buckets, ring, header.code, clock=clock, gate=gate)
    cache = CacheDirectory(home.cache_path, options.boot)
    return Subject(
        header,
        ring,
        raw,
        buckets,
        left_out,
        store,
        None,
        cache,
        data=options.data,
        note=note,
        owed=read_debts(home),
    )


async def _in_use(subject: Subject, home: VolumeHome, report: Report) -> None:
    """Another machine may be writing at this moment: then differences are looked at twice, too."""
    try:
        own = home.read_state()
    except Corrupt:
        own = None
    record = (await observe(subject.buckets, subject.ring)).record
    if record is None or record.released or (own and record.holder.state_id == own.state_id):
        return
    subject.live = True
    who = record.holder
    what = f"{who.host} (process {who.pid}) has it, or had when it died: what is new there may not be seen"
    report.add("in-use", Grade.REMARK, "the lease", what)


async def _open_local(
    stack: AsyncExitStack, home: VolumeHome, subject: Subject, local: LocalState, report: Report
) -> None:
    """The local table, where it can be opened."""
    if not local.usable:
        return
    try:
        subject.table = stack.enter_context(await ask(TableView, home.database_path))
    except NewerFormat:
        raise
    except (Corrupt, Unclean) as error:
        local.rotten_table = True
        report.add("pages", Grade.DAMAGE, home.database_path.name, str(error))


async def _replay(
    stack: AsyncExitStack, subject: Subject, newest: Published, place: Path, report: Report, boot: bytes
) -> None:
    """The newest moment as a lost machine would get it; its table is looked at where there is no other."""
    subject.note("replaying the newest moment from the buckets")
    key = subject.ring.get(newest.manifest.digest_key)
    try:
        with Replica(place / "pages", lambda number, page: page_hash(key, number, page)) as copy:
            await replay(subject.store, newest.manifest, copy)
            table = await rebuild_table(subject.store, newest.manifest, copy, place / "meta.db", boot)
        table.close()
    except NewerFormat:
        raise
    except (CodecError, StoreError) as error:
        grade = Grade.LOSS if subject.table is None else Grade.DAMAGE
        todo = "objfs mount --force goes back to the moment before it" if grade is Grade.LOSS else ""
        thing = f"manifest {newest.manifest.sequence}"
        report.add("digest", grade, thing, f"its moment cannot be recovered: {error}", todo=todo)
        return
    if subject.table is None:
        subject.table = stack.enter_context(await ask(TableView, place / "meta.db"))


# --- parts of every check ------------------------------------------------------------------


async def check_table(subject: Subject, report: Report) -> bool:
    """The table's own rules; False where nothing that it says can be believed."""
    if subject.table is None:
        return False
    subject.note("rules of the inode table")
    found = await ask(subject.view.breaches, LIMIT)
    for breach in found:
        thing, colon, what = breach.text.partition(": ")
        report.add(breach.rule, Grade.DAMAGE, thing if colon else breach.text, what or "breaks a rule")
    if any(breach.rule == "pages" for breach in found):
        return False
    uuid, size = await ask(lambda: (subject.view.uuid, subject.view.chunk_size))
    if uuid and (uuid, size) != (subject.header.volume, subject.header.chunk_size):
        what = "its row of the volume is not what the header says"
        report.add("volume", Grade.DAMAGE, "the inode table", what)
    report.seen["rules"] = len(CHECKS)
    return True


async def _walk(subject: Subject, report: Report, moments: Moments) -> Surroundings:
    async def named() -> Collection[bytes]:
        return moments.blobs

    return await BucketWalk(subject, report, moments.blobs, named).run()


# --- a volume that is mounted --------------------------------------------------------------


async def check_running(subject: Subject) -> Report:
    """The same beside a running mount, without the state directory's files, which are in use.

    ``subject.live`` must be set: what the mount is about to change is looked at twice.
    """
    report = Report()
    await check_identities(subject, report)
    moments = await look_at_manifests(subject, report)
    say_moments(subject, report, moments)
    if await check_table(subject, report):
        await look_at_cache(subject, report)

    async def named() -> Collection[bytes]:
        """Blobs of manifests that were published while we looked."""
        again = await look_at_manifests(subject, Report())
        return again.blobs

    await BucketWalk(subject, report, moments.blobs, named).run()
    return report
