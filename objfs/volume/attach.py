"""Learning a volume from its buckets, and telling which bucket is which.

Owns ``attach`` (a new machine) and the check of labels at a mount.  Promises that one bucket is enough to
learn a volume, that a bucket which belongs elsewhere is refused by name, and that one whose label cannot
be read is not trusted.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from objfs.backends.base import Bucket
from objfs.codec.keys import KeyRing
from objfs.errors import (
    CodecError,
    ForeignBucket,
    NoSuchBucket,
    NoSuchObject,
    NoSuchVolume,
    Temporary,
    UsageError,
)
from objfs.model import Slot
from objfs.store import layout
from objfs.volume import header as headers
from objfs.volume import label as labels
from objfs.volume.config import BucketPlace, VolumeConfig
from objfs.volume.guard import GuardedBucket
from objfs.volume.header import Secret, VolumeHeader
from objfs.volume.keys import read_headers
from objfs.volume.label import Label
from objfs.volume.local import VolumeHome
from objfs.volume.quorum import BucketSet
from objfs.volume.settings import VolumeSettings
from objfs.volume.table import BucketEntry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Offered:
    """A bucket that a person named: its URL and options as they go into volume.toml, and the bucket."""

    url: str
    options: Mapping[str, str]
    bucket: Bucket


@dataclass(frozen=True, slots=True)
class Learned:
    """A volume as the buckets at hand show it; ``places`` are those buckets."""

    header: VolumeHeader
    ring: KeyRing
    places: tuple[BucketPlace, ...]


@dataclass(frozen=True, slots=True)
class Attached:
    """What this machine knows of a volume from now on.  ``missing`` are the buckets of the table that it does
    not reach."""

    header: VolumeHeader
    ring: KeyRing
    missing: tuple[BucketEntry, ...]


async def read_volume(buckets: Mapping[str, Bucket], secret: Secret) -> tuple[VolumeHeader, KeyRing]:
    """The newest genuine header on the buckets (name -> bucket), and the ring.

    Raises NoSuchVolume, WrongPassphrase, NewerFormat, UsageError; a bucket's own error where none answers.
    """
    return await trio.to_thread.run_sync(headers.newest, await find_headers(buckets), secret)


async def find_headers(buckets: Mapping[str, Bucket]) -> dict[str, bytes]:
    """The headers, unopened, by the name of the bucket.  Raises NoSuchVolume where there is none, a bucket's
    own error where none answers."""
    found, errors = await read_headers(buckets)
    if not found:
        silent = [error for error in errors.values() if not isinstance(error, NoSuchObject)]
        if silent:
            raise silent[0]
        raise NoSuchVolume(f"no volume in {', '.join(buckets)}; is this the right bucket and prefix?")
    return found


async def learn(offered: Sequence[Offered], secret: Secret) -> Learned:
    """The volume whose buckets these are.  Raises as ``read_volume`` and ``identify_places``."""
    header, ring = await read_volume({item.url: item.bucket for item in offered}, secret)
    return Learned(header, ring, tuple(await identify_places(offered, header, ring)))


def require_new(home: VolumeHome) -> None:
    """Raises VolumeExists where the name is taken here."""
    if home.config_path.exists():
        home.create()


def attach(home: VolumeHome, learned: Learned, settings: VolumeSettings | None = None) -> Attached:
    """Writes ``volume.toml`` for a volume that exists in the buckets.  Those that are not among the places
    count as lost until ``add_places``.  Raises VolumeExists (name taken here)."""
    home.create()
    header, places = learned.header, learned.places
    home.write_config(VolumeConfig(header.volume, places, settings or VolumeSettings()))
    attached = _attached(learned, {place.uuid for place in places})
    log.info(
        "attached volume=%s buckets=%d missing=%d", header.volume.hex(), len(places), len(attached.missing)
    )
    return attached


def add_places(home: VolumeHome, learned: Learned) -> Attached:
    """Adds URLs of buckets that the volume has already, or replaces their URLs here.  Raises ForeignBucket
    where they are another volume's."""
    config = home.read_config()
    if learned.header.volume != config.volume:
        raise ForeignBucket(
            f"these buckets belong to volume {learned.header.volume.hex()}, not to {home.name}"
        )
    known = {place.uuid: place for place in config.buckets}
    known |= {place.uuid: _moved(known.get(place.uuid), place) for place in learned.places}
    home.write_config(replace(config, buckets=tuple(known.values())))
    return _attached(learned, known)


def _moved(before: BucketPlace | None, place: BucketPlace) -> BucketPlace:
    """Options are for one kind of bucket, and stay with another address of it."""
    kept = before is not None and before.url.partition(":")[0] == place.url.partition(":")[0]
    return replace(place, options={**before.options, **place.options}) if before and kept else place


def _attached(learned: Learned, known: Container[bytes]) -> Attached:
    header = learned.header
    return Attached(header, learned.ring, tuple(entry for entry in header.buckets if entry.uuid not in known))


async def identify_places(
    offered: Sequence[Offered], header: VolumeHeader, ring: KeyRing
) -> list[BucketPlace]:
    """Which buckets of the volume these are, by their labels.  Raises ForeignBucket, UsageError, and what a
    bucket that does not answer raises."""
    found: dict[str, Label] = {}
    for item in offered:
        try:
            found[item.url] = labels.decode(await item.bucket.get(layout.LABEL), ring)
        except CodecError as error:
            raise ForeignBucket(f"{item.url} has no readable label of this volume: {error}") from None
    if len(found) < len(offered):
        raise UsageError("the same bucket URL was given twice")
    entries = labels.match(found, header.buckets, header.volume)
    return [BucketPlace(entries[item.url].uuid, item.url, dict(item.options)) for item in offered]


async def identified(
    header: VolumeHeader, ring: KeyRing, buckets: Mapping[bytes, Bucket]
) -> tuple[BucketSet, dict[Slot, str]]:
    """The buckets (by uuid, as in volume.toml) that prove by their label who they are.

    One that does not answer is used once it does and proves itself; one without a sound label is left
    out, and why is returned.  Raises ForeignBucket for a bucket that proves to be another.
    """
    entries = {entry.uuid: entry for entry in header.buckets}
    for uuid in buckets.keys() - entries.keys():
        log.warning("bucket in volume.toml is not in the volume any more uuid=%s", uuid.hex())
    given = {entries[uuid].slot: bucket for uuid, bucket in buckets.items() if uuid in entries}
    everybody = BucketSet(header.buckets, given)
    by_slot = {entry.slot: entry for entry in header.buckets}

    def check(slot: Slot, data: bytes) -> None:
        labels.require(labels.decode(data, ring), by_slot[slot], header.volume, everybody.name(slot))

    async def read(slot: Slot, bucket: Bucket) -> None:
        check(slot, await bucket.get(layout.LABEL))

    answers = await everybody.each(
        read, slots=tuple(given), enough=lambda found: 2 * len(found.values) > len(given)
    )
    left_out: dict[Slot, str] = {}
    for slot, error in answers.errors.items():
        if isinstance(error, ForeignBucket):
            raise error
        if isinstance(error, Temporary | NoSuchBucket):
            given[slot] = GuardedBucket(given[slot], partial(check, slot))
        else:
            left_out[slot] = str(error)
            del given[slot]
        log.warning("bucket not identified bucket=%s: %s", everybody.name(slot), error)
    return BucketSet(header.buckets, given), left_out
