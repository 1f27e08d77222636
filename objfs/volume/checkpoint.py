"""Checkpoints: whole moments of the volume, made recoverable one after the other.

Owns the order of the steps and what happens when one of them fails.  Promises that ``flush`` returns only
when everything committed before the call is in a published manifest, that a failed checkpoint leaves every
page for the next one, and that nothing is published when nothing changed.

The steps, and what a crash after each leaves behind:

1. the lease is checked, then cut: log mark and cache cut in one go, without an await: a whole moment;
2. its pages are taken; what the log held is in memory, and in the local database file;
3. the chunks of the cut are placed; the local log is synced, so that this machine never falls behind
   what it publishes;
4. pages and patch are uploaded: blobs that nothing refers to yet, found by ``gc``;
5. the intent is written down, the lease checked again, the manifest put: the commit point.  Unless every
   answer is clear the same bytes are put again until they are, also by the next process (from its
   own new epoch's fence);
6. the replica takes the pages and ``checkpoint.json`` the manifest; a crash before that is mended at
   the next mount from the last delta.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from objfs.codec.keys import KeyRing
from objfs.errors import Corrupt, LeaseLost, ObjfsError, ReadOnly
from objfs.model import Segment, Slot
from objfs.ports import DOING, Clock, WriteGate
from objfs.volume import manifest as manifests
from objfs.volume.lease import Lease
from objfs.volume.local import VolumeHome
from objfs.volume.manifest import NO_HASH, Condemned, Manifest
from objfs.volume.patch import Patch
from objfs.volume.ports import BlobStore, Cut, CutSource, PageLog, PageSet, Replica
from objfs.volume.progress import Mark, Progress, write_delta_pages, write_progress
from objfs.volume.published import Published, publish
from objfs.volume.quorum import BucketSet
from objfs.volume.recover import replay
from objfs.volume.shipping import PageSource, Stack, delta_key, ship_pages, ship_patch

log = logging.getLogger(__name__)

GATE_POLL_S = 1.0
"""How often a checkpoint that waits for placements looks whether the gate is still open."""

Condemner = Callable[[int, int], tuple[Condemned, ...]]
"""(sequence, wall time) -> what the manifest of that cut condemns; called at the cut."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where publishing stands: the newest manifest, its name, and its base and deltas."""

    manifest: Manifest
    mark: Mark
    stack: Stack

    @property
    def restacked(self) -> bool:
        """Whether the manifest names other places of blobs than the next one will."""
        deltas = tuple(delta for delta, _ in self.stack.deltas)
        return self.stack.base != self.manifest.base or deltas != self.manifest.deltas

    @classmethod
    def of(cls, published: Published, stack: Stack) -> Moment:
        manifest = published.manifest
        mark = Mark(manifest.sequence, manifest.epoch, published.hash, published.content)
        return cls(manifest, mark, stack)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a checkpointer works with."""

    pages: PageLog
    replica: Replica
    cache: CutSource
    store: BlobStore
    buckets: BucketSet
    ring: KeyRing
    lease: Lease
    home: VolumeHome
    gate: WriteGate
    clock: Clock
    sync: Callable[[], Awaitable[None]]
    """Makes the local log durable."""
    schema: int


@dataclass(frozen=True, slots=True)
class CheckpointStatistics:
    """Gauges.  ``recoverable_ns`` is the wall time of the newest recoverable moment, ``age_s`` how old it is
    while something newer is not recoverable yet (0 else); ``failures`` counts those in a row."""

    sequence: int
    epoch: int
    recoverable_ns: int
    age_s: float
    checkpoints: int
    failures: int
    last_duration_s: float
    last_error: str | None


class _Newest(Mapping[int, bytes]):
    """The newest image of each changed page that the table still has, out of the sets that hold them."""

    def __init__(self, sources: Mapping[int, Mapping[int, bytes]], page_count: int) -> None:
        self._sources = {number: source for number, source in sources.items() if number <= page_count}

    def __getitem__(self, number: int) -> bytes:
        return self._sources[number][number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


@dataclass(frozen=True, slots=True)
class _Overlay:
    """Changed pages over the replica."""

    page_size: int
    page_count: int
    pages: _Newest

    def source(self, replica: Replica) -> PageSource:
        zeros = bytes(self.page_size)

        def image(number: int) -> bytes:
            found = self.pages.get(number)
            if found is not None:
                return found
            # SQLite never writes some pages of a table that has grown.
            return replica.page(number) if number <= replica.page_count else zeros

        return image


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A checkpoint ready to be put, and put again, byte for byte."""

    number: int
    pages: _Overlay
    moment: Moment
    data: bytes


