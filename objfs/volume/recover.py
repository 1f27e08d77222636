"""From a manifest back to an inode table.

Owns the replay: base, deltas, digest, patch; and the way from one moment to a later one.  Promises that a
table is handed out only when the keyed hash over all its pages is the manifest's, and that the newest image
of a page wins whatever the number of deltas.  Does not choose the manifest.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from objfs.errors import Corrupt
from objfs.meta import replica as meta_replica
from objfs.meta.table import MetaDatabase
from objfs.store import layout
from objfs.volume.blobs import BlobRef
from objfs.volume.manifest import Manifest
from objfs.volume.ports import BlobStore, Replica
from objfs.volume.shipping import Stack, base_page_count, delta_key, read_pages, read_patch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pages:
    """A group of page images on its way into a replica."""

    page_size: int
    page_count: int
    pages: dict[int, bytes]


async def replay(store: BlobStore, manifest: Manifest, replica: Replica) -> Stack:
    """Brings an empty replica to the manifest's moment: each page is written once, the newest image.

    Returns the stack with the page numbers of each delta.  Raises Corrupt when the digest differs, and what
    the store raises.
    """
    deltas = []
    newer: set[int] = set()
    for delta in reversed(manifest.deltas):
        numbers = await _apply(store, manifest, replica, delta.blobs, newer)
        deltas.append((delta, numbers))
        newer |= numbers
    await _apply(store, manifest, replica, manifest.base, newer)
    await trio.to_thread.run_sync(verify, replica, manifest)
    log.info("replayed sequence=%d pages=%d deltas=%d", manifest.sequence, manifest.page_count, len(deltas))
    return Stack(manifest.base, base_page_count(manifest), tuple(reversed(deltas)))


async def _apply(
    store: BlobStore, manifest: Manifest, replica: Replica, blobs: Sequence[BlobRef], newer: Collection[int]
) -> frozenset[int]:
    """Applies the pages that are not in ``newer``; returns the numbers of all."""
    numbers: set[int] = set()
    async for group in read_pages(store, blobs, manifest.page_size):
        numbers.update(number for number, _ in group)
        wanted = {
            number: image for number, image in group if number not in newer and number <= manifest.page_count
        }
        pages = Pages(manifest.page_size, manifest.page_count, wanted)
        await trio.to_thread.run_sync(replica.apply, pages)
    return frozenset(numbers)


async def catch_up(store: BlobStore, manifest: Manifest, replica: Replica) -> bool:
    """Brings a replica of the manifest before to ``manifest`` by its last delta: for a crash between the
    publishing and the replica.  False where that does not give the manifest's digest."""
    if manifest.deltas:
        await _apply(store, manifest, replica, manifest.deltas[-1].blobs, frozenset())
    return stands_for(replica, manifest)


async def advance(store: BlobStore, before: Manifest | None, manifest: Manifest, replica: Replica) -> None:
    """Brings a replica of ``before`` to a later ``manifest`` by the deltas that are new, or else by all of it
    (None: nobody knows what the replica holds).

    Raises Corrupt, and what the store raises; then nobody knows what the replica holds.
    """
    if before is not None and _names(before.base) == _names(manifest.base):
        known = {delta_key(delta) for delta in before.deltas}
        for delta in manifest.deltas:
            if delta_key(delta) not in known:
                await _apply(store, manifest, replica, delta.blobs, frozenset())
        if stands_for(replica, manifest):
            log.info("replica advanced from=%d to=%d", before.sequence, manifest.sequence)
            return
        log.warning("deltas do not lead from %d to %d: replayed", before.sequence, manifest.sequence)
    await trio.to_thread.run_sync(replica.clear)
    await replay(store, manifest, replica)


def _names(blobs: Sequence[BlobRef]) -> list[bytes]:
    """What a blob holds is told by its name; where it lies may have changed."""
    return [blob.segment.uuid for blob in blobs]


def stands_for(replica: Replica, manifest: Manifest) -> bool:
    """Whether the replica's pages give the manifest's digest."""
    return replica.digest == manifest.digest and replica.page_count == manifest.page_count


def verify(replica: Replica, manifest: Manifest) -> None:
    """Raises Corrupt unless the replica's digest is the manifest's."""
    if not stands_for(replica, manifest):
        raise Corrupt(
            f"{layout.manifest_name(manifest.sequence)}: its pages do not give its digest; run fsck, or "
            "recover the moment before it with --force"
        )


async def rebuild_table(
    store: BlobStore, manifest: Manifest, replica: meta_replica.Replica, path: Path, boot: bytes
) -> MetaDatabase:
    """An open inode table from a replica that stands for ``manifest``: pages, then the patch.

    Made in a worker: the loop is not held up.  Raises Corrupt, and what the store raises.
    """
    patch = await read_patch(store, manifest)

    def make() -> MetaDatabase:
        replica.restore(path)
        table = MetaDatabase.open(path, boot_id=boot, movable=True)
        try:
            with table.transaction():
                table.clear_local()
                table.apply_patch(patch.segments, patch.placed)
        except BaseException:
            table.close()
            raise
        return table

    table = await trio.to_thread.run_sync(make)
    log.info("table made sequence=%d placed=%d", manifest.sequence, len(patch.placed))
    return table


async def audited(table: MetaDatabase, manifest: Manifest) -> MetaDatabase:
    """The table, where it breaks none of its own rules.  Reads all of it, in a worker; closes it and raises
    Corrupt otherwise."""
    try:
        findings = await trio.to_thread.run_sync(table.check)
        if findings:
            raise Corrupt(
                f"{layout.manifest_name(manifest.sequence)}: the recovered table is damaged: {findings[0]} "
                f"({len(findings)} findings); objfs fsck --repair mends it"
            )
    except BaseException:
        table.close()
        raise
    return table
