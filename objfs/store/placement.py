"""Which bucket takes which shard, and how many buckets or domains may be lost.

Owns the rule of placement.  Promises distinct buckets while there are enough, otherwise an even spread; at
most m shards in one domain (what fails together: a provider, a region, a disk) where distinct buckets allow
it; and figures about losses that are true for every segment.  Knows no bucket, only slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from objfs.errors import BadSetting
from objfs.model import Code, Slot

Domains = Mapping[Slot, str]
"""The domain of each slot that has one; a slot without fails for itself alone."""


def place(
    uuid: bytes, code: Code, slots: Collection[Slot], domains: Domains | None = None
) -> tuple[Slot, ...]:
    """The slot of each of the k+m shards: the slots in order, begun where the uuid says, past those whose
    domain holds m already.

    A segment's uuid is random, so it is its own hash: data shards, parity and copies spread evenly.
    Raises BadSetting when there is no slot.
    """
    ring = sorted(set(slots))
    if not ring:
        raise BadSetting("no bucket takes shards: add a bucket to the volume")
    start = int.from_bytes(uuid, "big") % len(ring)
    ring, named = ring[start:] + ring[:start], domains or {}
    held: Counter[str] = Counter()
    placed: list[Slot] = []
    while len(placed) < code.n:
        placed += _one_round(ring, named, held, max(code.m, 1))[: code.n - len(placed)]
    return tuple(placed)


def _one_round(ring: Sequence[Slot], domains: Domains, held: Counter[str], most: int) -> list[Slot]:
    """All slots once, in the order in which they take a shard; ``held`` counts the shards of each domain.

    Domains that are full come last, the emptiest first: distinct buckets are worth more.
    """
    order, late = [], []
    for slot in ring:
        domain = domains.get(slot, "")
        if domain and held[domain] >= most:
            late.append(slot)
            continue
        held[domain] += 1
        order.append(slot)
    while late:
        slot = min(late, key=lambda one: held[domains[one]])
        late.remove(slot)
        held[domains[slot]] += 1
        order.append(slot)
    return order


def spares(
    uuid: bytes, placement: Sequence[Slot], slots: Collection[Slot], domains: Domains | None = None
) -> list[Slot]:
    """Slots that hold no shard of this placement, in the order in which they stand in for others: those
    whose domain holds few shards first."""
    ring = sorted(set(slots) - set(placement))
    start = int.from_bytes(uuid, "big") % len(ring) if ring else 0
    named = domains or {}
    held = Counter(named[slot] for slot in placement if named.get(slot))
    return sorted(ring[start:] + ring[:start], key=lambda slot: held[named.get(slot, "")])


def losable(placements: Iterable[tuple[Code, Sequence[Slot]]], groups: Domains, of: int) -> int:
    """How many of ``of`` groups of slots may be lost, whichever they are, while every one of these segments
    stays readable.  A slot without a group is one by itself."""
    borne = of
    for code, placement in placements:
        counts = Counter(groups.get(slot) or slot for slot in placement)
        lost = 0
        for number, (_, shards) in enumerate(counts.most_common()):
            lost += shards
            if lost > code.m:
                borne = min(borne, number)
                break
    return borne


def domain_count(slots: Collection[Slot], domains: Domains) -> int:
    """How many things fail apart: domains, and slots without one."""
    return len({domains.get(slot) or slot for slot in slots})


def domain_tolerance(code: Code, slots: Collection[Slot], domains: Domains) -> int:
    """How many domains may be lost, whichever they are, while every segment that ``place`` places over these
    slots stays readable.  Raises BadSetting when there is no slot."""
    count = len(set(slots))
    starts = (place(start.to_bytes(16, "big"), code, slots, domains) for start in range(max(count, 1)))
    return losable(((code, placed) for placed in starts), domains, domain_count(slots, domains))


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


def describe_domains(code: Code, slots: Collection[Slot], domains: Domains) -> str:
    """One true sentence about domains; empty where no bucket has one."""
    if not any(domains.get(slot) for slot in slots):
        return ""
    count, borne = domain_count(slots, domains), domain_tolerance(code, slots, domains)
    if borne:
        return f"bears the loss of any {borne} of {_count(count, 'domain')}"
    return (
        f"bears the loss of no whole domain: {_count(count, 'domain')} cannot hold the {code.n} shards of a "
        f"segment with at most {code.m} in each, so add buckets in other domains or choose another code"
    )


def _spread(code: Code, n_buckets: int) -> list[int]:
    """Shards of one segment in each bucket, the fullest first."""
    each, rest = divmod(code.n, n_buckets)
    return [each + 1] * rest + [each] * (n_buckets - rest)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
