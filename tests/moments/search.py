"""Histories of ``machine.py`` by the thousand, each batch from a seed of its own.

    python -bb -m tests.moments.search [--examples N --steps N] [--first SEED] [--no-shrink]

A failure prints the history, shrunk, and the command that finds it again.
"""

from __future__ import annotations

import argparse
import sys
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.console import say
from tests.moments.machine import Moments

BATCH = 20
"""Histories of one seed."""


def search(examples: int, steps: int, first: int = 1, *, shrink: bool = True) -> bool:
    """Raises what a history raises that is no good."""
    for number in range(-(-examples // BATCH)):
        began = time.monotonic()
        count = min(BATCH, examples - number * BATCH)
        _batch(first + number, count, steps, shrink=shrink)
        took = time.monotonic() - began
        say(f"snapshots, seed {first + number}: {count} histories of {steps} steps in {took:.0f} s")
    return True


def _batch(seed: int, examples: int, steps: int, *, shrink: bool) -> None:
    wanted = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    machine = seeded(seed)(type(Moments.__name__, (Moments,), {}))
    try:
        run_state_machine_as_test(machine, settings=wanted)
    except BaseException:
        options = f"--first {seed} --examples {examples} --steps {steps}"
        say(f"again: python -bb -m tests.moments.search {options}")
        raise


def main() -> bool:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    return search(options.examples, options.steps, options.first, shrink=not options.no_shrink)


if __name__ == "__main__":
    sys.exit(not main())
