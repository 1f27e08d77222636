"""Local state beside the newest moment in the buckets: a verdict about it, and the table to go on from.

Owns that comparison and what follows from it.  Promises that a table is handed out only when it is that of
the newest published moment or descends from it, and that local state which is neither is set aside, never
mixed in and never deleted while it may hold data.  Does not know leases: whoever calls has fenced off
everything older.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import NamedTuple

import trio

from objfs.codec.identity import page_hash
from objfs.codec.keys import KeyRing
from objfs.errors import Unclean
from objfs.meta.database import settle
from objfs.meta.pages import PageSet
from objfs.meta.replica import Replica
from objfs.meta.table import MetaDatabase
from objfs.model import NS
from objfs.ports import Clock
from objfs.store.store import SegmentStore
from objfs.volume.checkpoint import Moment
from objfs.volume.local import VolumeHome
from objfs.volume.manifest import Manifest
from objfs.volume.progress import Progress, read_delta_pages, read_progress, write_progress
from objfs.volume.published import Published
from objfs.volume.recover import audited, catch_up, rebuild_table, replay
from objfs.volume.shipping import Stack, read_stack

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What local state is, compared with the newest manifest."""

    MISSING = "missing"
    """Nothing usable here: recover."""
    SAME = "same"
    """The replica stands for the newest moment: go on."""
    OWN = "own"
    """The newest moment is ours, published just before a crash: bring the replica forward, go on."""
    BEHIND = "behind"
    """Another machine published since: set aside, recover."""
    ROTTEN = "rotten"
    """Nothing was changed since the newest moment, and yet the table is another one: recover."""
    AHEAD = "ahead"
    """The buckets are older than what was published from here."""


def judge(progress: Progress | None, newest: Published) -> Verdict:
    """Compares contents, so that a fence over our own moment changes nothing.  Pure."""
    if progress is None:
        return Verdict.MISSING
    if newest.content == progress.published.content:
        return Verdict.SAME
    if progress.intent is not None and newest.content == progress.intent.content:
        return Verdict.OWN
    if newest.manifest.sequence <= progress.published.sequence:
        return Verdict.AHEAD
    return Verdict.BEHIND


def holds_nothing(home: VolumeHome) -> bool:
    """Whether nothing of the local contents can be anything that the buckets lack.  Raises Corrupt."""
    holds_data = home.cache_path.exists() and any(home.cache_path.iterdir())
    # Without checkpoint.json the table is what an interrupted recovery left.
    unfinished = read_progress(home) is None or not home.database_path.exists()
    return unfinished and not holds_data and not home.half_set_aside


class Reconciled(NamedTuple):
    """A table that may be used.  ``carried`` are pages in which it differs from the replica already."""

    verdict: Verdict
    moment: Moment
    replica: Replica
    meta: MetaDatabase
    carried: PageSet | None


