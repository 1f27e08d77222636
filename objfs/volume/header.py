"""The volume header: the object ``header`` that every bucket holds.

Owns its two halves.  The clear half is what must be readable before any key is: volume uuid,
generation, feature bits and key slots.  The sealed half is what no stranger may know or change: chunk
size, code, bucket table, key ids, defaults.  The sealed half carries the SHA-256 of the clear half, so a
header whose halves were not written together does not open.  Promises that of several headers the
highest generation that proves itself wins.  Does not know where headers come from.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from objfs.codec.envelope import ENVELOPE_SIZE, Kind, pack_envelope, unpack_envelope
from objfs.codec.keys import KeyRing, Slot, open_slot, parse_recovery_key
from objfs.codec.seal import open_object, seal_object
from objfs.errors import (
    CodecError,
    Corrupt,
    NewerFormat,
    NoSuchVolume,
    UnknownKey,
    UsageError,
    WrongPassphrase,
)
from objfs.model import Code
from objfs.volume.features import Features
from objfs.volume.fields import JSON, Fields, canonical
from objfs.volume.table import BUCKETS_MAX, BucketEntry

log = logging.getLogger(__name__)

NAME = "header"
FORMAT = 1
SLOTS_MAX = 64
KEYS_MAX = 1024
GENERATION_MAX = 2**63 - 1
CHUNK_SIZE_MIN = 64 * 1024
CHUNK_SIZE_MAX = 16 * 1024 * 1024
HEADER_MAX = 4 * 1024 * 1024
"""A header longer than this, in bytes, is refused unread."""


def is_chunk_size(size: int) -> bool:
    """Whether a volume may have chunks of so many bytes: a power of two from 64 KiB to 16 MiB."""
    return CHUNK_SIZE_MIN <= size <= CHUNK_SIZE_MAX and not size & (size - 1)


@dataclass(frozen=True, slots=True)
class Secret:
    """What a person or a key file gave to open a volume."""

    kind: Literal["passphrase", "keyfile", "recovery"]
    data: bytes = field(repr=False)

    @classmethod
    def recovery(cls, text: str) -> Secret:
        """A printed recovery key; raises WrongPassphrase when it is mistyped."""
        return cls("recovery", parse_recovery_key(text))


@dataclass(frozen=True, slots=True)
class ClearHeader:
    """The half that needs no key, and the other half unopened.  Nothing in it is proven yet."""

    volume: bytes
    generation: int
    features: Features
    slots: tuple[Slot, ...]
    sealed: bytes = field(repr=False)
    digest: bytes = field(repr=False)
    """SHA-256 of the clear half's canonical JSON."""


@dataclass(frozen=True, slots=True)
class VolumeHeader:
    """Everything a volume says about itself.  ``created_ns`` is wall time in nanoseconds;
    ``tolerance`` is how many buckets may be lost, as computed when the table last changed."""

    volume: bytes
    generation: int
    features: Features
    slots: tuple[Slot, ...] = field(repr=False)
    chunk_size: int
    code: Code
    buckets: tuple[BucketEntry, ...]
    key_ids: tuple[int, ...]
    current_key: int
    created_ns: int
    tolerance: int
    defaults: Mapping[str, JSON] = field(default_factory=dict)
    next_slot: int = 0
    """Slots below are never given to a new bucket; 0: nor are those up to the table's highest."""

    @property
    def free_slot(self) -> int:
        """The lowest slot that no bucket ever had."""
        return max(self.next_slot, *(entry.slot + 1 for entry in self.buckets))


def encode(header: VolumeHeader, ring: KeyRing) -> bytes:
    """The object's bytes, sealed under the ring's current key.  Raises UsageError where nobody would read so
    many of them."""
    clear: dict[str, JSON] = {
        "format": FORMAT,
        "volume": header.volume.hex(),
        "generation": header.generation,
        "features": header.features.to_json(),
        "slots": [cast("JSON", slot.to_json()) for slot in header.slots],
    }
    body = _body_json(header) | {"clear": hashlib.sha256(canonical(clear)).hexdigest()}
    sealed = seal_object(ring.current, Kind.HEADER, NAME, canonical(body))
    payload = canonical(clear | {"sealed": base64.b64encode(sealed).decode("ascii")})
    if ENVELOPE_SIZE + len(payload) > HEADER_MAX:
        raise UsageError(f"the volume's header would be over {HEADER_MAX} bytes: shorten the buckets' URLs")
    return pack_envelope(Kind.HEADER, ring.current.key_id, len(payload)) + payload


