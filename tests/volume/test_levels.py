"""The merge policy: bounded upload, a short list, and nothing lost on the way."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from objfs.volume.levels import FAN_OUT, SMALL_BASE, TOP_LEVEL, DeltaPages, plan


class Image:
    """What a reader of base and deltas would see: page -> version."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.live = dict.fromkeys(range(1, size + 1), 0)
        self.base: dict[int, int] = {}
        self.deltas: list[tuple[DeltaPages, dict[int, int]]] = []
        self.uploaded = 0
        self.changed = 0
        self.tick = 0

    def checkpoint(self, pages: frozenset[int]) -> None:
        self.tick += 1
        self.live.update(dict.fromkeys(pages, self.tick))
        self.changed += len(pages)
        step = plan(len(self.base), [delta for delta, _ in self.deltas], pages)
        if step.rewrite_base:
            self.base, self.deltas = dict(self.live), []
            self.uploaded += len(self.base)
            return
        images = {page: self.live[page] for page in step.pages}
        self.deltas[step.keep :] = [(DeltaPages(step.level, step.pages), images)]
        self.uploaded += len(step.pages)

    def read(self) -> dict[int, int]:
        seen = dict(self.base)
        for _, images in self.deltas:
            seen.update(images)
        return seen


def histories() -> Iterator[tuple[str, int, int]]:
    yield "a touch at a time", 20_000, 3
    yield "small volume", 40, 2
    yield "medium", 3_000, 40
    yield "large changes", 2_000, 900


@pytest.mark.parametrize(("name", "size", "width"), list(histories()), ids=lambda value: str(value))
def test_uploads_stay_under_five_times_the_changes(name: str, size: int, width: int) -> None:
    generator = random.Random(name)
    image = Image(size)
    image.checkpoint(frozenset(range(1, size + 1)))
    image.uploaded = image.changed = 0
    for _ in range(1_500):
        count = generator.randint(1, width)
        image.checkpoint(frozenset(generator.randint(1, size) for _ in range(count)))
        top = sum(delta.level == TOP_LEVEL for delta, _ in image.deltas)
        assert len(image.deltas) - top <= TOP_LEVEL * (FAN_OUT - 1)
        assert sum(len(delta.pages) for delta, _ in image.deltas) < max(len(image.base), SMALL_BASE)
    assert image.read() == image.live
    assert image.uploaded < 5 * image.changed


def test_without_a_base_one_is_written() -> None:
    assert plan(0, [], frozenset({1})).rewrite_base


def test_the_eighth_delta_of_a_level_merges_and_cascades() -> None:
    deltas = [DeltaPages(1, frozenset({n})) for n in range(7)] + [
        DeltaPages(0, frozenset({50 + n})) for n in range(7)
    ]
    step = plan(10_000, deltas, frozenset({50, 99}))
    assert (step.keep, step.level) == (0, 2)
    assert step.pages == frozenset(range(7)) | frozenset(range(50, 57)) | {99}
