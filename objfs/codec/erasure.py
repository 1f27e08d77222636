"""Reed-Solomon over shards: k data shards, m parity shards, any k rebuild all.

Owns the code: that of reedsolo (GF(2^8) 0x11d, generator 2, first root 0), taken as a matrix.
Promises bytes identical to reedsolo's, whatever the engine.  With k=1 shards are copies.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache

import reedsolo

from objfs.codec.gf256 import Buffer, Engine, default_engine, invert, multiply
from objfs.errors import CodecError

MAX_K = 32
MAX_M = 16

# reedsolo keeps the field's tables in module globals that each codec sets anew.
_reedsolo_lock = threading.Lock()


def parity_matrix(k: int, m: int) -> list[bytes]:
    """m rows of k coefficients: parity shard j is the sum of row[j][i] * data shard i.

    For k=1 all coefficients are 1.  Raises CodecError outside 1 <= k <= 32, 0 <= m <= 16.
    """
    check_code(k, m)
    return list(_parity_matrix(k, m))


def check_code(k: int, m: int) -> None:
    """Raises CodecError when the format has no code k+m."""
    if not 1 <= k <= MAX_K or not 0 <= m <= MAX_M:
        raise CodecError(f"there is no code {k}+{m}: k is 1 to {MAX_K}, m is 0 to {MAX_M}")


@lru_cache(maxsize=64)
def _parity_matrix(k: int, m: int) -> tuple[bytes, ...]:
    if m == 0:
        return ()
    if k == 1:
        return (b"\x01",) * m
    with _reedsolo_lock:
        codec = reedsolo.RSCodec(m, nsize=k + m)
        units = (bytes(i) + b"\x01" + bytes(k - 1 - i) for i in range(k))
        columns = [bytes(codec.encode(unit)[k:]) for unit in units]
    return tuple(bytes(column[j] for column in columns) for j in range(m))


def encode(k: int, m: int, data_shards: Sequence[Buffer], *, engine: Engine | None = None) -> list[bytes]:
    """The m parity shards of k data shards of one length.  Raises CodecError for other counts."""
    length = _common_length(data_shards)
    if len(data_shards) != k:
        raise CodecError(f"code {k}+{m} takes {k} data shards, not {len(data_shards)}")
    return [bytes(shard) for shard in parity(k, m, data_shards, length, engine=engine)]


def parity(
    k: int, m: int, data_shards: Sequence[Buffer], length: int, *, engine: Engine | None = None
) -> list[bytearray]:
    """Like ``encode``, for shards of at most ``length`` bytes that count as padded with zeros."""
    return (engine or default_engine()).apply(parity_matrix(k, m), data_shards, length)


def decode(k: int, m: int, shards: Mapping[int, Buffer], *, engine: Engine | None = None) -> list[bytes]:
    """The k data shards from any k (or more) of the k+m, by shard number, all of one length.

    Raises CodecError when there are fewer than k, or a number the code does not have.
    """
    return [bytes(shard) for shard in rebuild(k, m, shards, range(k), engine=engine)]


def rebuild(
    k: int,
    m: int,
    shards: Mapping[int, Buffer],
    wanted: Sequence[int],
    *,
    engine: Engine | None = None,
) -> list[Buffer]:
    """The wanted shards, data or parity, from any k; those that are given come back as they are."""
    check_code(k, m)
    length = _common_length(list(shards.values()))
    if len(shards) < k or not all(0 <= i < k + m for i in (*shards, *wanted)):
        raise CodecError(f"shards {sorted(shards)} cannot rebuild {list(wanted)} of a code {k}+{m}")
    lost = [i for i in wanted if i not in shards]
    if not lost:
        return [shards[i] for i in wanted]
    have = tuple(sorted(shards)[:k])
    rows = [_rebuilding_row(k, m, have, i) for i in lost]
    made = (engine or default_engine()).apply(rows, [shards[i] for i in have], length)
    found: dict[int, Buffer] = {**shards, **dict(zip(lost, made, strict=True))}
    return [found[i] for i in wanted]


def _common_length(shards: Sequence[Buffer]) -> int:
    lengths = {len(shard) for shard in shards}
    if len(lengths) != 1:
        raise CodecError(f"shards must be of one length, not {sorted(lengths)}")
    return lengths.pop()


def _generator_row(k: int, m: int, shard: int) -> bytes:
    return bytes(shard) + b"\x01" + bytes(k - 1 - shard) if shard < k else _parity_matrix(k, m)[shard - k]


@lru_cache(maxsize=256)
def _surviving_inverse(k: int, m: int, have: tuple[int, ...]) -> tuple[bytes, ...]:
    """Data shards in terms of the surviving ones: the code is MDS, so the inverse exists."""
    return tuple(invert([_generator_row(k, m, shard) for shard in have]))


def _rebuilding_row(k: int, m: int, have: tuple[int, ...], shard: int) -> bytes:
    inverse = _surviving_inverse(k, m, have)
    if shard < k:
        return inverse[shard]
    columns = [bytes(row[i] for row in inverse) for i in range(k)]
    return bytes(_dot(_generator_row(k, m, shard), column) for column in columns)


def _dot(row: bytes, column: bytes) -> int:
    total = 0
    for a, b in zip(row, column, strict=True):
        total ^= multiply(a, b)
    return total