def _body_json(header: VolumeHeader) -> dict[str, JSON]:
    """``next_slot`` is left out where the table itself says it, as before there was one."""
    said = max(entry.slot for entry in header.buckets) + 1
    more: dict[str, JSON] = {"next_slot": header.next_slot} if header.next_slot > said else {}
    return more | {
        "chunk_size": header.chunk_size,
        "code": [header.code.k, header.code.m],
        "buckets": [entry.to_json() for entry in header.buckets],
        "keys": list(header.key_ids),
        "current_key": header.current_key,
        "created_ns": header.created_ns,
        "tolerance": header.tolerance,
        "defaults": dict(header.defaults),
    }


def read_clear(data: bytes) -> ClearHeader:
    """Parses the clear half.  Raises Corrupt, NewerFormat (format or an incompat feature)."""
    if len(data) > HEADER_MAX:
        raise Corrupt(f"header: {len(data)} bytes is too long")
    envelope = unpack_envelope(data[:ENVELOPE_SIZE], Kind.HEADER)
    payload = data[ENVELOPE_SIZE:]
    if len(payload) != envelope.payload_length:
        raise Corrupt(f"header: {len(payload)} bytes where its envelope says {envelope.payload_length}")
    fields = Fields.parse(payload, "header")
    if fields.integer("format") != FORMAT:
        raise NewerFormat(f"header: format {fields.integer('format')} needs a newer objfs")
    clear = {name: fields.value.get(name) for name in ("format", "volume", "generation", "features", "slots")}
    return ClearHeader(
        volume=fields.hexbytes("volume", 16),
        generation=fields.integer("generation", 1),
        features=Features.from_json(fields.object("features")),
        slots=tuple(Slot.from_json(item) for item in fields.items("slots", SLOTS_MAX)),
        sealed=fields.base64("sealed", HEADER_MAX),
        digest=hashlib.sha256(canonical(clear)).digest(),
    )


def unlock(clear: ClearHeader, secret: Secret) -> KeyRing:
    """The key ring, by the first slot that opens.  Raises WrongPassphrase.

    Runs Argon2id for each passphrase slot: seconds of CPU, call it in a thread.
    """
    for slot in clear.slots:
        if slot.kind != secret.kind:
            continue
        try:
            secrets = open_slot(slot, secret.data, clear.volume)
        except WrongPassphrase:
            continue
        key_id = unpack_envelope(clear.sealed[:ENVELOPE_SIZE], Kind.HEADER).key_id
        if key_id not in secrets:
            raise Corrupt(f"header: key slot {slot.slot_id} does not hold key {key_id}")
        return KeyRing(clear.volume, secrets, key_id)
    raise WrongPassphrase(f"no {secret.kind} slot of volume {clear.volume.hex()} opens with this secret")


