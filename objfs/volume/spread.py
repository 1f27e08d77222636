"""The newest header on every bucket: what was away when it was rewritten gets it, and nothing rolls it back.

Owns the comparison of the headers that buckets hold.  Only what opens with the volume's keys counts: a bucket
that claims a high generation and proves nothing is overwritten.  Promises that a header is never written over
a genuine newer one that could be read there just before.  Does not know secrets or slots.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from objfs.backends.base import Bucket
from objfs.codec.keys import KeyRing
from objfs.errors import CodecError, NewerFormat, NoQuorum, NoSuchObject, UnknownKey
from objfs.model import Slot
from objfs.store import layout
from objfs.volume import header as headers
from objfs.volume.header import HEADER_MAX, ClearHeader, VolumeHeader
from objfs.volume.quorum import Answers, BucketSet

log = logging.getLogger(__name__)


async def spread_header(
    buckets: BucketSet, ring: KeyRing, header: VolumeHeader, found: Mapping[str, bytes]
) -> None:
    """Puts the newest header on the buckets that were ``found`` (by URL) with an older one, or with none
    where a majority needs them.  By the lease's holder, before it seals anything: a key that only a minority
    of the voters holds could be lost with them.

    Raises NoQuorum, also where one that was not found before turns out to hold a newer one.
    """
    generations = {where: _generation(data) for where, data in found.items()}
    holding = [
        slot
        for slot, bucket in buckets.buckets.items()
        if generations.get(bucket.url, -1) >= header.generation
    ]
    missing = [slot for slot in buckets.buckets if slot not in holding]
    behind = any(generations.get(buckets.buckets[slot].url, -1) >= 0 for slot in missing)
    if not behind and sum(slot in holding for slot in buckets.voters) >= buckets.quorum:
        return
    data = headers.encode(header, ring)

    async def put(slot: Slot, bucket: Bucket) -> None:
        await _replace(bucket, buckets.name(slot), ring, header.generation, data)

    def enough(answers: Answers[None]) -> bool:
        held = {*holding, *answers.values}
        return sum(slot in held for slot in buckets.voters) >= buckets.quorum

    answers = await buckets.each(put, slots=missing, enough=enough)
    for error in answers.errors.values():
        if isinstance(error, NoQuorum):
            raise error
    log.info("header spread generation=%d buckets=%s", header.generation, sorted(answers.values))
    if not enough(answers):
        raise NoQuorum(
            f"the newest header is on fewer than {buckets.quorum} of {len(buckets.voters)} voting buckets "
            "and cannot be put on the others now; bring them back"
        )


async def refresh_headers(buckets: BucketSet, ring: KeyRing) -> None:
    """Copies the newest genuine header of those that answer to those that hold an older one or none.

    By the lease's holder, now and then: for buckets that were away at the mount, or when a key command
    rewrote the header.  What fails is left for the next time.
    """

    async def get(slot: Slot, bucket: Bucket) -> bytes:
        return await _read(bucket)

    found = (await buckets.each(get)).values
    proven = {slot: _proven(data, ring) for slot, data in found.items()}
    newest = max(proven, key=lambda slot: proven[slot], default=None)
    if newest is None or not proven[newest]:
        return
    stale = [slot for slot, generation in proven.items() if generation < proven[newest]]

    async def put(slot: Slot, bucket: Bucket) -> None:
        await _replace(bucket, buckets.name(slot), ring, proven[newest], found[newest])
        log.info("header renewed bucket=%s generation=%d", buckets.name(slot), proven[newest])

    answers = await buckets.each(put, slots=stale)
    for slot, error in answers.errors.items():
        log.warning("header not renewed bucket=%s: %s", buckets.name(slot), error)


async def refuse_changed(buckets: BucketSet, ring: KeyRing, generation: int) -> None:
    """Raises NoQuorum where somebody has written this generation or a later one since the header was read:
    on one bucket, where that opens with our keys; on a majority of the voters, where it does not.  And where
    no majority of them answers: then nobody can tell."""

    async def get(_slot: Slot, bucket: Bucket) -> bytes:
        return await _read(bucket)

    def enough(answers: Answers[bytes]) -> bool:
        return answers.count(buckets.voters) >= buckets.quorum

    answers = await buckets.each(get, enough=enough)
    if not enough(answers):
        raise NoQuorum(
            f"the header can be read at {answers.count(buckets.voters)} of {len(buckets.voters)} voting "
            f"buckets, {buckets.quorum} are needed; nothing was changed"
        )
    unknown = 0
    for slot, data in answers.values.items():
        clear = _parsed(data)
        if clear is None or clear.generation < generation:
            continue
        genuine = _genuine(clear, ring)
        unknown += genuine is None and slot in buckets.voters
        if genuine or unknown >= buckets.quorum:
            raise NoQuorum(
                f"the header on {buckets.name(slot)} was changed by somebody else; repeat the command"
            )


async def newest_here(buckets: BucketSet, ring: KeyRing, known: VolumeHeader) -> VolumeHeader:
    """The newest genuine header on the buckets that answer, or the one that is known already."""

    async def get(_slot: Slot, bucket: Bucket) -> bytes:
        return await _read(bucket)

    def enough(answers: Answers[bytes]) -> bool:
        return answers.count(buckets.voters) >= buckets.quorum

    newest = known
    for data in (await buckets.each(get, enough=enough)).values.values():
        clear = _parsed(data)
        if clear is not None and clear.generation > newest.generation and _genuine(clear, ring):
            newest = headers.decode(clear, ring)
    return newest


async def _replace(bucket: Bucket, where: str, ring: KeyRing, generation: int, data: bytes) -> None:
    """Puts the header unless one as new stands there.  Raises NoQuorum where a newer one does, UnknownKey
    where nobody can tell."""
    there = await _rival(bucket, where, ring, generation)
    if there > generation:
        raise NoQuorum(f"{where} holds a newer header (its keys were changed); try again")
    if not there:
        await bucket.put(layout.HEADER, data)


async def put_over_older(bucket: Bucket, where: str, ring: KeyRing, generation: int, data: bytes) -> None:
    """Puts a header that nobody else has.  Raises NoQuorum where one of this generation or a later one stands
    already, UnknownKey where nobody can tell."""
    if await _rival(bucket, where, ring, generation):
        raise NoQuorum(f"the header on {where} was changed by somebody else; repeat the command")
    await bucket.put(layout.HEADER, data)


async def _rival(bucket: Bucket, where: str, ring: KeyRing, generation: int) -> int:
    """The generation of the header there, where that is genuine and no older; else 0."""
    there = _header_in(await _read(bucket))
    if there is None or there.generation < generation:
        return 0
    genuine = _genuine(there, ring)
    if genuine is None:
        raise UnknownKey(f"{where} holds a header under a key that is not known here; it is left alone")
    return there.generation if genuine else 0


async def _read(bucket: Bucket) -> bytes:
    """Empty where there is none."""
    try:
        return await bucket.get(layout.HEADER, 0, HEADER_MAX + 1)
    except NoSuchObject:
        return b""


def _header_in(data: bytes) -> ClearHeader | None:
    """None for what is no header.  Raises NewerFormat: what a newer program wrote is left alone."""
    try:
        return headers.read_clear(data)
    except NewerFormat:
        raise
    except CodecError:
        return None


def _parsed(data: bytes) -> ClearHeader | None:
    try:
        return _header_in(data)
    except NewerFormat as error:
        log.warning("header skipped: %s", error)
        return None


def _genuine(clear: ClearHeader, ring: KeyRing) -> bool | None:
    """Whether a header was written by somebody who has the volume's keys; None where that takes one more."""
    try:
        headers.decode(clear, ring)
    except UnknownKey:
        return None
    except CodecError:
        return False
    return True


def _proven(data: bytes, ring: KeyRing) -> int:
    """The generation of a genuine header, else 0."""
    clear = _parsed(data)
    return clear.generation if clear is not None and _genuine(clear, ring) else 0


def _generation(data: bytes) -> int:
    """0 for what is no header; that of a newer program is left alone."""
    try:
        return headers.read_clear(data).generation
    except NewerFormat:
        return headers.GENERATION_MAX
    except CodecError:
        return 0
