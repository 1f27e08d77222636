"""Thousands of crashes, power cuts and lost machines, in this process.

    python -m tests.crashes [--kills N] [--cuts N] [--losses N] [--results FILE] [--first SEED] [--seeds N]
    python -m tests.crashes --replay FILE

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
from pathlib import Path
from typing import Any

from tests.crashes import campaign
from tests.crashes.points import NAMES

RESULTS = Path(".crashes/results.jsonl")
LONG_EVERY = 10
"""One seed in so many has lives of several seconds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=900)
    parser.add_argument("--cuts", type=int, default=500)
    parser.add_argument("--losses", type=int, default=180)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=10**6)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args()
    logging.getLogger("objfs").addHandler(logging.NullHandler())
    if options.replay:
        return _replay(options.replay)
    wanted = Counter(kill=options.kills, cut=options.cuts, loss=options.losses)
    return _run(options, wanted)


def _replay(file: Path) -> int:
    found = campaign.replay(file)
    sys.stdout.write(f"{found.complaint or 'well: ' + str(found.verdict)}\n")
    return 0 if found.verdict.well else 1


def _run(options: argparse.Namespace, wanted: Counter[str]) -> int:
    results = Results(options.results)
    for seed in range(options.first, options.first + options.seeds):
        if not wanted - results.deaths:
            break
        if seed not in results.seeds:
            began = time.monotonic()
            outcome = campaign.run_seed(
                seed, options.results.parent, rare=results.rare(), long=seed % LONG_EVERY == 0
            )
            results.add(seed, outcome, time.monotonic() - began)
    results.summarize()
    return 1 if results.violations else 0


class Results:
    """A line for each seed, in a file; what is in it already counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.seeds: set[int] = set()
        self.deaths: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.ages_s: list[float] = []
        self.violations: list[dict[str, str]] = []
        for line in file.read_text().splitlines() if file.exists() else ():
            self._count(json.loads(line))

    def add(self, seed: int, outcome: campaign.Outcome, seconds: float) -> None:
        line = {"seed": seed, "seconds": round(seconds, 1), **outcome.to_json()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self._count(line)
        said = " ".join(f"{kind}={number}" for kind, number in outcome.deaths.items())
        sys.stdout.write(f"seed {seed}: {said} in {seconds:.1f} s, {len(outcome.violations)} violations\n")
        for item in outcome.violations:
            at = f" at {item.point!r}" if item.point else ""
            sys.stdout.write(f"  {item.kind}{at}: {item.complaint}; {item.replay}\n")
        sys.stdout.flush()

    def _count(self, line: dict[str, Any]) -> None:
        self.seeds.add(line["seed"])
        self.deaths.update(line["deaths"])
        self.points.update(line["points"])
        self.ages_s += line["ages_s"]
        self.violations += line["violations"]

    def rare(self) -> list[str]:
        """Places at which nobody has died yet."""
        return [name for name in NAMES if not self.points[name]]

    def summarize(self) -> None:
        write = sys.stdout.write
        write(f"{dict(self.deaths)} over {len(self.seeds)} seeds, {len(self.violations)} violations\n")
        if self.ages_s:
            ages = sorted(self.ages_s)
            median, most = ages[len(ages) // 2], ages[-1]
            write(f"recovered moments were behind by {median:.2f} s (median), {most:.2f} s (most)\n")
        width = max(map(len, NAMES))
        for name in NAMES:
            write(f"  {name:{width}} {self.points[name]:5}\n")


if __name__ == "__main__":
    sys.exit(main())
