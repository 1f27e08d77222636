"""Another code for a volume: what is written from now on has it, and what was written before gets it.

Owns the step in the header, and the background work that follows.  Promises that nothing has less redundancy
meanwhile than the weaker of the two codes gives it, and that the work needs no journal: what is left to do is
what the rows and the newest manifest name with another code, so every later mount goes on with it.

A frame is sealed for the segment that it lies in, so shards cannot be cut anew as they are: content is read,
proven and sealed into new segments.  That is compaction (``compact``) by another reason, and old segments go
as all emptied ones do (``reaper``).  The pages of the inode table get a new base.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import trio

from objfs.codec import check_code
from objfs.codec.segment import COPY_LIMIT
from objfs.errors import ObjfsError, UsageError
from objfs.meta.segment_usage import UsageView, read_usage
from objfs.model import Code, Segment
from objfs.store.placement import describe, tolerance
from objfs.volume.checkpoint import Checkpointer, Moment
from objfs.volume.compact import Compacted, Compactor, Stage, Terms
from objfs.volume.header import VolumeHeader
from objfs.volume.keys import require_writable, write_header
from objfs.volume.open import OpenVolume
from objfs.volume.recode_plan import Estimate, Ground, estimate, has_other_code
from objfs.volume.spread import newest_here
from objfs.volume.table import data_slots, domains_of

log = logging.getLogger(__name__)

INTERVAL_S = 600.0
"""Between two looks for what has another code; a look is one query in a worker."""
AT_ONCE = 32
"""New segments between two plans, and the longest that another rewriting waits for."""


# --- the step ------------------------------------------------------------------------------


def require_room(header: VolumeHeader, code: Code, *, fewer: bool) -> None:
    """Raises CodecError where there is no such code, and UsageError where the shards of a segment would share
    buckets, unless ``fewer`` says that this is meant."""
    check_code(code.k, code.m)
    buckets = len(data_slots(header.buckets))
    if buckets < code.n and not fewer:
        raise UsageError(
            f"{describe(code, buckets)}; add buckets first (objfs bucket add), choose another code, or give "
            "--fewer-buckets if that is meant"
        )


async def publish_code(
    volume: OpenVolume, checkpointer: Checkpointer, code: Code, *, fewer: bool = False
) -> None:
    """The header says it, and what is sealed afterwards has it.  No checkpoint is under way meanwhile.

    Raises UsageError, NewerFormat, and NoQuorum: then the command is to be repeated.
    """
    async with checkpointer.quiet():
        known = await newest_here(volume.buckets, volume.ring, volume.header)
        require_writable(known)
        require_room(known, code, fewer=fewer)
        if known.code == volume.header.code == code:
            return
        borne = tolerance(code, len(data_slots(known.buckets)))
        changed = replace(known, generation=known.generation + 1, code=code, tolerance=borne)
        await write_header(volume.buckets, volume.ring, changed)
        volume.header = changed
        volume.store.use_code(code)
        log.info("code changed from=%s to=%s", known.code, code)


# --- what it would take --------------------------------------------------------------------


async def estimate_recode(volume: OpenVolume, moment: Moment, terms: Terms, code: Code) -> Estimate:
    """For another code, or for what the present one has left to do.  Asks no bucket."""

    entries = volume.header.buckets
    ground = Ground(code, data_slots(entries), domains_of(entries))
    found = await trio.to_thread.run_sync(read_usage, volume.meta.path)
    return estimate(found, stacked(moment), ground, replace(terms, below=0.0, code=code))


def stacked(moment: Moment) -> Sequence[Segment]:
    """The segments of the pages of the inode table, as the next manifest will name them."""
    stack = moment.stack
    blobs = (*stack.base, *(blob for delta, _ in stack.deltas for blob in delta.blobs))
    return [blob.segment for blob in blobs]


# --- the work ------------------------------------------------------------------------------


@dataclass(slots=True)
class Progress:
    """Segments of another code and their payload in bytes as the work began, and what of it is done;
    ``failed`` segments could not be rewritten.  ``waits`` or ``error`` say why it stands."""

    segments: int = 0
    size: int = 0
    done: int = 0
    done_size: int = 0
    failed: int = 0
    waits: str = ""
    error: str = ""

    @property
    def left(self) -> int:
        return max(0, self.segments - self.done)

    @property
    def left_size(self) -> int:
        return max(0, self.size - self.done_size)

    def plus(self, more: Compacted) -> Progress:
        """As it is after so much more."""
        return replace(
            self,
            done=self.done + more.emptied,
            done_size=self.done_size + more.bytes_before,
            failed=self.failed + more.failed,
            waits=more.stopped,
        )


class Recoder:
    """One per writing mount; ``run`` is its task.  ``settled`` is called when what segments bear may have
    changed."""

    def __init__(
        self,
        volume: OpenVolume,
        checkpointer: Checkpointer,
        compactor: Compactor,
        terms: Terms,
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._volume = volume
        self._checkpointer = checkpointer
        self._compactor = compactor
        self._terms = terms
        self._settled = settled
        self._asked = 0
        self._answered = 0
        self._wake = trio.Event()
        self._news = trio.Event()
        self.progress = Progress()
        self.total = Compacted()
        """What was done since the mount began."""

    async def run(self) -> None:
        """While the mount may write: now, when it is asked for, and now and then."""
        gate = self._volume.gate
        try:
            while gate.open:
                wanted, self._wake = self._asked, trio.Event()
                await self._tried()
                self._answered = wanted
                self._tell()
                with trio.move_on_after(INTERVAL_S):
                    await self._wake.wait()
        finally:
            self._tell()

    async def change(self, code: Code, *, fewer: bool = False) -> Progress:
        """The volume has it from now on; returns as ``finished``.  Whoever is cancelled before leaves the
        work to the task.  Raises as ``publish_code``, ReadOnly, LeaseLost."""
        await publish_code(self._volume, self._checkpointer, code, fewer=fewer)
        self._compactor.forgive()
        return await self.finished()

    async def finished(self) -> Progress:
        """Returns when all that can be rewritten is, and a published moment names it.  Raises ReadOnly."""
        self._asked += 1
        wanted = self._asked
        self._wake.set()
        while self._answered < wanted:
            self._volume.gate.check()
            await self._news.wait()
        return self.progress

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _tried(self) -> None:
        try:
            await self._work()
        except ObjfsError as error:
            self.progress.error = str(error)
            log.warning("segments not encoded anew: %s", error)

    async def _work(self) -> None:
        if self._asked > self._answered:
            await self._checkpointer.flush()  # uploads that began under the former code have ended
        await self._renew_pages()
        self.progress = await self._look()
        if not self.progress.segments:
            return
        await self._rewrite()
        await self._checkpointer.flush()
        left = await self._look()
        self.progress.done = self.progress.segments - left.segments
        self.progress.done_size = self.progress.size - left.size
        await self._settled()
        log.info("encoded anew %s", self.progress)

    async def _rewrite(self) -> None:
        """Round after round, so that others who rewrite have their turns, until one does not help."""
        left = self.progress.segments
        while True:
            before = self.progress
            terms = replace(self._terms, below=0.0, code=self._volume.header.code)

            def told(stage: Stage, before: Progress = before) -> None:
                self.progress = before.plus(stage.done)

            done = await self._compactor.round(terms, told, most=AT_ONCE)
            self.progress, self.total = before.plus(done), self.total.plus(done)
            now = (await self._look()).segments
            if done.stopped or not (now < left or done.failed):
                return
            left = now

    async def _look(self) -> Progress:
        """What has another code now."""
        code, path = self._volume.header.code, self._volume.meta.path

        def look() -> tuple[int, int]:
            with UsageView(path) as view:
                return view.other_code(code, COPY_LIMIT)

        return Progress(*await trio.to_thread.run_sync(look))

    async def _renew_pages(self) -> None:
        """The inode table bears as much as its content: its pages get a base of the new code."""
        while self._pages_differ:
            await self._checkpointer.flush()
            async with self._checkpointer.quiet():
                if self._checkpointer.settled and self._pages_differ:
                    self._checkpointer.rebase()
            await self._checkpointer.flush()
            await self._settled()

    @property
    def _pages_differ(self) -> bool:
        moment, code = self._checkpointer.moment, self._volume.header.code
        assert moment is not None
        return any(has_other_code(blob, code) for blob in stacked(moment))
