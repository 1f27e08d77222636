"""What a suite said, side by side: on the mount, and on the machine's own file system.

Owns the record of a test's outcome, the table, and the verdict: a run is well when nothing failed on the
mount and nothing was left out there that ran on the other side.  Knows no suite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.console import say


@dataclass(frozen=True)
class Outcome:
    """One test: how many of its assertions passed, which failed, and why it left others out."""

    passed: int = 0
    failures: tuple[str, ...] = ()
    skipped: str | None = None


Results = Mapping[str, Outcome]
"""By the name of the test."""

Known = Mapping[str, str]
"""Tests that no file system behind this binding passes, and why."""
NOTHING: Known = {}

TITLES = ("assertions passed", "assertions failed", "tests left out")


def counts(results: Results) -> tuple[int, int, int]:
    """(assertions passed, assertions failed, tests that left out something)."""
    outcomes = results.values()
    failed = sum(len(outcome.failures) for outcome in outcomes)
    return sum(outcome.passed for outcome in outcomes), failed, sum(bool(each.skipped) for each in outcomes)


def problems(mount: Results, plain: Results, known: Known = NOTHING) -> Iterator[str]:
    """One line for each test that did worse on the mount than beside it, but for the known."""
    for name, outcome in mount.items():
        beside = plain.get(name, Outcome())
        if name in known:
            continue
        if outcome.failures and not beside.failures:
            yield from (f"{name}: {failure}" for failure in outcome.failures)
        if outcome.skipped and not beside.skipped:
            yield f"{name}: left out on the mount only: {outcome.skipped}"


def show(suite: str, mount: Results, plain: Results, kind: str, known: Known = NOTHING) -> bool:
    """Prints the table, what was left out and why, what fails on both sides, and the problems; whether
    all is well."""
    say(f"{suite:<30}{'objfs':>10}{kind:>10}")
    say(f"{'tests':<30}{len(mount):>10}{len(plain):>10}")
    for title, ours, theirs in zip(TITLES, counts(mount), counts(plain), strict=True):
        say(f"{title:<30}{ours:>10}{theirs:>10}")
    found = list(problems(mount, plain, known))
    for line in (*_skips(mount, plain, kind), *_excused(mount, plain, kind, known)):
        say(line)
    for line in found:
        say(f"FAILED   {line}")
    return not found


def _excused(mount: Results, plain: Results, kind: str, known: Known) -> Iterator[str]:
    """Failures that are not of this file system, and those that nothing behind the binding escapes."""
    for name, outcome in mount.items():
        if name in known and (outcome.failures or outcome.skipped):
            yield f"known    {name}: {known[name]}"
        elif outcome.failures and plain.get(name, Outcome()).failures:
            yield f"fails    also on {kind}: {name}: {outcome.failures[0]}"


def _skips(mount: Results, plain: Results, kind: str) -> Iterator[str]:
    """The reasons, each once, with the tests that gave it."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, outcome in mount.items():
        if outcome.skipped:
            same = f"also on {kind}" if plain.get(name, Outcome()).skipped else f"not on {kind}"
            reasons.setdefault((outcome.skipped, same), []).append(name)
    for (reason, same), names in sorted(reasons.items()):
        yield f"left out {reason} ({same}): {' '.join(sorted(names))}"
