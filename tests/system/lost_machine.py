"""The machine is lost in the middle of everything: what comes back is one moment, and a recent one (I2).

    python -m tests.system.lost_machine [--seeds N] [--first SEED]

A writer runs a random history (``tests.system.history``) on a real mount; at a random time a flush is made
beside it, and at a later one the daemon is killed and its state directory removed.  Another machine attaches,
and its tree must equal the history at one prefix, which holds at least what the flush had to make safe.
A failure prints the seed, which replays it.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.console import say
from tests.system.harness import Station, urls, wait_for_end
from tests.system.history import History
from tests.system.oracle import Verdict, Witness, after_loss
from tests.system.performing import Writer, tree_of

VOLUME = "lost"
INTERVAL_S = 1
LIFE_S = (2.0, 12.0)
"""How long a machine lives; some longer than the limit below, or that would forbid nothing."""
AGE_LIMIT_S = 8.0
"""What a recovered moment may be behind: the interval, its upload, and a machine that is busy testing."""


@dataclass(frozen=True)
class Outcome:
    """How many operations had ended, when the flush began and at all; which of them are there again; and how
    old their moment is in seconds."""

    flushed: int
    ended: int
    verdict: Verdict
    age_s: float


def lose(root: Path, seed: int) -> Outcome:
    """One machine's life and death, and what another one finds."""
    places = [root / "buckets" / name for name in "abc"]
    for place in places:
        place.mkdir(parents=True)
    mounted = root / "mnt"
    with Station(root / "machine") as station:
        station.mkfs(VOLUME, urls(places))
        config = station.home / VOLUME / "volume.toml"
        config.write_text(
            config.read_text().replace("[settings]", f"[settings]\ncheckpoint_interval = {INTERVAL_S}")
        )
        station.mount(VOLUME, mounted)
        writer, flushed, died = _write_and_die(station, mounted, seed)
        station.forget(VOLUME)
        station.attach(VOLUME, urls(places))
        station.run("mount", VOLUME, mounted, "--force")
        found = tree_of(mounted)
        station.umount(mounted)
    ended = len(writer.done)
    verdict = after_loss(writer.history, Witness(ended, ended + 1, flushed=flushed), found, by_requests=True)
    missing = writer.done[verdict.prefix :] if verdict.prefix is not None else []
    return Outcome(flushed, ended, verdict, died - missing[0] if missing else 0.0)


def _write_and_die(station: Station, mounted: Path, seed: int) -> tuple[Writer, int, float]:
    """The writer, how many of its operations had ended when the flush began, and the time of death."""
    pid = int(station.status(mounted)["pid"])
    generator = random.Random(seed)
    life = generator.uniform(*LIFE_S)
    writer = Writer(mounted, History(seed))
    writer.start()
    end = time.monotonic() + life
    writer.join(generator.uniform(0.1, life))
    flushed = len(writer.done)
    station.run("flush", mounted)
    writer.join(max(0.0, end - time.monotonic()))
    died = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    assert wait_for_end(pid, 10)
    # The dead mount stops the writer; taken away before that, it would go on in the bare directory.
    writer.join(30)
    assert not writer.is_alive()
    subprocess.run(["fusermount3", "-u", "-z", str(mounted)], check=True)
    return writer, flushed, died


def complaint(seed: int, outcome: Outcome) -> str | None:
    """What is wrong with an outcome, None when nothing is."""
    replay = f"replay: python -m tests.system.lost_machine --first {seed} --seeds 1"
    if not outcome.verdict.well:
        return f"seed {seed}: {outcome.verdict.complaint}; {replay}"
    if outcome.age_s > AGE_LIMIT_S:
        return f"seed {seed}: the recovered moment is {outcome.age_s:.1f} s old; {replay}"
    return None


def run_seed(seed: int) -> Outcome:
    """In a directory of its own, which is gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="objfs-lost-"))
    try:
        return lose(root, seed)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    arguments = parser.parse_args()
    failures = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        outcome = run_seed(seed)
        wrong = complaint(seed, outcome)
        failures += wrong is not None
        say(f"seed {seed}: {outcome} {wrong or 'ok'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
