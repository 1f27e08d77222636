"""Fuzzes every decoder for a while: with atheris where it is installed, else with mutations of valid inputs.

    python -m tests.fuzz [--seconds N] [--only NAME ...] [--memory MIB]

Owns the running: each target in a process of its own, with limits of memory and of time for one input.  An
input that fails is written into ``tests/fuzz/corpus/NAME`` and named; the exit code is 1 then.  From there
the suite runs it for good.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time

from tests.fuzz.running import guided as run_guided
from tests.fuzz.running import mutations
from tests.fuzz.targets import TARGETS

START_S = 120
"""How long a process may take beyond its time, to begin and to end."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=int, default=180, help="for each target (180)")
    parser.add_argument("--only", nargs="*", default=sorted(TARGETS), choices=sorted(TARGETS), metavar="NAME")
    parser.add_argument("--memory", type=int, default=1024, help="MiB that a target may take (1024)")
    parser.add_argument("--mutations", action="store_true", help="leave atheris alone")
    order = parser.parse_args()
    guided = importlib.util.find_spec("atheris") is not None and not order.mutations
    print(
        f"{len(order.only)} targets, {order.seconds} s each, {'atheris' if guided else 'mutations'}",
        flush=True,
    )
    failed = [name for name in order.only if not _in_process(name, order.seconds, order.memory, guided)]
    print("failed: " + ", ".join(failed) if failed else "nothing failed", flush=True)
    return 1 if failed else 0


def _in_process(name: str, seconds: int, memory: int, guided: bool) -> bool:
    """Whether the target got through.  Each has a process of its own: fuzzers end theirs and leave files."""
    run = run_guided if guided else mutations
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="objfs-fuzz-") as scratch:
        os.environ["TMPDIR"] = scratch
        process = multiprocessing.get_context("spawn").Process(target=run, args=(name, seconds, memory))
        process.start()
        process.join(seconds + START_S)
        if process.is_alive():
            process.kill()
            process.join()
    well = process.exitcode == 0
    print(f"{'well' if well else 'FAILED':<7}{name:<18}{time.monotonic() - started:6.0f} s", flush=True)
    return well


if __name__ == "__main__":
    sys.exit(main())
