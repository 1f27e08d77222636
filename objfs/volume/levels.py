"""Which deltas are merged when: the policy by which checkpoints stay few and cheap.  Pure.

Promises, for any history of changed pages, that all pages uploaded (as deltas, merged deltas and bases)
stay under five times the pages changed, and that the list of deltas stays short: at most seven of each
lower level, and of the top level not more than a base's worth.

Each new delta has level 0.  When the last eight have the same level (below the top), they are merged
into one of the next: a page is uploaded once per level, of which there are four.  When the deltas
together reach the size of the base, a new base is written instead of anything else; that is the
fifth time at most.  (LSM trees call this tiering: O'Neil et al., "The log-structured merge-tree", 1996.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FAN_OUT = 8
TOP_LEVEL = 3
SMALL_BASE = 256
"""Pages below which rewriting the base by size does not matter; the fan-out bounds the list."""


@dataclass(frozen=True, slots=True)
class DeltaPages:
    """A delta as the policy sees it: its level and the numbers of its pages."""

    level: int
    pages: frozenset[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to upload: with ``rewrite_base`` every page of the image, else ``pages`` as one delta of
    ``level`` that replaces all deltas after the first ``keep``."""

    rewrite_base: bool
    keep: int
    level: int
    pages: frozenset[int]


def plan(base_pages: int, deltas: Sequence[DeltaPages], changed: frozenset[int]) -> Plan:
    """The upload for a checkpoint that changed ``changed``; ``deltas`` oldest first.

    ``base_pages`` 0 means that there is no base yet.
    """
    held = sum(len(delta.pages) for delta in deltas) + len(changed)
    if base_pages == 0 or held >= max(base_pages, SMALL_BASE):
        return Plan(True, 0, 0, frozenset())
    level, keep, pages = 0, len(deltas), changed
    while level < TOP_LEVEL and _full(deltas[:keep], level):
        first = keep - (FAN_OUT - 1)
        pages = pages.union(*(delta.pages for delta in deltas[first:keep]))
        keep, level = first, level + 1
    return Plan(False, keep, level, pages)


def _full(deltas: Sequence[DeltaPages], level: int) -> bool:
    """Whether one more delta of ``level`` makes a group of FAN_OUT."""
    last = deltas[-(FAN_OUT - 1) :]
    return len(last) == FAN_OUT - 1 and all(delta.level == level for delta in last)
