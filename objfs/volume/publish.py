"""One checkpoint of an open volume without a mount: for those who change its table and serve nobody.

Owns a cache and a checkpointer for as long as that takes.  Promises that what was never uploaded goes along,
that nothing is condemned anew which was not before, and an end in bounded time: what could not be published
by then is in the local table, and the next mount publishes it.
"""

from __future__ import annotations

import logging

import trio

from objfs.cache.cache import ChunkCache
from objfs.cache.durability import GroupSync
from objfs.cache.settings import CacheSettings
from objfs.errors import ObjfsError, Unreachable
from objfs.meta.pages import PageSet
from objfs.ports import Clock
from objfs.volume.checkpoint import Checkpointer, Moment, Parts
from objfs.volume.debts import Debts
from objfs.volume.open import OpenVolume
from objfs.volume.reaper import Reaper, Retention
from objfs.volume.shipping import Stack

log = logging.getLogger(__name__)

PUBLISH_S = 900.0


async def publish_open(volume: OpenVolume, clock: Clock, *, fresh_base: bool) -> bool:
    """Makes everything recoverable; returns whether no manifest is under way any more.

    The caller renews the lease meanwhile, and closes the volume.  ``fresh_base``: the pages in the buckets
    are not to be built upon.  Raises LeaseLost, ReadOnly, NoQuorum,
    and Unreachable when the buckets do not take it in time.
    """
    assert volume.lease is not None
    sync = GroupSync(volume.meta.sync_log, volume.gate)
    cache = ChunkCache(
        volume.home.cache_path,
        volume.header.chunk_size,
        volume.meta,
        sync,
        volume.store,
        CacheSettings(reserve_bytes=0),
        volume.gate,
        clock,
    )
    cache.recover()
    checkpointer = _checkpointer(volume, cache, sync, clock, fresh_base)
    try:
        await _flush(cache, checkpointer)
    finally:
        cache.close()
    return checkpointer.settled


async def _flush(cache: ChunkCache, checkpointer: Checkpointer) -> None:
    failure: ObjfsError | None = None
    with trio.move_on_after(PUBLISH_S) as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(cache.run)
            try:
                while checkpointer.changed:
                    await checkpointer.flush()
            except ObjfsError as error:
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if scope.cancelled_caught:
        why = cache.statistics().last_error or "they do not answer"
        raise Unreachable(f"the buckets did not take everything in {PUBLISH_S:g} s ({why}): mount the volume")


def _checkpointer(
    volume: OpenVolume, cache: ChunkCache, sync: GroupSync, clock: Clock, fresh_base: bool
) -> Checkpointer:
    assert volume.lease is not None
    debts = Debts(volume.home, clock)
    reaper = Reaper(volume.meta, volume.buckets, volume.ring, volume.lease, clock, Retention(), debts)
    reaper.resume(volume.moment.manifest)
    parts = Parts(
        pages=volume.meta.log,
        replica=volume.replica,
        cache=cache,
        store=volume.store,
        buckets=volume.buckets,
        ring=volume.ring,
        lease=volume.lease,
        home=volume.home,
        gate=volume.gate,
        clock=clock,
        sync=sync.sync,
        schema=volume.meta.schema_version,
    )
    start, carried = volume.moment, volume.carried
    if fresh_base:
        start = Moment(start.manifest, start.mark, Stack())
        carried = carried or _one_page(volume)
    return Checkpointer(
        parts, start=start, interval_s=PUBLISH_S, carried=carried, condemn=reaper.condemn, note=reaper.note
    )


def _one_page(volume: OpenVolume) -> PageSet:
    """What a checkpoint of an unchanged table carries, so that there is one."""
    replica = volume.replica
    first = replica.page(1)
    return PageSet(len(first), replica.page_count, {1: first})
