"""A breadth-first explorer of small models.

Owns the visiting of every world that a model can reach, each once.  Knows nothing of what a world is: a model
gives its first world, the worlds that may come after one, and raises AssertionError where one must not be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, TypeVar

World = TypeVar("World", bound=Hashable)


class Model(Protocol[World]):
    """What is explored."""

    def start(self) -> World: ...

    def steps(self, world: World) -> Iterable[World]: ...

    def check(self, world: World) -> None: ...


def explore(model: Model[World], limit: int) -> dict[World, list[World]]:
    """Every reachable world with those that it was reached from; fails at more than ``limit``."""
    first = model.start()
    before: dict[World, list[World]] = {first: []}
    todo = deque([first])
    while todo:
        world = todo.popleft()
        model.check(world)
        for after in model.steps(world):
            if after not in before:
                before[after] = []
                todo.append(after)
            before[after].append(world)
        assert len(before) <= limit, "the model is too large"
    return before


def leads_to(before: dict[World, list[World]], goal: Callable[[World], bool]) -> set[World]:
    """The worlds from which one that is a goal can still be reached."""
    reached = {world for world in before if goal(world)}
    todo = list(reached)
    while todo:
        for world in before[todo.pop()]:
            if world not in reached:
                reached.add(world)
                todo.append(world)
    return reached
