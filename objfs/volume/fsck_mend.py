"""Mending an open volume: rows of the inode table, shards, chunks that only the cache has; then a checkpoint.

Owns the order: what segments tell, the table's own rules, what is lost for good, shards, cache.  Promises
that nothing is declared lost while a bucket was not listed, that a last copy is used before it is given up,
and that all of it is published as one moment at the end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import trio

from objfs.cache.disk import version_path
from objfs.cache.offline import CacheDirectory
from objfs.cache.ranges import RangeSet
from objfs.codec import identify
from objfs.errors import CodecError, NotEnoughShards, ObjfsError, StoreError
from objfs.meta.lostfound import Repaired
from objfs.meta.view import TableView
from objfs.model import Chunk, ChunkState, Segment, SegmentNo, Slot
from objfs.ports import Clock, Sealable
from objfs.store.scan import Found
from objfs.volume.fsck import TABLE_RULES, FsckOptions, Look
from objfs.volume.fsck_atlas import Atlas
from objfs.volume.fsck_local import strays_of
from objfs.volume.fsck_subject import BATCH, ask
from objfs.volume.listing import Places
from objfs.volume.open import OpenVolume
from objfs.volume.publish import publish_open

log = logging.getLogger(__name__)


class Mending:
    """One repair of one open volume; ``done`` says what was done, ``lost`` what could not be brought back."""

    def __init__(self, volume: OpenVolume, look: Look, clock: Clock, options: FsckOptions) -> None:
        self._volume = volume
        self._look = look
        self._clock = clock
        self._cache = CacheDirectory(volume.home.cache_path, options.boot)
        self._repairs = volume.meta.repairs(clock.now_ns(), volume.ring.current.key_id)
        self._stamp = f"{clock.now_ns() // 1_000_000_000}"
        self.done: list[str] = []
        self.lost: list[Repaired] = []

    async def run(self) -> None:
        """Mends, publishes and closes the volume.  Raises LeaseLost, NoQuorum, BucketError, StoreError."""
        assert self._volume.lease is not None
        failure: Exception | None = None
        settled = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._volume.lease.run)
            try:
                await self._mend()
                settled = await publish_open(
                    self._volume, self._clock, fresh_base=self._look.around.blobs_lost
                )
            except (ObjfsError, OSError) as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            # The lease stays with this machine: its table has what is not published yet.
            self._volume.meta.close()
            self._volume.replica.close()
            raise failure
        await self._volume.close(clean=True, settled=settled)

    async def _mend(self) -> None:
        with TableView(self._volume.meta.path) as view:
            atlas = Atlas(self._look.around, view, self._volume.store, self._repairs)
            await atlas.run()
            self.done += atlas.done
            self._say(self._repairs.mend())
            if self._look.around.complete:
                self._say(self._repairs.give_up())
            await self._move(view)
            await self._restore(view)
            await self._heal(view)
            await self._give_up_bytes(view)
            await ask(self._clear_cache, view)

    def _say(self, repaired: Sequence[Repaired]) -> None:
        self.done += [f"{said.rule}: {said.text}" for said in repaired]
        self.lost += [said for said in repaired if said.lost]

    # --- shards ------------------------------------------------------------------------

    async def _move(self, view: TableView) -> None:
        """Rows say where the shards are."""
        for uuid, listed in self._look.around.moved.items():
            row = await ask(view.find_segment, uuid)
            if row is None or row.segment is None:
                continue
            placement, missing = placed_as_listed(row.segment, listed)
            moved = replace(row.segment, placement=placement, missing=missing)
            self._volume.meta.update_segment(row.number, moved)
            self.done.append(f"segment {uuid.hex()}: its row says where its shards are")

    async def _restore(self, view: TableView) -> None:
        """Shards that are gone or lie are put again."""
        for uuid, shards in self._look.around.shards.items():
            row, blob = await ask(view.find_segment, uuid), self._look.moments.blobs.get(uuid)
            if row is not None and row.segment is not None:
                await self._restore_one(row.number, row.segment, shards)
            elif blob is not None:
                await self._restore_one(None, blob.segment, shards)

    async def _restore_one(self, number: SegmentNo | None, segment: Segment, shards: set[int]) -> None:
        try:
            found = await self._volume.store.find_segment(segment.uuid.hex())
            named = Found(segment, found.layout)
            wanted = shards | segment.missing
            there = await self._volume.store.restore_shards(named, wanted)
        except (StoreError, CodecError) as error:
            self.done.append(f"segment {segment.uuid.hex()} could not be made whole: {error}")
            return
        if there:
            numbers = ", ".join(map(str, sorted(there)))
            self.done.append(f"segment {segment.uuid.hex()}: shards {numbers} are put again")
        if number is not None and there & segment.missing:
            self._volume.meta.update_segment(number, replace(segment, missing=segment.missing - there))

    # --- chunks ------------------------------------------------------------------------

    async def _heal(self, view: TableView) -> None:
        """Stored chunks of which too few shards are left, and that the cache still has whole."""
        items: list[Sealable] = []
        for chunk in list(self._look.around.lost):
            row = await ask(view.chunk, chunk)
            data = None if row is None else await ask(self._copy_of, view, row)
            if row is not None and data is not None:
                items.append(Sealable(chunk, row.ino, row.index, data))
                del self._look.around.lost[chunk]
        for batch in batches(items, self._volume.store.target_bytes):
            segment, placed = await self._volume.store.write_segment(batch)
            self._volume.meta.place(segment, placed)
            self.done += [f"chunk {one.chunk} is stored again from its copy in the cache" for one in placed]

    def _copy_of(self, view: TableView, row: Chunk) -> bytes | None:
        """Proven by the identity that the table has of it."""
        assert row.location is not None
        data = self._cache.clean(row.chunk, row.location.size)
        key = self._volume.ring.get(view.segment(row.location.segment).key_id)
        return data if data is not None and identify(key, data) == row.location.identity else None

    async def _give_up_bytes(self, view: TableView) -> None:
        """Versions that were never uploaded and miss bytes, of their own or of what lies below."""
        lost = set(self._look.cache.lost)
        after = 0
        while rows := await ask(view.dirty, after, BATCH):
            after = rows[-1].chunk
            for row in rows:
                if row.base in self._look.around.lost and await ask(self._needs_lost, view, row):
                    lost.add(row.chunk)
        if lost - set(self._look.cache.lost) and not self._look.around.complete:
            raise NotEnoughShards(
                "what was written here lies over chunks that cannot be read now: bring the buckets back that "
                "do not answer, and run fsck --repair again"
            )
        for chunk in sorted(lost):
            known = await ask(view.chunk, chunk)
            if known is None or known.state is not ChunkState.DIRTY:
                continue
            if known.base not in self._look.around.lost:
                self._say(self._repairs.keep_beneath(chunk))
            self._say(self._repairs.split(chunk, await ask(self._cache.length, chunk)))
        if lost:
            self._say(self._repairs.mend())

    def _needs_lost(self, view: TableView, row: Chunk) -> bool:
        """Whether lost bytes of the stored base would show."""
        assert row.base is not None
        own = RangeSet((one.offset, one.offset + one.length) for one in view.ranges(row.chunk))
        lost = RangeSet(self._look.around.lost[row.base])
        lost.clip(row.base_size)
        return bool(lost.minus(own))

    # --- the cache's directory ---------------------------------------------------------

    def _clear_cache(self, view: TableView) -> None:
        """Rotten copies go, as the buckets have the bytes; files of nobody are kept where rows were wrong."""
        look, home = self._look, self._volume.home
        for chunk in set(look.cache.rotten) - look.around.lost.keys():
            version_path(home.cache_path, chunk).unlink(missing_ok=True)
            self.done.append(f"chunk {chunk}: its copy in the cache was wrong and is removed")
        if not look.report.rules() & TABLE_RULES:
            return
        for path in strays_of(view, self._cache):
            target = home.path / f"salvage-{self._stamp}" / path.relative_to(home.path)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.rename(target)
            self.done.append(f"{path.relative_to(home.path)} is of no version: it is kept as {target}")


def placed_as_listed(segment: Segment, listed: Places) -> tuple[tuple[Slot, ...], frozenset[int]]:
    """Placement and missing shards as a listing has them; a shard that is nowhere keeps its slot."""
    slots = {shard: slot for slot, shards in sorted(listed.items(), reverse=True) for shard in shards}
    placement = tuple(slots.get(shard, segment.placement[shard]) for shard in range(segment.code.n))
    return placement, frozenset(range(segment.code.n)) - slots.keys()


def batches(items: Sequence[Sealable], target_bytes: int) -> Iterator[list[Sealable]]:
    """Groups of about ``target_bytes``."""
    batch: list[Sealable] = []
    for item in items:
        batch.append(item)
        if sum(len(one.data) for one in batch) >= target_bytes:
            yield batch
            batch = []
    if batch:
        yield batch
