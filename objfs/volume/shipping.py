"""Pages and patches on their way into the buckets and back.

Owns how a page set becomes a base or a delta (by the policy of ``levels``), how a patch becomes inline
bytes or blobs, and how both are read again.  Promises that packing runs in worker threads, that at most
``READ_AHEAD`` blobs are in memory while reading, and that every blob's identity is what the manifest says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import trio

from objfs.errors import ObjfsError
from objfs.model import Segment, SegmentKind
from objfs.volume import levels, pages
from objfs.volume import patch as patches
from objfs.volume.blobs import BlobRef
from objfs.volume.levels import DeltaPages
from objfs.volume.manifest import INLINE_PATCH_MAX, Delta, Manifest
from objfs.volume.patch import Patch
from objfs.volume.ports import BlobStore

READ_AHEAD = 4

PageSource = Callable[[int], bytes]
"""The image of a page by its number."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Base and deltas of a manifest with the page numbers of each delta, oldest first."""

    base: tuple[BlobRef, ...] = ()
    base_pages: int = 0
    deltas: tuple[tuple[Delta, frozenset[int]], ...] = ()

    def moved(self, segments: Mapping[bytes, Segment]) -> Stack:
        """The same blobs where these segments (by uuid) lie now."""

        def at(blobs: tuple[BlobRef, ...]) -> tuple[BlobRef, ...]:
            return tuple(replace(one, segment=segments.get(one.segment.uuid, one.segment)) for one in blobs)

        deltas = ((replace(delta, blobs=at(delta.blobs)), pages) for delta, pages in self.deltas)
        return Stack(at(self.base), self.base_pages, tuple(deltas))

    @property
    def shapes(self) -> list[DeltaPages]:
        return [DeltaPages(delta.level, numbers) for delta, numbers in self.deltas]


async def ship_pages(
    store: BlobStore,
    stack: Stack,
    changed: Collection[int],
    page_count: int,
    page_size: int,
    image: PageSource,
) -> Stack:
    """Uploads what the policy asks for after ``changed`` pages; returns the new stack."""
    numbers = frozenset(number for number in changed if number <= page_count)
    if not numbers and stack.base:
        return stack
    plan = levels.plan(stack.base_pages, stack.shapes, numbers)
    if plan.rewrite_base:
        base = await write_pages(store, range(1, page_count + 1), page_size, image)
        return Stack(base, page_count)
    wanted = frozenset(number for number in plan.pages if number <= page_count)
    blobs = await write_pages(store, wanted, page_size, image)
    delta = Delta(plan.level, len(wanted), blobs)
    return Stack(stack.base, stack.base_pages, (*stack.deltas[: plan.keep], (delta, wanted)))


async def write_pages(
    store: BlobStore, numbers: Collection[int], page_size: int, image: PageSource
) -> tuple[BlobRef, ...]:
    """One blob per group of pages; raises what the store raises."""
    blobs = []
    for group in pages.grouped(numbers, page_size):
        plain = await trio.to_thread.run_sync(_encode_group, page_size, group, image)
        blobs.append(BlobRef(*await store.write_blob(SegmentKind.PAGES, plain)))
    return tuple(blobs)


def _encode_group(page_size: int, group: Sequence[int], image: PageSource) -> bytes:
    return pages.encode(page_size, [(number, image(number)) for number in group])


async def ship_patch(store: BlobStore, patch: Patch) -> tuple[bytes, tuple[BlobRef, ...]]:
    """Inline bytes or blobs, whichever the size asks for."""
    parts = await trio.to_thread.run_sync(patches.encode, patch)
    if len(parts) == 1 and len(parts[0]) <= INLINE_PATCH_MAX:
        return parts[0], ()
    blobs = [BlobRef(*await store.write_blob(SegmentKind.PATCH, part)) for part in parts]
    return b"", tuple(blobs)


async def read_patch(store: BlobStore, manifest: Manifest) -> Patch:
    """The patch of a manifest.  Raises Corrupt and what the store raises."""
    parts = [manifest.inline_patch] if manifest.inline_patch else []
    parts += [await store.read_blob(blob.segment, blob.location) for blob in manifest.patch]
    return await trio.to_thread.run_sync(patches.decode, parts)


async def read_pages(
    store: BlobStore, blobs: Sequence[BlobRef], page_size: int
) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The page groups of ``blobs`` in their order; a few blobs are fetched at once."""
    for start in range(0, len(blobs), READ_AHEAD):
        for plain in await _read_blobs(store, blobs[start : start + READ_AHEAD]):
            yield await trio.to_thread.run_sync(pages.decode, plain, page_size)


async def _read_blobs(store: BlobStore, blobs: Sequence[BlobRef]) -> list[bytes]:
    found: dict[int, bytes] = {}
    failures: list[ObjfsError] = []

    async def read(position: int, blob: BlobRef) -> None:
        try:
            found[position] = await store.read_blob(blob.segment, blob.location)
        except ObjfsError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for position, blob in enumerate(blobs):
            nursery.start_soon(read, position, blob)
    if failures:
        raise failures[0]
    return [found[position] for position in range(len(blobs))]


async def read_stack(store: BlobStore, manifest: Manifest, known: dict[bytes, frozenset[int]]) -> Stack:
    """The stack of a manifest; page numbers that are not ``known`` (by a delta's first blob) are read."""
    deltas = []
    for delta in manifest.deltas:
        numbers = known.get(delta_key(delta))
        if numbers is None or len(numbers) != delta.pages:
            numbers = await _read_numbers(store, delta, manifest.page_size)
        deltas.append((delta, numbers))
    return Stack(manifest.base, base_page_count(manifest), tuple(deltas))


def base_page_count(manifest: Manifest) -> int:
    """How many pages the base's blobs hold, from their sizes."""
    return sum(pages.count_in(blob.location.size, manifest.page_size) for blob in manifest.base)


def delta_key(delta: Delta) -> bytes:
    """What names a delta for good: the uuid of its first blob."""
    return delta.blobs[0].segment.uuid


async def _read_numbers(store: BlobStore, delta: Delta, page_size: int) -> frozenset[int]:
    numbers: set[int] = set()
    async for group in read_pages(store, delta.blobs, page_size):
        numbers.update(number for number, _ in group)
    return frozenset(numbers)
