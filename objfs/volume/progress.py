"""What this machine knows of its own publishing: ``checkpoint.json``, ``lease.json`` and ``deltas.json``.

Owns these files.  ``checkpoint.json`` names the manifest that the replica of the inode table stands for,
and, from just before a manifest is put until it is settled, that manifest (the intent): so a crash in
between is told from another machine's publishing.  ``deltas.json`` holds the page numbers of each delta; it
is a cache, and whatever it lacks is read from the buckets.
"""

from __future__ import annotations

import base64
import binascii
import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import zstandard

from objfs.errors import Corrupt
from objfs.volume.epochs import KnownLease
from objfs.volume.fields import JSON, Fields, canonical
from objfs.volume.local import VolumeHome, read_json, write_json

log = logging.getLogger(__name__)

NUMBERS_MAX = 64 * 1024 * 1024
"""Plain bytes of one delta's page numbers; 4 for each page."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A manifest by name: ``content`` is the hash of the moment (of what a fence repeats)."""

    sequence: int
    epoch: int
    hash: bytes
    content: bytes

    def to_json(self) -> dict[str, JSON]:
        return {
            "sequence": self.sequence,
            "epoch": self.epoch,
            "hash": self.hash.hex(),
            "content": self.content.hex(),
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Mark:
        return cls(
            fields.integer("sequence", 1),
            fields.integer("epoch", 1),
            fields.hexbytes("hash", 32),
            fields.hexbytes("content", 32),
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """``published``: what the replica holds.  ``intent``: what may have been published beyond."""

    published: Mark
    intent: Mark | None = None


def read_progress(home: VolumeHome) -> Progress | None:
    """None when nothing was published from here.  Raises Corrupt."""
    fields = read_json(home.checkpoint_path)
    if fields is None:
        return None
    intent = Mark.from_json(fields.object("intent")) if fields.has("intent") else None
    return Progress(Mark.from_json(fields.object("published")), intent)


def write_progress(home: VolumeHome, progress: Progress) -> None:
    """Durable on return."""
    intent = progress.intent.to_json() if progress.intent is not None else None
    write_json(home.checkpoint_path, {"published": progress.published.to_json(), "intent": intent})


def read_known_lease(home: VolumeHome) -> KnownLease | None:
    """What was last written into a lease of ours.  Raises Corrupt."""
    fields = read_json(home.lease_path)
    if fields is None:
        return None
    return KnownLease(fields.integer("epoch"), fields.integer("counter"))


def write_known_lease(home: VolumeHome, known: KnownLease) -> None:
    """Durable on return."""
    write_json(home.lease_path, {"epoch": known.epoch, "counter": known.counter})


# --- page numbers of deltas ----------------------------------------------------------------


def read_delta_pages(home: VolumeHome) -> dict[bytes, frozenset[int]]:
    """The page numbers of deltas by the uuid of their first blob; unreadable entries are left out."""
    try:
        fields = read_json(home.deltas_path)
        stored = fields.value if fields is not None else {}
        return {bytes.fromhex(uuid): _unpack_numbers(text) for uuid, text in stored.items()}
    except (Corrupt, ValueError, struct.error) as error:
        log.warning("delta pages unreadable, read again from the buckets: %s", error)
        return {}


def write_delta_pages(home: VolumeHome, deltas: Mapping[bytes, frozenset[int]]) -> None:
    """Not durable: after a power cut the buckets are asked instead."""
    body = canonical({uuid.hex(): _pack_numbers(pages) for uuid, pages in deltas.items()})
    temporary = home.deltas_path.with_suffix(".new")
    temporary.write_bytes(body)
    temporary.replace(home.deltas_path)


def _pack_numbers(pages: frozenset[int]) -> str:
    plain = struct.pack(f">{len(pages)}I", *sorted(pages))
    packed: bytes = zstandard.ZstdCompressor(level=1).compress(plain)
    return base64.b64encode(packed).decode("ascii")


def _unpack_numbers(text: JSON) -> frozenset[int]:
    if not isinstance(text, str):
        raise Corrupt("deltas.json: not a text")
    try:
        packed = base64.b64decode(text)
        # The length in the zstd header is checked first: the library allocates by it.
        if not 0 <= zstandard.get_frame_parameters(packed).content_size <= NUMBERS_MAX:
            raise Corrupt("deltas.json: declares an impossible length")
        plain = zstandard.ZstdDecompressor().decompress(packed)
    except (zstandard.ZstdError, binascii.Error) as error:
        raise Corrupt(f"deltas.json: {error}") from None
    return frozenset(number for (number,) in struct.iter_unpack(">I", plain))
