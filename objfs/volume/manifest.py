"""The manifest: one small sealed object that makes a whole moment of the volume.

Owns the record and its bytes (``manifest/<sequence>``: zstd'd JSON, sealed).  Promises that what decodes
is complete and within bounds.  Base and deltas are pages of the inode table, the newest image of a page
being that of the last delta that has it; the patch holds where the chunks frozen at the cut were placed.
Does not know how any of it is written or read.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

import zstandard

from objfs.codec.envelope import Kind
from objfs.codec.keys import KeyRing
from objfs.codec.seal import open_object, seal_object
from objfs.errors import Corrupt, NewerFormat
from objfs.store import layout
from objfs.volume.blobs import BlobRef
from objfs.volume.features import Features
from objfs.volume.fields import JSON, Fields, canonical

FORMAT = 1
HASH_SIZE = 32
NO_HASH = bytes(HASH_SIZE)
"""The predecessor's hash of the first manifest."""
INLINE_PATCH_MAX = 32 * 1024
PLAIN_MAX = 64 * 1024 * 1024
OBJECT_MAX = 16 * 1024 * 1024
BLOBS_MAX = 100_000
DELTAS_MAX = 10_000
CONDEMNED_MAX = 4096


@dataclass(frozen=True, slots=True)
class Delta:
    """Pages changed since what lies below; ``pages`` counts them."""

    level: int
    pages: int
    blobs: tuple[BlobRef, ...]


@dataclass(frozen=True, slots=True)
class Condemned:
    """A segment without chunks from ``sequence`` on; ``since_ns`` is that manifest's wall time."""

    uuid: bytes
    sequence: int
    since_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A moment.  ``wall_ns`` never goes backwards from one to the next; ``digest`` is the sum modulo 2**256
    of the hashes of all pages under volume key ``digest_key``.  ``copy_of`` is the hash of the manifest that
    this one repeats only to bar an older epoch (a fence), else zeros."""

    volume: bytes
    epoch: int
    sequence: int
    previous: bytes
    state_id: bytes
    wall_ns: int
    page_size: int
    page_count: int
    digest: int
    base: tuple[BlobRef, ...]
    deltas: tuple[Delta, ...] = ()
    patch: tuple[BlobRef, ...] = ()
    inline_patch: bytes = b""
    schema: int = 1
    copy_of: bytes = NO_HASH
    condemned: tuple[Condemned, ...] = ()
    digest_key: int = 1
    features: Features = field(default_factory=Features)

    @property
    def fence(self) -> bool:
        return self.copy_of != NO_HASH

    @property
    def blobs(self) -> tuple[BlobRef, ...]:
        """Every blob that this moment needs."""
        return self.base + tuple(blob for delta in self.deltas for blob in delta.blobs) + self.patch


def hash_of(data: bytes) -> bytes:
    """The hash by which a successor names a manifest: BLAKE2b-256 of the sealed object."""
    return hashlib.blake2b(data, digest_size=HASH_SIZE).digest()


def encode(manifest: Manifest, ring: KeyRing) -> bytes:
    """The object's bytes."""
    body: dict[str, JSON] = {
        "format": FORMAT,
        "features": manifest.features.to_json(),
        "volume": manifest.volume.hex(),
        "epoch": manifest.epoch,
        "sequence": manifest.sequence,
        "previous": manifest.previous.hex(),
        "state_id": manifest.state_id.hex(),
        "wall_ns": manifest.wall_ns,
        "page_size": manifest.page_size,
        "page_count": manifest.page_count,
        "digest": manifest.digest.to_bytes(32, "big").hex(),
        "base": [blob.to_json() for blob in manifest.base],
        "deltas": [_delta_json(delta) for delta in manifest.deltas],
        "patch": [blob.to_json() for blob in manifest.patch],
        "inline_patch": base64.b64encode(manifest.inline_patch).decode("ascii"),
        "schema": manifest.schema,
        "copy_of": manifest.copy_of.hex(),
        "digest_key": manifest.digest_key,
        "condemned": [[item.uuid.hex(), item.sequence, item.since_ns] for item in manifest.condemned],
    }
    packed: bytes = zstandard.ZstdCompressor(level=3).compress(canonical(body))
    return seal_object(ring.current, Kind.MANIFEST, layout.manifest_name(manifest.sequence), packed)


