"""What a suite said, side by side: on the mount, and on the machine's own file system.

Owns the record of a test's outcome, the table, and the verdict: a run is well when nothing failed on the
mount and nothing was left out there that ran on the other side.  Knows no suite.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """One test: how many of its assertions passed, which failed, and why it left others out."""

    passed: int = 0
    failures: tuple[str, ...] = ()
    skipped: str | None = None


Results = Mapping[str, Outcome]
"""By the name of the test."""

TITLES = ("assertions passed", "assertions failed", "tests left out")


def counts(results: Results) -> tuple[int, int, int]:
    """(assertions passed, assertions failed, tests that left out something)."""
    outcomes = results.values()
    failed = sum(len(outcome.failures) for outcome in outcomes)
    return sum(outcome.passed for outcome in outcomes), failed, sum(bool(each.skipped) for each in outcomes)


def problems(mount: Results, plain: Results, known: Collection[str] = ()) -> Iterator[str]:
    """One line each; ``known`` names tests that no file system behind this binding passes."""
    for name, outcome in mount.items():
        if name not in known:
            yield from (f"{name}: {failure}" for failure in outcome.failures)
        beside = plain.get(name, Outcome())
        if outcome.skipped and not beside.skipped:
            yield f"{name}: left out on the mount only: {outcome.skipped}"


def show(suite: str, mount: Results, plain: Results, kind: str, known: Collection[str] = ()) -> bool:
    """Prints the table, the skipped tests with their reasons and the problems; whether all is well."""
    say(f"{suite:<30}{'objfs':>10}{kind:>10}")
    say(f"{'tests':<30}{len(mount):>10}{len(plain):>10}")
    for title, ours, theirs in zip(
        ("assertions passed", "assertions failed", "tests left out"),
        counts(mount),
        counts(plain),
        strict=True,
    ):
        say(f"{title:<30}{ours:>10}{theirs:>10}")
    for line in _skips(mount, plain, kind):
        say(line)
    found = list(problems(mount, plain, known))
    for line in found:
        say(f"FAILED   {line}")
    for name in sorted(known):
        if name in mount and mount[name].failures:
            say(f"known    {name}: {mount[name].failures[0]}")
    return not found


def _skips(mount: Results, plain: Results, kind: str) -> Iterator[str]:
    """The reasons, each once, with the tests that gave it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, outcome in mount.items():
        if outcome.skipped:
            same = f"also on {kind}" if plain.get(name, Outcome()).skipped else f"not on {kind}"
            reasons.setdefault((outcome.skipped, same), []).append(name)
    for (reason, same), names in sorted(reasons.items()):
        yield f"left out {reason} ({same}): {' '.join(sorted(names))}"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