class Reconciliation:
    """The state directory of one volume while it is opened.  ``force`` accepts buckets that are older than
    it, ``follow`` needs it without changes of its own; ``tell`` is told in a few words what takes long."""

    def __init__(
        self,
        home: VolumeHome,
        ring: KeyRing,
        store: SegmentStore,
        clock: Clock,
        *,
        boot: bytes,
        force: bool,
        follow: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._home = home
        self._ring = ring
        self._store = store
        self._clock = clock
        self._boot = boot
        self._force = force
        self._follow = follow
        self._tell = tell
        self.salvage: Path | None = None
        """Where it was set aside."""

    def judge(self, newest: Published) -> Verdict:
        """What local state is beside ``newest``.  Raises Unclean where the buckets are older, and nobody
        forces."""
        progress = read_progress(self._home)
        if progress is not None and not self._home.database_path.exists():
            progress = None
        verdict = judge(progress, newest)
        if verdict is Verdict.AHEAD and not self._force:
            assert progress is not None
            raise Unclean(
                f"the buckets' newest moment is {newest.manifest.sequence}, but "
                f"{progress.published.sequence} was published from here; bring the missing buckets back, "
                "or use --force to go on from theirs"
            )
        return verdict

    async def reconcile(self, newest: Published, *, writes: bool) -> Reconciled:
        """Makes local state that of ``newest``, or one that descends from it.  Raises Unclean, Corrupt and
        what the store raises."""
        verdict = self.judge(newest)
        if verdict is Verdict.SAME and not await self._is_sound(newest.manifest):
            verdict = Verdict.ROTTEN
        # The mark of what has rotted goes with it: until then a crash must not make changes of the damage.
        clean = verdict is Verdict.ROTTEN or await trio.to_thread.run_sync(self._home.take_clean)
        self._home.remove_followed()
        log.info(
            "local state verdict=%s clean=%s sequence=%d", verdict.value, clean, newest.manifest.sequence
        )
        if verdict not in (Verdict.SAME, Verdict.OWN):
            # Such a mark means that the buckets had everything; where they went back they do not.
            copied = clean or self._home.is_mirror()
            await self._clear(copied and verdict is not Verdict.AHEAD)
        with ExitStack() as undo:
            replica = self._open_replica(newest.manifest)
            undo.callback(replica.close)
            if verdict in (Verdict.SAME, Verdict.OWN):
                stack = await self._agree(replica, newest, verdict)
                carried = None if clean and verdict is Verdict.SAME else await self._differences(replica)
                meta = MetaDatabase.open(self._home.database_path, boot_id=self._boot)
            else:
                stack, meta = await self._recover(newest.manifest, replica)
                carried = None
            undo.callback(meta.close)
            moment = Moment.of(newest, stack)
            await trio.to_thread.run_sync(write_progress, self._home, Progress(moment.mark))
            if writes:
                await trio.to_thread.run_sync(self._home.clear_mirror)
            else:
                await self._mirror(changed=carried is not None and len(carried.pages) > 0)
            undo.pop_all()
        return Reconciled(verdict, moment, replica, meta, carried)

    async def _is_sound(self, manifest: Manifest) -> bool:
        """Whether a table that ended clean still is, byte for byte, what was published: what the disk has
        changed since must not be served, and not be shipped with the next change of its page."""

        def compare() -> bool:
            if not self._home.clean_path.exists():
                return True
            with self._open_replica(manifest) as replica:
                if replica.digest != manifest.digest:
                    return True  # nothing to compare with; the replica is fetched again
                try:
                    return replica.is_image_of(self._home.database_path)
                except Unclean:
                    return True

        if await trio.to_thread.run_sync(compare):
            return True
        told = (
            f"{self._home.database_path} is not what it was when the volume was unmounted: the disk has "
            "damaged it, and the inode table is recovered from the buckets"
        )
        log.error("%s", told)
        self._tell(told)
        return False

    async def _mirror(self, *, changed: bool) -> None:
        """A mount that reads leaves the local state as it is: is it all in the buckets?"""
        if not changed:
            await trio.to_thread.run_sync(self._home.mark_mirror)
        elif self._follow and not self._home.is_mirror():
            raise Unclean(
                f"{self._home.path} holds changes that are not in the buckets, and following would throw "
                "them away: mount the volume for writing first, and unmount it"
            )

    async def _recover(self, manifest: Manifest, replica: Replica) -> tuple[Stack, MetaDatabase]:
        self._tell(f"recovering {manifest.page_count} pages of the inode table")
        stack = await replay(self._store, manifest, replica)
        path, boot = self._home.database_path, self._boot
        table = await rebuild_table(self._store, manifest, replica, path, boot)
        return stack, await audited(table, manifest)

    def _open_replica(self, manifest: Manifest) -> Replica:
        key = self._ring.get(manifest.digest_key)
        return Replica(self._home.replica_path, lambda number, image: page_hash(key, number, image))

    async def _agree(self, replica: Replica, newest: Published, verdict: Verdict) -> Stack:
        """Makes sure that the replica is the newest moment's, whatever a crash left of it."""
        manifest = newest.manifest
        if verdict is Verdict.SAME and replica.digest == manifest.digest:
            agrees = True
        else:
            agrees = await catch_up(self._store, manifest, replica)
        if not agrees:
            log.warning("replica differs from manifest %d: fetched again", manifest.sequence)
            await trio.to_thread.run_sync(replica.clear)
            return await replay(self._store, manifest, replica)
        return await read_stack(self._store, manifest, read_delta_pages(self._home))

    async def _differences(self, replica: Replica) -> PageSet:
        """Pages that the table has beyond the replica."""
        self._tell("comparing the inode table with its last checkpoint")
        await trio.to_thread.run_sync(settle, self._home.database_path)
        return await trio.to_thread.run_sync(replica.diff, self._home.database_path)

    async def _clear(self, worthless: bool) -> None:
        """Makes room for a recovery; what may hold data that was never uploaded is kept."""
        home = self._home
        if (worthless and not home.half_set_aside) or holds_nothing(home):
            await trio.to_thread.run_sync(home.remove_contents)
            return
        stamp = f"{self._clock.now_ns() // NS}"
        self.salvage = await trio.to_thread.run_sync(self._home.set_aside, stamp)
        told = (
            f"local state is not part of what the buckets hold and is kept at {self.salvage}: "
            "files written here and never uploaded are only there; objfs salvage copies them"
        )
        log.error("%s", told)
        self._tell(told)
