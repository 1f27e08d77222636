"""Whatever a bucket or the local disk gives back, a decoder answers or raises its documented error (I4).

Each target gets valid inputs, the committed corpus, and a few hundred mutations that are the same in every
run; ``make fuzz`` runs them longer.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.fuzz.corpus import ROOT, stored
from tests.fuzz.mutate import mutant
from tests.fuzz.targets import TARGETS

MUTANTS = 250
TARGET_S = 30


@pytest.fixture(autouse=True)
def _quiet_and_bounded(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A warning for every bad input is right, and is not kept; an input that never ends is ended."""

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("a decoder takes too long")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TARGET_S)
    with caplog.at_level(logging.CRITICAL):
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_input_is_read(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        target.run(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_is_read_or_refused(name: str) -> None:
    inputs = stored(name)
    assert inputs, f"no input in the corpus: python -m tests.fuzz.corpus writes one for {name}"
    for data in inputs.values():
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_raise_nothing_but_the_documented_error(name: str) -> None:
    target = TARGETS[name]
    seeds = target.seeds()
    for number in range(MUTANTS):
        data = mutant(seeds, number)
        try:
            target(data)
        except Exception as error:
            pytest.fail(f"mutation {number}: {error!r} for {data[:200]!r}")


def test_every_directory_of_the_corpus_has_its_target() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_dir()} - {"__pycache__"} == TARGETS.keys()
