"""Thousands of crashes, power cuts and lost machines in this process, and real mounts that are killed.

    python -m tests.crashes [--kills N] [--cuts N] [--losses N] [--mounted N] [--commands N] [--results FILE]
    python -m tests.crashes --first SEED --seeds N
    python -m tests.crashes --replay FILE

``--commands`` counts lives in which one command on snapshots is interrupted at every place there is.
Goes on until so many of each have been died, from the first seed that FILE has no result of: interrupted,
it is started again with the same words.  A violation is printed with the command that shows it again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from tests.console import say
from tests.crashes import campaign, commands, killed
from tests.crashes.points import NAMES, POINTS

RESULTS = Path(".crashes/results.jsonl")
LONG_EVERY = 10
"""One seed in so many has lives of several seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=900)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--losses", type=int, default=180)
    parser.add_argument("--mounted", type=int, default=100)
    parser.add_argument("--commands", type=int, default=8)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=10**6)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    logging.getLogger("objfs").addHandler(logging.NullHandler())
    return _replay(options.replay) if options.replay else _run(options)


def _replay(file: Path) -> int:
    found = campaign.replay(file)
    sys.stdout.write(f"{found.complaint or 'well: ' + str(found.verdict)}\n")
    return 0 if found.verdict.well else 1


def _run(options: argparse.Namespace) -> int:
    results = Results(options.results)
    seeds = range(options.first, options.first + options.seeds)
    wanted = Counter(kill=options.kills, cut=options.cuts, loss=options.losses)
    for seed in seeds:
        if not wanted - results.deaths:
            break
        results.take("lives", seed, lambda s: _lives(s, options.results.parent, results))
    for seed in seeds[: options.commands]:
        results.take("commands", seed, lambda s: commands.run_seed(s, options.results.parent))
    for seed in seeds:
        if results.deaths["mounted"] >= options.mounted:
            break
        results.take("mounted", seed, lambda s: killed.run_seed(s, rare=results.rare(POINTS)))
    results.summarize()
    return 1 if results.violations else 0


def _lives(seed: int, keep: Path, results: Results) -> campaign.Outcome:
    return campaign.run_seed(seed, keep, rare=results.rare(), long=seed % LONG_EVERY == 0)


class Outcome(Protocol):
    """Of one seed."""

    def to_json(self) -> dict[str, Any]:
        """``deaths`` and ``points`` count, ``ages_s`` and ``violations`` list."""
        ...


class Results:
    """A line for each seed, in a file; what is in it already counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seeds: set[tuple[str, int]] = set()
        self.deaths: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.ages_s: list[float] = []
        self.violations: list[str] = []
        for line in file.read_text().splitlines() if file.exists() else ():
            self._count(json.loads(line))

    def take(self, series: str, seed: int, run: Callable[[int], Outcome]) -> None:
        """Runs a seed of a series, unless its result is there."""
        if (series, seed) in self._seeds:
            return
        began = time.monotonic()
        found = run(seed).to_json()
        seconds = round(time.monotonic() - began, 1)
        line = {"series": series, "seed": seed, "seconds": seconds, **found}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self._count(line)
        _tell(line)

    def _count(self, line: dict[str, Any]) -> None:
        self._seeds.add((line["series"], line["seed"]))
        self.deaths.update(line["deaths"])
        self.points.update(line["points"])
        self.ages_s += line["ages_s"]
        self.violations += line["violations"]

    def rare(self, names: Iterable[str] = NAMES) -> list[str]:
        """Places at which nobody has died yet."""
        return [name for name in names if not self.points[name]]

    def summarize(self) -> None:
        write = sys.stdout.write
        write(f"{dict(self.deaths)} over {len(self._seeds)} seeds, {len(self.violations)} violations\n")
        if self.ages_s:
            ages = sorted(self.ages_s)
            median, most = ages[len(ages) // 2], ages[-1]
            write(f"recovered moments were behind by {median:.2f} s (median), {most:.2f} s (most)\n")
        width = max(map(len, NAMES))
        for name in NAMES:
            write(f"  {name:{width}} {self.points[name]:5}\n")


def _tell(line: dict[str, Any]) -> None:
    deaths = " ".join(f"{kind}={number}" for kind, number in line["deaths"].items())
    what = f"{line['series']} {line['seed']}: {deaths} in {line['seconds']} s"
    say("\n  ".join([what, *line["violations"]]))


if __name__ == "__main__":
    sys.exit(main())
