"""Sets of byte ranges.

Owns the arithmetic of half-open ranges ``[start, end)``.  Promises that a set is always normal:
ascending, disjoint, not touching, none empty.  Knows nothing of what the bytes are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

Range = tuple[int, int]


class RangeSet:
    """A mutable set of integers, kept as a flat ascending list of bounds (start, end, start, ...)."""

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._bounds: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Unites with ``[start, end)``; neighbours that touch become one."""
        if start < end:
            self._splice(start, end, parity=0)

    def remove(self, start: int, end: int) -> None:
        """Takes ``[start, end)`` away."""
        if start < end:
            self._splice(start, end, parity=1)

    def _splice(self, start: int, end: int, parity: int) -> None:
        # An even number of bounds before a point means that it lies outside all ranges.  Adding
        # keeps a new bound where the point is outside, removing where it is inside.
        bounds = self._bounds
        first, last = bisect_left(bounds, start), bisect_right(bounds, end)
        kept = [start] if first % 2 == parity else []
        if last % 2 == parity:
            kept.append(end)
        bounds[first:last] = kept

    def clip(self, length: int) -> None:
        """Keeps only what lies below ``length``."""
        if self._bounds and self._bounds[-1] > length:
            self.remove(length, self._bounds[-1])

    def clear(self) -> None:
        self._bounds.clear()

    def covers(self, start: int, end: int) -> bool:
        """Whether all of ``[start, end)`` is in the set; an empty range always is."""
        if start >= end:
            return True
        at = bisect_right(self._bounds, start)
        return at % 2 == 1 and self._bounds[at] >= end

    def within(self, start: int, end: int) -> list[Range]:
        """The parts of the set inside ``[start, end)``."""
        bounds = self._bounds
        at = bisect_right(bounds, start) & ~1
        found = []
        while at < len(bounds) and bounds[at] < end:
            low, high = max(bounds[at], start), min(bounds[at + 1], end)
            if low < high:
                found.append((low, high))
            at += 2
        return found

    def gaps(self, start: int, end: int) -> list[Range]:
        """The parts of ``[start, end)`` that are not in the set."""
        found, at = [], start
        for low, high in self.within(start, end):
            if at < low:
                found.append((at, low))
            at = high
        if at < end:
            found.append((at, end))
        return found

    def minus(self, other: RangeSet) -> RangeSet:
        """A new set: what is here and not in ``other``."""
        left = self.copy()
        for start, end in other:
            left.remove(start, end)
        return left

    def common(self, other: RangeSet) -> RangeSet:
        """A new set: what is in both."""
        return RangeSet(piece for start, end in other for piece in self.within(start, end))

    def copy(self) -> RangeSet:
        twin = RangeSet()
        twin._bounds = self._bounds.copy()
        return twin

    @property
    def total(self) -> int:
        """How many bytes the set holds."""
        bounds = self._bounds
        if len(bounds) == 2:
            return bounds[1] - bounds[0]
        return sum(bounds[1::2]) - sum(bounds[::2])

    @property
    def end(self) -> int:
        """The end of the last range; 0 when empty."""
        return self._bounds[-1] if self._bounds else 0

    def __iter__(self) -> Iterator[Range]:
        bounds = self._bounds
        return iter([(bounds[at], bounds[at + 1]) for at in range(0, len(bounds), 2)])

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"RangeSet({list(self)!r})"
