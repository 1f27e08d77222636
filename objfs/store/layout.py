"""Object names below a bucket's prefix: the only place that formats or parses them.

Owns the name space (SPEC "Objects").  Promises lower-case ASCII of at most 200 bytes, names that
sort as their numbers do, and that parsing accepts exactly what formatting yields: any other name
is ``None``, somebody else's object.  Does not know what the objects hold.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = "header"
LABEL = "label"

LEASE_PREFIX = "lease/"
MANIFEST_PREFIX = "manifest/"
SEGMENT_PREFIX = "segment/"
READER_PREFIX = "readers/"
PROBE_PREFIX = "probe/"

UUID_SIZE = 16

_NUMBER = re.compile(r"[0-9a-f]{16}")
_SHARD = re.compile(r"segment/([0-9a-f]{2})/([0-9a-f]{32})\.([0-9a-f]{2})")
_ID = re.compile(r"[0-9a-f]{1,64}")


class ShardName(NamedTuple):
    """What the name of a shard's object says."""

    uuid: bytes
    shard: int


def lease_name(epoch: int) -> str:
    """The lease object of an epoch."""
    return LEASE_PREFIX + _number(epoch)


def parse_lease(name: str) -> int | None:
    """The epoch, or None where the name is no lease's."""
    return _parse_number(name, LEASE_PREFIX)


def manifest_name(sequence: int) -> str:
    """The manifest object of a checkpoint."""
    return MANIFEST_PREFIX + _number(sequence)


def parse_manifest(name: str) -> int | None:
    """The sequence number, or None where the name is no manifest's."""
    return _parse_number(name, MANIFEST_PREFIX)


def shard_name(uuid: bytes, shard: int) -> str:
    """The object of one shard of a segment; fanned out by the first byte of the random uuid."""
    if not 0 <= shard <= 0xFF:
        raise ValueError(f"shard {shard} is outside 0 to 255")
    return f"{shard_prefix(uuid)}{shard:02x}"


def shard_prefix(uuid: bytes) -> str:
    """What the names of all shards of one segment begin with."""
    if len(uuid) != UUID_SIZE:
        raise ValueError(f"a segment's uuid has {UUID_SIZE} bytes, not {len(uuid)}")
    return f"{fan_prefix(uuid[0])}{uuid.hex()}."


def fan_prefix(first: int) -> str:
    """What the names of all segments whose uuid begins with the byte ``first`` begin with.

    A scan of a bucket that holds many segments lists these 256 parts one after the other.
    """
    if not 0 <= first <= 0xFF:
        raise ValueError(f"a byte is 0 to 255, not {first}")
    return f"{SEGMENT_PREFIX}{first:02x}/"


def parse_shard(name: str) -> ShardName | None:
    """Segment and shard number, or None where the name is no shard's."""
    match = _SHARD.fullmatch(name)
    if match is None or match[1] != match[2][:2]:
        return None
    return ShardName(bytes.fromhex(match[2]), int(match[3], 16))


def reader_name(reader: bytes) -> str:
    """The pin of a read-only mount, by its random id of 1 to 32 bytes."""
    return READER_PREFIX + _hex_id(reader)


def parse_reader(name: str) -> bytes | None:
    """The id of the read-only mount, or None where the name is no pin's."""
    return _parse_id(name, READER_PREFIX)


def probe_name(probe: bytes) -> str:
    """A throw-away object of a probe, by its random id of 1 to 32 bytes."""
    return PROBE_PREFIX + _hex_id(probe)


def parse_probe(name: str) -> bytes | None:
    """The id of the probe, or None where the name is no probe's."""
    return _parse_id(name, PROBE_PREFIX)


def _number(number: int) -> str:
    if not 0 <= number < 2**64:
        raise ValueError(f"{number} does not fit 64 bits")
    return f"{number:016x}"


def _parse_number(name: str, prefix: str) -> int | None:
    digits = name.removeprefix(prefix)
    if not name.startswith(prefix) or not _NUMBER.fullmatch(digits):
        return None
    return int(digits, 16)


def _hex_id(identity: bytes) -> str:
    if not 1 <= len(identity) <= 32:
        raise ValueError(f"an id has 1 to 32 bytes, not {len(identity)}")
    return identity.hex()


def _parse_id(name: str, prefix: str) -> bytes | None:
    digits = name.removeprefix(prefix)
    if not name.startswith(prefix) or not _ID.fullmatch(digits) or len(digits) % 2:
        return None
    return bytes.fromhex(digits)