def decode(clear: ClearHeader, ring: KeyRing) -> VolumeHeader:
    """Opens and checks the sealed half.  Raises Corrupt, UnknownKey."""
    fields = Fields.parse(open_object(ring, Kind.HEADER, NAME, clear.sealed), "header body")
    if fields.hexbytes("clear", 32) != clear.digest:
        raise Corrupt("header: its clear half was changed")
    code = fields.integers("code", 2, 0, 255)
    chunk_size = fields.integer("chunk_size", CHUNK_SIZE_MIN, CHUNK_SIZE_MAX)
    buckets = tuple(BucketEntry.from_json(item) for item in fields.objects("buckets", BUCKETS_MAX))
    if len(code) != 2 or code[0] < 1 or not is_chunk_size(chunk_size):
        raise Corrupt("header: its code or chunk size means nothing")
    if len({entry.slot for entry in buckets}) != len(buckets) or not buckets:
        raise Corrupt("header: its bucket table is empty or names a slot twice")
    return VolumeHeader(
        volume=clear.volume,
        generation=clear.generation,
        features=clear.features,
        slots=clear.slots,
        chunk_size=chunk_size,
        code=Code(code[0], code[1]),
        buckets=buckets,
        key_ids=fields.integers("keys", KEYS_MAX, 0, 2**32 - 1),
        current_key=fields.integer("current_key", 0, 2**32 - 1),
        created_ns=fields.integer("created_ns"),
        tolerance=fields.integer("tolerance", 0, 255),
        defaults=fields.raw("defaults"),
        next_slot=fields.integer("next_slot", 0, BUCKETS_MAX) if fields.has("next_slot") else 0,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A header as it was found: one of the places, how many hold these bytes, and its clear half."""

    where: str
    copies: int
    clear: ClearHeader


def newest(found: Mapping[str, bytes], secret: Secret) -> tuple[VolumeHeader, KeyRing]:
    """The highest valid generation of the headers in ``found`` (bucket name -> bytes).

    A header that does not prove itself is skipped with a warning naming its bucket.  Raises
    NoSuchVolume when there is none, WrongPassphrase when the secret opens none or only a header that
    a genuine newer one has replaced, NewerFormat when only a newer program can read the newest,
    UsageError when the headers belong to several volumes.  Slow (Argon2id): call it in a thread.
    """
    ordered = _parse_all(found)
    refused: list[_Seen] = []
    for seen in ordered:
        try:
            ring = unlock(seen.clear, secret)
            header = decode(seen.clear, ring)
        except WrongPassphrase:
            refused.append(seen)
            continue
        except CodecError as error:
            log.warning(
                "header skipped bucket=%s generation=%d: %s", seen.where, seen.clear.generation, error
            )
            continue
        same = sum(item.copies for item in ordered if item.clear.generation == header.generation)
        _refuse_replaced(refused, ring, same)
        return header, ring
    if refused:
        volume = refused[0].clear.volume.hex()
        raise WrongPassphrase(f"no {secret.kind} slot of volume {volume} opens with this secret")
    raise NoSuchVolume("no bucket holds a readable header; is this the right bucket and prefix?")


def _parse_all(found: Mapping[str, bytes]) -> list[_Seen]:
    parsed: dict[bytes, _Seen] = {}
    newer: list[NewerFormat] = []
    for where, data in found.items():
        try:
            before = parsed.get(data)
            parsed[data] = _Seen(where, 1, read_clear(data)) if before is None else _more(before)
        except NewerFormat as error:
            newer.append(error)
            log.warning("header skipped bucket=%s: %s", where, error)
        except CodecError as error:
            log.warning("header skipped bucket=%s: %s", where, error)
    # A rewritten header stands on a majority; fewer that claim to be newer may be lies of a bucket.
    if newer and len(newer) >= sum(seen.copies for seen in parsed.values()):
        raise newer[0]
    if len({seen.clear.volume for seen in parsed.values()}) > 1:
        raise UsageError("these buckets belong to different volumes; name the buckets of one")
    return sorted(parsed.values(), key=lambda seen: seen.clear.generation, reverse=True)


def _more(seen: _Seen) -> _Seen:
    return replace(seen, copies=seen.copies + 1)


def _refuse_replaced(refused: list[_Seen], ring: KeyRing, same: int) -> None:
    """A newer header whose sealed half opens with the volume's key is genuine: the secret was removed.  So is
    one under a key that this secret's ring lacks, when more buckets hold such than the ``same`` that hold
    ours: the key was rotated, and a minority may only be lying."""
    rotated = 0
    for seen in refused:
        try:
            decode(seen.clear, ring)
        except UnknownKey:
            rotated += seen.copies
        except CodecError as error:
            log.warning(
                "header skipped bucket=%s generation=%d: %s", seen.where, seen.clear.generation, error
            )
            continue
        else:
            rotated = same + 1
        if rotated > same:
            raise WrongPassphrase(
                f"this secret was removed from volume {seen.clear.volume.hex()} ({seen.where} says so)"
            )