class Checkpointer:
    """One per writing mount.  ``start`` is None for a volume that has no manifest yet; ``carried`` are pages
    known to differ from the replica already (from ``Replica.diff`` after an unclean end)."""

    def __init__(
        self,
        parts: Parts,
        *,
        start: Moment | None,
        interval_s: float,
        carried: PageSet | None = None,
        condemn: Condemner | None = None,
        note: Callable[[Manifest], None] | None = None,
    ) -> None:
        self._parts = parts
        self._moment = start
        self._interval_s = interval_s
        self._carried: dict[int, Mapping[int, bytes]] = {}
        """Page -> the set that holds its newest image: images themselves are read when they are needed."""
        self._page_count = start.manifest.page_count if start is not None else 0
        self._carry(carried)
        self._condemn: Condemner = condemn or (lambda _sequence, _wall_ns: ())
        self._note = note or (lambda _manifest: None)
        self._attempt: _Attempt | None = None
        self.latest: Published | None = None
        """The newest manifest that was published here, and the buckets that took it."""
        self.passed_over: set[Slot] = set()
        """Buckets that did not take every manifest; whoever copies to them what they lack takes them out."""
        self._running: trio.Event | None = None
        self._cuts = 0
        self._settled = 0
        self._count = 0
        self._failures = 0
        self._duration_s = 0.0
        self._last_error: str | None = None

    # --- asking for one --------------------------------------------------------------------

    async def run(self) -> None:
        """A checkpoint every interval while something changes, until the lease is lost."""
        while self._parts.gate.open:
            await trio.sleep(self._interval_s)
            try:
                await self.flush()
            except (LeaseLost, ReadOnly):
                return
            except ObjfsError as error:
                log.warning("checkpoint failed sequence=%d: %s", self._sequence + 1, error)

    async def flush(self) -> None:
        """Returns when all that was committed before the call is recoverable from the buckets.

        Concurrent callers share one checkpoint, as far as its cut comes after their calls.  Raises
        LeaseLost, ReadOnly (gate closed), NoQuorum, BucketError, StoreError, and ObjfsError when the local
        disk is full or fails.  All but the first two may be tried again.
        """
        wanted = self._cuts + 1
        while self._settled < wanted:
            if self._running is not None:
                await self._running.wait()
            elif self.changed:
                await self._run_one()
            else:
                return

    @property
    def changed(self) -> bool:
        """Whether there is anything that a checkpoint would make recoverable."""
        return (
            self._moment is None
            or self._attempt is not None
            or bool(self._carried)
            or self._moment.restacked
            or self._parts.pages.pending > 0
            or self._parts.cache.statistics().dirty_chunks > 0
        )

    @property
    def settled(self) -> bool:
        """True while no manifest of this mount may be under way."""
        return self._attempt is None

    @property
    def moment(self) -> Moment | None:
        """The newest published moment."""
        return self._moment

    @property
    def _sequence(self) -> int:
        return self._moment.manifest.sequence if self._moment is not None else 0

    # --- what others change between two of them --------------------------------------------

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """No checkpoint is made inside: whoever waits for one waits for the end of the block too."""
        while self._running is not None:
            await self._running.wait()
        self._running = trio.Event()
        try:
            yield
        finally:
            self._running.set()
            self._running = None

    def restack(self, moved: Mapping[bytes, Segment]) -> None:
        """Blobs of the newest moment lie elsewhere (by uuid), for the manifests from the next one on.  Inside
        ``quiet``, and while ``settled``."""
        assert self._moment is not None
        self._moment = replace(self._moment, stack=self._moment.stack.moved(moved))

    def rebase(self) -> None:
        """The next manifest has a base of its own, and every page in it.  Inside ``quiet``, and while
        ``settled``."""
        assert self._moment is not None
        self._moment = replace(self._moment, stack=Stack())

    # --- making one ------------------------------------------------------------------------

    async def _run_one(self) -> None:
        self._running = trio.Event()
        started = self._parts.clock.monotonic()
        try:
            if self._attempt is None:
                self._attempt = await self._prepare()
            await self._put(self._attempt)
        except OSError as error:
            self._note_failure(error)
            raise ObjfsError(f"the local state cannot be written ({error}); see to the disk") from error
        except Exception as error:
            self._note_failure(error)
            raise
        else:
            self._note_success(started)
        finally:
            self._running.set()
            self._running = None

    async def _prepare(self) -> _Attempt:
        parts = self._parts
        await parts.lease.check(needed=parts.buckets.publish_quorum)
        wall_ns = self._wall_ns()
        DOING.operation = "cut"
        # One moment: nothing may run between these.
        self._cuts += 1
        number, cut, mark = self._cuts, parts.cache.cut(), parts.pages.mark()
        condemned = self._condemn(self._sequence + 1, wall_ns)
        taken = await trio.to_thread.run_sync(parts.pages.take, mark)
        self._carry(taken)
        await trio.to_thread.run_sync(parts.pages.backfill)
        patch = await self._placed(cut)
        await parts.sync()
        return await self._build(number, taken, patch, condemned, wall_ns)

    def _wall_ns(self) -> int:
        """The present, and never before the manifest that is there already."""
        before = self._moment.manifest.wall_ns if self._moment is not None else 0
        return max(before, self._parts.clock.now_ns())

    def _carry(self, pages: PageSet | None) -> None:
        if pages is not None:
            self._carried |= dict.fromkeys(pages.pages, pages.pages)
            # A log in which nothing was written yet does not know how large the table is.
            self._page_count = pages.page_count or self._page_count

    async def _placed(self, cut: Cut) -> Patch:
        """The cut's placements; gives up when the gate closes, since nothing is placed then."""
        while True:
            with trio.move_on_after(GATE_POLL_S):
                result = await cut.placed()
                return Patch(result.segments, result.placed)
            self._parts.lease.check_open()

    async def _build(
        self, number: int, taken: PageSet, patch: Patch, condemned: tuple[Condemned, ...], wall_ns: int
    ) -> _Attempt:
        parts, before = self._parts, self._moment
        pages = _Overlay(taken.page_size, self._page_count, _Newest(self._carried, self._page_count))
        stack = await self._ship(pages)
        inline, blobs = await ship_patch(parts.store, patch)
        manifest = Manifest(
            volume=parts.ring.volume,
            epoch=parts.lease.epoch,
            sequence=self._sequence + 1,
            previous=before.mark.hash if before is not None else NO_HASH,
            state_id=parts.lease.record.holder.state_id,
            wall_ns=wall_ns,
            page_size=pages.page_size,
            page_count=pages.page_count,
            digest=await trio.to_thread.run_sync(parts.replica.digest_with, pages),
            base=stack.base,
            deltas=tuple(delta for delta, _ in stack.deltas),
            patch=blobs,
            inline_patch=inline,
            schema=parts.schema,
            condemned=condemned,
            digest_key=before.manifest.digest_key if before is not None else parts.ring.current.key_id,
        )
        data = await trio.to_thread.run_sync(_encode, manifest, parts.ring)
        return _Attempt(number, pages, Moment.of(Published(manifest, data, ()), stack), data)

    async def _ship(self, pages: _Overlay) -> Stack:
        """Uploads base or delta.  A new base takes every page from the replica, so that is verified then."""
        parts = self._parts
        before = self._moment.stack if self._moment is not None else Stack()
        stack = await self._ship_from(before, pages)
        if self._moment is None or stack.base == before.base:
            return stack
        if await trio.to_thread.run_sync(parts.replica.compute_digest) == parts.replica.digest:
            return stack
        log.error("replica of the inode table is damaged on the local disk: it is fetched from the buckets")
        await trio.to_thread.run_sync(parts.replica.clear)
        await replay(parts.store, self._moment.manifest, parts.replica)
        return await self._ship_from(before, pages)

    async def _ship_from(self, before: Stack, pages: _Overlay) -> Stack:
        image = pages.source(self._parts.replica)
        return await ship_pages(
            self._parts.store, before, pages.pages, pages.page_count, pages.page_size, image
        )

    async def _put(self, attempt: _Attempt) -> None:
        """Steps 5 and 6; repeating them is harmless."""
        parts, moment = self._parts, attempt.moment
        if self._moment is not None:
            intent = Progress(self._moment.mark, moment.mark)
            await trio.to_thread.run_sync(write_progress, parts.home, intent)
        await parts.lease.check(needed=parts.buckets.publish_quorum)
        self.latest = await publish(parts.buckets, parts.ring, parts.lease, moment.manifest, attempt.data)
        await trio.to_thread.run_sync(self._settle_files, attempt)
        # Whatever was carried is in this attempt: the next cut is made only after it.
        self._carried = {}
        self._moment, self._attempt, self._settled = moment, None, attempt.number
        self.passed_over |= set(parts.buckets.slots) - set(self.latest.held_by)
        self._note(moment.manifest)

    def _settle_files(self, attempt: _Attempt) -> None:
        home, moment = self._parts.home, attempt.moment
        self._parts.replica.apply(attempt.pages)
        write_progress(home, Progress(moment.mark))
        write_delta_pages(home, {delta_key(delta): pages for delta, pages in moment.stack.deltas})

    # --- gauges ----------------------------------------------------------------------------

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        self._last_error = str(error)

    def _note_success(self, started: float) -> None:
        assert self._moment is not None
        manifest = self._moment.manifest
        self._count += 1
        self._failures = 0
        self._last_error = None
        self._duration_s = self._parts.clock.monotonic() - started
        log.info(
            "checkpoint published sequence=%d epoch=%d pages=%d deltas=%d seconds=%.3f",
            manifest.sequence,
            manifest.epoch,
            manifest.page_count,
            len(manifest.deltas),
            self._duration_s,
        )

    def statistics(self) -> CheckpointStatistics:
        manifest = self._moment.manifest if self._moment is not None else None
        age_ns = self._parts.clock.now_ns() - (manifest.wall_ns if manifest is not None else 0)
        return CheckpointStatistics(
            sequence=self._sequence,
            epoch=self._parts.lease.epoch,
            recoverable_ns=manifest.wall_ns if manifest is not None else 0,
            age_s=max(0.0, age_ns / 1e9) if manifest is not None and self.changed else 0.0,
            checkpoints=self._count,
            failures=self._failures,
            last_duration_s=self._duration_s,
            last_error=self._last_error,
        )


def _encode(manifest: Manifest, ring: KeyRing) -> bytes:
    """The bytes to publish, read back once: what cannot be read must not become the newest moment."""
    data = manifests.encode(manifest, ring)
    if manifests.decode(data, manifest.sequence, ring) != manifest:
        raise Corrupt(
            f"manifest {manifest.sequence} does not read back as it was written; nothing is published"
        )
    return data
