"""Which bucket takes which shard, and how many buckets may be lost.

Owns the rule of placement.  Promises distinct buckets while there are enough, otherwise an even
spread, and figures about losses that are true for every segment.  Knows no bucket, only slots.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from objfs.errors import BadSetting
from objfs.model import Code, Slot


def place(uuid: bytes, code: Code, slots: Collection[Slot]) -> tuple[Slot, ...]:
    """The slot of each of the k+m shards: the slots in order, begun where the uuid says.

    A segment's uuid is random, so it is its own hash: data shards, parity and copies spread evenly.
    Raises BadSetting when there is no slot.
    """
    ring = sorted(set(slots))
    if not ring:
        raise BadSetting("no bucket takes shards: add a bucket to the volume")
    start = int.from_bytes(uuid, "big") % len(ring)
    return tuple(ring[(start + shard) % len(ring)] for shard in range(code.n))


def spares(uuid: bytes, placement: Sequence[Slot], slots: Collection[Slot]) -> list[Slot]:
    """Slots that hold no shard of this placement, in the order in which they stand in for others."""
    ring = sorted(set(slots) - set(placement))
    start = int.from_bytes(uuid, "big") % len(ring) if ring else 0
    return ring[start:] + ring[:start]


def tolerance(code: Code, n_buckets: int) -> int:
    """How many whole buckets may be lost, whichever they are, while every segment stays readable.

    The fullest buckets go first: of the k+m shards at most m may go.  Segments stored as m+1
    copies bear as much or more.  Raises BadSetting when there is no bucket.
    """
    if n_buckets < 1:
        raise BadSetting("a volume needs at least one bucket")
    lost = 0
    for bucket, shards in enumerate(_spread(code, n_buckets)):
        lost += shards
        if lost > code.m:
            return bucket
    return n_buckets


def describe(code: Code, n_buckets: int) -> str:
    """One true sentence for a person who decides about buckets."""
    borne = tolerance(code, n_buckets)
    head = f"{code} over {_count(n_buckets, 'bucket')} bears the loss of "
    loss = "no bucket" if not borne else f"any {_count(borne, 'bucket')}" if borne > 1 else "any one bucket"
    cost = f", and takes {code.n / code.k:.2f} times the bytes"
    if borne == code.m:
        return f"{head}{loss}{cost}"
    fullest = _spread(code, n_buckets)[0]
    advice = f"with {code.n} buckets it would bear {code.m}"
    return f"{head}{loss}{cost}: one bucket holds {fullest} of the {code.n} shards, {advice}"


def _spread(code: Code, n_buckets: int) -> list[int]:
    """Shards of one segment in each bucket, the fullest first."""
    each, rest = divmod(code.n, n_buckets)
    return [each + 1] * rest + [each] * (n_buckets - rest)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