def _delta_json(delta: Delta) -> dict[str, JSON]:
    return {"level": delta.level, "pages": delta.pages, "blobs": [blob.to_json() for blob in delta.blobs]}


def decode(data: bytes, sequence: int, ring: KeyRing) -> Manifest:
    """Raises Corrupt, NewerFormat, UnknownKey."""
    name = layout.manifest_name(sequence)
    if len(data) > OBJECT_MAX:
        raise Corrupt(f"{name}: {len(data)} bytes is too long")
    fields = Fields.parse(_unpack(open_object(ring, Kind.MANIFEST, name, data), name), name)
    if fields.integer("format") != FORMAT:
        raise NewerFormat(f"{name}: format {fields.integer('format')} needs a newer objfs")
    features = Features.from_json(fields.object("features"))
    if fields.integer("sequence") != sequence or fields.hexbytes("volume", 16) != ring.volume:
        raise Corrupt(f"{name}: holds the manifest of another sequence or volume")
    manifest = Manifest(
        volume=ring.volume,
        epoch=fields.integer("epoch", 1),
        sequence=sequence,
        previous=fields.hexbytes("previous", HASH_SIZE),
        state_id=fields.hexbytes("state_id", 16),
        wall_ns=fields.integer("wall_ns"),
        page_size=fields.integer("page_size", 512, 65536),
        page_count=fields.integer("page_count", 1, 2**32 - 2),
        digest=int.from_bytes(fields.hexbytes("digest", 32), "big"),
        base=_blobs(fields, "base"),
        deltas=tuple(_delta(item) for item in fields.objects("deltas", DELTAS_MAX)),
        patch=_blobs(fields, "patch"),
        inline_patch=fields.base64("inline_patch", INLINE_PATCH_MAX),
        schema=fields.integer("schema", 0, 2**31),
        copy_of=fields.hexbytes("copy_of", HASH_SIZE),
        condemned=tuple(_condemned(item, name) for item in fields.items("condemned", CONDEMNED_MAX)),
        digest_key=fields.integer("digest_key", 0, 2**32 - 1),
        features=features,
    )
    if manifest.page_size & (manifest.page_size - 1) or (manifest.patch and manifest.inline_patch):
        raise Corrupt(f"{name}: its page size or patch means nothing")
    return manifest


def _unpack(packed: bytes, name: str) -> bytes:
    try:
        if not 0 < zstandard.get_frame_parameters(packed).content_size <= PLAIN_MAX:
            raise Corrupt(f"{name}: declares an impossible length")
        plain: bytes = zstandard.ZstdDecompressor().decompress(packed, max_output_size=PLAIN_MAX)
    except zstandard.ZstdError as error:
        raise Corrupt(f"{name}: does not decompress: {error}") from None
    return plain


def _blobs(fields: Fields, key: str) -> tuple[BlobRef, ...]:
    return tuple(BlobRef.from_json(item) for item in fields.objects(key, BLOBS_MAX))


def _delta(fields: Fields) -> Delta:
    blobs = _blobs(fields, "blobs")
    if not blobs:
        raise fields.wrong("blobs", "at least one blob")
    return Delta(fields.integer("level", 0, 63), fields.integer("pages", 1, 2**32), blobs)


def _condemned(item: JSON, name: str) -> Condemned:
    if not isinstance(item, list) or len(item) != 3:
        raise Corrupt(f"{name}: a condemned segment is not three values")
    fields = Fields({"uuid": item[0], "sequence": item[1], "since_ns": item[2]}, f"{name}: condemned")
    return Condemned(fields.hexbytes("uuid", 16), fields.integer("sequence", 1), fields.integer("since_ns"))
