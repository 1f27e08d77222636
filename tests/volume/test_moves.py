"""The plan of moves: what must move, no more, and nothing that makes a segment bear less."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from objfs.model import Code, Segment, SegmentKind, Slot
from objfs.store.placement import Domains, losable, place
from objfs.volume.moves import Move, Planner, moved

CODES = st.builds(Code, st.integers(1, 4), st.integers(0, 3))


def segments(code: Code, slots: Sequence[Slot], count: int, domains: Domains | None = None) -> list[Segment]:
    """As they are placed over these slots, evenly."""
    uuids = [number.to_bytes(16, "big") for number in range(count)]
    cuts = tuple(range(0, 100 * code.k + 1, 100))
    return [
        Segment(uuid, SegmentKind.DATA, 1, code, cuts[-1], cuts, place(uuid, code, slots, domains))
        for uuid in uuids
    ]


def slots(count: int) -> list[Slot]:
    return [Slot(number) for number in range(count)]


def run(planner: Planner, found: Sequence[Segment], *, level: bool) -> tuple[list[Segment], list[list[Move]]]:
    """What must be, then what is fair; one after the other, as the mover does it."""
    planner.count(found)
    plans = [planner.plan(segment, level=False) for segment in found]
    after = [moved(segment, moves) for segment, moves in zip(found, plans, strict=True)]
    if not level:
        return after, plans
    planner.load.clear()
    planner.count(after)
    fair = [planner.plan(segment, level=True) for segment in after]
    after = [moved(segment, moves) for segment, moves in zip(after, fair, strict=True)]
    return after, [*plans, *fair]


def bears(found: Sequence[Segment], count: int, groups: Domains | None = None) -> int:
    return losable([(one.code, one.placement) for one in found], groups or {}, count)


@settings(max_examples=40)
@given(code=CODES, count=st.integers(1, 8), more=st.integers(1, 3))
def test_new_buckets_get_their_share_and_nothing_else_moves(code: Code, count: int, more: int) -> None:
    before = segments(code, slots(count), 24)
    planner = Planner(frozenset(slots(count + more)))
    after, plans = run(planner, before, level=True)
    assert all(move.target >= count for moves in plans for move in moves) or count < code.n
    assert planner.load == Counter(slot for segment in after for slot in segment.placement)
    assert bears(after, count + more) >= bears(before, count)
    assert bears(after, count + more) >= bears(segments(code, slots(count + more), 24), count + more)
    low, high = planner.mean()
    arrived = Counter(move.target for moves in plans for move in moves)
    assert all(arrived[Slot(slot)] <= high for slot in range(count, count + more))
    if code.n < count + more:
        assert all(arrived[Slot(slot)] >= low for slot in range(count, count + more))


@settings(max_examples=40)
@given(code=CODES, count=st.integers(1, 8))
def test_what_is_level_stays_where_it_is(code: Code, count: int) -> None:
    """Also after a rebalancing: to repeat it costs nothing."""
    before = segments(code, slots(count), 24)
    after, _ = run(Planner(frozenset(slots(count + 1))), before, level=True)
    again, plans = run(Planner(frozenset(slots(count + 1))), after, level=True)
    assert again == after
    assert not any(plans)


@settings(max_examples=40)
@given(code=CODES, count=st.integers(2, 9), leaving=st.integers(0, 8))
def test_a_bucket_that_leaves_is_emptied_and_only_that(code: Code, count: int, leaving: int) -> None:
    gone = Slot(leaving % count)
    left = frozenset(slots(count)) - {gone}
    before = segments(code, slots(count), 24)
    after, plans = run(Planner(left), before, level=False)
    for one, moves, other in zip(before, plans, after, strict=True):
        assert all(one.placement[move.shard] == gone for move in moves) or code.n >= count
        assert gone not in other.placement
        if code.n < count:
            assert len(set(other.placement)) == code.n
    assert bears(after, len(left)) == bears(segments(code, sorted(left), 24), len(left))


@settings(max_examples=40)
@given(code=CODES, count=st.integers(1, 8), leaving=st.integers(0, 7))
def test_an_heir_takes_all_of_a_bucket(code: Code, count: int, leaving: int) -> None:
    old, new = Slot(leaving % count), Slot(200)
    before = segments(code, slots(count), 24)
    after, plans = run(
        Planner((frozenset(slots(count)) - {old}) | {new}, heirs={old: new}), before, level=False
    )
    for one, other in zip(before, after, strict=True):
        assert other.placement == tuple(new if slot == old else slot for slot in one.placement)
    assert all(move.target == new for moves in plans for move in moves)


@settings(max_examples=40)
@given(
    code=st.builds(Code, st.integers(1, 4), st.integers(1, 3)),
    names=st.lists(st.sampled_from("abc"), min_size=2, max_size=9),
)
def test_labels_part_what_fails_together(code: Code, names: list[str]) -> None:
    """As far as the placement of new segments would, and no bucket comes to hold more of a segment."""
    domains = {Slot(number): name for number, name in enumerate(names)}
    before, count = segments(code, sorted(domains), 24), len(set(names))
    after, _ = run(Planner(frozenset(domains), domains), before, level=True)
    fresh = segments(code, sorted(domains), 24, domains)
    assert bears(after, count, domains) >= min(bears(fresh, count, domains), 1)
    assert bears(after, len(names)) >= bears(before, len(names))


def test_no_shard_goes_back_to_where_its_old_copy_waits_to_be_deleted() -> None:
    (segment,) = segments(Code(1, 1), slots(2), 1)
    planner = Planner(frozenset([Slot(0), Slot(5), Slot(6)]))
    shard = segment.placement.index(Slot(1))
    assert planner.plan(segment, [(shard, Slot(5))], level=False) == [Move(shard, Slot(6))]


def test_nor_does_an_heir_get_it_there() -> None:
    """The heir held it once: its old copy may be on its way out just now."""
    code, heir = Code(1, 1), Slot(2)
    segment = segments(code, slots(2), 1)[0]
    shard = segment.placement.index(Slot(0))
    planner = Planner(frozenset([Slot(1), heir, Slot(3)]), heirs={Slot(0): heir})
    assert planner.plan(segment, level=False) == [Move(shard, heir)]
    assert planner.plan(segment, [(shard, heir)], level=False) == [Move(shard, Slot(3))]


def test_a_shard_that_was_never_placed_moves_as_the_others_do() -> None:
    (segment,) = segments(Code(2, 1), slots(3), 1)
    shard = segment.placement.index(Slot(1))
    short = Segment(
        **{name: getattr(segment, name) for name in Segment.__slots__} | {"missing": frozenset({shard})}
    )
    moves = Planner(frozenset([Slot(0), Slot(2), Slot(3)])).plan(short, level=False)
    assert moves == [Move(shard, Slot(3))]
    assert moved(short, moves).missing == frozenset()
